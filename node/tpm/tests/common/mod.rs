//! `swtpm` as an ordinary process, its TPM behind a socket.

use std::{
    fs,
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
    /// `None`, said aloud, where `swtpm` is not installed: `cargo xtask setup` installs it.
    pub fn start(state: &Path) -> Option<Self> {
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
            .spawn();
        let Ok(child) = child else {
            println!("NOT RUN: swtpm is not installed");
            return None;
        };
        let begun = Instant::now();
        while !socket.exists() {
            assert!(begun.elapsed() < PATIENCE, "swtpm does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, socket })
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
