//! The power button: an input device that the kernel's ACPI driver creates.
//!
//! `struct input_event` on 64-bit Linux (input.h): seconds and microseconds, 8 bytes each, type and code,
//! 2 bytes each, value, 4 bytes.

use std::{
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use nix::fcntl::OFlag;

const EVENT_SIZE: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const PRESSED: i32 = 1;

/// All power buttons of the machine.
#[derive(Debug, Default)]
pub struct PowerButtons {
    devices: Vec<File>,
}

impl PowerButtons {
    /// Opens the buttons there are.
    pub fn open(sys: &Path, dev: &Path) -> Self {
        let mut devices = Vec::new();
        for entry in fs::read_dir(sys.join("class/input")).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name();
            let label = fs::read_to_string(entry.path().join("device/name")).unwrap_or_default();
            if !name.to_string_lossy().starts_with("event") || label.trim() != "Power Button" {
                continue;
            }
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
            devices.extend(options.open(dev.join("input").join(name)));
        }
        Self { devices }
    }

    /// Descriptors to wait on.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.devices.iter().map(|device| device.as_fd())
    }

    /// Was one pressed since the last call?
    pub fn pressed(&mut self) -> bool {
        let mut pressed = false;
        for device in &mut self.devices {
            let mut buffer = [0; EVENT_SIZE * 16];
            while let Ok(length @ 1..) = device.read(&mut buffer) {
                pressed |= buffer[..length].chunks_exact(EVENT_SIZE).any(is_press);
            }
        }
        pressed
    }
}

fn is_press(event: &[u8]) -> bool {
    let half = |at: usize| u16::from_le_bytes([event[at], event[at + 1]]);
    let value = i32::from_le_bytes([event[20], event[21], event[22], event[23]]);
    half(16) == EV_KEY && half(18) == KEY_POWER && value == PRESSED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut event = vec![0xaa; 16];
        event.extend(kind.to_le_bytes());
        event.extend(code.to_le_bytes());
        event.extend(value.to_le_bytes());
        event
    }

    #[test]
    fn only_the_press_of_the_power_key_counts() {
        assert!(is_press(&event(EV_KEY, KEY_POWER, PRESSED)));
        assert!(!is_press(&event(EV_KEY, KEY_POWER, 0)), "the release");
        assert!(!is_press(&event(EV_KEY, 30, PRESSED)), "another key");
        assert!(!is_press(&event(0, KEY_POWER, PRESSED)), "a report marker");
    }
}
