//! What stands between the nodes: for each node a port of ours that the others are told is its own.
//!
//! Everything is passed on, until a rule says otherwise for what one node says to another: it comes late, is held until the
//! rule is lifted, or stops for a moment here and there and now and then ends with its connection. That is what a network
//! does that loses packets, all or some of them: nothing is closed and nothing arrives, or it arrives later, or somebody gives up. Who says something is found by whose socket it is, as the system lists them.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::cluster_file::ProcessesFile;
use holdfast_fault::Random;
use holdfast_model::config::NodeConfig;
use parking_lot::{Mutex, RwLock};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    time::sleep,
};

/// How often what is held looks whether it may go on.
const HELD_POLL: Duration = Duration::from_millis(20);

/// Bytes passed on at once.
const PIECE: usize = 64 << 10;

/// Of a thousand pieces on a lossy link, with how many the connection breaks.
const BREAKS_PER_MILLE: u64 = 4;

/// Of a thousand pieces on a lossy link, how many do not simply pass.
const SENT_AGAIN_PER_MILLE: u64 = 80;

/// How late a piece is that was lost and sent again, at least: the kernel's first timeout.
const SENT_AGAIN_MIN: Duration = Duration::from_millis(200);

/// And how much more at most, in milliseconds: the next timeout is twice as long.
const SENT_AGAIN_SPAN_MILLIS: u64 = 600;

/// What happens to what one node says to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// It is held.
    Cut,
    /// It comes so much later.
    Late(Duration),
    /// Of what is passed on, some is lost and sent again, and some connections break.
    Lossy,
}

/// What becomes of a piece on a lossy link.
enum Luck {
    Passes,
    SentAgain(Duration),
    Breaks,
}

type Rules = Arc<RwLock<BTreeMap<(usize, usize), Rule>>>;

/// All links between the nodes of one cluster.
#[derive(Debug, Clone)]
pub struct Links {
    dir: PathBuf,
    addresses: Vec<SocketAddr>,
    rules: Rules,
    chance: Arc<Mutex<Random>>,
}

