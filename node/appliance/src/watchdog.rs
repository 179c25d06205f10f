//! The hardware watchdog: when PID 1 stops running, the machine is reset.
//!
//! Opening the device arms it with its own timeout (30 to 60 s for the drivers of the image); every write
//! postpones the reset. The letter `V` before closing disarms it.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    time::Duration,
};

use crate::console::say;

/// Well below the shortest timeout.
pub const KICK_INTERVAL: Duration = Duration::from_secs(5);

/// An armed watchdog, or none on a machine without.
#[derive(Debug)]
pub struct Watchdog {
    device: Option<File>,
}

impl Watchdog {
    /// Arms the watchdog when the machine has one.
    pub fn arm(dev: &Path) -> Self {
        let device = OpenOptions::new().write(true).open(dev.join("watchdog0")).ok();
        if device.is_some() {
            say("the hardware watchdog is armed");
        }
        Self { device }
    }

    /// Postpones the reset.
    pub fn kick(&mut self) {
        if let Some(device) = &mut self.device
            && let Err(error) = device.write_all(b"k")
        {
            say(&format!("the hardware watchdog does not answer: {error}"));
        }
    }

    /// Disarms it, for an orderly stop.
    pub fn disarm(&mut self) {
        if let Some(mut device) = self.device.take() {
            // It may refuse; then it resets a machine that is going down anyway.
            device.write_all(b"V").ok();
        }
    }
}
