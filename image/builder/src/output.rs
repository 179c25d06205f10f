//! The output directory: artifacts appear whole, by rename, with their sizes and hashes.

use std::{
    fs::{self, File},
    io as std_io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::{ImageError, io},
    sparse::{self, Part},
};

const MANIFEST: &str = "manifest.json";
const SUMS: &str = "sha256sums";

/// One file of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// File name.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// Bytes it takes on the building machine's disk (less than `size` when sparse); not part of what
    /// repeats, so not written down.
    #[serde(skip)]
    pub allocated: u64,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
}

/// What was built from what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the image.
    pub version: String,
    /// Kernel release.
    pub kernel_release: String,
    /// File name of the kernel package.
    pub kernel_package: String,
    /// Kernel command line of the UKI.
    pub command_line: String,
    /// Kernel modules in the initramfs.
    pub modules: Vec<String>,
    /// Files.
    pub artifacts: Vec<Artifact>,
}

/// The directory artifacts are written to.
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    pub fn create(path: &Path) -> Result<Self, ImageError> {
        fs::create_dir_all(path).map_err(io("create", path))?;
        Ok(Self { path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file under its name.
    pub fn write(&self, name: &'static str, content: &[u8]) -> Result<Artifact, ImageError> {
        self.write_with(name, |path| fs::write(path, content).map_err(io("write", path)))
    }

    /// Lets `fill` write a file, which then takes its name.
    pub fn write_with(
        &self,
        name: &'static str,
        fill: impl FnOnce(&Path) -> Result<(), ImageError>,
    ) -> Result<Artifact, ImageError> {
        let target = self.path.join(name);
        let partial = self.path.join(format!(".{name}.partial-{}", std::process::id()));
        let result = fill(&partial).and_then(|()| {
            let artifact = describe(&partial, name).map_err(io("read back", &partial))?;
            fs::rename(&partial, &target).map_err(io("rename to", &target))?;
            Ok(artifact)
        });
        if result.is_err() {
            // The cause is what the caller needs to know; a left-over partial file is only untidy.
            fs::remove_file(&partial).ok();
        }
        result
    }

    /// Writes `manifest.json` and `sha256sums`.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), ImageError> {
        let mut json = serde_json::to_vec_pretty(manifest).expect("strings and numbers serialise");
        json.push(b'\n');
        let sums: String = manifest
            .artifacts
            .iter()
            .map(|artifact| format!("{}  {}\n", artifact.sha256, artifact.name))
            .collect();
        self.write(SUMS, sums.as_bytes())?;
        self.write(MANIFEST, &json)?;
        Ok(())
    }
}

/// The manifest of an earlier build.
pub fn read_manifest(directory: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(directory.join(MANIFEST)).ok()?).ok()
}

fn describe(path: &Path, name: &str) -> std_io::Result<Artifact> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut hash = Sha256::new();
    sparse::for_each_part(&file, |part| {
        match part {
            Part::Data { bytes, .. } => hash.update(bytes),
            Part::Hole { length } => hash_zeros(&mut hash, length),
        }
        Ok(())
    })?;
    Ok(Artifact {
        name: name.to_owned(),
        size: metadata.len(),
        allocated: metadata.blocks() * 512,
        sha256: hex::encode(hash.finalize()),
    })
}

fn hash_zeros(hash: &mut Sha256, mut length: u64) {
    const ZEROS: &[u8] = &[0; 64 * 1024];
    while length > 0 {
        let part = ZEROS.len().min(usize::try_from(length).unwrap_or(ZEROS.len()));
        hash.update(&ZEROS[..part]);
        length -= part as u64;
    }
}
