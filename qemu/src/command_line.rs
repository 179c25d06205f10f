//! QEMU's command line. Pure, so that a test can read it.
//!
//! Data drives sit behind a PCIe root port each, with their own back ends, so that they can be pulled
//! and put back while the machine runs. All caches are write-back with flushes passed on: a guest's
//! flush is the host's `fdatasync`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    address::{ACCESS_ADDRESS, access_mac, cluster_mac},
    disks::Disks,
    spec::{Accelerator, Boot, ClusterSpec, NodeSpec},
};

/// Everything QEMU can emulate but AVX: its wide registers live in memory there, and code that finds them runs at a
/// third of its speed (a password check by argon2id: 16 s with, 5 s without).
const EMULATED_CPU: &str = "max,avx2=off,avx=off";

/// Firmware of machines with a TPM that are booted directly. QEMU places the initramfs as if there were no log of the
/// TPM's below the end of memory; SeaBIOS has one there, moves the ACPI tables down for it, and the initramfs overwrites
/// them (QEMU 7.2). qboot keeps its tables in low memory.
const DIRECT_BOOT_WITH_TPM: &str = "qboot.rom";

/// Jumbo frames between the nodes: a sixth of the frames for the same bytes, which is what an emulated
/// processor pays for.
const CLUSTER_MTU: u16 = 9000;

/// Sockets and files of a running machine.
#[derive(Debug)]
pub struct Endpoints<'a> {
    /// QMP listens here.
    pub qmp: &'a Path,
    /// The switch listens here.
    pub switch: &'a Path,
    /// The serial console is appended here.
    pub console: &'a Path,
    /// The emulator of its TPM listens here.
    pub tpm: Option<&'a Path>,
    /// Servers of the data drives, in order, when they are not files.
    pub drives: &'a [PathBuf],
    /// What its clock shows when it starts, as QEMU takes it; see [`clock`].
    pub clock: &'a str,
}

/// Arguments of `qemu-system-x86_64`.
pub fn arguments(
    cluster: &ClusterSpec,
    node: &NodeSpec,
    disks: &Disks,
    endpoints: &Endpoints<'_>,
) -> Vec<OsString> {
    let mut line = Line(Vec::new());
    line.option("-name", &node.name);
    line.option("-machine", "q35");
    match cluster.accelerator {
        Accelerator::Tcg => line.option("-accel", "tcg,thread=multi").option("-cpu", EMULATED_CPU),
        Accelerator::Kvm => line.option("-accel", "kvm").option("-cpu", "host"),
    };
    line.option("-smp", &node.cpus.to_string());
    line.option("-m", &node.memory_mib.to_string());
    line.flag("-nodefaults").flag("-no-user-config");
    line.option("-display", "none");
    line.option("-rtc", &format!("base={}", endpoints.clock));
    line.option("-device", "virtio-rng-pci");
    line.option("-chardev", &format!("file,id=console,append=on,path={}", escaped(endpoints.console)));
    line.option("-serial", "chardev:console");
    line.option("-chardev", &format!("socket,id=qmp,server=on,wait=off,path={}", escaped(endpoints.qmp)));
    line.option("-mon", "chardev=qmp,mode=control");
    line.option(
        "-fw_cfg",
        &format!("name={},file={}", holdfast_image_layout::names::SEED_FW_CFG, escaped(&node.seed)),
    );

    match (cluster.boot, &disks.firmware) {
        (Boot::Ovmf, Some((code, variables))) => {
            let drive = |unit, read_only, path| {
                format!("if=pflash,format=raw,unit={unit},readonly={read_only},file={}", escaped(path))
            };
            line.option("-drive", &drive(0, "on", code));
            line.option("-drive", &drive(1, "off", variables));
        }
        _ => {
            if endpoints.tpm.is_some() {
                line.option("-bios", DIRECT_BOOT_WITH_TPM);
            }
            line.path("-kernel", &cluster.image.vmlinux);
            line.path("-initrd", &cluster.image.initrd);
            line.option("-append", &cluster.command_line);
        }
    }

    if let Some(socket) = endpoints.tpm {
        line.option("-chardev", &format!("socket,id=tpm,path={}", escaped(socket)));
        line.option("-tpmdev", "emulator,id=tpm,chardev=tpm");
        line.option("-device", "tpm-tis,tpmdev=tpm");
    }

    line.drive("system", &disks.system);
    line.option("-device", &format!("virtio-blk-pci,drive=system,serial={}system,bootindex=1", node.name));
    for (index, name) in node.drive_names().iter().enumerate() {
        let slot = index + 1;
        match (endpoints.drives.get(index), disks.data.get(index)) {
            (Some(server), _) => {
                line.served_drive(name, server);
            }
            (None, Some(file)) => {
                line.drive(name, file);
            }
            (None, None) => continue,
        }
        line.option("-device", &format!("pcie-root-port,id={},chassis={slot},slot={slot}", root_port(name)));
        line.option("-device", &data_drive(name).to_string());
    }

    let stream =
        format!("stream,id=cluster,server=off,addr.type=unix,addr.path={}", escaped(endpoints.switch));
    line.option("-netdev", &stream);
    let mac = cluster_mac(node.number);
    line.option("-device", &format!("virtio-net-pci,netdev=cluster,mac={mac},host_mtu={CLUSTER_MTU}"));
    let mut user = "user,id=access,restrict=on".to_owned();
    for forward in &node.forwards {
        let (host, guest) = (forward.host_port, forward.guest_port);
        user.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-{ACCESS_ADDRESS}:{guest}"));
    }
    line.option("-netdev", &user);
    line.option("-device", &format!("virtio-net-pci,netdev=access,mac={}", access_mac(node.number)));
    line.0
}

