//! What may be asked over a link, and who may ask it. Default deny: a pair that [`Role::permits`] does
//! not name is refused before its body is read.

/// One kind of request. Grows by adding; a number is never used for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum Method {
    /// A consensus message between replicas of a group.
    Raft = 1,
    /// Store a shard; answered when it is durable.
    ShardPut = 2,
    /// Read a range of a shard.
    ShardGet = 3,
    /// Delete a shard durably.
    ShardDelete = 4,
    /// List the shards of a drive.
    ShardList = 5,
    /// What a node says about itself.
    NodeStatus = 6,
    /// Requests to the control group's leader.
    Control = 7,
    /// Ask to be admitted to the cluster. The only thing that can be asked without a certificate.
    Join = 8,
    /// Read a whole shard with its record's manifest.
    ShardGetWhole = 9,
    /// Give shards of a stripe new places on the node that is asked.
    ShardRelocate = 10,
    /// What a node's clock shows.
    Clock = 11,
    /// What a node's drives hold of the second copy of a group's state.
    CatalogHoldings = 12,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 12] = [
        Self::Raft,
        Self::ShardPut,
        Self::ShardGet,
        Self::ShardDelete,
        Self::ShardList,
        Self::NodeStatus,
        Self::Control,
        Self::Join,
        Self::ShardGetWhole,
        Self::ShardRelocate,
        Self::Clock,
        Self::CatalogHoldings,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The method of a number, `None` when this program knows none.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.code() == code)
    }

    /// Which connection carries it: small requests that others wait for never queue behind shards.
    pub(crate) const fn lane(self) -> Lane {
        match self {
            Self::Raft | Self::NodeStatus | Self::Clock | Self::Join => Lane::Urgent,
            Self::ShardPut
            | Self::ShardGet
            | Self::ShardGetWhole
            | Self::ShardRelocate
            | Self::ShardDelete
            | Self::ShardList
            | Self::CatalogHoldings
            | Self::Control => Lane::Bulk,
        }
    }
}

/// Which connections to a peer a method uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Small, waited for by elections and health.
    Urgent,
    /// Shards and everything that may be large.
    Bulk,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A node of this cluster, by its certificate.
    Node,
    /// Someone without a certificate.
    Joiner,
}

impl Role {
    /// Whether this role may call `method`.
    #[must_use]
    pub const fn permits(self, method: Method) -> bool {
        match (self, method) {
            // Nodes hold shards for each other and decide together.
            (
                Self::Node,
                Method::Raft
                | Method::ShardPut
                | Method::ShardGet
                | Method::ShardGetWhole
                | Method::ShardRelocate
                | Method::ShardDelete
                | Method::ShardList
                | Method::NodeStatus
                | Method::Clock
                | Method::CatalogHoldings
                | Method::Control,
            ) => true,
            // A joiner shows its token; what that is worth is for the authority to say.
            (Self::Joiner, Method::Join) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joiner_may_only_join_and_a_node_may_all_but_that() {
        for method in Method::ALL {
            assert_eq!(Role::Joiner.permits(method), method == Method::Join, "{method:?}");
            assert_eq!(Role::Node.permits(method), method != Method::Join, "{method:?}");
        }
    }

    #[test]
    fn numbers_are_distinct_and_find_their_method() {
        for method in Method::ALL {
            assert_eq!(Method::from_code(method.code()), Some(method));
        }
        assert_eq!(Method::from_code(0), None);
        assert_eq!(Method::from_code(0xffff), None);
    }
}
