//! Clients of a simulation: they write and read through any node, and keep account of what they learn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use super::{
    GROUP,
    cluster::{Board, Running},
    faults::Planted,
    machine::{command, number},
    observe::Observer,
    random::Random,
    runtime::Executor,
};
use crate::{ProposeError, Role};

/// How long a client waits for a command.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest pause between two commands, in milliseconds.
const PAUSE_MILLIS_MAX: u64 = 25;

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) number: u64,
    pub(crate) executor: Executor,
    pub(crate) board: Board,
    pub(crate) observer: Observer,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) planted: Option<Planted>,
}

impl Client {
    pub(crate) async fn run(self, mut random: Random) {
        while !self.stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(random.below(PAUSE_MILLIS_MAX + 1))).await;
            let node = {
                let board = self.board.lock();
                let at = random.below(board.len().max(1) as u64);
                board.values().nth(usize::try_from(at).unwrap()).cloned()
            };
            let Some(node) = node else { continue };
            if random.percent(30) {
                self.read(node).await;
            } else {
                self.write(node).await;
            }
        }
    }

    async fn write(&self, Running { run, consensus, .. }: Running) {
        let Some((id, told)) = self.observer.clients(|history| Ok(history.begin())) else { return };
        let writing = self
            .executor
            .spawn_on(run, async move { consensus.propose_within(GROUP, command(id), PATIENCE).await });
        let result = writing.await;
        let client = self.number;
        self.observer.clients(|history| match &result {
            Ok(Ok(place)) => history.acknowledged(id, told, number(place)),
            Ok(Err(ProposeError::Unknown { .. })) | Err(_) => {
                history.unknown += 1;
                Ok(())
            }
            Ok(Err(_)) => history.refused(id),
        });
        self.observer.note(format_args!("client {client} command {id}: {result:?}"));
    }

    async fn read(&self, Running { run, consensus, ledger }: Running) {
        let Some((_, told)) = self.observer.clients(|history| Ok(history.begin())) else { return };
        let trusting = self.planted == Some(Planted::LeaderThatReadsAlone);
        let reading = self.executor.spawn_on(run, async move {
            let leads = consensus.status(GROUP).is_some_and(|status| status.role == Role::Leader);
            if !(trusting && leads) {
                consensus.read_barrier(GROUP).await.ok()?;
            }
            Some(ledger.lock().ids.len() as u64)
        });
        let Ok(Some(length)) = reading.await else { return };
        self.observer.clients(|history| history.read(told, length));
        self.observer.note(format_args!("client {} reads {length}", self.number));
    }
}
