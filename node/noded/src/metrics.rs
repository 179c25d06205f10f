//! Fills the metrics from the parts when a scrape arrives.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use holdfast_consensus::{Consensus, Role};
use holdfast_drive::DriveState;
use holdfast_gateway_s3::{InventoryFate, Limit, LogFate, Observer, RequestRecord};
use holdfast_model::{NodeId, TenantId};
use holdfast_monitor::{
    BufferReading, BuildInfo, CatalogCopyGroupReading, CatalogCopyReading, ClockReading, DebtReading,
    DeviceReading, DriveErrors, DriveLabels, DriveReading, EventQueueReading, EventReading,
    ExternalKeyReading, KeyReading, KeyUseReading, Monitor, PeerReading, RaftGroupReading, RaftLogReading,
    Sample, SpareReading, StripeReading,
};
use holdfast_object::{ObjectService, journal::Journal};
use holdfast_peer::PeerClient;
use holdfast_store::{Counters, DeviceStanding, Health, Shards};

use crate::{
    comparison::Comparison, control::now, drives::Keeper, external_keys::ExternalKeys, groups::Groups,
    keys::Unlocker, node::Pools,
};

/// What is measured.
#[derive(Debug)]
pub struct Parts {
    /// This node's drives.
    pub shards: Arc<Shards>,
    /// Who answers.
    pub health: Arc<Health>,
    /// What devices there are.
    pub keeper: Arc<Keeper>,
    /// All groups.
    pub consensus: Arc<Consensus>,
    /// Which of them do not run here.
    pub groups: Arc<Groups>,
    /// Whether their states are those of other nodes.
    pub comparison: Arc<Comparison>,
    /// Links to peers.
    pub peers: PeerClient,
    /// The catalog's second copy.
    pub journal: Arc<Journal>,
    /// Stripes.
    pub counters: Arc<Counters>,
    /// Buffers.
    pub pools: Pools,
    /// Objects, for their workers.
    pub objects: Arc<ObjectService>,
    /// The way to the root.
    pub unlocker: Arc<Unlocker>,
    /// Services of tenants' external keys.
    pub external_keys: Arc<ExternalKeys>,
}

