//! Whole replica groups under one seed: five nodes as they ship, with disk, network, threads, clock and
//! randomness replaced by what the seed decides (docs/decisions/0023-consensus-simulated.md).
//!
//! | module | holds |
//! |---|---|
//! | `runtime`, `host`, `random` | tasks in an order drawn from the seed, in place of threads |
//! | `network` | the transport, with its faults |
//! | `machine`, `space` | what the group replicates, and the disk it is kept on |
//! | `keeper` | starts a group that has stopped again |
//! | `cluster`, `faults` | nodes, power cuts, everything that goes wrong; bugs that tests plant |
//! | `clients`, `history` | who writes and reads, and what an order of commands must explain |
//! | `observe` | invariants, and the trace |
//! | `settle` | progress and equality once the faults are over |
//! | `scenarios` | what seeds found, each by itself |
//! | `tests` | seeds, determinism, planted bugs |
//!
//! A seed that failed is run again, with its trace, by
//! `HOLDFAST_SEED=<seed> cargo test -p holdfast-consensus --lib simulation -- --nocapture`.

pub(crate) mod clients;
pub(crate) mod cluster;
pub(crate) mod faults;
pub(crate) mod history;
pub(crate) mod host;
mod keeper;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod observe;
pub(crate) mod random;
pub(crate) mod runtime;
mod scenarios;
mod settle;
mod space;
mod tests;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicBool},
};

use holdfast_model::GroupId;

use self::{
    clients::Client,
    cluster::Cluster,
    faults::Planted,
    machine::digest,
    observe::Observer,
    random::Random,
    runtime::{Executor, WORLD},
};

/// The group that is simulated.
pub(crate) const GROUP: GroupId = GroupId::new(1);

const NODES: u64 = 5;
const CLIENTS: u64 = 4;

/// Nodes that are the first members.
const FIRST_VOTERS: usize = 3;

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) trace: String,
    pub(crate) violation: Option<String>,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) reads: u64,
}

impl Outcome {
    /// Of the trace: two runs of a seed have the same.
    pub(crate) fn hash(&self) -> u64 {
        digest(0, self.trace.as_bytes())
    }
}

/// Runs `seed` with that many faults.
pub(crate) fn run(seed: u64, faults: u64, planted: Option<Planted>) -> Outcome {
    run_with(seed, planted, move |cluster, random| simulate(cluster, random, faults))
}

/// Runs `scenario` with nodes that are switched off.
fn run_with<F: Future<Output = ()> + Send + 'static>(
    seed: u64,
    planted: Option<Planted>,
    scenario: impl FnOnce(Cluster, Random) -> F + Send + 'static,
) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(seed);
    let executor = Executor::new(random.fork());
    let observed = Arc::new(std::sync::OnceLock::new());
    let (tasks, path, observed_too) = (executor.clone(), dir.path().to_owned(), Arc::clone(&observed));
    let simulation = async move {
        // Here, where the clock is the simulation's.
        let observer = observed_too.get_or_init(Observer::new).clone();
        let cluster = Cluster::new(tasks, observer, random.fork(), planted, path, NODES);
        scenario(cluster, random).await;
    };
    let ended = catch_unwind(AssertUnwindSafe(|| executor.run(simulation)));
    let observer: &Observer = observed.get().unwrap();
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        observer.violation(format!("panic: {text}"));
    }
    let counts =
        observer.clients(|history| Ok((history.acknowledged_count(), history.unknown, history.reads)));
    let (acknowledged, unknown, reads) = counts.unwrap_or_default();
    Outcome { trace: observer.trace(), violation: observer.violated(), acknowledged, unknown, reads }
}

async fn simulate(mut cluster: Cluster, mut random: Random, faults: u64) {
    cluster.form(FIRST_VOTERS).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client {
                number,
                executor: cluster.executor.clone(),
                board: Arc::clone(&cluster.board),
                observer: cluster.observer.clone(),
                stop: Arc::clone(&stop),
                planted: cluster.planted,
            };
            cluster.executor.spawn_on(WORLD, client.run(random.fork()))
        })
        .collect();
    for _ in 0..faults {
        cluster.harm().await;
        if cluster.observer.violated().is_some() {
            return;
        }
    }
    cluster.relent();
    cluster.settle(&stop, clients).await;
}
