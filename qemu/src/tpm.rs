//! A machine's TPM 2.0: `swtpm`, the emulator, one process a machine, as long as the machine runs.
//!
//! Its state lies in the machine's directory, as that of a real chip lies in the machine, and survives its deaths.

use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{HarnessError, io_error},
    spawn::{self, Program},
};

const SWTPM: &str = "swtpm";
/// The emulator listens within this time, on a busy host too.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The emulator of a running machine. Dropping it ends it.
#[derive(Debug)]
pub struct Emulator(Child);

impl Emulator {
    /// Starts it: state in `state`, QEMU's control connection at `socket`. It ends by itself when QEMU does.
    ///
    /// # Errors
    /// `MissingProgram`, `Io`, `EndedAtOnce`.
    pub fn start(node: &str, state: &Path, socket: &Path, output: File) -> Result<Self, HarnessError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(io_error("create", state))?;
        if socket.exists() {
            fs::remove_file(socket).map_err(io_error("remove", socket))?;
        }
        let arguments = [
            "socket".to_owned(),
            "--tpm2".to_owned(),
            "--tpmstate".to_owned(),
            format!("dir={}", state.display()),
            "--ctrl".to_owned(),
            format!("type=unixio,path={}", socket.display()),
            "--terminate".to_owned(),
        ];
        let program = Program { name: SWTPM, arguments: arguments.map(Into::into).to_vec(), output };
        let child = spawn::spawn(program).map_err(|source| HarnessError::MissingProgram {
            program: "setpriv",
            package: "util-linux",
            source,
        })?;
        let mut emulator = Self(child);
        let deadline = Instant::now() + LISTENS_WITHIN;
        while !socket.exists() {
            let ended = emulator.0.try_wait().map_err(io_error("wait for the emulator at", socket))?;
            if let Some(status) = ended.map(|status| status.to_string()) {
                let said = "this was swtpm, its TPM; install the Debian package swtpm".to_owned();
                return Err(HarnessError::EndedAtOnce { node: node.to_owned(), status, said });
            }
            if Instant::now() >= deadline {
                let source = std::io::ErrorKind::TimedOut.into();
                return Err(io_error("reach the TPM at", socket)(source));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(emulator)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Where a machine's TPM keeps its state.
#[must_use]
pub fn state_directory(machine: &Path) -> PathBuf {
    machine.join("tpm")
}
