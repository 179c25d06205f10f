//! Protection levels: what must be survived, and the stripe geometry that keeps the promise.
//!
//! Written as OneFS does: `+2d:1n` survives two drives or one node. The geometry rule follows from the
//! promise: with `u` shards on each of `N` nodes a stripe is `u*N` shards wide, of which `M` are parity,
//! so `k = min(16, u*N - M)` (15 when `M = 3`) are data, and losing the promised nodes costs at most `M`
//! shards.
//!
//! Invariants of [`Level::geometry`]:
//! - `per_node_max * nodes_survived <= parity` on two or more nodes;
//! - `drives_survived <= parity`;
//! - `data + parity` never exceeds the drives that are there.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{DATA_SHARDS_MAX, PARITY_SHARDS_MAX};

/// What must be survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// `+Md:Nn`, `+Mn`, `+3d:1n1d`: parity.
    Parity(ParityLevel),
    /// `2x` to `8x`: whole copies, each on another node while there are nodes enough.
    Mirror {
        /// Copies in all, 2 to 8.
        copies: u8,
    },
}

/// The nine parity levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ParityLevel {
    Plus1n,
    Plus2d1n,
    Plus2n,
    Plus3d1n,
    Plus3d1n1d,
    Plus3n,
    Plus4d1n,
    Plus4d2n,
    Plus4n,
}

/// How one stripe is cut: `data` shards hold content, any `data` of all shards rebuild it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Geometry {
    /// Data shards, `k`.
    pub data: u8,
    /// Parity shards, `m`.
    pub parity: u8,
    /// Shards of one stripe that one node may hold at most.
    pub per_node_max: u8,
}

impl Geometry {
    /// All shards, `k + m`.
    #[must_use]
    pub const fn shards(self) -> usize {
        self.data as usize + self.parity as usize
    }
}

impl ParityLevel {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Plus1n, "+1n"),
        (Self::Plus2d1n, "+2d:1n"),
        (Self::Plus2n, "+2n"),
        (Self::Plus3d1n, "+3d:1n"),
        (Self::Plus3d1n1d, "+3d:1n1d"),
        (Self::Plus3n, "+3n"),
        (Self::Plus4d1n, "+4d:1n"),
        (Self::Plus4d2n, "+4d:2n"),
        (Self::Plus4n, "+4n"),
    ];

    /// Every level, in the order of the published table.
    pub fn every() -> impl Iterator<Item = Self> {
        Self::ALL.iter().map(|(level, _)| *level)
    }

    /// (drives survived = parity, nodes survived, shards per node)
    const fn numbers(self) -> (u8, u8, u8) {
        match self {
            Self::Plus1n => (1, 1, 1),
            Self::Plus2d1n => (2, 1, 2),
            Self::Plus2n => (2, 2, 1),
            Self::Plus3d1n => (3, 1, 3),
            Self::Plus3d1n1d => (3, 1, 2),
            Self::Plus3n => (3, 3, 1),
            Self::Plus4d1n => (4, 1, 4),
            Self::Plus4d2n => (4, 2, 2),
            Self::Plus4n => (4, 4, 1),
        }
    }
}

impl Level {
    /// `+2d:1n`: two drives or one node.
    pub const PLUS_2D_1N: Self = Self::Parity(ParityLevel::Plus2d1n);
    /// `+4d:2n`: four drives or two nodes.
    pub const PLUS_4D_2N: Self = Self::Parity(ParityLevel::Plus4d2n);

    /// The level suggested for a cluster of `nodes`.
    #[must_use]
    pub const fn suggested(nodes: usize) -> Self {
        if nodes >= 5 { Self::PLUS_4D_2N } else { Self::PLUS_2D_1N }
    }

    /// Drives that may be lost at once.
    #[must_use]
    pub const fn drives_survived(self) -> u8 {
        match self {
            Self::Parity(parity) => parity.numbers().0,
            Self::Mirror { copies } => copies - 1,
        }
    }

    /// Nodes that may be lost at once (in a cluster of several nodes).
    #[must_use]
    pub const fn nodes_survived(self) -> u8 {
        match self {
            Self::Parity(parity) => parity.numbers().1,
            Self::Mirror { copies } => copies - 1,
        }
    }

    /// Shards of one stripe that one node may hold at most, in a cluster of several nodes.
    #[must_use]
    pub const fn shards_per_node(self) -> u8 {
        match self {
            Self::Parity(parity) => parity.numbers().2,
            Self::Mirror { .. } => 1,
        }
    }

