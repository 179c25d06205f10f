//! Against `swtpm`, the emulator that virtual machines have: a TPM in every way but that of a chip.

mod common;

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use common::Emulator;
use holdfast_tpm::{Tpm, TpmError, sealed::SealedKey};

const KEY: [u8; 32] = *b"a key that must not cross a bus!";

#[test]
fn a_sealed_key_opens_with_its_tpm_and_with_no_other() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let emulator = Emulator::start(one.path());
    let sealed = emulator.tpm().seal(&KEY).unwrap();
    let bytes = sealed.encode();
    println!("{} bytes on disk", bytes.len());
    assert!(!bytes.windows(8).any(|window| KEY.windows(8).any(|part| part == window)));
    let sealed = SealedKey::parse(&bytes).unwrap();
    let begun = Instant::now();
    // A chip holds three objects: one that was left behind by each call would end this.
    for _ in 0..10 {
        assert_eq!(*emulator.tpm().unseal(&sealed).unwrap(), KEY);
    }
    println!("opened in {:?}", begun.elapsed() / 10);
    drop(emulator);

    // The machine was off.
    let emulator = Emulator::start(one.path());
    assert_eq!(*emulator.tpm().unseal(&sealed).unwrap(), KEY);

    let stranger = Emulator::start(other.path());
    assert!(matches!(stranger.tpm().unseal(&sealed), Err(TpmError::OtherTpm { .. })));

    // The same storage key named, so that the chip has to refuse.
    let theirs = stranger.tpm().seal(&[0; 32]).unwrap().encode();
    let area = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[1], bytes[2]]));
    let mixed = [&theirs[..3 + area(&theirs)], &bytes[3 + area(&bytes)..]].concat();
    let refused = stranger.tpm().unseal(&SealedKey::parse(&mixed).unwrap());
    assert!(matches!(refused, Err(TpmError::NotSealed)), "{refused:?}");
}

#[test]
fn a_changed_sealed_key_never_opens() {
    let state = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(state.path());
    let bytes = emulator.tpm().seal(&KEY).unwrap().encode();
    let (mut unread, mut refused) = (0, 0);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x04;
        match SealedKey::parse(&changed) {
            Err(_) => unread += 1,
            Ok(sealed) => {
                assert!(emulator.tpm().unseal(&sealed).is_err(), "byte {at}");
                refused += 1;
            }
        }
    }
    println!("{unread} changes were not read, {refused} were refused");
    assert!(refused > 100);
}

/// What stands between a program and its TPM: records both ways, and changes the bytes of one answer.
struct Bus {
    socket: PathBuf,
    heard: Arc<Mutex<Vec<u8>>>,
}

/// Change one byte, counted from the end, of that answer.
type Change = Option<(usize, usize)>;

impl Bus {
    fn to(emulator: &Emulator, dir: &Path, change: Change) -> Self {
        let socket = dir.join("bus");
        std::fs::remove_file(&socket).ok();
        let listener = UnixListener::bind(&socket).expect("a socket");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (chip, log) = (emulator.socket.clone(), Arc::clone(&heard));
        thread::spawn(move || {
            let (mut program, _) = listener.accept().expect("a connection");
            let mut chip = UnixStream::connect(chip).expect("the emulator");
            let mut answers = 0;
            while let Some(command) = message(&mut program) {
                log.lock().expect("whole").extend(&command);
                chip.write_all(&command).expect("written");
                let mut answer = message(&mut chip).expect("an answer");
                log.lock().expect("whole").extend(&answer);
                if let Some((number, back)) = change
                    && number == answers
                    && back < answer.len() - 10
                {
                    let at = answer.len() - 1 - back;
                    answer[at] ^= 1;
                }
                answers += 1;
                if program.write_all(&answer).is_err() {
                    return;
                }
            }
        });
        Self { socket, heard }
    }
}

fn message(from: &mut UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 10];
    from.read_exact(&mut bytes).ok()?;
    let size = u32::from_be_bytes(bytes[2..6].try_into().expect("four bytes")) as usize;
    bytes.resize(size, 0);
    from.read_exact(&mut bytes[10..]).ok()?;
    Some(bytes)
}

#[test]
fn who_listens_on_the_bus_hears_no_key_and_who_changes_answers_is_noticed() {
    let state = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(state.path());
    let bus = Bus::to(&emulator, state.path(), None);
    let sealed = Tpm::at(&bus.socket).seal(&KEY).unwrap();
    let sending = bus.heard.lock().unwrap().clone();
    let bus = Bus::to(&emulator, state.path(), None);
    assert_eq!(*Tpm::at(&bus.socket).unseal(&sealed).unwrap(), KEY);
    let heard = [sending, bus.heard.lock().unwrap().clone()].concat();
    println!("{} bytes crossed the bus", heard.len());
    assert!(heard.len() > 1500);
    // The control: what is not secret is heard.
    let shown = sealed.encode();
    assert!(heard.windows(32).any(|window| window == &shown[shown.len() - 32..]));
    assert!(!heard.windows(6).any(|window| KEY.windows(6).any(|part| part == window)));

    // Answers in order: the storage key, the session, the object, the key.
    let mut noticed = 0;
    for answer in 0..4 {
        for back in 0..120 {
            let bus = Bus::to(&emulator, state.path(), Some((answer, back)));
            match Tpm::at(&bus.socket).unseal(&sealed) {
                Ok(key) => assert_eq!(*key, KEY, "answer {answer}, {back} from its end: another key"),
                Err(_) => noticed += 1,
            }
        }
    }
    println!("{noticed} of 480 changes were refused; the others changed what is not used");
    assert!(noticed > 200);
}
