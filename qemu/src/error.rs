//! What can go wrong with virtual machines.

use std::{io, path::PathBuf};

use crate::qmp::QmpError;

/// A failed operation of the harness.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A file or socket.
    #[error("cannot {action} {path}")]
    Io {
        /// `read`, `create`, ...
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// QEMU or a helper is not installed.
    #[error("cannot run {program}; install the Debian package {package}")]
    MissingProgram {
        /// Its name.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The firmware for machines that boot their disk is not installed.
    #[error("no firmware at {0}; install the Debian package ovmf")]
    NoFirmware(PathBuf),
    /// QEMU ended before it could be talked to.
    #[error("QEMU of {node} ended at once ({status}): {said}")]
    EndedAtOnce {
        /// Node.
        node: String,
        /// Exit status.
        status: String,
        /// The end of what it wrote.
        said: String,
    },
    /// QMP.
    #[error("QEMU of {node}")]
    Qmp {
        /// Node.
        node: String,
        /// Cause.
        source: QmpError,
    },
    /// No such node.
    #[error("no node {wanted:?}; there are {existing}")]
    NoNode {
        /// Asked for.
        wanted: String,
        /// Names.
        existing: String,
    },
    /// No such drive.
    #[error("node {node} has no drive {wanted:?}; its drives are {existing}")]
    NoDrive {
        /// Node.
        node: String,
        /// Asked for.
        wanted: String,
        /// Names.
        existing: String,
    },
    /// The guest is in another state.
    #[error("node {node} is {state}; {needed}")]
    WrongState {
        /// Node.
        node: String,
        /// What it is.
        state: &'static str,
        /// What the operation needs.
        needed: &'static str,
    },
    /// A socket path that the kernel would not take.
    #[error("the socket path {0} is longer than 100 bytes; set TMPDIR to a shorter directory")]
    LongSocketPath(PathBuf),
    /// Too few ports.
    #[error("no {0} free ports on 127.0.0.1 between 20000 and 32000")]
    NoPorts(usize),
    /// Numbers of a spec that do not fit.
    #[error("the specification of {node}: {problem}")]
    BadSpec {
        /// Node.
        node: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The supervisor is not there.
    #[error("no cluster is supervised from {0}")]
    NoSupervisor(PathBuf),
    /// There is one already.
    #[error("the cluster in {dir} runs already, supervised by process {pid}; stop it first")]
    AlreadySupervised {
        /// Its directory.
        dir: PathBuf,
        /// The supervisor.
        pid: u32,
    },
    /// The supervisor refused.
    #[error("{0}")]
    Refused(String),
    /// A message that is not of our protocol.
    #[error("unreadable message on the control socket")]
    BadMessage(#[source] serde_json::Error),
}

/// Attaches action and path to an I/O error.
pub(crate) fn io_error(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> HarnessError {
    let path = path.into();
    move |source| HarnessError::Io { action, path, source }
}
