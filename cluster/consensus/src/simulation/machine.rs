//! The machine that simulated groups replicate: a list of the ids of all commands, in the order applied.
//!
//! A command's answer is its place in the list, so the order in which commands took effect is known.

use std::{io, path::Path, sync::Arc};

use bytes::Bytes;
use holdfast_model::NodeId;
use parking_lot::Mutex;

use super::{
    faults::Planted,
    observe::Observer,
    space::{Piece, Room},
};
use crate::{Applied, StateMachine};

/// What a machine holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) ids: Vec<u64>,
    /// Last entry applied.
    pub(crate) index: Option<u64>,
    /// Of everything applied, in order.
    pub(crate) digest: u64,
}

/// What it keeps through a power cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct Saved {
    pub(crate) ledger: Ledger,
    /// Up to where it knows that it holds entries: further than the position, when it was saved while its group applied
    /// once more what it held.
    pub(crate) held: Option<u64>,
    pub(crate) position: Option<Vec<u8>>,
}

#[derive(Clone)]
pub(crate) struct LedgerMachine {
    pub(crate) node: NodeId,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) saved: Arc<Mutex<Saved>>,
    pub(crate) room: Room,
    /// Up to where it holds entries from before its group was started: they are skipped.
    pub(crate) held: Option<u64>,
    pub(crate) observer: Observer,
    pub(crate) planted: Option<Planted>,
}

pub(crate) fn command(id: u64) -> Bytes {
    Bytes::copy_from_slice(&id.to_le_bytes())
}

pub(crate) fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// FNV-1a, 64 bits: one more piece after those of `digest`.
pub(crate) fn digest(digest: u64, piece: &[u8]) -> u64 {
    let start = if digest == 0 { 0xcbf2_9ce4_8422_2325 } else { digest };
    piece.iter().fold(start, |digest, byte| (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl LedgerMachine {
    /// The same machine, for a group that is started again: it keeps what it holds.
    pub(crate) fn kept(&self) -> Self {
        let held = self.ledger.lock().index;
        let held = held.filter(|_| self.planted != Some(Planted::MachineThatForgetsWhatItHolds));
        Self { held, ..self.clone() }
    }

    fn save(&self, position: &[u8]) {
        let mut saved = self.saved.lock();
        if self.planted != Some(Planted::CheckpointWithoutState) {
            saved.ledger = self.ledger.lock().clone();
            saved.held = saved.ledger.index;
        }
        saved.position = Some(position.to_vec());
    }
}

impl StateMachine for LedgerMachine {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let mut ledger = self.ledger.lock();
        let mut answers = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            if self.held.is_some_and(|held| entry.index <= held) {
                // Whoever asked was answered before, or was told that it is not known.
                answers.push(vec![Bytes::new(); entry.commands.len()]);
                continue;
            }
            // In the middle of what is to be applied, not only before it.
            if at >= entries.len() / 2 {
                self.room.take(Piece::Command)?;
            }
            let expected = ledger.index.map_or(0, |index| index + 1);
            if entry.index != expected && self.planted.is_none() {
                self.observer.violation(format!(
                    "{}: entry {} is applied, expected {expected}",
                    self.node, entry.index
                ));
            }
            ledger.index = Some(entry.index);
            ledger.digest = digest(ledger.digest, &entry.index.to_le_bytes());
            let mut of_entry = Vec::new();
            for command in entry.commands {
                ledger.ids.push(number(command));
                ledger.digest = digest(ledger.digest, command);
                if self.planted == Some(Planted::MachineThatKnowsItsNode) {
                    ledger.digest = digest(ledger.digest, &self.node.get().to_le_bytes());
                }
                of_entry.push(Bytes::copy_from_slice(&(ledger.ids.len() as u64).to_le_bytes()));
            }
            self.observer.applied(self.node, entry, &ledger);
            answers.push(of_entry);
        }
        if self.planted == Some(Planted::StateSavedWithoutPosition) {
            self.saved.lock().ledger = ledger.clone();
        }
        Ok(answers)
    }

    fn checkpoint(&mut self, position: &[u8]) -> io::Result<()> {
        self.room.take(Piece::Image)?;
        self.save(position);
        Ok(())
    }

    fn position(&self) -> Option<Vec<u8>> {
        self.saved.lock().position.clone()
    }

    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        self.room.take(Piece::Image)?;
        let ledger = self.ledger.lock();
        let head = [ledger.index.map_or(0, |index| index + 1), ledger.digest];
        let bytes: Vec<u8> = head.iter().chain(&ledger.ids).flat_map(|number| number.to_le_bytes()).collect();
        std::fs::write(path, bytes)
    }

    fn install(&mut self, path: &Path, position: &[u8]) -> io::Result<()> {
        self.room.take(Piece::Image)?;
        let bytes = std::fs::read(path)?;
        let numbers: Vec<u64> = bytes.chunks(8).map(number).collect();
        *self.ledger.lock() =
            Ledger { index: numbers[0].checked_sub(1), digest: numbers[1], ids: numbers[2..].to_vec() };
        self.observer.installed(self.node, &self.ledger.lock());
        self.save(position);
        Ok(())
    }
}
