//! The output directory: artifacts appear whole, by rename, with their sizes and hashes.

use std::{
    fs::{self, File},
    io::{self as std_io, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{ImageError, io};

const MANIFEST: &str = "manifest.json";
const SUMS: &str = "sha256sums";
const COPY_CHUNK: usize = 1 << 20;

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

/// Copies what `from` holds to `to` at `base`; runs of zeros stay holes.
pub fn copy_sparse(mut from: &File, to: &File, base: u64) -> std_io::Result<()> {
    let length = from.metadata()?.len();
    let mut buffer = vec![0; COPY_CHUNK];
    let mut offset = 0;
    from.seek(SeekFrom::Start(0))?;
    while offset < length {
        let wanted = buffer.len().min(usize::try_from(length - offset).unwrap_or(buffer.len()));
        from.read_exact(&mut buffer[..wanted])?;
        for (index, block) in buffer[..wanted].chunks(4096).enumerate() {
            if block.iter().any(|&byte| byte != 0) {
                to.write_all_at(block, base + offset + (index * 4096) as u64)?;
            }
        }
        offset += wanted as u64;
    }
    Ok(())
}

fn describe(path: &Path, name: &str) -> std_io::Result<Artifact> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; COPY_CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(Artifact {
        name: name.to_owned(),
        size: metadata.len(),
        allocated: metadata.blocks() * 512,
        sha256: hex::encode(hash.finalize()),
    })
}
