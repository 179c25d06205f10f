//! A cluster of virtual machines on one host, without root: guests, their drives, the network between
//! them, and the faults that tests and people inject.
//!
//! ```text
//! xtask / tests ──> Cluster ──> Guest (QEMU process, QMP)      one per node
//!       │              ├──────> swtpm                          each guest's TPM
//!       │              └──────> Switch (one thread)            unix sockets, cut / loss / delay
//!       └─ control socket ──> supervise(): a background process that owns a Cluster
//! ```
//!
//! Two networks: `10.77.0.0/24` between the nodes, over our own switch, where every link can be cut; and a
//! private user network per guest through which ports of the host's loopback lead to the guest.
//!
//! Invariants:
//! - a guest lives no longer than the process that owns its `Cluster`, however that process ends;
//! - disks survive `kill` and `start`; what a guest flushed has been given to the host's disk.
//!
//! What SIGKILL cannot show: the host's page cache survives it, so writes that the guest never
//! flushed are kept as well. Machines whose drives have a volatile cache ([`NodeSpec::volatile`]) show it:
//! their drives are `holdfast_fault` disks, which lose unflushed writes when the machine is killed.

#![forbid(unsafe_code)]

mod address;
mod cluster;
mod command_line;
mod control;
mod disks;
mod error;
mod guest;
mod ports;
mod qmp;
mod spawn;
mod spec;
mod supervisor;
pub mod switch;
mod tpm;

pub use address::{access_mac, cluster_address, cluster_mac, network};
pub use cluster::{Cluster, ClusterStatus, GuestStatus};
pub use control::{Command, Reply, send, send_to_cluster};
pub use disks::CorruptedDrive;
pub use error::HarnessError;
pub use guest::{Guest, GuestState};
pub use ports::free_ports;
pub use qmp::{Qmp, QmpError};
pub use spec::{Accelerator, Boot, ClusterSpec, Forward, Image, MEMORY_MIB, NodeSpec};
pub use supervisor::{SUPERVISOR_FILE, SupervisorInfo, running_supervisor, supervise};
pub use switch::LinkFault;

/// Debian packages the harness needs.
pub fn required_packages() -> &'static [&'static str] {
    &["ipxe-qemu", "ovmf", "qemu-system-x86", "qemu-utils", "seabios", "swtpm", "util-linux"]
}