    /// The widest stripe that keeps this promise on the nodes given as their count of usable drives
    /// each, or `None` when no stripe can.
    ///
    /// On a single node a stripe spans its drives and the promise counts drives only.
    #[must_use]
    pub fn geometry(self, usable_drives_by_node: &[usize]) -> Option<Geometry> {
        let nodes: Vec<usize> = usable_drives_by_node.iter().copied().filter(|drives| *drives > 0).collect();
        match (self, nodes.as_slice()) {
            (_, []) => None,
            (Self::Mirror { copies }, [drives]) => (*drives >= usize::from(copies)).then_some(Geometry {
                data: 1,
                parity: copies - 1,
                per_node_max: copies,
            }),
            (Self::Mirror { copies }, nodes) => (nodes.len() >= usize::from(copies)).then_some(Geometry {
                data: 1,
                parity: copies - 1,
                per_node_max: 1,
            }),
            (Self::Parity(level), [drives]) => {
                let (parity, _, _) = level.numbers();
                let data = data_cap(parity).min(drives.checked_sub(usize::from(parity))?);
                geometry_of(data, parity, drives.min(&usize::from(u8::MAX)).to_owned())
            }
            (Self::Parity(level), nodes) => {
                let (parity, _, per_node) = level.numbers();
                let places: usize = nodes.iter().map(|drives| usize::from(per_node).min(*drives)).sum();
                let data = data_cap(parity).min(places.checked_sub(usize::from(parity))?);
                geometry_of(data, parity, usize::from(per_node))
            }
        }
    }
}

fn data_cap(parity: u8) -> usize {
    if parity == 3 { DATA_SHARDS_MAX - 1 } else { DATA_SHARDS_MAX }
}

fn geometry_of(data: usize, parity: u8, per_node_max: usize) -> Option<Geometry> {
    if data == 0 {
        return None;
    }
    Some(Geometry { data: u8::try_from(data).ok()?, parity, per_node_max: u8::try_from(per_node_max).ok()? })
}

/// The text is not a level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown protection level {0:?}; levels are +1n +2d:1n +2n +3d:1n +3d:1n1d +3n +4d:1n +4d:2n +4n and 2x to 8x"
)]
pub struct ParseLevelError(String);

impl FromStr for Level {
    type Err = ParseLevelError;
    fn from_str(text: &str) -> Result<Self, ParseLevelError> {
        if let Some((level, _)) = ParityLevel::ALL.iter().find(|(_, name)| *name == text) {
            return Ok(Self::Parity(*level));
        }
        match text.strip_suffix('x').map(str::parse::<u8>) {
            Some(Ok(copies)) if (2..=PARITY_SHARDS_MAX as u8 + 1).contains(&copies) => {
                Ok(Self::Mirror { copies })
            }
            _ => Err(ParseLevelError(text.to_owned())),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mirror { copies } => write!(f, "{copies}x"),
            Self::Parity(level) => {
                let name = ParityLevel::ALL.iter().find(|(l, _)| l == level).map_or("", |(_, name)| name);
                f.write_str(name)
            }
        }
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(level: &str, nodes: &[usize]) -> Option<(u8, u8)> {
        level.parse::<Level>().unwrap().geometry(nodes).map(|g| (g.data, g.parity))
    }

    #[test]
    fn published_rows_come_out_of_the_rule() {
        assert_eq!(cut("+2d:1n", &[6]), Some((4, 2)));
        assert_eq!(cut("+2d:1n", &[4, 4]), Some((2, 2)));
        assert_eq!(cut("+2d:1n", &[4, 4, 4]), Some((4, 2)));
        assert_eq!(cut("+4d:2n", &[4; 5]), Some((6, 4)));
        assert_eq!(cut("+4d:2n", &[4; 6]), Some((8, 4)));
        assert_eq!(cut("+4d:2n", &[4; 10]), Some((16, 4)));
        assert_eq!(cut("+3n", &[4; 40]), Some((15, 3)));
        assert_eq!(cut("3x", &[1, 1, 1]), Some((1, 2)));
    }

    #[test]
    fn a_promise_that_cannot_be_kept_has_no_geometry() {
        assert_eq!(cut("+2d:1n", &[2]), None);
        assert_eq!(cut("+2n", &[8, 8]), None);
        assert_eq!(cut("4x", &[8, 8, 8]), None);
        assert_eq!(cut("+1n", &[]), None);
    }

    #[test]
    fn levels_survive_text() {
        for (_, name) in ParityLevel::ALL {
            assert_eq!(name.parse::<Level>().unwrap().to_string(), name);
        }
        assert!(
            "+5n".parse::<Level>().is_err()
                && "1x".parse::<Level>().is_err()
                && "9x".parse::<Level>().is_err()
        );
    }

    proptest::proptest! {
        #[test]
        fn losing_what_is_promised_costs_at_most_the_parity(
            level in 0..9usize,
            nodes in proptest::collection::vec(1..12usize, 1..64),
        ) {
            let (level, _) = ParityLevel::ALL[level];
            let level = Level::Parity(level);
            if let Some(geometry) = level.geometry(&nodes) {
                assert!(geometry.data >= 1 && geometry.parity >= level.drives_survived());
                if nodes.len() > 1 {
                    assert!(geometry.per_node_max * level.nodes_survived() <= geometry.parity);
                    let places: usize = nodes.iter().map(|d| (*d).min(usize::from(geometry.per_node_max))).sum();
                    assert!(geometry.shards() <= places);
                }
            }
        }
    }
}
