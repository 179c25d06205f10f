//! PID 1 of the appliance: brings a machine from the kernel's hand-over to a running node role, and
//! back to power-off in order.
//!
//! ```text
//! mounts -> modules -> settings -> STATE -> configuration -> network -> node role (a child) ...
//! ```
//!
//! Invariants:
//! - PID 1 holds no network socket (netlink to the kernel excepted) and reads nothing from the network;
//! - no step fails in silence: what is missing is named on the console and tried again;
//! - once STATE is mounted, the machine is switched off only after it has been unmounted or synced.
//!
//! All of it is safe code: every system call has a safe wrapper in `nix`, `rtnetlink` or the standard
//! library, and signals arrive through pipes.
//!
//! Decisions (`supervise`, `block`, `config`, `address`) are pure or take the root of the tree they
//! read, so that they are tested on any machine; `pid1` carries them out and is tested in a guest.

#![forbid(unsafe_code)]

mod address;
mod block;
mod config;
mod console;
mod kernel_modules;
mod mounts;
mod network;
mod pid1;
mod power_button;
mod settings;
mod signals;
mod supervise;
mod uevent;
mod watchdog;

use std::{ffi::OsString, path::PathBuf};

pub use block::{DataDrive, SYS, data_drives, inspect_data_drives, inspect_devices, locate_light};
pub use config::ConfigError;

/// Where STATE is mounted.
pub const STATE_DIRECTORY: &str = "/state";
/// The configuration that the node role is given.
pub const CONFIG_PATH: &str = "/state/config.json";

/// The program PID 1 runs as its child, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Path of the program.
    pub program: PathBuf,
    /// Its arguments, without the program's own name.
    pub arguments: Vec<OsString>,
}

impl Role {
    /// The program itself once more, as `node --config /state/config.json`.
    pub fn node() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: ["node", "--config", CONFIG_PATH].map(OsString::from).into(),
        }
    }
}

/// Is this process the first of the machine (or of its PID namespace)?
pub fn is_pid1() -> bool {
    std::process::id() == 1
}

/// Runs the machine. Does not return: it ends by switching the machine off or starting it anew.
///
/// The role stops the machine by sending SIGTERM (power off) or SIGINT (restart) to process 1.
///
/// # Panics
/// When this process is not PID 1: it would mount over the directories of a running system.
pub fn run_pid1(role: Role) -> ! {
    assert!(
        is_pid1(),
        "run_pid1 is for the first process of a machine, this is process {}",
        std::process::id()
    );
    pid1::run(role)
}
