//! Where the configuration comes from: the one kept on STATE, or a seed when none is kept.
//!
//! A seed is honoured once. After that the node's own document counts, so a machine that is moved, or
//! whose hypervisor offers another seed, stays the node it was. A kept document that cannot be read is
//! an error for a person, never a reason to take the seed again.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use holdfast_image_layout::names::SEED_FW_CFG;
use holdfast_model::config::NodeConfig;

/// A larger document is not a configuration.
const CONFIG_SIZE_MAX: u64 = 256 * 1024;

/// Where a document came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Kept by an earlier boot.
    Kept,
    /// Taken from the seed now, and kept.
    Seed,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing kept, nothing offered.
    #[error("no configuration: none is kept at {kept} and the machine offers no seed at {seed}")]
    Absent {
        /// Where one would be kept.
        kept: PathBuf,
        /// Where a seed would be.
        seed: PathBuf,
    },
    /// The document is not a node's configuration.
    #[error("the configuration at {path} is not valid")]
    Invalid {
        /// Which document.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Too large.
    #[error("the configuration at {path} is larger than {CONFIG_SIZE_MAX} bytes")]
    TooLarge {
        /// Which document.
        path: PathBuf,
    },
    /// Reading or keeping it failed.
    #[error("cannot {action} {path}")]
    Io {
        /// `read` or `keep`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Where QEMU's `fw_cfg` module shows the seed.
pub fn seed_path(sys: &Path) -> PathBuf {
    sys.join("firmware/qemu_fw_cfg/by_name").join(SEED_FW_CFG).join("raw")
}

/// Reads the kept configuration, or takes and keeps the seed.
///
/// # Errors
/// See `ConfigError`. A seed that is not valid is not kept.
pub fn load(kept: &Path, seed: &Path) -> Result<(NodeConfig, Origin), ConfigError> {
    if let Some(bytes) = read(kept)? {
        return Ok((parse(&bytes, kept)?, Origin::Kept));
    }
    let Some(bytes) = read(seed)? else {
        return Err(ConfigError::Absent { kept: kept.to_owned(), seed: seed.to_owned() });
    };
    let config = parse(&bytes, seed)?;
    keep(kept, &bytes).map_err(|source| ConfigError::Io { action: "keep", path: kept.to_owned(), source })?;
    Ok((config, Origin::Seed))
}

fn parse(bytes: &[u8], path: &Path) -> Result<NodeConfig, ConfigError> {
    serde_json::from_slice(bytes).map_err(|source| ConfigError::Invalid { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    use io::Read as _;
    let failed = |source| ConfigError::Io { action: "read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(CONFIG_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > CONFIG_SIZE_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    Ok(Some(bytes))
}

/// Writes the document so that after a power cut it is there whole or not at all.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    let directory = path.parent().expect("the configuration lies in a directory");
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str) -> String {
        format!(
            r#"{{"name":"{name}","state_dir":"/state","drives":"all_blank",
                "listen":{{"s3":"0.0.0.0:9443","admin":"0.0.0.0:8443","metrics":"0.0.0.0:9100","peer":"10.77.0.1:7000"}},
                "advertise_peer":"10.77.0.1:7000"}}"#
        )
    }

    #[test]
    fn a_seed_is_honoured_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, seed) = (dir.path().join("config.json"), dir.path().join("raw"));
        fs::write(&seed, document("n1")).unwrap();
        let (config, origin) = load(&kept, &seed).unwrap();
        assert_eq!((config.name.as_str(), origin), ("n1", Origin::Seed));
        fs::write(&seed, document("n2")).unwrap();
        let (config, origin) = load(&kept, &seed).unwrap();
        assert_eq!((config.name.as_str(), origin), ("n1", Origin::Kept));
    }

    #[test]
    fn a_bad_seed_is_named_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, seed) = (dir.path().join("config.json"), dir.path().join("raw"));
        assert!(matches!(load(&kept, &seed), Err(ConfigError::Absent { .. })));
        fs::write(&seed, document("n1").replace("\"name\"", "\"nmae\"")).unwrap();
        assert!(matches!(load(&kept, &seed), Err(ConfigError::Invalid { .. })));
        assert!(!kept.exists());
        fs::write(&seed, vec![b' '; CONFIG_SIZE_MAX as usize + 1]).unwrap();
        assert!(matches!(load(&kept, &seed), Err(ConfigError::TooLarge { .. })));
    }

    #[test]
    fn a_damaged_kept_document_does_not_bring_the_seed_back() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, seed) = (dir.path().join("config.json"), dir.path().join("raw"));
        fs::write(&seed, document("n1")).unwrap();
        fs::write(&kept, "{").unwrap();
        assert!(matches!(load(&kept, &seed), Err(ConfigError::Invalid { path, .. }) if path == kept));
    }
}
