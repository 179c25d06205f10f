//! What a device is to the cluster. Pure: takes what was found on it and what the cluster knows.

use holdfast_control::DriveState;
use holdfast_drive::{DriveIdentity, Probe};
use holdfast_model::{ClusterId, DriveId, NodeId};
use holdfast_store::DeviceStanding;

/// What the cluster knows of the drive that a label names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// Its standing, when it ever was a member.
    pub state: Option<DriveState>,
    /// How far its label is known to have come.
    pub label_counter: u64,
    /// The node that has it open now.
    pub open_on: Option<NodeId>,
    /// The other node that it was last open on, which is a member and does not answer.
    pub silent: Option<NodeId>,
}

/// What is to be done with a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is a drive of the cluster, and is to be opened.
    Open(DriveIdentity),
    /// It is blank.
    Blank,
    /// It is not used, and why not.
    Refuse(Refused),
}

/// Why a device is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What it is.
    pub standing: DeviceStanding,
    /// Why, and what to do.
    pub reason: String,
    /// The drive that its label names.
    pub drive: Option<DriveId>,
}

/// What can be done about anything that is not blank.
const ERASE: &str = "To use the device here, adopt it and name its serial number as what is to be erased";

/// Judges what `probe` found, on a node of `cluster`.
pub fn judge(probe: &Probe, cluster: ClusterId, know: impl Fn(DriveId) -> Known) -> Verdict {
    let refuse = |standing, drive, reason| Verdict::Refuse(Refused { standing, reason, drive });
    let identity = match probe {
        Probe::Blank => return Verdict::Blank,
        Probe::Foreign { what } => {
            return refuse(DeviceStanding::Unknown, None, format!("it holds {what}. {ERASE}"));
        }
        Probe::Damaged { what } => {
            let reason = format!(
                "its labels are damaged ({what}); what it held is rebuilt from other drives. {ERASE}"
            );
            return refuse(DeviceStanding::Damaged, None, reason);
        }
        Probe::Ours(identity) => identity,
    };
    let drive = identity.drive;
    if identity.cluster != cluster {
        let reason = format!(
            "it is drive {drive} of another cluster, {}; this one is {cluster}. {ERASE}",
            identity.cluster
        );
        return refuse(DeviceStanding::Foreign, Some(drive), reason);
    }
    let known = know(drive);
    if let Some(node) = known.open_on {
        let reason = format!(
            "it is a copy of drive {drive}, which {node} has open: pull the one that is not wanted. {ERASE}"
        );
        return refuse(DeviceStanding::Duplicate, Some(drive), reason);
    }
    if known.state == Some(DriveState::Removed) {
        let reason = format!("it is drive {drive}, which has left the cluster for good. {ERASE}");
        return refuse(DeviceStanding::Left, Some(drive), reason);
    }
    if identity.label_counter < known.label_counter {
        return refuse(DeviceStanding::Stale, Some(drive), stale(identity, known.label_counter));
    }
    if let Some(node) = known.silent {
        let reason = format!(
            "it is drive {drive} of {node}, which does not answer and may have the drive itself, so that this were \
             a copy; it is opened when {node} answers without it, or is removed from the cluster"
        );
        return refuse(DeviceStanding::Unreadable, Some(drive), reason);
    }
    Verdict::Open(*identity)
}

/// Why an old image of a drive is not used.
pub fn stale(identity: &DriveIdentity, known: u64) -> String {
    format!(
        "it is an old image of drive {}: its label has been written {} times, that of the drive {known} times. Put \
         the drive itself back; the image can be erased when nothing is placed on the drive any more. {ERASE}",
        identity.drive, identity.label_counter
    )
}

#[cfg(test)]
mod tests {
    use holdfast_model::{ByteCount, UnixMillis};

    use super::*;

    const HERE: ClusterId = ClusterId::from_bytes([1; 16]);

    fn label(cluster: u8, label_counter: u64) -> Probe {
        Probe::Ours(DriveIdentity {
            cluster: ClusterId::from_bytes([cluster; 16]),
            drive: DriveId::from_bytes([7; 16]),
            node: NodeId::new(1),
            capacity: ByteCount::mib(64),
            segment_size: ByteCount::mib(1),
            formatted: UnixMillis::new(0),
            mount_epoch: 1,
            label_counter,
            fenced: false,
        })
    }

    fn standing(probe: &Probe, known: Known) -> Option<DeviceStanding> {
        match judge(probe, HERE, |_| known) {
            Verdict::Refuse(refused) => {
                let what = if refused.standing.is_erasable() { "erased" } else { "answers" };
                assert!(refused.reason.contains(what), "what to do is not said: {}", refused.reason);
                Some(refused.standing)
            }
            Verdict::Open(_) => None,
            Verdict::Blank => panic!("not blank"),
        }
    }

    #[test]
    fn only_a_drive_of_this_cluster_that_is_current_a_member_and_alone_is_opened() {
        let active = Known { state: Some(DriveState::Active), label_counter: 5, open_on: None, silent: None };
        assert_eq!(judge(&Probe::Blank, HERE, |_| active), Verdict::Blank);
        for (probe, known, expected) in [
            (label(1, 5), active, None),
            (label(1, 9), active, None),
            // Formatted, and the power went before it was registered: nothing can be placed on it.
            (label(1, 1), Known::default(), None),
            (label(1, 5), Known { state: Some(DriveState::Draining), ..active }, None),
            (label(1, 9), Known { silent: Some(NodeId::new(2)), ..active }, Some(DeviceStanding::Unreadable)),
            (label(1, 4), active, Some(DeviceStanding::Stale)),
            (label(2, 9), active, Some(DeviceStanding::Foreign)),
            (label(1, 9), Known { open_on: Some(NodeId::new(2)), ..active }, Some(DeviceStanding::Duplicate)),
            (label(1, 9), Known { state: Some(DriveState::Removed), ..active }, Some(DeviceStanding::Left)),
            (Probe::Foreign { what: "an ext4 file system".into() }, active, Some(DeviceStanding::Unknown)),
            (Probe::Damaged { what: "checksum".into() }, active, Some(DeviceStanding::Damaged)),
        ] {
            assert_eq!(standing(&probe, known), expected, "{probe:?} {known:?}");
        }
    }
}
