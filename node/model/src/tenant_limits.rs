//! What a tenant's clients may ask of the cluster in a second and at once.

use serde::{Deserialize, Serialize};

/// Least bandwidth that can be set, in bytes per second: a body of less would be given up as standing still.
pub const BANDWIDTH_MIN: u64 = 64 * 1024;

/// Limits of one tenant over the whole cluster; `None`: none of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantLimits {
    /// Requests begun in a second.
    pub requests_per_second: Option<u32>,
    /// Requests in progress at once.
    pub requests_at_once: Option<u32>,
    /// Bytes of bodies received in a second.
    pub in_bytes_per_second: Option<u64>,
    /// Bytes of bodies sent in a second.
    pub out_bytes_per_second: Option<u64>,
}

impl TenantLimits {
    /// Whether nothing in it shuts a tenant out.
    ///
    /// # Errors
    /// What is too small, and what the least is.
    pub fn check(&self) -> Result<(), String> {
        for (what, limit) in
            [("requests_per_second", self.requests_per_second), ("requests_at_once", self.requests_at_once)]
        {
            if limit == Some(0) {
                return Err(format!("{what} must be 1 or more; to refuse a tenant's clients, suspend it"));
            }
        }
        for (what, limit) in [
            ("in_bytes_per_second", self.in_bytes_per_second),
            ("out_bytes_per_second", self.out_bytes_per_second),
        ] {
            if limit.is_some_and(|limit| limit < BANDWIDTH_MIN) {
                return Err(format!("{what} must be {BANDWIDTH_MIN} or more"));
            }
        }
        Ok(())
    }

    /// The part of one of `nodes` nodes: all have the same, rounded up.
    #[must_use]
    pub fn part_of(self, nodes: usize) -> Self {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        let small = |limit: Option<u32>| limit.map(|limit| limit.div_ceil(nodes));
        let large = |limit: Option<u64>| limit.map(|limit| limit.div_ceil(nodes.into()));
        Self {
            requests_per_second: small(self.requests_per_second),
            requests_at_once: small(self.requests_at_once),
            in_bytes_per_second: large(self.in_bytes_per_second),
            out_bytes_per_second: large(self.out_bytes_per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_all_nodes_are_at_least_the_whole() {
        let limits = TenantLimits { requests_per_second: Some(10), ..TenantLimits::default() };
        assert_eq!(limits.part_of(3).requests_per_second, Some(4));
        assert_eq!(limits.part_of(0), limits);
        assert_eq!(limits.part_of(1000).requests_per_second, Some(1));
        assert_eq!(TenantLimits::default().part_of(3), TenantLimits::default());
    }

    #[test]
    fn a_limit_that_shuts_a_tenant_out_is_refused() {
        assert!(TenantLimits { requests_at_once: Some(0), ..TenantLimits::default() }.check().is_err());
        assert!(TenantLimits { in_bytes_per_second: Some(1), ..TenantLimits::default() }.check().is_err());
        assert!(
            TenantLimits { in_bytes_per_second: Some(BANDWIDTH_MIN), ..TenantLimits::default() }
                .check()
                .is_ok()
        );
    }
}
