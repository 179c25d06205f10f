//! Answers the admin API about levels and workers, and has nodes emptied.

use std::collections::BTreeMap;

use holdfast_admin_api::{
    AdminError, Audit, AuditLoss, AuditStatus, BucketLevels, LevelScope, ProtectionBackend, TenantLevels,
    WorkerChange, WorkerImpact,
};
use holdfast_control::{Command, ControlView, DriveState, NodeState, TenantRecord};
use holdfast_model::{ByteCount, Level, NodeId, UnixMillis, spare::Spare};
use holdfast_object::{
    AuditReport, LostObject,
    workers::{Hours, Impact, Kind, Orders},
};
use holdfast_store::{BucketLevelReport, LevelReport};

use crate::{
    admin::{Admin, internal, level_status, refused, unavailable},
    control::now,
    links::LEVELS_REPORTED_MAX,
    work,
};

pub(crate) fn tenant<'v>(view: &'v ControlView, name: &str) -> Result<&'v TenantRecord, AdminError> {
    let found = view.tenants.values().find(|tenant| tenant.name == name);
    found.ok_or_else(|| AdminError::NotFound { what: format!("tenant {name:?}") })
}

/// Nodes of drives that are members and stay, with how many they have.
fn staying(view: &ControlView) -> Vec<usize> {
    let mut nodes: BTreeMap<NodeId, usize> = BTreeMap::new();
    for drive in view.drives.values().filter(|drive| drive.state == DriveState::Active) {
        let member = view.nodes.get(&drive.node).is_some_and(|node| node.state == NodeState::Active);
        if member {
            *nodes.entry(drive.node).or_default() += 1;
        }
    }
    nodes.into_values().collect()
}

/// A level that could not be kept would refuse every write.
fn check_can_be_kept(view: &ControlView, level: Level) -> Result<(), AdminError> {
    let nodes = staying(view);
    if level.geometry(&nodes).is_some() {
        return Ok(());
    }
    let drives: usize = nodes.iter().sum();
    Err(AdminError::Conflict {
        what: format!(
            "level {level} cannot be kept on {drives} drives of {} nodes, so every write would be refused: \
             add nodes or drives first",
            nodes.len()
        ),
    })
}

fn audit(report: AuditReport) -> Audit {
    let lost = |lost: LostObject| AuditLoss { tenant: lost.tenant, bucket: lost.bucket, key: lost.key };
    Audit {
        begun_unix_ms: report.begun,
        ended_unix_ms: report.ended,
        drives_listed: report.drives_listed,
        drives_unreadable: report.drives_unreadable,
        shards: report.shards,
        stripes: report.stripes,
        debt_stripes: report.debt_stripes,
        unreadable_stripes: report.unreadable_stripes,
        lost_count: report.lost_count,
        lost: report.lost.into_iter().map(lost).collect(),
    }
}

impl Admin {
    pub(crate) async fn decide(&self, command: &Command) -> Result<(), AdminError> {
        match self.control.propose(command).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) => Err(refused(&refusal)),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn change_orders(&self, change: impl FnOnce(&mut Orders) + Send) -> Result<(), AdminError> {
        let view = self.view().await?;
        let mut orders = work::orders(&view, &self.keyring);
        change(&mut orders);
        let command = work::keep_orders(&orders, &self.keyring)
            .map_err(|error| internal("encoding orders to workers", error))?;
        self.decide(&command).await
    }

    /// What the leader of a tenant's group found of its levels.
    fn reported(&self, tenant: &TenantRecord) -> Vec<LevelReport> {
        let ours = |report: &LevelReport| tenant.partitions.iter().any(|route| route.0 == report.partition);
        self.health
            .snapshot()
            .into_iter()
            .filter(|(_, up)| *up)
            .flat_map(|(health, _)| health.report.levels)
            .filter(ours)
            .collect()
    }
}

#[async_trait::async_trait]
impl ProtectionBackend for Admin {
    async fn levels(&self, name: &str) -> Result<TenantLevels, AdminError> {
        let view = self.view().await?;
        let record = tenant(&view, name)?;
        let default = view.cluster.as_ref().map_or(Level::PLUS_2D_1N, |cluster| cluster.level);
        let requested = record.level.unwrap_or(default);
        let members = view.nodes.values().filter(|node| node.state == NodeState::Active).count();
        let status = level_status(requested, &self.health, members);
        let reports = self.reported(record);
        let pending: BTreeMap<&str, &BucketLevelReport> = reports
            .iter()
            .flat_map(|report| &report.buckets)
            .map(|bucket| (bucket.bucket.as_str(), bucket))
            .collect();
        let own_levels =
            self.objects.bucket_levels(record.tenant).await.map_err(|error| unavailable(&error.into()))?;
        // A leader that has not looked since a level was asked for says nothing about it yet.
        let many = reports.iter().any(|report| report.buckets.len() >= LEVELS_REPORTED_MAX);
        let mut complete = record.partitions.iter().all(|route| {
            reports.iter().any(|report| report.partition == route.0 && report.requested == requested)
        });
        let buckets = own_levels
            .into_iter()
            .map(|(bucket, own)| {
                let requested = own.unwrap_or(requested);
                let found = pending.get(bucket.as_str());
                complete &= found.map_or(own.is_none() || many, |found| found.requested == requested);
                BucketLevels {
                    own,
                    requested,
                    actual: found.map_or(Some(requested), |found| found.actual),
                    pending_stripes: found.map_or(0, |found| found.pending),
                    bucket,
                }
            })
            .collect();
        Ok(TenantLevels {
            own: record.level,
            requested,
            suggested: status.suggested,
            stripe: status.stripe,
            stripes: reports.iter().map(|report| report.stripes).sum(),
            pending_stripes: reports.iter().map(|report| report.pending).sum(),
            complete,
            buckets,
        })
    }

