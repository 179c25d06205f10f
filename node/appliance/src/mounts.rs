//! Mounts: the kernel's file systems at the start, STATE, and the way back.

use std::{io, path::Path};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use crate::{STATE_DIRECTORY, console::say};

const NO_PROGRAMS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Source and kind, place, flags, options.
const KERNEL_MOUNTS: &[(&str, &str, MsFlags, &str)] = &[
    ("proc", "/proc", NO_PROGRAMS, ""),
    ("sysfs", "/sys", NO_PROGRAMS, ""),
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "mode=0755"),
    ("tmpfs", "/run", NO_PROGRAMS, "mode=0755,size=16m"),
    ("tmpfs", "/tmp", NO_PROGRAMS, "mode=1777,size=64m"),
];

/// Mounts what the kernel offers, then takes write permission from the root file system.
pub fn kernel() {
    for (kind, place, flags, options) in KERNEL_MOUNTS {
        match mount(Some(*kind), *place, Some(*kind), *flags, Some(*options)) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => say(&format!("cannot mount {kind} on {place}: {errno}")),
        }
    }
}

/// Makes the root file system read-only: nothing is ever written there.
pub fn seal_root() {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    if let Err(errno) = mount(None::<&str>, "/", None::<&str>, flags, None::<&str>) {
        say(&format!("cannot make the root file system read-only: {errno}"));
    }
}

/// Mounts the firmware's variables where there are any.
pub fn firmware_variables() {
    let place = "/sys/firmware/efi/efivars";
    if !Path::new(place).is_dir() {
        return;
    }
    match mount(Some("efivarfs"), place, Some("efivarfs"), NO_PROGRAMS | MsFlags::MS_RDONLY, None::<&str>) {
        Ok(()) | Err(Errno::EBUSY) => {}
        Err(errno) => say(&format!("cannot mount the firmware's variables: {errno}")),
    }
}

/// Mounts the state file system. After an error of the device it turns read-only rather than guess on.
pub fn state(device: &Path) -> io::Result<()> {
    let flags = NO_PROGRAMS | MsFlags::MS_NOATIME;
    Ok(mount(Some(device), STATE_DIRECTORY, Some("ext4"), flags, Some("errors=remount-ro"))?)
}

/// Unmounts STATE; when something still uses it, makes it read-only, which flushes it too.
pub fn release_state() {
    match umount2(STATE_DIRECTORY, MntFlags::empty()) {
        // EINVAL: it was never mounted.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => {
            say(&format!("STATE is still in use ({errno}), making it read-only"));
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            if let Err(errno) = mount(None::<&str>, STATE_DIRECTORY, None::<&str>, flags, None::<&str>) {
                say(&format!("cannot make STATE read-only: {errno}"));
            }
        }
    }
}
