//! Commands a second with a flush of known length: what batching does, apart from this machine's disk.
//!
//! `cargo test -p holdfast-consensus --lib -- --ignored --nocapture measure`; `examples/throughput.rs`
//! is the same on real files.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use holdfast_model::{GroupId, NodeId};
use parking_lot::Mutex;

use crate::{
    Applied, Consensus, ConsensusOptions, Role, StateMachine, Transport, TransportError,
    log::{
        disk::{Disk, Segment},
        liar::LiarDisk,
    },
    options::LogLimits,
};

const GROUP: GroupId = GroupId::new(1);
const FLUSH: Duration = Duration::from_millis(1);
const RUN: Duration = Duration::from_secs(3);

/// Memory whose flush takes [`FLUSH`].
struct SlowDisk(LiarDisk);

struct SlowSegment(Arc<dyn Segment>);

impl Disk for SlowDisk {
    fn segments(&self) -> io::Result<Vec<u64>> {
        self.0.segments()
    }
    fn open(&self, number: u64) -> io::Result<Arc<dyn Segment>> {
        Ok(Arc::new(SlowSegment(self.0.open(number)?)))
    }
    fn create(&self, number: u64, size: u64, header: &[u8]) -> io::Result<Arc<dyn Segment>> {
        Ok(Arc::new(SlowSegment(self.0.create(number, size, header)?)))
    }
    fn cut(&self, number: u64, length: u64) -> io::Result<()> {
        self.0.cut(number, length)
    }
    fn remove(&self, number: u64) -> io::Result<()> {
        self.0.remove(number)
    }
}

impl Segment for SlowSegment {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        self.0.read_all()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn flush(&self) -> io::Result<()> {
        std::thread::sleep(FLUSH);
        Ok(())
    }
}

struct Echo;

impl StateMachine for Echo {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        Ok(entries.iter().map(|entry| vec![Bytes::new(); entry.commands.len()]).collect())
    }
    fn checkpoint(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn position(&self) -> Option<Vec<u8>> {
        None
    }
    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        std::fs::write(path, b"")
    }
    fn install(&mut self, _: &Path, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

type Nodes = Arc<Mutex<BTreeMap<NodeId, Weak<Consensus>>>>;

struct Direct(NodeId, Nodes);

#[async_trait::async_trait]
impl Transport for Direct {
    async fn send(&self, to: NodeId, request: Bytes, timeout: Duration) -> Result<Bytes, TransportError> {
        let target = self.1.lock().get(&to).and_then(Weak::upgrade);
        let target = target.ok_or_else(|| TransportError::NotSent(to, "down".to_owned()))?;
        let answer = tokio::time::timeout(timeout, target.handle(self.0, request)).await;
        let answer = answer.map_err(|_| TransportError::Timeout(to, timeout))?;
        answer.map_err(|text| TransportError::Refused(to, text))
    }
}

async fn measure(replicas: u64, callers: usize, entries_in_flight: usize, commands_per_entry: usize) {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Nodes::default();
    let mut running = Vec::new();
    for id in (1..=replicas).map(NodeId::new) {
        let transport = Arc::new(Direct(id, Arc::clone(&nodes)));
        let mut options = ConsensusOptions::new(id, dir.path().join(id.to_string()), transport);
        options.batch.entries_in_flight = entries_in_flight;
        options.batch.commands_per_entry = commands_per_entry;
        options.log = LogLimits { segment_bytes: 1 << 20, segments_max: 16 };
        let consensus = Consensus::open_on(options, Arc::new(SlowDisk(LiarDisk::default()))).await.unwrap();
        consensus.start_group(GROUP, Box::new(Echo)).await.unwrap();
        nodes.lock().insert(id, Arc::downgrade(&consensus));
        running.push(consensus);
    }
    let voters: BTreeSet<NodeId> = (1..=replicas).map(NodeId::new).collect();
    running[0].initialize(GROUP, voters).await.unwrap();
    while running[0].status(GROUP).unwrap().role != Role::Leader {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running[0].read_barrier(GROUP).await.unwrap();
    let flushes = || running.iter().map(|node| node.counters().flushes).sum::<u64>();
    let (before, started) = (flushes(), Instant::now());
    let callers_running = (0..callers).map(|_| {
        let leader = Arc::clone(&running[0]);
        tokio::spawn(async move {
            let mut count = 0_u64;
            while started.elapsed() < RUN {
                leader.propose(GROUP, Bytes::from_static(&[7; 256])).await.unwrap();
                count += 1;
            }
            count
        })
    });
    let commands: u64 = join_all(callers_running).await.into_iter().map(Result::unwrap).sum();
    println!(
        "| {replicas} | {callers} | {commands_per_entry} | {entries_in_flight} | {:.0} | {:.3} |",
        commands as f64 / started.elapsed().as_secs_f64(),
        (flushes() - before) as f64 / commands as f64
    );
    for node in running {
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_commands_per_second_with_a_flush_of_one_millisecond() {
    println!(
        "| replicas | in flight | commands/entry at most | entries in flight | commands/s | flushes/command |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    // One command per entry is openraft 0.9 as it comes.
    for callers in [1, 64, 512] {
        measure(1, callers, 1024, 1).await;
    }
    for replicas in [1, 3] {
        for entries_in_flight in [1, 2, 4] {
            for callers in [1, 64, 512] {
                measure(replicas, callers, entries_in_flight, 1024).await;
            }
        }
    }
}