    async fn set_level(&self, scope: LevelScope<'_>, level: Option<Level>) -> Result<(), AdminError> {
        let view = self.view().await?;
        if let Some(level) = level {
            check_can_be_kept(&view, level)?;
        }
        match scope {
            LevelScope::Cluster => self.decide(&Command::SetLevel { tenant: None, level }).await,
            LevelScope::Tenant(name) => {
                let tenant = Some(tenant(&view, name)?.tenant);
                self.decide(&Command::SetLevel { tenant, level }).await
            }
            LevelScope::Bucket(name, bucket) => {
                let tenant = tenant(&view, name)?.tenant;
                self.objects.set_bucket_level(tenant, bucket, level).await.map_err(|error| match error {
                    holdfast_object::api::ObjectError::NoSuchBucket(_) => {
                        AdminError::NotFound { what: format!("bucket {bucket:?} of tenant {name:?}") }
                    }
                    error => unavailable(&error.into()),
                })
            }
        }
    }

    async fn widen(&self) -> Result<(), AdminError> {
        let at: UnixMillis = now();
        self.change_orders(|orders| orders.widen_before = Some(at)).await
    }

    async fn set_spare(&self, drives: Option<u8>) -> Result<(), AdminError> {
        let view = self.view().await?;
        let members = view.drives.values().filter(|drive| drive.state == DriveState::Active);
        let sizes: Vec<(u64, u64)> = members.map(|drive| (drive.capacity.get(), 0)).collect();
        let (all, spare) = (sizes.iter().map(|(size, _)| size).sum::<u64>(), Spare::new(&sizes, drives));
        if spare.reserved_bytes > all / 2 {
            return Err(AdminError::Conflict {
                what: format!(
                    "{} drives are {} of {}: more than half of the cluster is not set aside; add drives, or set \
                     fewer aside",
                    spare.drives,
                    ByteCount::new(spare.reserved_bytes),
                    ByteCount::new(all)
                ),
            });
        }
        self.change_orders(|orders| orders.spare_drives = drives).await
    }

    async fn set_worker(&self, kind: &str, change: WorkerChange) -> Result<(), AdminError> {
        let known =
            Kind::named(kind).ok_or_else(|| AdminError::NotFound { what: format!("worker {kind:?}") })?;
        if known == Kind::Reclaim {
            return Err(AdminError::Conflict {
                what: "drives reclaim at their own pace, behind everything else; there is nothing to set"
                    .to_owned(),
            });
        }
        self.change_orders(|orders| {
            let mut order = orders.of(known);
            order.paused = change.paused.unwrap_or(order.paused);
            order.impact = change.impact.map_or(order.impact, |impact| match impact {
                WorkerImpact::Low => Impact::Low,
                WorkerImpact::Medium => Impact::Medium,
                WorkerImpact::High => Impact::High,
            });
            let hours = change.hours.map(|hours| Hours { from: hours.from, until: hours.until });
            order.hours = hours.or(order.hours).filter(|hours| hours.from != hours.until);
            orders.kinds.insert(known, order);
        })
        .await
    }

    async fn audit(&self) -> Result<AuditStatus, AdminError> {
        let (running, last) = self.objects.audit_status();
        Ok(AuditStatus { running, last: last.map(audit) })
    }

    async fn start_audit(&self) -> Result<(), AdminError> {
        self.objects.start_audit();
        Ok(())
    }

    async fn drain_node(&self, name: &str, draining: bool) -> Result<(), AdminError> {
        let view = self.view().await?;
        let node = view
            .nodes
            .values()
            .find(|node| node.name == name && node.state != NodeState::Removed)
            .ok_or_else(|| AdminError::NotFound { what: format!("node {name:?}") })?;
        let (from, to) = if draining {
            (DriveState::Active, DriveState::Draining)
        } else {
            (DriveState::Draining, DriveState::Active)
        };
        let drives = view.drives.values().filter(|drive| drive.node == node.node && drive.state == from);
        for drive in drives {
            self.decide(&Command::SetDriveState { drive: drive.drive, state: to }).await?;
        }
        tracing::warn!(target: "audit", node = %node.node, name, draining, "drives of a node are to be emptied, or kept");
        Ok(())
    }
}
