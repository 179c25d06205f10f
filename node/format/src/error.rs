//! Why bytes are not what they should be.

/// Why a sector could not be parsed. `what` names the structure that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Never written: the first bytes are zero.
    #[error("no {what} here: the sector is blank")]
    Blank {
        /// The structure.
        what: &'static str,
    },
    /// Something else is here.
    #[error("no {what} here: the sector begins with {magic:02x?}")]
    Foreign {
        /// The structure.
        what: &'static str,
        /// What the sector begins with.
        magic: [u8; 8],
    },
    /// Written by a newer release.
    #[error("{what} of version {version}; this release reads version {known}. Use the newer release")]
    UnknownVersion {
        /// The structure.
        what: &'static str,
        /// The version found.
        version: u16,
        /// The version this release knows.
        known: u16,
    },
    /// The checksum does not match.
    #[error("{what} is damaged: its checksum does not match")]
    Checksum {
        /// The structure.
        what: &'static str,
    },
    /// Its magic or version is not what the checksum covers.
    #[error("{what} is damaged: its first bytes are not what its checksum covers")]
    Beginning {
        /// The structure.
        what: &'static str,
    },
    /// Bytes that must be zero are not.
    #[error("{what}: reserved bytes at offset {offset} are not zero")]
    Reserved {
        /// The structure.
        what: &'static str,
        /// Where in the structure.
        offset: usize,
    },
    /// A field holds what it never should, under a good checksum.
    #[error("{what}: impossible {field}")]
    Impossible {
        /// The structure.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
}

impl FormatError {
    /// The structure that was expected.
    #[must_use]
    pub fn structure(&self) -> &'static str {
        match self {
            Self::Blank { what }
            | Self::Foreign { what, .. }
            | Self::UnknownVersion { what, .. }
            | Self::Checksum { what }
            | Self::Beginning { what }
            | Self::Reserved { what, .. }
            | Self::Impossible { what, .. } => what,
        }
    }
}
