//! Processes of other programs: started apart from the terminal, known by pid *and* start time.
//!
//! Invariants:
//! - a signal goes only to a process whose start time is the one recorded, so a recycled pid is safe;
//! - a zombie counts as gone.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

const POLL: Duration = Duration::from_millis(10);

/// A process, unmistakably: a pid is reused, a pid with a start time is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks after boot.
    pub start_ticks: u64,
}

impl Identity {
    /// Identity of a process that runs now.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: i32) -> Result<Self> {
        match stat(pid) {
            Some((_, start_ticks)) => Ok(Self { pid, start_ticks }),
            None => bail!("process {pid} is not running"),
        }
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(self) -> bool {
        matches!(stat(self.pid), Some((state, ticks)) if ticks == self.start_ticks && !matches!(state, 'Z' | 'X'))
    }

    /// Sends a signal if this very process still runs; `false` when it is gone.
    ///
    /// # Errors
    /// When the kernel refuses the signal.
    pub fn signal(self, signal: Signal) -> Result<bool> {
        if !self.is_running() {
            return Ok(false);
        }
        match signal::kill(Pid::from_raw(self.pid), signal) {
            Ok(()) => Ok(true),
            Err(nix::errno::Errno::ESRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("{signal} to process {}", self.pid)),
        }
    }

    /// Waits until it is gone; `false` when it still runs after `limit`.
    #[must_use]
    pub fn wait_gone(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_running() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// Asks it to stop, waits `grace`, then kills it. Returns whether it stopped by itself.
    ///
    /// # Errors
    /// When it cannot be signalled, or survives SIGKILL for ten seconds.
    pub fn stop(self, grace: Duration) -> Result<bool> {
        if !self.signal(Signal::SIGTERM)? || self.wait_gone(grace) {
            return Ok(true);
        }
        self.kill()?;
        Ok(false)
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// As [`Identity::stop`].
    pub fn kill(self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        if !self.wait_gone(Duration::from_secs(10)) {
            bail!("process {} is still there ten seconds after SIGKILL", self.pid);
        }
        Ok(())
    }
}

/// State letter and start time of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    // The second field is the program's name in parentheses and may hold anything: read past the last ')'.
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let ticks = fields.nth(18)?.parse().ok()?;
    Some((state, ticks))
}

/// Starts a program in its own process group with its output appended to `log`, so that Ctrl-C in the
/// terminal does not reach it.
///
/// # Errors
/// When the log cannot be opened or the program cannot be started.
pub fn spawn(command: &mut Command, log: &Path) -> Result<(Child, Identity)> {
    let output: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening log {}", log.display()))?;
    let errors = output.try_clone()?;
    let child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let pid = i32::try_from(child.id())?;
    // An unreaped child keeps its entry in /proc, so this cannot miss even a child that died at once.
    let identity = Identity::of(pid)?;
    Ok((child, identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> (Child, Identity) {
        let dir = tempfile::tempdir().unwrap();
        spawn(Command::new("sleep").arg("60"), &dir.path().join("log")).unwrap()
    }

    #[test]
    fn a_recycled_pid_is_not_signalled() {
        let (mut child, identity) = sleeper();
        let impostor = Identity { start_ticks: identity.start_ticks + 1, ..identity };
        assert!(!impostor.signal(Signal::SIGKILL).unwrap());
        assert!(identity.is_running());
        identity.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_zombie_counts_as_gone() {
        let (mut child, identity) = sleeper();
        identity.kill().unwrap();
        assert!(!identity.is_running(), "killed, not yet reaped");
        child.wait().unwrap();
    }
}
