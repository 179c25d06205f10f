//! `swtpm` as an ordinary process, its TPM behind a socket.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use holdfast_tpm::Tpm;

const PATIENCE: Duration = Duration::from_secs(20);

/// An emulator; ended when dropped. Its state stays.
pub struct Emulator {
    child: Child,
    pub socket: PathBuf,
}

impl Emulator {
    /// A test that needs a TPM fails where `swtpm` is not installed: it has shown nothing.
    pub fn start(state: &Path) -> Self {
        let socket = state.join("sock");
        fs::remove_file(&socket).ok();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("swtpm does not start (`cargo xtask setup` installs it): {error}")
            });
        let begun = Instant::now();
        // The socket is there a moment before anyone listens at it.
        while UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < PATIENCE, "swtpm does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, socket }
    }

    pub fn tpm(&self) -> Tpm {
        Tpm::at(&self.socket)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