impl Links {
    /// Opens a port for each of `nodes` nodes of the cluster that will be in `dir`. `seed` says what lossy links lose.
    ///
    /// # Errors
    /// When there is no port, or when it would not be seen whose a connection is: nodes keep `/proc/PID` to
    /// themselves and root.
    pub async fn open(dir: &Path, nodes: usize, seed: u64) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "links can be cut by root only: see /proc/PID/fd of nodes");
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        for _ in 0..nodes {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for a link")?;
            addresses.push(listener.local_addr()?);
            listeners.push(listener);
        }
        let chance = Arc::new(Mutex::new(Random::new(seed)));
        let links = Self { dir: dir.to_owned(), addresses, rules: Rules::default(), chance };
        for (to, listener) in listeners.into_iter().enumerate() {
            let links = links.clone();
            tokio::spawn(async move {
                while let Ok((stream, from)) = listener.accept().await {
                    tokio::spawn(links.clone().carry(stream, from, to));
                }
            });
        }
        Ok(links)
    }

    /// Where the others are told that each node is.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Sets what happens to what `from` says to `to`.
    pub fn set(&self, from: usize, to: usize, rule: Rule) {
        self.rules.write().insert((from, to), rule);
    }

    /// Lifts all rules.
    pub fn heal(&self) {
        self.rules.write().clear();
    }

    fn luck(&self) -> Luck {
        let mut chance = self.chance.lock();
        match chance.below(1000) {
            0..BREAKS_PER_MILLE => Luck::Breaks,
            BREAKS_PER_MILLE..SENT_AGAIN_PER_MILLE => {
                Luck::SentAgain(SENT_AGAIN_MIN + Duration::from_millis(chance.below(SENT_AGAIN_SPAN_MILLIS)))
            }
            _ => Luck::Passes,
        }
    }

    fn rule(&self, from: Option<usize>, to: usize) -> Option<Rule> {
        self.rules.read().get(&(from?, to)).copied()
    }

    async fn carry(self, near: TcpStream, address: SocketAddr, to: usize) {
        let (dir, proxy) = (self.dir.clone(), self.addresses[to]);
        // Nobody but nodes comes here; whoever is not found is passed on, whatever the rules.
        let from = tokio::task::spawn_blocking(move || owner(&dir, address, proxy)).await.unwrap_or(None);
        while self.rule(from, to) == Some(Rule::Cut) {
            sleep(HELD_POLL).await;
        }
        let Some(target) = listens_at(&self.dir, to) else { return };
        let Ok(far) = TcpStream::connect(target).await else { return };
        drop((near.set_nodelay(true), far.set_nodelay(true)));
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let there = self.clone().pass(near_in, far_out, move |links| links.rule(from, to));
        let back = self.pass(far_in, near_out, move |links| from.and_then(|from| links.rule(Some(to), from)));
        tokio::join!(there, back);
    }

    async fn pass(
        self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        rule: impl Fn(&Self) -> Option<Rule>,
    ) {
        let mut piece = vec![0; PIECE];
        loop {
            let count = from.read(&mut piece).await.unwrap_or(0);
            loop {
                match rule(&self) {
                    Some(Rule::Cut) => sleep(HELD_POLL).await,
                    Some(Rule::Late(late)) => {
                        sleep(late).await;
                        break;
                    }
                    Some(Rule::Lossy) => match self.luck() {
                        Luck::Passes => break,
                        Luck::SentAgain(later) => {
                            sleep(later).await;
                            break;
                        }
                        Luck::Breaks => {
                            drop(to.shutdown().await);
                            return;
                        }
                    },
                    None => break,
                }
            }
            if count == 0 || to.write_all(&piece[..count]).await.is_err() {
                // The end is passed on too.
                drop(to.shutdown().await);
                return;
            }
        }
    }
}

/// Where node number `node` (from 0) really listens.
fn listens_at(dir: &Path, node: usize) -> Option<SocketAddr> {
    let text = fs::read_to_string(dir.join(format!("n{}", node + 1)).join("config.json")).ok()?;
    let config: NodeConfig = serde_json::from_str(&text).ok()?;
    Some(config.listen.peer)
}

/// Which node (from 0) has the other end of a connection from `address` to `proxy`.
fn owner(dir: &Path, address: SocketAddr, proxy: SocketAddr) -> Option<usize> {
    let inode = socket_inode(&fs::read_to_string("/proc/net/tcp").ok()?, address, proxy)?;
    let wanted = format!("socket:[{inode}]");
    let processes = ProcessesFile::load(dir).ok()??;
    let holds = |pid: i32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|to| to.as_os_str() == wanted.as_str())
    };
    let node = processes.nodes.iter().find(|node| node.process.is_some_and(|process| holds(process.pid)))?;
    let number: usize = node.name.strip_prefix('n')?.parse().ok()?;
    number.checked_sub(1)
}

/// The inode of the socket from `local` to `remote` in a table as `/proc/net/tcp` has it.
fn socket_inode(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let shown = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port())),
        SocketAddr::V6(_) => None,
    };
    let (local, remote) = (shown(local)?, shown(remote)?);
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_it = fields.next()? == local && fields.next()? == remote;
        // State, queues, timer, retransmits, user and timeout stand between.
        is_it.then(|| fields.nth(6)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_of_a_connection_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let stream = TcpStream::connect(proxy).await.unwrap();
        let (_other_end, address) = listener.accept().await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), address);
        let inode = socket_inode(&fs::read_to_string("/proc/net/tcp").unwrap(), address, proxy).unwrap();
        let mine = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let mut links = mine.filter_map(|entry| fs::read_link(entry.path()).ok());
        assert!(links.any(|to| to.as_os_str() == format!("socket:[{inode}]").as_str()));
    }
}
