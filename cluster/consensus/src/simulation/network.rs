//! The network of a simulation: messages are late, lost, doubled and overtake each other; links are cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use holdfast_model::NodeId;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    GROUP,
    observe::{LeaderId, Observer},
    random::Random,
    runtime::{Executor, Owner, WORLD},
};
use crate::{
    Consensus, Transport, TransportError,
    codec::decode,
    log::{index::Found, liar::LiarDisk, recovery::recover},
    wire::{CallV1, RequestV1, ResponseV1},
};

/// What messages have to expect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Longest time on the way, in milliseconds.
    pub(crate) millis_max: u64,
    pub(crate) lost_percent: u64,
    pub(crate) doubled_percent: u64,
}

impl Weather {
    pub(crate) const CALM: Self = Self { millis_max: 3, lost_percent: 0, doubled_percent: 0 };
}

/// One run of a node, as the network knows it.
#[derive(Clone)]
struct Endpoint {
    run: Owner,
    consensus: Arc<Consensus>,
    disk: LiarDisk,
}

struct Wires {
    endpoints: BTreeMap<NodeId, Endpoint>,
    /// Runs whose power is off.
    dead: BTreeSet<Owner>,
    cut: BTreeSet<(NodeId, NodeId)>,
    weather: Weather,
    random: Random,
    /// Planted: says that a message was not sent when its answer was lost.
    lies: bool,
}

/// Clones share the network.
#[derive(Clone)]
pub(crate) struct Network {
    wires: Arc<Mutex<Wires>>,
    executor: Executor,
    observer: Observer,
}

/// What becomes of one message.
enum Fate {
    NotSent,
    Lost,
    /// Each copy after so long.
    Arrives(Vec<Duration>),
}

impl Network {
    pub(crate) fn new(executor: Executor, observer: Observer, random: Random, lies: bool) -> Self {
        let wires = Wires {
            endpoints: BTreeMap::new(),
            dead: BTreeSet::new(),
            cut: BTreeSet::new(),
            weather: Weather::CALM,
            random,
            lies,
        };
        Self { wires: Arc::new(Mutex::new(wires)), executor, observer }
    }

    pub(crate) fn attach(&self, node: NodeId, run: Owner, consensus: &Arc<Consensus>, disk: LiarDisk) {
        let endpoint = Endpoint { run, consensus: Arc::clone(consensus), disk };
        self.wires.lock().endpoints.insert(node, endpoint);
    }

