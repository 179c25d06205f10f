//! What sources hand over at a scrape: one plain struct per subject, one field per metric.
//!
//! Each field's documentation is the metric's help text. Fields named without `_total` are counters when the
//! metric's name ends so: they carry the absolute count since the process started.

use holdfast_model::DriveId;

use crate::catalogue::{Kind, Metric};

/// A number a metric can carry. Counts above 2^53 lose their last digits, as in Prometheus itself.
pub(crate) trait Figure {
    fn figure(self) -> f64;
}

impl Figure for u64 {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are 64-bit floats")]
    fn figure(self) -> f64 {
        self as f64
    }
}

impl Figure for f64 {
    fn figure(self) -> f64 {
        self
    }
}

impl Figure for bool {
    fn figure(self) -> f64 {
        f64::from(u8::from(self))
    }
}

macro_rules! reading {
    ($(#[$doc:meta])* $name:ident, labels $labels:expr, {
        $( $field:ident : $ty:ty = $kind:ident $metric:literal, $help:literal; )*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq)]
        pub struct $name {
            $( #[doc = $help] pub $field: $ty, )*
        }

        impl $name {
            pub(crate) const METRICS: &'static [Metric] =
                &[$( Metric { name: $metric, kind: Kind::$kind, labels: $labels, help: $help } ),*];

            /// In the order of `METRICS`.
            pub(crate) fn figures(&self) -> [f64; Self::METRICS.len()] {
                [$( Figure::figure(self.$field) ),*]
            }
        }
    };
}

/// Who a drive is: the labels of its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriveLabels<'a> {
    /// Its id in the cluster.
    pub drive: DriveId,
    /// What is printed on it, empty when the device tells none.
    pub serial: &'a str,
    /// Where this node finds it.
    pub path: &'a str,
}

pub(crate) const DRIVE_LABELS: &[&str] = &["drive", "serial", "path"];

/// What a drive is good for, as `holdfast_drive_state` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveState {
    /// Reads and writes.
    Healthy,
    /// Its index is being rebuilt; it does not serve yet.
    Mounting,
    /// Serves, but later than its peers.
    Slow,
    /// Its reads fail again and again: replace it.
    Failing,
    /// A write or flush failed: never written again.
    Fenced,
    /// Known, and not there.
    Missing,
}

impl DriveState {
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::Healthy, "healthy"),
        (Self::Mounting, "mounting"),
        (Self::Slow, "slow"),
        (Self::Failing, "failing"),
        (Self::Fenced, "fenced"),
        (Self::Missing, "missing"),
    ];
}

/// Failures of one drive by kind, counted since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriveErrors {
    /// Reads the device failed.
    pub read: u64,
    /// Writes the device failed or cut short.
    pub write: u64,
    /// Flushes the device failed.
    pub flush: u64,
    /// Records that came back with a wrong checksum.
    pub checksum: u64,
    /// Operations past their deadline.
    pub timeout: u64,
}

