//! openraft's calls to a peer, as messages over the [`Transport`].

use std::{
    future::Future,
    io::{self, Read},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::{Either, select};
use holdfast_model::{GroupId, NodeId};
use openraft::{
    AnyError, EmptyNode, OptionalSend, RaftNetwork, RaftNetworkFactory,
    error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption},
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};

use crate::{
    codec::{self, EntryV1},
    confirm::{Confirmer, Peers, Told},
    host::Host,
    log::{index::GroupIndex, store::GroupLog},
    snapshot::SnapshotFile,
    transport::{Transport, TransportError},
    types::{LogId, Snapshot, SnapshotMeta, TypeConfig, Vote},
    wire::{AnswerV1, CallV1, FailureV1, RequestV1, ResponseV1, SnapshotEndV1, SnapshotPieceV1},
};

/// Bytes of a snapshot in one message.
const SNAPSHOT_PIECE_BYTES: usize = 512 * 1024;

/// How long a follower may take to store one piece of a snapshot.
const SNAPSHOT_PIECE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a follower may take to install a snapshot once it has all of it.
const SNAPSHOT_INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Pause before a peer that could not be reached is tried again.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);

/// Why a peer gave no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("node {0} answered {1}")]
    Garbled(NodeId, String),
    #[error("node {0} could not serve it: {1:?}")]
    Failed(NodeId, FailureV1),
    #[error("what node {0} was to be sent is not in the log any more")]
    Overtaken(NodeId),
    #[error("node {0} answers with another Raft log than before: it lost its log and must join anew")]
    LogLost(NodeId),
}

/// Sends one call and decodes the answer. Also returns which log stands behind it.
pub(crate) async fn call(
    transport: &dyn Transport,
    to: NodeId,
    group: GroupId,
    call: CallV1,
    timeout: Duration,
) -> Result<(AnswerV1, u64), CallError> {
    let request = Bytes::from(codec::encode(&RequestV1 { group: group.get(), call }));
    let answer = transport.send(to, request, timeout).await?;
    let response: ResponseV1 =
        codec::decode(&answer).map_err(|error| CallError::Garbled(to, error.to_string()))?;
    match response.answer {
        AnswerV1::Failed(failure) => Err(CallError::Failed(to, failure)),
        answer => Ok((answer, response.log)),
    }
}

/// Makes links of one group.
pub(crate) struct Links {
    group: GroupId,
    transport: Arc<dyn Transport>,
    peers: Peers,
    told: Told,
    host: Host,
    log: GroupLog,
}

impl Links {
    pub(crate) fn new(group: GroupId, transport: Arc<dyn Transport>, host: Host, log: GroupLog) -> Self {
        Self { group, transport, peers: Peers::default(), told: Told::default(), host, log }
    }

    /// Asks the same peers, and knows what they are told.
    pub(crate) fn confirmer(&self) -> Confirmer {
        Confirmer {
            group: self.group,
            transport: Arc::clone(&self.transport),
            peers: Arc::clone(&self.peers),
            told: self.told.clone(),
            log: self.log.clone(),
        }
    }
}

/// One group's link to one peer.
pub(crate) struct Link {
    group: GroupId,
    target: NodeId,
    transport: Arc<dyn Transport>,
    peers: Peers,
    told: Told,
    host: Host,
    log: GroupLog,
    reported: bool,
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Link {
        Link {
            group: self.group,
            target: NodeId::new(target),
            transport: Arc::clone(&self.transport),
            peers: Arc::clone(&self.peers),
            told: self.told.clone(),
            host: self.host.clone(),
            log: self.log.clone(),
            reported: false,
        }
    }
}

type RaftRpcError = RPCError<u64, EmptyNode, RaftError<u64>>;

impl Link {
    async fn call(&mut self, message: CallV1, timeout: Duration) -> Result<AnswerV1, RaftRpcError> {
        let result = call(self.transport.as_ref(), self.target, self.group, message, timeout).await;
        let (answer, log) = result.map_err(|error| match error {
            CallError::Transport(TransportError::Timeout(..)) | CallError::Garbled(..) => {
                RPCError::Network(NetworkError::new(&error))
            }
            _ => RPCError::Unreachable(Unreachable::new(&error)),
        })?;
        // A node that lost its log has forgotten votes and entries it acknowledged. Under its old
        // identity it is not counted any more.
        let known = *self.peers.lock().entry(self.target).or_insert(log);
        if known != log {
            let error = CallError::LogLost(self.target);
            if !std::mem::replace(&mut self.reported, true) {
                tracing::error!(group = %self.group, %error);
            }
            return Err(RPCError::Unreachable(Unreachable::new(&error)));
        }
        self.reported = false;
        Ok(answer)
    }

    fn unexpected(&self, answer: &AnswerV1) -> RaftRpcError {
        let error = CallError::Garbled(self.target, format!("something else: {answer:?}"));
        RPCError::Network(NetworkError::new(&error))
    }

