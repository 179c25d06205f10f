//! What the gateway tells about itself; the node's metrics listen.

use std::time::Duration;

use holdfast_model::TenantId;

/// One finished request.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// Operation name, `"Unknown"` when it was not recognised. A fixed set: fit for a metric's label.
    pub operation: &'static str,
    /// HTTP status.
    pub status: u16,
    /// The tenant, once its key was known and its signature right.
    pub tenant: Option<TenantId>,
    /// Body bytes received.
    pub bytes_in: u64,
    /// Body bytes sent.
    pub bytes_out: u64,
    /// From the head's arrival to the last byte of the answer.
    pub duration: Duration,
    /// Whether the answer was sent whole; `false` when the client went away or the content failed.
    pub whole: bool,
}

/// Why a connection was ended without the client asking for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cut {
    /// The TLS handshake failed.
    Handshake,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The client stopped reading its answer.
    NotReading,
    /// The connection was idle, or broke.
    Other,
}

/// A limit of a tenant that was felt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// A request was refused: too many in this second.
    RequestsPerSecond,
    /// A request was refused: too many at once.
    RequestsAtOnce,
    /// A body on its way in was paced.
    BytesIn,
    /// An answer was paced.
    BytesOut,
}

impl Limit {
    /// As a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "requests_per_second",
            Self::RequestsAtOnce => "requests_at_once",
            Self::BytesIn => "in_bytes_per_second",
            Self::BytesOut => "out_bytes_per_second",
        }
    }
}

/// What became of a line of an access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFate {
    /// It is in an object of the bucket that takes the log.
    Delivered,
    /// There was no room for it, or nowhere to bring it.
    Dropped,
}

impl LogFate {
    /// As a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
        }
    }
}

/// What became of an inventory that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InventoryFate {
    /// Its manifest is in the target.
    Made,
    /// Drives or space were missing: it is tried again at each look.
    Delayed,
    /// It cannot be made before the next midnight: its target is gone, or another's.
    Missed,
}

impl InventoryFate {
    /// As a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Delayed => "delayed",
            Self::Missed => "missed",
        }
    }
}

/// Listens. Calls come from the serving tasks: they must return at once.
pub trait Observer: Send + Sync + 'static {
    /// A request ended.
    fn request(&self, _record: &RequestRecord) {}
    /// A tenant's limit was felt; `wait` is how long a paced body waits for it.
    fn limited(&self, _tenant: TenantId, _limit: Limit, _wait: Duration) {}
    /// Lines of access logs came to their end.
    fn log_lines(&self, _fate: LogFate, _count: u64) {}
    /// An inventory was due.
    fn inventory(&self, _fate: InventoryFate) {}
    /// A connection was opened.
    fn connection_opened(&self) {}
    /// A connection ended; `Some` when it was cut.
    fn connection_closed(&self, _cut: Option<Cut>) {}
}

/// Listens to nothing.
impl Observer for () {}