impl DriveErrors {
    pub(crate) fn by_kind(&self) -> [(&'static str, u64); 5] {
        [
            ("read", self.read),
            ("write", self.write),
            ("flush", self.flush),
            ("checksum", self.checksum),
            ("timeout", self.timeout),
        ]
    }
}

pub(crate) const DRIVE_STATE: &str = "holdfast_drive_state";
pub(crate) const DRIVE_ERRORS: &str = "holdfast_drive_errors_total";
pub(crate) const DRIVE_STATE_AND_ERRORS: &[Metric] = &[
    Metric {
        name: DRIVE_STATE,
        kind: Kind::Gauge,
        labels: &["drive", "serial", "path", "state"],
        help: "1 for the state the drive is in, 0 for the others: healthy, mounting, slow, failing, fenced, missing. Replace a failing or fenced drive.",
    },
    Metric {
        name: DRIVE_ERRORS,
        kind: Kind::Counter,
        labels: &["drive", "serial", "path", "kind"],
        help: "Failures by kind: read, write, flush, checksum, timeout. One write or flush failure fences the drive.",
    },
];

reading! {
    /// One drive of this node.
    DriveReading, labels DRIVE_LABELS, {
        capacity_bytes: u64 = Gauge "holdfast_drive_capacity_bytes", "Bytes the drive offers for segments.";
        used_bytes: u64 = Gauge "holdfast_drive_used_bytes", "Bytes in records, live or not yet reclaimed.";
        free_bytes: u64 = Gauge "holdfast_drive_free_bytes", "Bytes that new records can take.";
        shards: u64 = Gauge "holdfast_drive_shards", "Live shards held.";
        reads: u64 = Counter "holdfast_drive_reads_total", "Reads sent to the device.";
        read_bytes: u64 = Counter "holdfast_drive_read_bytes_total", "Bytes read from the device.";
        writes: u64 = Counter "holdfast_drive_writes_total", "Writes sent to the device.";
        written_bytes: u64 = Counter "holdfast_drive_written_bytes_total", "Bytes written to the device, with headers and padding.";
        flushes: u64 = Counter "holdfast_drive_flushes_total", "Device flushes completed.";
        records_acknowledged: u64 = Counter "holdfast_drive_records_acknowledged_total", "Records acknowledged after a clean flush. Divided by flushes: how many writes share one.";
    }
}

reading! {
    /// Devices of this node that are no drives of the cluster.
    DeviceReading, labels &[], {
        waiting: u64 = Gauge "holdfast_devices_waiting", "Blank devices that wait for an operator's approval.";
        refused: u64 = Gauge "holdfast_devices_refused", "Devices that are not used: foreign, a copy, an old image, or not readable. The cluster's status says why.";
    }
}

reading! {
    /// Space set aside for rebuilding, in the whole cluster, as this node sees it.
    SpareReading, labels &[], {
        drives: u64 = Gauge "holdfast_spare_drives", "Drives whose space is set aside for rebuilding, in the whole cluster.";
        reserved_bytes: u64 = Gauge "holdfast_spare_reserved_bytes", "Bytes set aside for rebuilding. Clients' writes are refused before less than this is free.";
        free_bytes: u64 = Gauge "holdfast_spare_free_bytes", "Bytes free on all drives that take shards, or dead and to be reclaimed, what is set aside included.";
    }
}

reading! {
    /// Clocks, as this node sees them.
    ClockReading, labels &[], {
        ahead_seconds: f64 = Gauge "holdfast_clock_ahead_seconds", "By how much this node's clock is ahead of what most nodes' clocks show; negative when it is behind. Beyond 10 s either way it is not gone by: set it.";
        agreed: bool = Gauge "holdfast_clock_agreed", "1 while more than half of the nodes' clocks that this node hears agree within 10 s. At 0 there is no time to trust.";
        heard: u64 = Gauge "holdfast_clock_heard", "Other nodes whose clocks this node hears.";
    }
}

reading! {
    /// Stripes this node coordinated.
    StripeReading, labels &[], {
        written: u64 = Counter "holdfast_stripes_written_total", "Stripes written with all their shards durable.";
        write_failures: u64 = Counter "holdfast_stripe_write_failures_total", "Stripe writes refused or given up because too few drives took their shard.";
        read: u64 = Counter "holdfast_stripes_read_total", "Stripe reads answered, degraded or not.";
        degraded_reads: u64 = Counter "holdfast_stripes_degraded_reads_total", "Stripe reads that had to rebuild a missing or damaged shard. Grows while a node or drive is out.";
        hedged_reads: u64 = Counter "holdfast_stripes_hedged_reads_total", "Shards that were late, so that others were asked to rebuild them meanwhile. Growth means that a drive or node is slow.";
        hedges_won: u64 = Counter "holdfast_stripes_hedges_won_total", "Late shards that were rebuilt before they came.";
        unreadable: u64 = Counter "holdfast_stripes_unreadable_total", "Stripe reads refused because too few shards were readable. Any growth needs a person.";
        bad_shards: u64 = Counter "holdfast_bad_shards_total", "Shards that reads found missing or damaged on drives that work.";
        shards_repaired: u64 = Counter "holdfast_shards_repaired_total", "Bad shards that were rebuilt from others and are whole again.";
    }
}

pub(crate) const DEBT_LABELS: &[&str] = &["partition"];

reading! {
    /// Redundancy owed in one partition, known by the node that leads its group.
    DebtReading, labels DEBT_LABELS, {
        stripes: u64 = Gauge "holdfast_debt_stripes", "Stripes with fewer readable shards than their level asks for. The sum over nodes and partitions is 0 when everything is whole.";
        unreadable: u64 = Gauge "holdfast_debt_unreadable_stripes", "Stripes with too few readable shards to be read at all. Anything but 0 needs a person.";
        draining_shards: u64 = Gauge "holdfast_debt_draining_shards", "Shards on drives that are being emptied.";
    }
}

reading! {
    /// Events of one partition that wait to be sent, known by the node that leads its group.
    EventQueueReading, labels DEBT_LABELS, {
        queued: u64 = Gauge "holdfast_event_queue_length", "Events that wait to be taken by their targets. At 100000 of a bucket, or 200000 of a partition, further ones are dropped.";
        oldest_seconds: u64 = Gauge "holdfast_event_queue_oldest_seconds", "Age of the oldest event that waits. Alert above some minutes: a target does not take its events; after three days they are dropped.";
        dropped: u64 = Gauge "holdfast_event_queue_dropped", "Events given up since the partition began: too many waited, or they waited too long. Any growth means that somebody was not told.";
    }
}

reading! {
    /// Events that this node sent.
    EventReading, labels &[], {
        delivered: u64 = Counter "holdfast_events_delivered_total", "Events that targets took.";
        failures: u64 = Counter "holdfast_event_failures_total", "Attempts that failed: no connection, no answer in time, or an answer that was no success.";
    }
}

pub(crate) const GROUP_LABELS: &[&str] = &["group"];

reading! {
    /// One Raft group this node is a member of.
    RaftGroupReading, labels GROUP_LABELS, {
        term: u64 = Gauge "holdfast_raft_term", "Current term. Frequent growth means repeated elections.";
        leader_id: u64 = Gauge "holdfast_raft_leader_id", "Number of the node this one follows as leader, 0 when there is none.";
        is_leader: bool = Gauge "holdfast_raft_is_leader", "1 when this node leads the group.";
        voters: u64 = Gauge "holdfast_raft_voters", "Voting members of the group.";
        last_log_index: u64 = Gauge "holdfast_raft_last_log_index", "Index of the last entry in this node's log.";
        committed_index: u64 = Gauge "holdfast_raft_committed_index", "Highest index known to be committed.";
        applied_index: u64 = Gauge "holdfast_raft_applied_index", "Highest index applied to the catalog. A growing distance to committed means that applying is too slow.";
        compared_index: u64 = Gauge "holdfast_raft_compared_index", "Last entry after which this node's state of the group was compared with the others' and was that of a majority. 0 when none was yet.";
        states_differ: bool = Gauge "holdfast_raft_states_differ", "1 when replicas of the group have different states and no majority agrees on one: what is read depends on the node. Nothing is changed by itself.";
        ailing: bool = Gauge "holdfast_raft_ailing", "1 when this node's replica of the group does not run: its log is damaged, or its machine failed. The cluster status says what was found.";
    }
}

reading! {
    /// The log all groups of this node share.
    RaftLogReading, labels &[], {
        flushes: u64 = Counter "holdfast_raft_log_flushes_total", "Flushes of the shared log.";
        entries: u64 = Counter "holdfast_raft_log_entries_total", "Entries appended. Divided by flushes: how many share one.";
        bytes: u64 = Counter "holdfast_raft_log_bytes_total", "Bytes appended.";
        commands: u64 = Counter "holdfast_raft_commands_total", "Commands this node proposed as leader. Divided by flushes: how many share one.";
    }
}

reading! {
    /// The catalog's second copy on the data drives, as this node keeps it.
    CatalogCopyReading, labels &[], {
        records: u64 = Counter "holdfast_catalog_copy_records_total", "Journal records written before an answer was given. Divided by commands: how many commands share one.";
        lazy_records: u64 = Counter "holdfast_catalog_copy_lazy_records_total", "Journal records written by this node as a follower.";
        bytes: u64 = Counter "holdfast_catalog_copy_bytes_total", "Bytes of journal records, each counted once however many copies it has.";
        thin_records: u64 = Counter "holdfast_catalog_copy_thin_records_total", "Parts of records with fewer copies than the level asks for: too few drives took them.";
        bases: u64 = Counter "holdfast_catalog_copy_bases_total", "Whole copies of a group's files written.";
        waiting: u64 = Gauge "holdfast_catalog_copy_waiting_entries", "Applied entries that are not in this node's journal yet.";
        lagging: bool = Gauge "holdfast_catalog_copy_lagging", "1 while no drive takes records: answers do not wait for them then, and losing every system disk now would lose those entries.";
    }
}

reading! {
    /// The catalog's second copy of one group, as the group's leader finds it on all nodes' drives.
    CatalogCopyGroupReading, labels &["group"], {
        whole: bool = Gauge "holdfast_catalog_copy_whole", "1 when everything in the second copy of a group that this node leads had as many copies on all nodes' drives as the level asks for when they were last counted. After 0 a new base is written, which makes it whole unless drives are full.";
        counted_age: f64 = Gauge "holdfast_catalog_copy_counted_age_seconds", "Seconds since the drives were searched of which copies were counted last; every two minutes while every node that is up says what it holds.";
    }
}

pub(crate) const PEER_LABELS: &[&str] = &["peer"];

reading! {
    /// The link to one other node.
    PeerReading, labels PEER_LABELS, {
        connected: bool = Gauge "holdfast_peer_connected", "1 while a link to the peer is up.";
        requests: u64 = Counter "holdfast_peer_requests_total", "Requests sent to the peer.";
        errors: u64 = Counter "holdfast_peer_errors_total", "Requests to the peer that failed or ran past their deadline.";
        sent_bytes: u64 = Counter "holdfast_peer_sent_bytes_total", "Bytes sent to the peer.";
        received_bytes: u64 = Counter "holdfast_peer_received_bytes_total", "Bytes received from the peer.";
        connects: u64 = Counter "holdfast_peer_connects_total", "Links opened to the peer. Growth without restarts means that the network drops them.";
    }
}

reading! {
    /// Memory for payload.
    BufferReading, labels &[], {
        budget_bytes: u64 = Gauge "holdfast_buffer_budget_bytes", "Memory set aside for payload buffers.";
        available_bytes: u64 = Gauge "holdfast_buffer_available_bytes", "Part of the budget not in use. At 0 new requests wait.";
    }
}

pub(crate) const EXTERNAL_KEY_LABELS: &[&str] = &["tenant"];

reading! {
    /// One tenant's external key, as this node sees its service.
    ExternalKeyReading, labels EXTERNAL_KEY_LABELS, {
        open: bool = Gauge "holdfast_external_key_open", "1 while the tenant's key is in this node's memory; at 0 its clients are answered 503 here. The admin service says what the key service answers.";
        silent_seconds: u64 = Gauge "holdfast_external_key_silent_seconds", "For how long the tenant's key service has not answered this node, 0 when it does. Alert well below the tenant's grace: then its key is forgotten.";
        allowed: u64 = Counter "holdfast_external_key_allowed_total", "Questions that the service answered with the key.";
        refused: u64 = Counter "holdfast_external_key_refused_total", "Questions that the service refused. Any growth means that the tenant took its key back, or that credentials have ended.";
        failed: u64 = Counter "holdfast_external_key_failed_total", "Questions without an answer, or with none that is understood, after all attempts.";
    }
}

reading! {
    /// The keys of this node.
    KeyReading, labels &[], {
        locked: bool = Gauge "holdfast_keys_locked", "1 while this node does not have the root key: it serves shards and votes, and answers clients 503. The admin service says what it waits for.";
        root_epoch: u64 = Gauge "holdfast_keys_root_epoch", "Version of the root key that wraps on this node, 0 while it is locked.";
        roots: u64 = Gauge "holdfast_keys_roots", "Roots in memory. More than 1 while one takes the place of another.";
        shares: u64 = Gauge "holdfast_keys_shares", "Shares of the root that were gathered last.";
        shares_needed: u64 = Gauge "holdfast_keys_shares_needed", "Shares that give the root, 0 while none was seen.";
        service_up: bool = Gauge "holdfast_key_service_up", "1 while the key service of this node runs. It is started again when it ends.";
        service_starts: u64 = Counter "holdfast_key_service_starts_total", "Starts of the key service. More than 1: it ended while the node went on.";
        service_memory_locked: bool = Gauge "holdfast_key_service_memory_locked", "1 while the memory of the key service is locked, so that no key is written to swap. 0: its log says why.";
    }
}

pub(crate) const PURPOSE_LABELS: &[&str] = &["purpose"];

reading! {
    /// Uses of tenants' keys for one purpose.
    KeyUseReading, labels PURPOSE_LABELS, {
        uses: u64 = Counter "holdfast_key_uses_total", "Uses of tenants' keys that the key service was asked for, since it started.";
        refused: u64 = Counter "holdfast_key_uses_refused_total", "Those that its policy refused: the purpose is not allowed for a tenant that stands so.";
    }
}