/// What a clock shows that is so far ahead of the host's, as `-rtc base=` takes it.
pub fn clock(now: SystemTime, ahead_seconds: i64) -> String {
    if ahead_seconds == 0 {
        return "utc".to_owned();
    }
    let shown = OffsetDateTime::from(now) + time::Duration::seconds(ahead_seconds);
    let (hour, minute, second) = shown.to_hms();
    format!(
        "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}",
        shown.year(),
        u8::from(shown.month()),
        shown.day()
    )
}

/// The device of a data drive, as `-device` and `device_add` both take it.
pub fn data_drive(name: &str) -> Value {
    json!({ "driver": "virtio-blk-pci", "id": name, "drive": name, "serial": name, "bus": root_port(name) })
}

fn root_port(drive: &str) -> String {
    format!("port-{drive}")
}

/// In QEMU's key=value options a comma in a value is written twice.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn option(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.extend([name.into(), value.into()]);
        self
    }

    fn path(&mut self, name: &str, value: &Path) -> &mut Self {
        self.0.extend([name.into(), value.into()]);
        self
    }

    /// A raw file as a block back end.
    fn drive(&mut self, node_name: &str, path: &Path) -> &mut Self {
        let back_end = json!({
            "driver": "raw",
            "node-name": node_name,
            "discard": "unmap",
            "cache": { "direct": false, "no-flush": false },
            "file": {
                "driver": "file",
                "filename": path.to_string_lossy(),
                "aio": "threads",
                "discard": "unmap",
                "cache": { "direct": false, "no-flush": false },
            },
        });
        self.option("-blockdev", &back_end.to_string())
    }

    /// A drive that an NBD server is. Its cache is the server's: QEMU adds none.
    fn served_drive(&mut self, node_name: &str, server: &Path) -> &mut Self {
        let back_end = json!({
            "driver": "nbd",
            "node-name": node_name,
            "server": { "type": "unix", "path": server.to_string_lossy() },
            "cache": { "direct": false, "no-flush": false },
        });
        self.option("-blockdev", &back_end.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Forward, Image};

    fn line(boot: Boot) -> String {
        line_with(boot, &[])
    }

    fn line_with(boot: Boot, drives: &[PathBuf]) -> String {
        whole_line(boot, drives, None)
    }

    fn whole_line(boot: Boot, drives: &[PathBuf], tpm: Option<&Path>) -> String {
        let mut node = NodeSpec::new(2, 2, PathBuf::from("/c/se,ed.json"));
        node.forwards = vec![Forward { service: "s3".into(), host_port: 21001, guest_port: 9443 }];
        let cluster = ClusterSpec {
            dir: "/c".into(),
            image: Image { vmlinux: "/i/vmlinux".into(), initrd: "/i/initrd".into(), disk: "/i/disk".into() },
            boot,
            accelerator: Accelerator::Tcg,
            command_line: "console=ttyS0".into(),
            nodes: vec![node.clone()],
            switch_seed: 0,
        };
        let endpoints = Endpoints {
            qmp: Path::new("/r/n2.qmp"),
            switch: Path::new("/r/n2.net"),
            console: Path::new("/c/n2/console.log"),
            tpm,
            drives,
            clock: "utc",
        };
        let arguments = arguments(&cluster, &node, &Disks::of(&cluster, &node), &endpoints);
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn direct_boot_names_kernel_and_command_line() {
        let line = line(Boot::Pvh);
        assert!(line.contains("-kernel\n/i/vmlinux\n-initrd\n/i/initrd\n-append\nconsole=ttyS0"));
        assert!(!line.contains("pflash"));
    }

    #[test]
    fn firmware_boot_names_no_kernel() {
        let line = line(Boot::Ovmf);
        assert!(!line.contains("-kernel") && !line.contains("-append"));
        assert!(line.contains("unit=0,readonly=on") && line.contains("/c/n2/firmware-variables.fd"));
    }

    #[test]
    fn drives_with_a_volatile_cache_are_served_and_the_system_disk_is_a_file() {
        let line = line_with(Boot::Pvh, &["/r/n2d1.nbd".into(), "/r/n2d2.nbd".into()]);
        assert_eq!(line.matches(r#""driver":"nbd""#).count(), 2);
        assert!(line.contains(r#""path":"/r/n2d2.nbd""#) && line.contains("/c/n2/system.img"));
        assert!(!line.contains("n2d1.img"));
    }

    #[test]
    fn a_machine_with_a_tpm_has_the_firmware_that_leaves_its_tables_whole() {
        let direct = whole_line(Boot::Pvh, &[], Some(Path::new("/r/n2.tpm")));
        assert!(direct.contains("-bios\nqboot.rom") && direct.contains("socket,id=tpm,path=/r/n2.tpm"));
        assert!(direct.contains("tpm-tis,tpmdev=tpm"));
        assert!(!whole_line(Boot::Ovmf, &[], Some(Path::new("/r/n2.tpm"))).contains("qboot"));
        assert!(!line(Boot::Pvh).contains("tpm") && !line(Boot::Pvh).contains("-bios"));
    }

    #[test]
    fn a_clock_that_is_ahead_or_behind_is_shown_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_709_164_801);
        assert_eq!(clock(now, 0), "utc");
        assert_eq!(clock(now, 3600), "2024-02-29T01:00:01");
        assert_eq!(clock(now, -2), "2024-02-28T23:59:59");
    }

    #[test]
    fn only_the_loopback_leads_in_and_nothing_leads_out() {
        let line = line(Boot::Pvh);
        assert!(line.contains("restrict=on,hostfwd=tcp:127.0.0.1:21001-10.0.2.15:9443"));
        assert_eq!(line.matches("-netdev").count(), 2);
    }

    #[test]
    fn flushes_reach_the_host_and_drives_have_serial_numbers() {
        let line = line(Boot::Pvh);
        assert!(!line.contains("\"no-flush\":true"));
        assert!(line.contains(r#""serial":"n2d2""#) && line.contains("id=port-n2d2,chassis=2"));
        assert!(line.contains("file=/c/se,,ed.json"), "a comma in a path is doubled");
    }
}
