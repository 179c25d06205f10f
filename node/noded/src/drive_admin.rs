//! Answers the admin API about drives and devices, and passes on what operators ask of them.

use holdfast_admin_api::{
    AdminError, DeviceStanding as Shown, DeviceStatus, DriveBackend, DriveState, DriveStatus, DriveUsage,
};
use holdfast_control::{DriveRecord, DriveState as StandingOfDrive, NodeState};
use holdfast_model::{ByteCount, NodeId};
use holdfast_peer::PeerError;
use holdfast_store::{DeviceReport, DeviceStanding, DriveReport, DriveReportState};

use crate::{
    admin::{Admin, unavailable},
    orders::{self, Order},
};

/// One drive: the cluster's word about its standing, its node's about how it does.
pub fn drive_status(record: &DriveRecord, report: Option<&DriveReport>, up: bool) -> DriveStatus {
    let state = match (report, up) {
        _ if record.state == StandingOfDrive::Removed => DriveState::Removed,
        (_, false) => DriveState::Unknown,
        (None, true) => DriveState::Missing,
        (Some(report), true) => match report.state {
            DriveReportState::Fenced => DriveState::Fenced { reason: report.reason.clone() },
            DriveReportState::Gone => DriveState::Missing,
            _ if record.state == StandingOfDrive::Draining => DriveState::Draining,
            DriveReportState::Draining => DriveState::Draining,
            DriveReportState::Live => DriveState::Healthy,
            DriveReportState::Slow => DriveState::Slow,
            DriveReportState::Failing => DriveState::Failing,
        },
    };
    let report = report.filter(|_| up);
    DriveStatus {
        id: record.drive,
        serial: report.map(|report| report.serial.clone()).unwrap_or_default(),
        path: record.path.clone(),
        reason: match &state {
            DriveState::Missing if report.is_none() => Some(
                "its node does not find it; what it held is rebuilt elsewhere, and it leaves when nothing is \
                 placed on it any more"
                    .to_owned(),
            ),
            _ => report.map(|report| report.reason.clone()).filter(|reason| !reason.is_empty()),
        },
        state,
        capacity_bytes: record.capacity,
        usage: report.map(|report| DriveUsage {
            used_bytes: ByteCount::new(report.used_bytes),
            live_bytes: ByteCount::new(report.live_bytes),
            free_bytes: ByteCount::new(report.free_bytes),
            shards: report.shards,
            errors: report.errors,
        }),
        locate_until_unix_ms: report.and_then(|report| report.locate_until),
    }
}

/// One device that is no drive of the cluster.
pub fn device_status(report: &DeviceReport) -> DeviceStatus {
    DeviceStatus {
        serial: report.serial.clone(),
        path: report.path.clone(),
        size_bytes: ByteCount::new(report.size_bytes),
        standing: match report.standing {
            DeviceStanding::Waiting => Shown::Waiting,
            DeviceStanding::Adopting => Shown::Adopting,
            DeviceStanding::Foreign => Shown::Foreign,
            DeviceStanding::Duplicate => Shown::Duplicate,
            DeviceStanding::Stale => Shown::Stale,
            DeviceStanding::Left => Shown::Left,
            DeviceStanding::Unknown => Shown::Unknown,
            DeviceStanding::Damaged => Shown::Damaged,
            DeviceStanding::Unreadable => Shown::Unreadable,
        },
        reason: Some(report.reason.clone()).filter(|reason| !reason.is_empty()),
        drive: report.drive,
        erasable: report.standing.is_erasable(),
        locate_until_unix_ms: report.locate_until,
    }
}

impl Admin {
    async fn node_named(&self, name: &str) -> Result<NodeId, AdminError> {
        let view = self.view().await?;
        let named =
            |node: &&holdfast_control::NodeRecord| node.name == name && node.state != NodeState::Removed;
        let node = view.nodes.values().find(named);
        node.map(|node| node.node).ok_or_else(|| AdminError::NotFound { what: format!("node {name:?}") })
    }

    /// An old image may hold the last copy of something, as long as the catalog places anything on its drive.
    async fn check_may_be_erased(&self, node: NodeId, device: &str) -> Result<(), AdminError> {
        let reports = self.health.snapshot().into_iter().filter(|(health, _)| health.report.node == node);
        let known = reports
            .flat_map(|(health, _)| health.report.devices)
            .find(|known| known.serial == device || known.path == device);
        let Some(drive) =
            known.filter(|known| known.standing == DeviceStanding::Stale).and_then(|known| known.drive)
        else {
            return Ok(());
        };
        let empty = self.objects.drive_is_empty(drive).await.map_err(|error| unavailable(&error.into()))?;
        if empty {
            return Ok(());
        }
        Err(AdminError::Conflict {
            what: format!(
                "shards are still placed on drive {drive}, of which {device} is an old image: it is not erased \
                 before they are rebuilt elsewhere"
            ),
        })
    }

    async fn order(&self, node: NodeId, order: &Order) -> Result<(), AdminError> {
        match orders::give(&self.peers, node, order).await {
            Ok(_) => Ok(()),
            Err(error) => match error.downcast_ref::<PeerError>() {
                Some(PeerError::Refused { message, .. }) => {
                    Err(AdminError::Conflict { what: message.clone() })
                }
                _ => Err(unavailable(&error)),
            },
        }
    }
}

#[async_trait::async_trait]
impl DriveBackend for Admin {
    async fn adopt(&self, node: &str, device: &str, erase: Option<&str>) -> Result<(), AdminError> {
        let node = self.node_named(node).await?;
        if erase.is_some() {
            self.check_may_be_erased(node, device).await?;
        }
        if node == self.own {
            let adopted = self.keeper.adopt(device, erase);
            return adopted.map_err(|error| AdminError::Conflict { what: format!("{error:#}") });
        }
        let order = Order::AdoptDevice { device: device.to_owned(), erase: erase.map(str::to_owned) };
        self.order(node, &order).await
    }

    async fn locate(&self, node: &str, device: &str, minutes: u32) -> Result<(), AdminError> {
        let node = self.node_named(node).await?;
        if node == self.own {
            let located = self.keeper.locate(device, minutes);
            return located.map_err(|error| AdminError::Conflict { what: format!("{error:#}") });
        }
        self.order(node, &Order::Locate { device: device.to_owned(), minutes }).await
    }
}
