//! The words of Holdfast as types: ids, units, levels and their geometry, placement, limits.
//!
//! Nothing here performs I/O, reads a clock or draws random numbers; time and randomness arrive as
//! arguments. Every other crate may depend on this one; it depends on none of them.

#![forbid(unsafe_code)]

pub mod balance;
pub mod config;
pub mod fit;
pub mod ids;
pub mod level;
pub mod limits;
pub mod placement;
pub mod spare;
pub mod table;
mod tenant_limits;
pub mod units;

pub use ids::{
    BucketId, ClusterId, DatabaseId, DriveId, Epoch, Generation, GroupId, KeyId, NodeId, PartitionId,
    RootEpoch, ShardId, ShardIndex, SplitId, StripeId, TenantId, UploadId, VersionId,
};
pub use level::{Geometry, Level};
pub use tenant_limits::{BANDWIDTH_MIN, TenantLimits};
pub use units::{ByteCount, UnixMillis};
