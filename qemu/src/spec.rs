//! What a virtual cluster is made of. Serialisable: `xtask` hands it to the supervisor in a file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::HarnessError;

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// Directory of the nodes' disks and logs: `dir/n1/console.log`.
    pub dir: PathBuf,
    /// What to boot.
    pub image: Image,
    /// How.
    pub boot: Boot,
    /// How instructions are executed.
    #[serde(default)]
    pub accelerator: Accelerator,
    /// Kernel command line for direct boot; a booted disk brings its own.
    pub command_line: String,
    /// The machines.
    pub nodes: Vec<NodeSpec>,
    /// Seed of the switch's losses.
    #[serde(default)]
    pub switch_seed: u64,
}

/// Files of the image; see `holdfast_image`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Kernel as ELF.
    pub vmlinux: PathBuf,
    /// Initramfs.
    pub initrd: PathBuf,
    /// Disk image: copied, never written to.
    pub disk: PathBuf,
}

impl From<&holdfast_image::ImageArtifacts> for Image {
    fn from(built: &holdfast_image::ImageArtifacts) -> Self {
        Self { vmlinux: built.vmlinux.clone(), initrd: built.initrd.clone(), disk: built.disk.clone() }
    }
}

/// How a machine comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// Kernel and initramfs directly: no firmware, the quickest way.
    Pvh,
    /// UEFI firmware boots the UKI of the disk, as a real machine does.
    Ovmf,
}

/// How a machine executes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// Emulation: works everywhere.
    #[default]
    Tcg,
    /// The host's virtualisation, where it works.
    Kvm,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// `n1`
    pub name: String,
    /// Number in addresses, from 1; unique.
    pub number: u8,
    /// File with the seed configuration; read at every start of the machine, must exist by then.
    pub seed: PathBuf,
    /// Data drives.
    pub drives: u8,
    /// Size of each data drive.
    pub drive_size_mib: u64,
    /// Memory.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u8,
    /// Ports of the host's loopback that lead to the guest.
    pub forwards: Vec<Forward>,
    /// Start it with the cluster, or wait for the command `start`.
    pub autostart: bool,
    /// Data drives with a cache that a power cut loses: `holdfast_fault` disks in memory, behind NBD. Of what
    /// the guest had not flushed, `kill` keeps what chance with this seed says. `None`: sparse files.
    #[serde(default)]
    pub volatile: Option<u64>,
    /// With a TPM 2.0, emulated by `swtpm`; its state is in `dir/n1/tpm`.
    #[serde(default)]
    pub tpm: bool,
}

/// Memory of a machine unless something else is asked for, in MiB.
pub const MEMORY_MIB: u32 = 1024;

/// Most data drives of a machine: what fits the slots of its PCIe bus beside everything else.
pub const DRIVES_MAX: u8 = 20;

/// One forwarded port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// What listens there: `s3`.
    pub service: String,
    /// Port on 127.0.0.1.
    pub host_port: u16,
    /// Port in the guest.
    pub guest_port: u16,
}

impl NodeSpec {
    /// A machine of the usual size that is started with the cluster.
    pub fn new(number: u8, drives: u8, seed: PathBuf) -> Self {
        Self {
            name: format!("n{number}"),
            number,
            seed,
            drives,
            drive_size_mib: 4096,
            memory_mib: MEMORY_MIB,
            cpus: 2,
            forwards: Vec::new(),
            autostart: true,
            volatile: None,
            tpm: false,
        }
    }

    /// Names of the data drives, which are also their serial numbers: `n1d1`, `n1d2`, ...
    pub fn drive_names(&self) -> Vec<String> {
        (1..=self.drives).map(|drive| format!("{}d{drive}", self.name)).collect()
    }

    /// A drive by full name, `d2`, or `2`.
    ///
    /// # Errors
    /// `NoDrive`.
    pub fn drive(&self, wanted: &str) -> Result<String, HarnessError> {
        let names = self.drive_names();
        let full = [wanted.to_owned(), format!("{}{wanted}", self.name), format!("{}d{wanted}", self.name)];
        names.iter().find(|name| full.contains(name)).cloned().ok_or_else(|| HarnessError::NoDrive {
            node: self.name.clone(),
            wanted: wanted.to_owned(),
            existing: names.join(", "),
        })
    }
}

impl ClusterSpec {
    /// Checks numbers that would collide or not fit.
    ///
    /// # Errors
    /// `BadSpec`.
    pub fn check(&self) -> Result<(), HarnessError> {
        for (index, node) in self.nodes.iter().enumerate() {
            let bad = |problem| Err(HarnessError::BadSpec { node: node.name.clone(), problem });
            let others = &self.nodes[..index];
            if node.number == 0 || node.number == u8::MAX {
                return bad("its number must be 1 to 254");
            }
            if others.iter().any(|other| other.number == node.number || other.name == node.name) {
                return bad("its name or number is taken");
            }
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            if node.name.is_empty() || node.name.len() > 16 || !node.name.chars().all(plain) {
                return bad("its name must be 1 to 16 lower-case letters and digits");
            }
            if node.drives > DRIVES_MAX {
                return bad("a machine has room for 20 data drives");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_go_by_three_names() {
        let node = NodeSpec::new(2, 3, PathBuf::new());
        assert_eq!(node.drive_names(), ["n2d1", "n2d2", "n2d3"]);
        for name in ["n2d3", "d3", "3"] {
            assert_eq!(node.drive(name).unwrap(), "n2d3");
        }
        for name in ["4", "n1d1", "", "d"] {
            assert!(node.drive(name).is_err(), "{name:?}");
        }
    }
}
