//! Names that the image builder, the boot code on the node and the harness must agree on.

use crate::gpt::Guid;

/// GPT partition name of the EFI system partition.
pub const PARTITION_ESP: &str = "holdfast-esp";
/// GPT partition name of the raw record of boot slots.
pub const PARTITION_META: &str = "holdfast-meta";
/// GPT partition name of the state file system.
pub const PARTITION_STATE: &str = "holdfast-state";

/// Partition type of an EFI system partition (UEFI 2.10, section 5.3.3).
pub const TYPE_ESP: Guid = Guid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
/// Partition type of `holdfast-meta`.
pub const TYPE_META: Guid = Guid::from_u128(0x9d1c5f6e_3b0a_4e57_8a64_6d2f6f6c6401);
/// Partition type of `holdfast-state`.
pub const TYPE_STATE: Guid = Guid::from_u128(0x9d1c5f6e_3b0a_4e57_8a64_6d2f6f6c6402);

/// Unique id of the image's disk. The same on every node: nodes are told apart by what STATE holds.
pub const DISK_ID: Guid = Guid::from_u128(0x4c9be2a1_77d3_4f0e_9a35_0d8e5b1f7a00);
/// Unique id of the ESP.
pub const ESP_ID: Guid = Guid::from_u128(0x4c9be2a1_77d3_4f0e_9a35_0d8e5b1f7a01);
/// Unique id of META.
pub const META_ID: Guid = Guid::from_u128(0x4c9be2a1_77d3_4f0e_9a35_0d8e5b1f7a02);
/// Unique id of STATE, also the UUID of its file system.
pub const STATE_ID: Guid = Guid::from_u128(0x4c9be2a1_77d3_4f0e_9a35_0d8e5b1f7a03);

/// QEMU `fw_cfg` entry that seeds the configuration of a node without one.
pub const SEED_FW_CFG: &str = "opt/org.holdfast/config";

/// The one program of the image, and its PID 1. The kernel runs this path of an initramfs.
pub const INIT_PATH: &str = "init";
/// Directory of the kernel modules in the initramfs, without the leading slash.
pub const MODULES_DIRECTORY: &str = "lib/modules";
/// The module index in the initramfs, without the leading slash.
pub const MODULE_INDEX_PATH: &str = "lib/modules/index";
/// Release name and version of the image, in the form of os-release(5), without the leading slash.
pub const OS_RELEASE_PATH: &str = "etc/os-release";

/// Path of the UKI on the ESP: where firmware looks when it has no boot entry.
pub const UKI_PATH_ON_ESP: &str = "EFI/BOOT/BOOTX64.EFI";
