//! The name a peer certificate carries: `holdfast://CLUSTER/node/NUMBER`, one URI, nothing beside it.

use std::{fmt, str::FromStr};

use holdfast_model::{ClusterId, NodeId};

use super::PkiError;

/// One node of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerName {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "holdfast://{}/node/{}", self.cluster, self.node.get())
    }
}

impl FromStr for PeerName {
    type Err = PkiError;

    /// Takes the one canonical spelling: two spellings of one name would be two names to a comparison.
    fn from_str(text: &str) -> Result<Self, PkiError> {
        let parse = || {
            let (cluster, node) = text.strip_prefix("holdfast://")?.split_once("/node/")?;
            Some(Self { cluster: cluster.parse().ok()?, node: NodeId::new(node.parse().ok()?) })
        };
        match parse() {
            Some(name) if name.to_string() == text => Ok(name),
            _ => Err(PkiError::NotAPeer(format!("{text:?} names no node"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_a_name() {
        let name = PeerName { cluster: ClusterId::from_bytes([0xab; 16]), node: NodeId::new(12) };
        let text = name.to_string();
        assert_eq!(text.parse::<PeerName>(), Ok(name));
        let upper = text.replace("ab", "AB");
        let padded = text.replace("/12", "/012");
        let signed = text.replace("/12", "/+12");
        let longer = format!("{text}/x");
        for wrong in ["", "holdfast://", "https://x/node/1", &upper, &padded, &signed, &longer] {
            assert!(wrong.parse::<PeerName>().is_err(), "{wrong}");
        }
    }
}
