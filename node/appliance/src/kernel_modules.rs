//! Loads kernel modules, as the image's index tells.
//!
//! There is no `modprobe` the kernel could call, so whatever the node needs is loaded from here: a fixed
//! early set, then what the devices found by now ask for, then what devices that appear later ask for.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs, io,
    path::{Path, PathBuf},
};

use holdfast_image_layout::{module_index::ModuleIndex, names::MODULE_INDEX_PATH};
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
};

use crate::console::say;

/// sysfs is a tree a few dozen levels deep at most; the limit guards against a loop.
const DEPTH_MAX: usize = 64;

/// Loads each module at most once.
#[derive(Debug)]
pub struct Loader {
    root: PathBuf,
    index: ModuleIndex,
    /// Tried already, whatever came of it.
    tried: BTreeSet<String>,
    /// Device names seen already.
    seen: BTreeSet<String>,
    loaded: usize,
}

impl Loader {
    /// Reads the index of the image unpacked at `root`. Without one, nothing will be loaded.
    pub fn open(root: &Path) -> Self {
        let path = root.join(MODULE_INDEX_PATH);
        let index = fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| ModuleIndex::parse(&text).map_err(|error| error.to_string()));
        let index = index.unwrap_or_else(|problem| {
            say(&format!("no kernel modules will be loaded: {}: {problem}", path.display()));
            ModuleIndex::default()
        });
        Self { root: root.to_owned(), index, tried: BTreeSet::new(), seen: BTreeSet::new(), loaded: 0 }
    }

    /// Modules loaded so far.
    pub fn loaded(&self) -> usize {
        self.loaded
    }

    /// Loads the early set.
    pub fn load_early(&mut self) {
        for name in self.index.early().to_vec() {
            self.load(&name);
        }
    }

    /// Loads what the devices below `devices` ask for, until no new device appears.
    pub fn coldplug(&mut self, devices: &Path) {
        loop {
            let before = self.seen.len();
            let mut wanted = Vec::new();
            collect_modaliases(devices, 0, &mut wanted);
            for modalias in wanted {
                self.load_for(&modalias);
            }
            // A driver may have brought a bus with further devices.
            if self.seen.len() == before {
                return;
            }
        }
    }

    /// Loads what one device asks for.
    pub fn load_for(&mut self, modalias: &str) {
        if !self.seen.insert(modalias.to_owned()) {
            return;
        }
        let names: Vec<String> = self.index.driving(modalias).into_iter().map(str::to_owned).collect();
        for name in names {
            self.load(&name);
        }
    }

    fn load(&mut self, name: &str) {
        let order: Vec<String> = self.index.load_order(name).into_iter().map(str::to_owned).collect();
        for name in order {
            if !self.tried.insert(name.clone()) {
                continue;
            }
            let module = self.index.get(&name).expect("the load order names modules of the index");
            match insert(&self.root.join(&module.path)) {
                Ok(()) => self.loaded += 1,
                // There already, or made for a device or processor feature that this machine lacks.
                Err(error) if matches!(errno(&error), Some(Errno::EEXIST | Errno::ENODEV)) => {}
                Err(error) => say(&format!("kernel module {name}: {error}")),
            }
        }
    }
}

fn insert(path: &Path) -> io::Result<()> {
    const NO_PARAMETERS: &CStr = c"";
    let file = fs::File::open(path)?;
    Ok(finit_module(&file, NO_PARAMETERS, ModuleInitFlags::empty())?)
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

/// Every `modalias` file below a directory. Links are not followed: the tree itself has no loops.
fn collect_modaliases(directory: &Path, depth: usize, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < DEPTH_MAX {
            collect_modaliases(&entry.path(), depth + 1, found);
        } else if kind.is_file() && entry.file_name() == "modalias" {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            found.extend(Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_of_the_tree_is_found_and_links_are_not_followed() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("pci0000:00/0000:00:01.0/virtio0");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("modalias"), "virtio:d00000002v00001AF4\n").unwrap();
        fs::write(device.parent().unwrap().join("modalias"), "pci:v00001AF4\n").unwrap();
        std::os::unix::fs::symlink(sys.path(), device.join("subsystem")).unwrap();
        let mut found = Vec::new();
        collect_modaliases(sys.path(), 0, &mut found);
        found.sort();
        assert_eq!(found, ["pci:v00001AF4", "virtio:d00000002v00001AF4"]);
    }
}
