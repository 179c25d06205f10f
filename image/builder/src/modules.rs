//! Which kernel modules the image holds, and the index PID 1 loads them by.
//!
//! The list names what a node needs on virtual machines and on common servers; what those modules need
//! is found in the modules themselves. A name that the kernel has built in is left out silently, a
//! name that it does not know at all is an error: a kernel update must not lose a driver unseen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use holdfast_image_layout::{
    modinfo::{self, ModInfo},
    module_index::{Module, ModuleIndex},
    names,
};

use crate::{
    error::{ImageError, io},
    kernel::Kernel,
};

/// Loaded before any device is looked at, in this order.
const EARLY: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "qemu_fw_cfg",
    "nvme",
    "sd_mod",
    "ext4",
    "erofs",
    "loop",
    "efivarfs",
    "button",
    "evdev",
    "aesni_intel",
    "nf_tables",
    "nft_ct",
    "nft_limit",
    "nft_log",
    "nft_reject_inet",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "nls_utf8",
];

/// Loaded when a device asks for them, or by name.
const ON_DEMAND: &[&str] = &[
    // Storage.
    "ahci",
    "ata_piix",
    "virtio_scsi",
    "ses",
    "sr_mod",
    "sg",
    "vmd",
    "mpt3sas",
    "mpi3mr",
    "megaraid_sas",
    "aacraid",
    "hpsa",
    "smartpqi",
    "vmw_pvscsi",
    "mptspi",
    "hv_storvsc",
    "usb_storage",
    "uas",
    "drivetemp",
    // Network.
    "e1000",
    "e1000e",
    "igb",
    "igc",
    "ixgbe",
    "i40e",
    "ice",
    "tg3",
    "bnxt_en",
    "mlx4_en",
    "mlx5_core",
    "vmxnet3",
    "r8169",
    "ena",
    "gve",
    "hv_netvsc",
    "8021q",
    "bonding",
    // Bus, console, keys.
    "xhci_pci",
    "ehci_pci",
    "usbhid",
    "hid_generic",
    "hv_vmbus",
    "virtio_console",
    "virtio_balloon",
    // Watchdogs and health.
    "i6300esb",
    "iTCO_wdt",
    "sp5100_tco",
    "softdog",
    "ipmi_si",
    "ipmi_devintf",
    "ipmi_watchdog",
    "coretemp",
    "k10temp",
    "efi_pstore",
    // TPM and cryptography for an encrypted state file system.
    "tpm_crb",
    "tpm_tis",
    "dm_mod",
    "dm_crypt",
    "dm_verity",
    "xts",
    "sha256_ssse3",
    "ghash_clmulni_intel",
    "crc32c_intel",
    "crc32_pclmul",
    "tls",
];

/// The chosen modules.
#[derive(Debug)]
pub struct PackedModules {
    /// What PID 1 reads.
    pub index: ModuleIndex,
    /// Path in the initramfs, content.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl PackedModules {
    /// Names in alphabetical order.
    pub fn names(&self) -> Vec<String> {
        self.index.names().map(str::to_owned).collect()
    }
}

/// Reads the kernel's modules and picks those of the list with all they need.
pub fn select(kernel: &Kernel) -> Result<PackedModules, ImageError> {
    let paths = module_files(&kernel.modules.join("kernel"))?;
    let built_in = built_in(&kernel.modules.join("modules.builtin"))?;
    let mut selection = Selection { paths, built_in, chosen: BTreeMap::new() };
    for name in EARLY.iter().chain(ON_DEMAND) {
        selection.choose(name)?;
    }
    let early =
        EARLY.iter().filter(|name| selection.chosen.contains_key(**name)).map(|name| (*name).to_owned());
    let early = early.collect();
    selection.pack(early)
}

struct Selection {
    paths: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    chosen: BTreeMap<String, (ModInfo, Vec<u8>)>,
}

impl Selection {
    /// Takes a module with everything its code links to.
    fn choose(&mut self, name: &str) -> Result<(), ImageError> {
        let name = modinfo::canonical(name);
        if self.chosen.contains_key(&name) || self.built_in.contains(&name) {
            return Ok(());
        }
        let path = self.paths.get(&name).ok_or_else(|| ImageError::NoModule(name.clone()))?.clone();
        let content = fs::read(&path).map_err(io("read", &path))?;
        let info = modinfo::parse(&content).map_err(|source| ImageError::BadModule { path, source })?;
        let depends = info.depends.clone();
        let soft = info.soft_before.clone();
        self.chosen.insert(name, (info, content));
        for need in depends {
            self.choose(&need)?;
        }
        // Soft needs are names of modules or of what they offer ("crc32c"); only real modules of that
        // name, or its generic implementation, are taken along.
        for wish in soft {
            let wish = modinfo::canonical(&wish);
            for candidate in [wish.clone(), format!("{wish}_generic")] {
                if self.paths.contains_key(&candidate) {
                    self.choose(&candidate)?;
                }
            }
        }
        Ok(())
    }

    fn pack(self, early: Vec<String>) -> Result<PackedModules, ImageError> {
        let mut modules = BTreeMap::new();
        let mut files = BTreeMap::new();
        for (name, (info, _)) in &self.chosen {
            let mut needs: Vec<String> = Vec::new();
            for wish in &info.soft_before {
                needs.extend(self.offering(wish).filter(|offer| offer != name));
            }
            needs.extend(info.depends.iter().filter(|need| self.chosen.contains_key(*need)).cloned());
            let mut seen = BTreeSet::new();
            needs.retain(|need| seen.insert(need.clone()));
            let path = format!("{}/{name}.ko", names::MODULES_DIRECTORY);
            modules.insert(name.clone(), Module { path, needs, aliases: info.aliases.clone() });
        }
        let index = ModuleIndex::new(modules, early)?;
        for (name, (_, content)) in self.chosen {
            let path = index.get(&name).expect("just inserted").path.clone();
            files.insert(path, content);
        }
        Ok(PackedModules { index, files })
    }

    /// Chosen modules that bear a name or offer it as an alias.
    fn offering<'a>(&'a self, wish: &'a str) -> impl Iterator<Item = String> + 'a {
        let name = modinfo::canonical(wish);
        let crypto = format!("crypto-{wish}");
        self.chosen
            .iter()
            .filter(move |(candidate, (info, _))| {
                **candidate == name || info.aliases.iter().any(|alias| *alias == crypto || alias == wish)
            })
            .map(|(candidate, _)| candidate.clone())
    }
}

/// All module files below a directory, by canonical name.
fn module_files(directory: &Path) -> Result<BTreeMap<String, PathBuf>, ImageError> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).map_err(io("list", &directory))? {
            let path = entry.map_err(io("list", &directory))?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "ko") {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                found.insert(modinfo::canonical(&stem), path.clone());
            }
        }
    }
    Ok(found)
}

fn built_in(list: &Path) -> Result<BTreeSet<String>, ImageError> {
    let text = fs::read_to_string(list).map_err(io("read", list))?;
    let stem = |line: &str| Some(modinfo::canonical(Path::new(line).file_stem()?.to_str()?));
    Ok(text.lines().filter_map(stem).collect())
}
