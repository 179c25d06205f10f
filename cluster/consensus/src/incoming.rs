//! Receiving a snapshot: pieces into a file, checks, then the machine takes it over.

use std::{
    cmp::Ordering,
    fs::File,
    io::{self, Write},
    sync::Arc,
};

use bytes::Bytes;
use holdfast_model::NodeId;

use crate::{
    codec::snapshot_meta,
    group::Group,
    snapshot::{SnapshotFile, SnapshotSource},
    types::{LogId, Snapshot, Vote},
    wire::{AnswerV1, FailureV1, SnapshotEndV1, SnapshotPieceV1},
};

/// A snapshot that is being received.
pub(crate) struct Incoming {
    from: NodeId,
    transfer: u64,
    path: SnapshotFile,
    file: File,
    length: u64,
    checksum: u32,
}

impl Incoming {
    fn create(from: NodeId, transfer: u64, path: SnapshotFile) -> io::Result<Self> {
        let file = File::create_new(path.path())?;
        Ok(Self { from, transfer, path, file, length: 0, checksum: 0 })
    }

    fn add(&mut self, data: &Bytes) -> io::Result<()> {
        self.file.write_all(data)?;
        self.length += data.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, data);
        Ok(())
    }

    fn is_whole(&self, end: &SnapshotEndV1) -> bool {
        self.length == end.length && self.checksum == end.checksum
    }
}

impl Group {
    /// Stores one piece; with the last one, installs the snapshot.
    pub(crate) async fn take_snapshot_piece(
        &self,
        from: NodeId,
        piece: SnapshotPieceV1,
    ) -> Result<AnswerV1, FailureV1> {
        let SnapshotPieceV1 { vote, transfer, offset, data, end } = piece;
        let vote = Vote::from(vote);
        let failed = |error: io::Error| FailureV1::Other(format!("storing a snapshot piece: {error}"));
        let stopped = |error: openraft::error::Fatal<u64>| FailureV1::Stopped(error.to_string());

        let mine = self.context.raft.with_raft_state(|state| *state.vote_ref()).await.map_err(stopped)?;
        // Votes are ordered partially: two candidates of one term are neither above nor below each other.
        if !vote.partial_cmp(&mine).is_some_and(Ordering::is_ge) {
            return Ok(AnswerV1::Snapshot(mine.into()));
        }
        self.heard.note(vote);
        let mut slot = self.incoming.lock().await;
        let mut incoming = match slot.take() {
            Some(incoming)
                if (incoming.from, incoming.transfer, incoming.length) == (from, transfer, offset) =>
            {
                incoming
            }
            _ if offset == 0 => {
                let path = self.snapshots.fresh(self.context.group);
                Incoming::create(from, transfer, path).map_err(failed)?
            }
            // A piece that was lost, doubled, or belongs to a transfer given up: the sender starts over.
            _ => return Ok(AnswerV1::SnapshotRestart),
        };
        let adding = self.context.host.blocking(move || {
            let stored = incoming.add(&data);
            (incoming, stored)
        });
        let (back, stored) = adding.await.map_err(|error| FailureV1::Other(error.to_string()))?;
        incoming = back;
        stored.map_err(failed)?;
        let Some(end) = end else {
            *slot = Some(incoming);
            return Ok(AnswerV1::Snapshot(mine.into()));
        };
        if !incoming.is_whole(&end) {
            return Ok(AnswerV1::SnapshotRestart);
        }
        let meta = snapshot_meta(end.last.map(LogId::from), end.membership.into());
        tracing::info!(group = %self.context.group, %from, snapshot = %meta.snapshot_id, "installing a snapshot");
        let source = SnapshotSource::File(Arc::new(incoming.path));
        let snapshot = Snapshot { meta, snapshot: Box::new(source) };
        let answer = self.context.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(AnswerV1::Snapshot(answer.vote.into()))
    }
}