    /// Sends a whole snapshot file; returns the receiver's vote.
    async fn send_snapshot(
        &mut self,
        vote: Vote,
        meta: &SnapshotMeta,
        file: &SnapshotFile,
    ) -> Result<Vote, SendError> {
        let mut reader = PieceReader::open(file)?;
        let mut transfer = [0; 8];
        self.host.fill(&mut transfer)?;
        let transfer = u64::from_le_bytes(transfer);
        loop {
            let offset = reader.offset;
            let path = file.path().to_owned();
            let reading = self.host.blocking(move || {
                let piece = reader.next();
                (reader, piece)
            });
            let (back, piece) = reading
                .await
                .map_err(|error| io::Error::other(format!("reading {}: {error}", path.display())))?;
            reader = back;
            let data = piece?;
            let end = reader.at_end.then(|| SnapshotEndV1 {
                last: meta.last_log_id.map(Into::into),
                membership: (&meta.last_membership).into(),
                length: reader.offset,
                checksum: reader.checksum,
            });
            let timeout = if end.is_some() { SNAPSHOT_INSTALL_TIMEOUT } else { SNAPSHOT_PIECE_TIMEOUT };
            let finished = end.is_some();
            let piece = SnapshotPieceV1 { vote: vote.into(), transfer, offset, data, end };
            match self.call(CallV1::Snapshot(piece), timeout).await.map_err(Box::new)? {
                AnswerV1::Snapshot(theirs) if finished || Vote::from(theirs) > vote => {
                    return Ok(theirs.into());
                }
                AnswerV1::Snapshot(_) => {}
                answer => return Err(Box::new(self.unexpected(&answer)).into()),
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("reading the snapshot failed")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Rpc(#[from] Box<RaftRpcError>),
}

/// Reads a file piece by piece and keeps its checksum.
struct PieceReader {
    file: std::fs::File,
    offset: u64,
    length: u64,
    checksum: u32,
    at_end: bool,
}

impl PieceReader {
    fn open(file: &SnapshotFile) -> io::Result<Self> {
        let file = std::fs::File::open(file.path())?;
        let length = file.metadata()?.len();
        Ok(Self { file, offset: 0, length, checksum: 0, at_end: false })
    }

    fn next(&mut self) -> io::Result<Bytes> {
        let left = usize::try_from(self.length - self.offset).unwrap_or(usize::MAX);
        let mut data = vec![0; left.min(SNAPSHOT_PIECE_BYTES)];
        self.file.read_exact(&mut data)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &data);
        self.offset += data.len() as u64;
        self.at_end = self.offset == self.length;
        Ok(data.into())
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RaftRpcError> {
        // What a former leader still sends may be read from its log while the next leader's entries replace
        // its own: then it is no part of any log. openraft does not wait for it to end.
        let whole =
            |index: &GroupIndex| index.holds(rpc.prev_log_id, rpc.entries.iter().map(|entry| entry.log_id));
        if !rpc.entries.is_empty() && !self.log.inspect(whole) {
            return Err(RPCError::Unreachable(Unreachable::new(&CallError::Overtaken(self.target))));
        }
        self.told.note(rpc.leader_commit);
        let message = CallV1::Append {
            vote: rpc.vote.into(),
            previous: rpc.prev_log_id.map(Into::into),
            committed: rpc.leader_commit.map(Into::into),
            entries: rpc.entries.iter().map(EntryV1::from).collect(),
        };
        match self.call(message, option.hard_ttl()).await? {
            AnswerV1::Appended => Ok(AppendEntriesResponse::Success),
            AnswerV1::AppendedPartly(upto) => {
                Ok(AppendEntriesResponse::PartialSuccess(upto.map(LogId::from)))
            }
            AnswerV1::Conflict => Ok(AppendEntriesResponse::Conflict),
            AnswerV1::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            answer => Err(self.unexpected(&answer)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RaftRpcError> {
        let message = CallV1::Vote { vote: rpc.vote.into(), last: rpc.last_log_id.map(Into::into) };
        match self.call(message, option.hard_ttl()).await? {
            AnswerV1::Vote { vote, granted, last } => Ok(VoteResponse {
                vote: vote.into(),
                vote_granted: granted,
                last_log_id: last.map(LogId::from),
            }),
            answer => Err(self.unexpected(&answer)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let Snapshot { meta, snapshot } = snapshot;
        let transfer = async {
            let (meta, file) = snapshot.materialize(&meta).await?;
            tracing::info!(group = %self.group, to = %self.target, snapshot = %meta.snapshot_id, "sending a snapshot");
            self.send_snapshot(vote, &meta, &file).await
        };
        match select(pin!(transfer), pin!(cancel)).await {
            Either::Left((Ok(theirs), _)) => Ok(SnapshotResponse::new(theirs)),
            // Every failure is the link's to openraft: a snapshot that cannot be made or sent now must
            // not stop the leader. The machine's own errors stop the group where they happen.
            Either::Left((Err(error), _)) => {
                Err(StreamingError::Unreachable(Unreachable::new(&AnyError::new(&error))))
            }
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}