    /// From now on nothing leaves `run` of `node`, and nothing reaches it.
    pub(crate) fn kill(&self, node: NodeId, run: Owner) {
        let gone = {
            let mut wires = self.wires.lock();
            wires.dead.insert(run);
            wires.endpoints.remove(&node)
        };
        drop(gone);
    }

    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.wires.lock().cut.insert((from, to));
    }

    pub(crate) fn heal(&self) {
        self.wires.lock().cut.clear();
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.wires.lock().weather = weather;
    }

    /// Decides what becomes of a message. `once` are those that must not be doubled.
    fn fate(&self, from: NodeId, to: NodeId, once: bool) -> Fate {
        let mut wires = self.wires.lock();
        let Weather { millis_max, lost_percent, doubled_percent } = wires.weather;
        if wires.cut.contains(&(from, to)) || !wires.endpoints.contains_key(&to) {
            return if wires.random.percent(50) { Fate::NotSent } else { Fate::Lost };
        }
        if wires.random.percent(lost_percent) {
            return Fate::Lost;
        }
        let copies = if !once && wires.random.percent(doubled_percent) { 2 } else { 1 };
        let delay = |random: &mut Random| {
            // Some are very late.
            let millis = if random.percent(3) { millis_max * 5 } else { millis_max };
            Duration::from_millis(random.below(millis + 1))
        };
        Fate::Arrives((0..copies).map(|_| delay(&mut wires.random)).collect())
    }

    /// Brings one copy of a request to `to`, and its answer back.
    async fn deliver(
        self,
        from: NodeId,
        to: NodeId,
        request: Bytes,
        reply: Arc<Mutex<Option<oneshot::Sender<Result<Bytes, String>>>>>,
    ) {
        let Some(Endpoint { run, consensus, disk }) = self.wires.lock().endpoints.get(&to).cloned() else {
            return;
        };
        let (network, executor) = (self.clone(), self.executor.clone());
        executor.clone().spawn_on(run, async move {
            let answer = consensus.handle(from, request.clone()).await;
            if network.wires.lock().dead.contains(&run) {
                return;
            }
            if let Ok(bytes) = &answer {
                network.answered(to, run, &request, bytes, &disk);
            }
            executor.spawn_on(WORLD, async move {
                let Fate::Arrives(delays) = network.fate(to, from, true) else { return };
                sleep(delays[0]).await;
                if let Some(reply) = reply.lock().take() {
                    let _ = reply.send(answer);
                }
            });
        });
    }

    /// Checks what `by` answers against what its disk would still hold after a power cut.
    fn answered(&self, by: NodeId, run: Owner, request: &[u8], answer: &[u8], disk: &LiarDisk) {
        let request: RequestV1 = decode(request).unwrap();
        let response: ResponseV1 = decode(answer).unwrap();
        let Some(promised) = self.observer.answer(by, run, &request.call, &response.answer, answer) else {
            return;
        };
        if matches!(request.call, CallV1::Vote { .. }) {
            let disk = disk.after_power_cut(|| false);
            let vote = match recover(&disk, by) {
                Ok(log) => log.groups.get(&GROUP).and_then(|group| group.index.vote),
                Err(error) => return self.observer.violation(format!("{by}: {error}")),
            };
            let durable = vote.map(|vote| (vote.leader_id.term, vote.leader_id.node_id));
            if durable < Some(promised) {
                self.observer
                    .violation(format!("{by} gave a vote to {promised:?}; on its disk is {durable:?}"));
            }
        }
    }

    /// A leader spoke for the first time: it must hold whatever is committed.
    fn leads(&self, node: NodeId, leader: LeaderId) {
        let Some(endpoint) = self.wires.lock().endpoints.get(&node).cloned() else { return };
        let Ok(log) = endpoint.consensus.part_of_log(GROUP) else { return };
        let (committed, applied) = self.observer.committed();
        let last = log.inspect(crate::log::index::GroupIndex::last_log_id).map(|id| id.index);
        if last < applied {
            self.observer
                .violation(format!("{leader:?} leads with entries up to {last:?}; {applied:?} was applied"));
        }
        let Some((index, by)) = committed else { return };
        let found = log.inspect(|log| (log.purged.map(|id| id.index), log.find(index..=index, u64::MAX)));
        let held = match found.1.first() {
            Some(Found::Cached(entry)) => Some(entry.log_id),
            Some(Found::Stored(stored)) => Some(stored.log_id),
            None if found.0 >= Some(index) => return,
            None => None,
        };
        if held.map(|id| (id.leader_id.term, id.leader_id.node_id)) != Some(by) {
            self.observer
                .violation(format!("{leader:?} leads without entry {index} of {by:?}: it has {held:?}"));
        }
    }
}

/// The way out of one run of a node.
pub(crate) struct Link {
    pub(crate) from: NodeId,
    pub(crate) run: Owner,
    pub(crate) network: Network,
}

#[async_trait::async_trait]
impl Transport for Link {
    async fn send(&self, to: NodeId, request: Bytes, within: Duration) -> Result<Bytes, TransportError> {
        let network = &self.network;
        if network.wires.lock().dead.contains(&self.run) {
            return Err(TransportError::Unreachable(to, "the power is off".to_owned()));
        }
        let decoded: RequestV1 = decode(&request).unwrap();
        if let Some(leader) = network.observer.request(self.from, to, &decoded.call, &request) {
            network.leads(self.from, leader);
        }
        let once = matches!(decoded.call, CallV1::Propose { .. });
        let delays = match network.fate(self.from, to, once) {
            Fate::NotSent => {
                sleep(Duration::from_millis(1)).await;
                return Err(TransportError::NotSent(to, "no connection".to_owned()));
            }
            Fate::Lost => {
                sleep(within).await;
                return Err(TransportError::Timeout(to, within));
            }
            Fate::Arrives(delays) => delays,
        };
        let (reply, answer) = oneshot::channel();
        let reply = Arc::new(Mutex::new(Some(reply)));
        for delay in delays {
            let (network, from, request, reply) =
                (network.clone(), self.from, request.clone(), Arc::clone(&reply));
            network.executor.clone().spawn_on(WORLD, async move {
                sleep(delay).await;
                network.deliver(from, to, request, reply).await;
            });
        }
        drop(reply);
        match timeout(within, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(text))) => Err(TransportError::Refused(to, text)),
            Ok(Err(_)) if network.wires.lock().lies => {
                Err(TransportError::NotSent(to, "a planted lie".to_owned()))
            }
            Ok(Err(_)) => Err(TransportError::Unreachable(to, "the connection broke".to_owned())),
            Err(_) => Err(TransportError::Timeout(to, within)),
        }
    }
}
