//! The beginning and the end of a simulation: a group is formed; once the faults are over it serves again,
//! and all its replicas hold the same.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use holdfast_model::NodeId;
use tokio::time::{Instant, sleep, timeout};

use super::{
    GROUP,
    cluster::{Cluster, Running},
    machine::Ledger,
    runtime::Task,
};
use crate::{Role, log::index::Found};

/// Within this time after the last fault the group serves, from every member.
const RECOVERY: Duration = Duration::from_secs(20);

/// Longer than any client waits.
const CLIENTS_END: Duration = Duration::from_secs(15);

impl Cluster {
    /// Switches all nodes on and makes the first `count` of them the members.
    pub(crate) async fn form(&mut self, count: usize) {
        for at in 0..self.nodes.len() {
            self.boot(at);
        }
        let voters: BTreeSet<NodeId> = self.ids().into_iter().take(count).collect();
        loop {
            sleep(Duration::from_millis(10)).await;
            let board = self.board.lock().clone();
            if board.len() < self.nodes.len() {
                continue;
            }
            let Some(Running { run, consensus, .. }) = board.into_values().next() else { continue };
            let forming =
                self.executor.spawn_on(run, async move { consensus.initialize(GROUP, voters).await });
            let formed = forming.await;
            if !matches!(formed, Ok(Ok(()))) {
                self.observer.violation(format!("the group cannot be formed: {formed:?}"));
            }
            return;
        }
    }

    /// Waits until every member serves, ends the clients, and compares.
    pub(crate) async fn settle(&self, stop: &AtomicBool, clients: Vec<Task<()>>) {
        let recovered = self.serve_again().await;
        stop.store(true, Ordering::Relaxed);
        if let Err(what) = recovered {
            return self.observer.violation(what);
        }
        for client in clients {
            if timeout(CLIENTS_END, client).await.is_err() {
                return self.observer.violation("a client got no answer".to_owned());
            }
        }
        if let Err(what) = self.serve_again().await {
            return self.observer.violation(what);
        }
        if let Err(what) = self.compare() {
            self.observer.violation(what);
        }
    }

    /// Returns when a leader is known and a barrier has passed on all members.
    pub(crate) async fn serve_again(&self) -> Result<(), String> {
        let deadline = Instant::now() + RECOVERY;
        let mut missing = "a leader".to_owned();
        while Instant::now() < deadline {
            if self.observer.violated().is_some() {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
            let Some(members) = self.members() else { continue };
            missing = String::new();
            for node in members {
                let Some(Running { run, consensus, .. }) = self.board.lock().get(&node).cloned() else {
                    missing = format!("node {node}");
                    break;
                };
                let reading = self.executor.spawn_on(run, async move { consensus.read_barrier(GROUP).await });
                match timeout(deadline.saturating_duration_since(Instant::now()), reading).await {
                    Ok(Ok(Ok(()))) => {}
                    other => {
                        missing = format!("a barrier on {node}: {other:?}");
                        break;
                    }
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
        }
        let board = self.board.lock().clone();
        let all: Vec<_> = board.values().map(|running| running.consensus.status(GROUP)).collect();
        Err(format!("after {RECOVERY:?} without faults this is missing: {missing}; {all:#?}"))
    }

    /// Voters and learners, as the leader knows them.
    fn members(&self) -> Option<BTreeSet<NodeId>> {
        let board = self.board.lock();
        let statuses = board.values().filter_map(|running| running.consensus.status(GROUP));
        let leader =
            statuses.filter(|status| status.role == Role::Leader).max_by_key(|status| status.term)?;
        Some(&leader.voters | &leader.learners)
    }

    fn compare(&self) -> Result<(), String> {
        let members = self.members().ok_or("the leader is gone again")?;
        let board = self.board.lock().clone();
        let ledgers: Vec<(NodeId, Ledger)> =
            board.iter().map(|(node, running)| (*node, running.ledger.lock().clone())).collect();
        let longest = ledgers.iter().map(|(_, ledger)| ledger).max_by_key(|ledger| ledger.ids.len());
        let longest = longest.ok_or("no node runs")?;
        for (node, ledger) in &ledgers {
            if members.contains(node) && ledger.ids != longest.ids {
                return Err(format!("member {node} holds another list than others"));
            }
            if !longest.ids.starts_with(&ledger.ids) {
                return Err(format!("{node}, which left the group, holds another beginning of the list"));
            }
        }
        for (node, running) in &board {
            let log = running.consensus.part_of_log(GROUP).map_err(|error| error.to_string())?;
            let applied = running.ledger.lock().index;
            let found = log.inspect(|index| index.find(.., u64::MAX));
            for found in found {
                let id = match found {
                    Found::Cached(entry) => entry.log_id,
                    Found::Stored(stored) => stored.log_id,
                };
                let known = self.observer.committed_at(id.index);
                let own = (id.leader_id.term, id.leader_id.node_id);
                if applied >= Some(id.index) && known.is_some_and(|known| known != own) {
                    return Err(format!(
                        "{node} holds entry {} of {own:?}, committed is {known:?}",
                        id.index
                    ));
                }
            }
        }
        self.observer.clients(|history| history.finish(&longest.ids));
        Ok(())
    }
}
