//! The machines of a cluster and the switch between them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    disks::CorruptedDrive,
    error::{HarnessError, io_error},
    guest::{Guest, GuestState, check_socket_path},
    spec::ClusterSpec,
    switch::{Counters, LinkFault, Switch},
};

/// Longest temporary directory that leaves room for the names of sockets.
const TEMPORARY_DIRECTORY_MAX: usize = 60;

/// A virtual cluster. Dropping it kills its machines and ends the switch.
#[derive(Debug)]
pub struct Cluster {
    // Fields drop in this order: machines before the switch, sockets' directory last.
    guests: Vec<Guest>,
    switch: Switch,
    partitioned: Vec<bool>,
    dir: PathBuf,
    _runtime: tempfile::TempDir,
}

/// What a cluster looks like at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its machines.
    pub guests: Vec<GuestStatus>,
    /// Frames on the network between them.
    pub frames: Counters,
}

/// What a machine looks like at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStatus {
    /// Name.
    pub name: String,
    /// On or off.
    pub state: GuestState,
    /// Process number of its QEMU.
    pub pid: Option<u32>,
    /// Cut off from the others.
    pub partitioned: bool,
    /// Its data drives.
    pub drives: Vec<String>,
    /// Log of its console.
    pub console_log: PathBuf,
}

impl Cluster {
    /// Makes the switch and starts the machines that are to start.
    ///
    /// # Errors
    /// As for `Guest::start`; what was started is killed.
    pub fn start(spec: &ClusterSpec) -> Result<Self, HarnessError> {
        spec.check()?;
        fs::create_dir_all(&spec.dir).map_err(io_error("create", &spec.dir))?;
        let runtime = runtime_directory()?;
        let sockets: Vec<PathBuf> =
            spec.nodes.iter().map(|node| runtime.path().join(format!("{}.net", node.name))).collect();
        for path in &sockets {
            check_socket_path(path)?;
        }
        let switch =
            Switch::start(&sockets, spec.switch_seed).map_err(io_error("listen in", runtime.path()))?;
        let mut guests = Vec::new();
        for (node, socket) in spec.nodes.iter().zip(&sockets) {
            let mut guest = Guest::new(spec, node, runtime.path(), socket)?;
            if node.autostart {
                guest.start()?;
            }
            guests.push(guest);
        }
        let partitioned = vec![false; guests.len()];
        Ok(Self { guests, switch, partitioned, dir: spec.dir.clone(), _runtime: runtime })
    }

    /// Directory of disks and logs.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// A machine by name.
    ///
    /// # Errors
    /// `NoNode`.
    pub fn guest(&mut self, name: &str) -> Result<&mut Guest, HarnessError> {
        let index = self.index(name)?;
        Ok(&mut self.guests[index])
    }

    /// Cuts a machine off from all others; the host still reaches it.
    ///
    /// # Errors
    /// `NoNode`.
    pub fn partition(&mut self, name: &str) -> Result<(), HarnessError> {
        self.set_node_fault(name, LinkFault { cut: true, ..LinkFault::default() })
    }

    /// Takes all faults from the links of a machine.
    ///
    /// # Errors
    /// `NoNode`.
    pub fn heal(&mut self, name: &str) -> Result<(), HarnessError> {
        self.set_node_fault(name, LinkFault::default())
    }

    /// Sets what is wrong with all links of a machine, in both directions.
    ///
    /// # Errors
    /// `NoNode`.
    pub fn set_node_fault(&mut self, name: &str, fault: LinkFault) -> Result<(), HarnessError> {
        let index = self.index(name)?;
        self.partitioned[index] = fault.cut;
        self.switch.core().set_port_fault(index, fault);
        // Two machines that are cut off do not meet because one of them is healed.
        for other in (0..self.guests.len()).filter(|&other| other != index && self.partitioned[other]) {
            let cut = LinkFault { cut: true, ..LinkFault::default() };
            self.switch.core().set_port_fault(other, cut);
        }
        Ok(())
    }

    /// Sets what is wrong with one link, in one direction.
    ///
    /// # Errors
    /// `NoNode`.
    pub fn set_link_fault(&mut self, from: &str, to: &str, fault: LinkFault) -> Result<(), HarnessError> {
        let (from, to) = (self.index(from)?, self.index(to)?);
        self.switch.core().set_fault(from, to, fault);
        Ok(())
    }

    /// Rots a data drive.
    ///
    /// # Errors
    /// `NoNode`, `NoDrive`, `Io`.
    pub fn corrupt(
        &mut self,
        name: &str,
        drive: &str,
        blocks_max: u64,
    ) -> Result<CorruptedDrive, HarnessError> {
        self.guest(name)?.corrupt(drive, blocks_max)
    }

    /// What it looks like now.
    pub fn status(&mut self) -> ClusterStatus {
        let frames = self.switch.core().counters();
        let status = |(guest, &partitioned): (&mut Guest, &bool)| GuestStatus {
            name: guest.node().name.clone(),
            state: guest.state(),
            pid: guest.pid(),
            partitioned,
            drives: guest.node().drive_names(),
            console_log: guest.console_log(),
        };
        let guests = self.guests.iter_mut().zip(&self.partitioned).map(status).collect();
        ClusterStatus { guests, frames }
    }

    /// Asks all machines to switch themselves off, waits, and kills those that have not within `time`.
    ///
    /// Returns the names of those that had to be killed.
    pub fn stop(&mut self, time: Duration) -> Vec<String> {
        // All at once: each waits for its own disks.
        for guest in &mut self.guests {
            if guest.state() == GuestState::Paused {
                guest.resume().ok();
            }
            if guest.state() == GuestState::Running {
                guest.press_power_button().ok();
            }
        }
        let deadline = Instant::now() + time;
        let mut killed = Vec::new();
        for guest in &mut self.guests {
            let left = deadline.saturating_duration_since(Instant::now());
            if !matches!(guest.stop(left), Ok(true)) {
                guest.kill();
                killed.push(guest.node().name.clone());
            }
        }
        killed
    }

    fn index(&self, name: &str) -> Result<usize, HarnessError> {
        let position = self.guests.iter().position(|guest| guest.node().name == name);
        position.ok_or_else(|| {
            let names: Vec<&str> = self.guests.iter().map(|guest| guest.node().name.as_str()).collect();
            HarnessError::NoNode { wanted: name.to_owned(), existing: names.join(", ") }
        })
    }
}

/// A private directory with a short path.
pub fn runtime_directory() -> Result<tempfile::TempDir, HarnessError> {
    let usual = std::env::temp_dir();
    let base = if usual.as_os_str().len() <= TEMPORARY_DIRECTORY_MAX { usual } else { PathBuf::from("/tmp") };
    tempfile::Builder::new()
        .prefix("holdfast-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&base)
        .map_err(io_error("create a directory in", base))
}