const BUILD: BuildInfo = BuildInfo {
    version: env!("CARGO_PKG_VERSION"),
    revision: match option_env!("HOLDFAST_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    },
};

/// The monitor of a locked node: that it is, and what it waits for.
#[must_use]
pub fn of_locked(unlocker: Arc<Unlocker>) -> Arc<Monitor> {
    let monitor = Arc::new(Monitor::new(BUILD));
    monitor.register_source(move |sample| keys(&unlocker, sample));
    monitor
}

/// A monitor over `parts`.
#[must_use]
pub fn monitor(parts: Parts) -> Arc<Monitor> {
    let monitor = Arc::new(Monitor::new(BUILD));
    monitor.register_source(move |sample| {
        drives(&parts, sample);
        devices(&parts, sample);
        spare(&parts, sample);
        clock(sample);
        groups(&parts, sample);
        peers(&parts, sample);
        stripes(&parts, sample);
        catalog_copy(&parts, sample);
        debts(&parts, sample);
        events(&parts, sample);
        buffers(&parts, sample);
        keys(&parts.unlocker, sample);
        external_keys(&parts, sample);
    });
    monitor
}

fn drives(parts: &Parts, sample: &mut Sample) {
    for drive in parts.shards.local() {
        let status = drive.status();
        let counters = status.counters;
        let path = status.path.display().to_string();
        let (serial, _) = parts.keeper.about(&status.path);
        let labels = DriveLabels { drive: status.id, serial: &serial, path: &path };
        let state = match status.state {
            DriveState::Live => holdfast_monitor::DriveState::Healthy,
            DriveState::Draining => holdfast_monitor::DriveState::Healthy,
            DriveState::Slow => holdfast_monitor::DriveState::Slow,
            DriveState::Failing => holdfast_monitor::DriveState::Failing,
            DriveState::Fenced => holdfast_monitor::DriveState::Fenced,
            DriveState::Gone | DriveState::Closed => holdfast_monitor::DriveState::Missing,
        };
        let reading = DriveReading {
            capacity_bytes: status.capacity.get(),
            used_bytes: status.used.get(),
            free_bytes: status.free.get(),
            shards: status.shards,
            reads: counters.reads,
            read_bytes: counters.read_bytes,
            writes: counters.writes,
            written_bytes: counters.write_bytes,
            flushes: counters.flushes,
            records_acknowledged: counters.records_acknowledged,
        };
        let errors = DriveErrors {
            read: counters.read_errors,
            write: counters.write_errors,
            flush: counters.flush_errors,
            checksum: counters.checksum_errors,
            timeout: counters.timeouts,
        };
        sample.drive(&labels, state, &reading, &errors);
    }
}

fn devices(parts: &Parts, sample: &mut Sample) {
    let mut reading = DeviceReading::default();
    for device in parts.keeper.devices() {
        match device.standing {
            DeviceStanding::Waiting => reading.waiting += 1,
            DeviceStanding::Adopting => {}
            _ => reading.refused += 1,
        }
    }
    sample.devices(&reading);
}

fn spare(parts: &Parts, sample: &mut Sample) {
    let spare = parts.health.spare();
    sample.spare(&SpareReading {
        drives: spare.drives.into(),
        reserved_bytes: spare.reserved_bytes,
        free_bytes: spare.free_bytes,
    });
}

fn clock(sample: &mut Sample) {
    let Some(found) = holdfast_clock::judgement() else { return };
    sample.clock(&ClockReading {
        ahead_seconds: Duration::from_millis(found.own_ahead.unsigned_abs()).as_secs_f64()
            * if found.own_ahead < 0 { -1.0 } else { 1.0 },
        agreed: found.agreed,
        heard: found.ahead.len() as u64,
    });
}

fn groups(parts: &Parts, sample: &mut Sample) {
    for group in parts.consensus.groups() {
        let Some(status) = parts.consensus.status(group) else { continue };
        let compared = parts.comparison.of(group);
        let reading = RaftGroupReading {
            term: status.term,
            leader_id: status.leader.map_or(0, NodeId::get),
            is_leader: status.role == Role::Leader,
            voters: status.voters.len() as u64,
            last_log_index: status.last_log.unwrap_or(0),
            committed_index: status.committed.unwrap_or(0),
            applied_index: status.applied.unwrap_or(0),
            compared_index: compared.index,
            states_differ: compared.differ,
            ailing: false,
        };
        sample.raft_group(group, &reading);
    }
    for ailment in parts.groups.ailments() {
        let reading = RaftGroupReading { ailing: true, ..RaftGroupReading::default() };
        sample.raft_group(ailment.group, &reading);
    }
    let counters = parts.consensus.counters();
    let reading = RaftLogReading {
        flushes: counters.flushes,
        entries: counters.entries,
        bytes: counters.bytes,
        commands: counters.commands,
    };
    sample.raft_log(&reading);
}

fn peers(parts: &Parts, sample: &mut Sample) {
    for (node, counters) in parts.peers.counters() {
        let reading = PeerReading {
            connected: counters.connections > 0,
            requests: counters.requests,
            errors: counters.errors,
            sent_bytes: counters.sent_bytes,
            received_bytes: counters.received_bytes,
            connects: counters.connects,
        };
        sample.peer(node, &reading);
    }
}

fn stripes(parts: &Parts, sample: &mut Sample) {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &parts.counters;
    sample.stripes(&StripeReading {
        written: load(&counters.stripes_written),
        write_failures: load(&counters.stripes_failed),
        read: load(&counters.ranges_read),
        degraded_reads: load(&counters.degraded_reads),
        hedged_reads: load(&counters.hedged_reads),
        hedges_won: load(&counters.hedges_won),
        unreadable: load(&counters.unreadable),
        bad_shards: load(&counters.bad_shards),
        shards_repaired: load(&counters.shards_repaired),
    });
}

fn catalog_copy(parts: &Parts, sample: &mut Sample) {
    let status = parts.journal.status();
    sample.catalog_copy(&CatalogCopyReading {
        records: status.records,
        lazy_records: status.lazy_records,
        bytes: status.bytes,
        thin_records: status.thin_records,
        bases: status.bases,
        waiting: status.waiting,
        lagging: status.lagging,
    });
    for (group, standing) in parts.journal.standings() {
        sample.catalog_copy_group(
            group,
            &CatalogCopyGroupReading {
                whole: standing.whole,
                counted_age: standing.searched.elapsed().as_secs_f64(),
            },
        );
    }
}

fn debts(parts: &Parts, sample: &mut Sample) {
    for (partition, debt) in parts.objects.workers().debt() {
        let reading = DebtReading {
            stripes: debt.total(),
            unreadable: debt.unreadable,
            draining_shards: debt.draining,
        };
        sample.debt(partition, &reading);
    }
}

fn events(parts: &Parts, sample: &mut Sample) {
    let board = parts.objects.workers();
    for (partition, events) in board.events() {
        let age = events.oldest.map_or(0, |at| now().get().saturating_sub(at.get()) / 1000);
        let reading =
            EventQueueReading { queued: events.queued, oldest_seconds: age, dropped: events.dropped };
        sample.event_queue(partition, &reading);
    }
    let (delivered, failures) = board.event_counts();
    sample.events(&EventReading { delivered, failures });
}

fn keys(unlocker: &Unlocker, sample: &mut Sample) {
    let (status, keyring) = (unlocker.status(), &unlocker.holder.keyring);
    let state = keyring.fresh_state();
    let is_up = state.confinement.pid != 0;
    sample.keys(&KeyReading {
        locked: keyring.is_locked(),
        root_epoch: keyring.current().map_or(0, |(epoch, _)| u64::from(epoch.get())),
        roots: keyring.epochs().len() as u64,
        shares: u64::from(status.shares),
        shares_needed: u64::from(status.shares_needed.unwrap_or(0)),
        service_up: is_up,
        service_starts: keyring.starts(),
        service_memory_locked: is_up && state.confinement.memory_unlocked.is_none(),
    });
    for (purpose, uses, refused) in state.uses {
        sample.key_uses(purpose.name(), &KeyUseReading { uses, refused });
    }
}

fn external_keys(parts: &Parts, sample: &mut Sample) {
    for (tenant, shown) in parts.external_keys.all() {
        let reading = ExternalKeyReading {
            open: shown.open,
            silent_seconds: shown.silent_since.map_or(0, |since| since.elapsed().as_secs()),
            allowed: shown.allowed,
            refused: shown.refused,
            failed: shown.failed,
        };
        sample.external_key(tenant, &reading);
    }
}

fn buffers(parts: &Parts, sample: &mut Sample) {
    let pools = [&parts.pools.write, &parts.pools.peer, &parts.pools.drive, &parts.pools.journal];
    sample.buffers(&BufferReading {
        budget_bytes: pools.iter().map(|pool| pool.budget().get()).sum(),
        available_bytes: pools.iter().map(|pool| pool.available().get()).sum(),
    });
}

/// Passes finished S3 requests on to the metrics.
#[derive(Debug)]
pub struct S3Observer(pub Arc<Monitor>);

impl Observer for S3Observer {
    fn request(&self, record: &RequestRecord) {
        let status = record.whole.then_some(record.status);
        self.0.s3().observe(record.operation, status, record.bytes_in, record.bytes_out, record.duration);
    }

    fn inventory(&self, fate: InventoryFate) {
        self.0.s3().inventory(fate.name());
    }

    fn log_lines(&self, fate: LogFate, count: u64) {
        self.0.s3().log_lines(fate.name(), count);
    }

    fn limited(&self, tenant: TenantId, limit: Limit, wait: Duration) {
        self.0.s3().limited(&tenant.to_string(), limit.name(), wait);
    }
}
