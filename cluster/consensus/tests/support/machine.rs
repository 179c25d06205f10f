//! A small machine: keys, values, counters, and a note of every command id it has seen.
//!
//! State lives in memory and reaches the disk at checkpoints only, as the contract allows, so a restart
//! that does not replay the log is noticed.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use holdfast_consensus::{Applied, StateMachine};
use parking_lot::Mutex;

#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct Kv {
    pub values: BTreeMap<String, String>,
    pub applied: u64,
    pub commands: u64,
}

pub type KvState = Arc<Mutex<Kv>>;

pub struct KvMachine {
    dir: PathBuf,
    state: KvState,
    position: Option<Vec<u8>>,
}

pub fn put(key: &str, value: &str) -> Bytes {
    Bytes::from(format!("put {key} {value}"))
}

pub fn increment(key: &str) -> Bytes {
    Bytes::from(format!("inc {key}"))
}

impl KvMachine {
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let (state, position) = match fs::read(dir.join("state")) {
            Ok(bytes) => {
                let (position, kv) = read(&bytes)?;
                (kv, Some(position))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Kv::default(), None),
            Err(error) => return Err(error),
        };
        Ok(Self { dir: dir.to_owned(), state: Arc::new(Mutex::new(state)), position })
    }

    pub fn state(&self) -> KvState {
        Arc::clone(&self.state)
    }

    fn save(&mut self, position: &[u8]) -> io::Result<()> {
        let fresh = self.dir.join("state.new");
        let mut file = fs::File::create(&fresh)?;
        file.write_all(&write(position, &self.state.lock()))?;
        file.sync_all()?;
        fs::rename(&fresh, self.dir.join("state"))?;
        self.position = Some(position.to_vec());
        Ok(())
    }
}

fn write(position: &[u8], kv: &Kv) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(position.len() as u64).to_le_bytes());
    out.extend_from_slice(position);
    out.extend_from_slice(&kv.applied.to_le_bytes());
    out.extend_from_slice(&kv.commands.to_le_bytes());
    for (key, value) in &kv.values {
        out.extend_from_slice(format!("{key} {value}\n").as_bytes());
    }
    out
}

fn read(bytes: &[u8]) -> io::Result<(Vec<u8>, Kv)> {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let length = number(0) as usize;
    let position = bytes[8..8 + length].to_vec();
    let (applied, commands) = (number(8 + length), number(16 + length));
    let text = std::str::from_utf8(&bytes[24 + length..]).map_err(io::Error::other)?;
    let values =
        text.lines().filter_map(|line| line.split_once(' ')).map(|(k, v)| (k.to_owned(), v.to_owned()));
    Ok((position, Kv { values: values.collect(), applied, commands }))
}

impl StateMachine for KvMachine {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let mut kv = self.state.lock();
        let mut answers = Vec::new();
        for entry in entries {
            assert!(kv.applied == 0 || entry.index == kv.applied + 1, "{} after {}", entry.index, kv.applied);
            kv.applied = entry.index;
            kv.commands += entry.commands.len() as u64;
            answers.push(entry.commands.iter().map(|command| run(&mut kv, command)).collect());
        }
        Ok(answers)
    }

    fn checkpoint(&mut self, position: &[u8]) -> io::Result<()> {
        self.save(position)
    }

    fn position(&self) -> Option<Vec<u8>> {
        self.position.clone()
    }

    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        let mut file = fs::File::create_new(path)?;
        file.write_all(&write(&[], &self.state.lock()))?;
        file.sync_all()
    }

    fn install(&mut self, path: &Path, position: &[u8]) -> io::Result<()> {
        let (_, kv) = read(&fs::read(path)?)?;
        *self.state.lock() = kv;
        self.save(position)
    }
}

fn run(kv: &mut Kv, command: &Bytes) -> Bytes {
    let text = std::str::from_utf8(command).unwrap();
    let mut words = text.splitn(3, ' ');
    match (words.next().unwrap(), words.next().unwrap(), words.next()) {
        ("put", key, Some(value)) => {
            let before = kv.values.insert(key.to_owned(), value.to_owned());
            Bytes::from(before.unwrap_or_default())
        }
        ("inc", key, None) => {
            let value = kv.values.entry(key.to_owned()).or_insert_with(|| "0".to_owned());
            *value = (value.parse::<u64>().unwrap() + 1).to_string();
            Bytes::from(value.clone())
        }
        other => panic!("not a command: {other:?}"),
    }
}
