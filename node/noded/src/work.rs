//! Background work of the whole cluster, put together from what the nodes report.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_admin_api::{
    LostShards, TenantDebt, WorkStatus, WorkerHours, WorkerImpact, WorkerOrder, WorkerStatus,
};
use holdfast_control::{Command, ControlView, TenantState};
use holdfast_keyservice::Client;
use holdfast_model::{ByteCount, PartitionId, TenantId};
use holdfast_object::workers::{Impact, Kind, Order, Orders};
use holdfast_store::{Health, NodeReport, WorkerReport};

/// Sums what the nodes that answer report. A partition whose leader does not answer is not in the sum, and
/// the status then says that it is incomplete.
#[must_use]
pub fn status(view: &ControlView, health: &Health, orders: &Orders) -> WorkStatus {
    let reports: Vec<NodeReport> =
        health.snapshot().into_iter().filter(|(_, up)| *up).map(|(health, _)| health.report).collect();
    let partitions: BTreeSet<PartitionId> = view
        .tenants
        .values()
        .filter(|tenant| tenant.state == TenantState::Active)
        .flat_map(|tenant| tenant.partitions.iter().map(|route| route.0))
        .collect();
    // Two nodes name one partition while its leadership changes: the greater debt is believed.
    let mut debts: BTreeMap<PartitionId, &holdfast_store::DebtReport> = BTreeMap::new();
    for debt in reports.iter().flat_map(|report| &report.debts) {
        let total = |debt: &holdfast_store::DebtReport| debt.by_lost.iter().map(|(_, n)| n).sum::<u64>();
        let known = debts.entry(debt.partition).or_insert(debt);
        if total(debt) > total(known) {
            *known = debt;
        }
    }
    let mut by_tenant: BTreeMap<TenantId, BTreeMap<u8, u64>> = BTreeMap::new();
    for debt in debts.values().filter(|debt| !debt.by_lost.is_empty()) {
        let sums = by_tenant.entry(debt.tenant).or_default();
        for (lost, stripes) in &debt.by_lost {
            *sums.entry(*lost).or_default() += stripes;
        }
    }
    WorkStatus {
        debt_stripes: by_tenant.values().flat_map(BTreeMap::values).sum(),
        unreadable_stripes: debts.values().map(|debt| debt.unreadable).sum(),
        draining_shards: debts.values().map(|debt| debt.draining).sum(),
        complete: partitions.iter().all(|partition| debts.contains_key(partition)),
        tenants: by_tenant
            .into_iter()
            .map(|(tenant, sums)| TenantDebt {
                tenant,
                by_lost_shards: sums
                    .into_iter()
                    .map(|(lost, stripes)| LostShards { lost, stripes })
                    .collect(),
            })
            .collect(),
        orders: Kind::ALL.into_iter().map(|kind| order(kind, orders.of(kind))).collect(),
        workers: reports.iter().flat_map(|report| report.workers.iter().map(|w| worker(report, w))).collect(),
    }
}

fn worker(report: &NodeReport, worker: &WorkerReport) -> WorkerStatus {
    WorkerStatus {
        node: report.node,
        kind: worker.kind.clone(),
        working: worker.working,
        held: worker.held,
        done: worker.done,
        left: worker.left,
        failed: worker.failed,
        bytes: ByteCount::new(worker.bytes),
        bytes_per_second: ByteCount::new(worker.bytes_per_second),
        elapsed_seconds: worker.elapsed_seconds,
        remaining_seconds: worker.remaining_seconds,
        trouble: worker.trouble.clone(),
    }
}

/// Under which name what operators ask of workers is kept.
const ORDERS: &str = "orders to workers";

/// What operators ask of workers, as the control state has it.
#[must_use]
pub fn orders(view: &ControlView, keyring: &Client) -> Orders {
    let Some(sealed) = view.secrets.get(ORDERS) else { return Orders::default() };
    let opened = keyring.open_secret(ORDERS, sealed).map_err(anyhow::Error::from);
    match opened.and_then(|text| Ok(serde_json::from_slice(&text)?)) {
        Ok(orders) => orders,
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "orders to workers are not readable; they do as usual"
            );
            Orders::default()
        }
    }
}

/// The command that keeps them.
///
/// # Errors
/// When the node is locked.
pub fn keep_orders(orders: &Orders, keyring: &Client) -> anyhow::Result<Command> {
    let text = serde_json::to_vec(orders)?;
    Ok(Command::PutSecret { name: ORDERS.to_owned(), sealed: keyring.seal_secret(ORDERS, &text)? })
}

fn order(kind: Kind, order: Order) -> WorkerOrder {
    WorkerOrder {
        kind: kind.name().to_owned(),
        paused: order.paused,
        impact: match order.impact {
            Impact::Low => WorkerImpact::Low,
            Impact::Medium => WorkerImpact::Medium,
            Impact::High => WorkerImpact::High,
        },
        hours: order.hours.map(|hours| WorkerHours { from: hours.from, until: hours.until }),
    }
}
