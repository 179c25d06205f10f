//! Ids are types. Inner fields are private, so that a value that exists was made on purpose.
//!
//! Random ids are 16 bytes, printed as 32 lower-case hex digits. Ids that are stored in great number
//! (stripes, versions, uploads) carry 48 bits of Unix milliseconds first, as UUID version 7 does
//! (RFC 9562, section 5.7), so that they sort by time and append to the end of a B-tree.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::units::UnixMillis;

/// What was wrong with the text of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} id is 32 hex digits, got {text:?}")]
pub struct ParseIdError {
    /// Which id was expected.
    pub kind: &'static str,
    /// The text that was given.
    pub text: String,
}

macro_rules! id_128 {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Size of the binary form in bytes.
            pub const SIZE: usize = 16;

            /// Takes 16 bytes as they are: from a random source, a disk or a peer.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The binary form.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, ":{}"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let wrong = || ParseIdError { kind: $kind, text: text.to_owned() };
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(wrong());
                }
                u128::from_str_radix(text, 16).map(|v| Self(v.to_be_bytes())).map_err(|_| wrong())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

macro_rules! id_time_ordered {
    ($name:ident) => {
        impl $name {
            /// A fresh id: `now` in the first 48 bits, `random` in the last 80.
            #[must_use]
            pub fn new(now: UnixMillis, random: [u8; 10]) -> Self {
                let mut bytes = [0; 16];
                bytes[..6].copy_from_slice(&now.get().to_be_bytes()[2..]);
                bytes[6..].copy_from_slice(&random);
                Self(bytes)
            }

            /// When this id was made, by the clock of the node that made it.
            #[must_use]
            pub fn created(&self) -> UnixMillis {
                let mut millis = [0; 8];
                millis[2..].copy_from_slice(&self.0[..6]);
                UnixMillis::new(u64::from_be_bytes(millis))
            }
        }
    };
}

id_128!(
    /// One cluster, chosen at bootstrap.
    ClusterId, "cluster"
);
id_128!(
    /// One drive, chosen when the drive is formatted; never reused.
    DriveId, "drive"
);
id_128!(
    /// One tenant (a client domain).
    TenantId, "tenant"
);
id_128!(
    /// One tenant partition's database, chosen when it is created. Tells it from any other database that
    /// ever had the same partition number, in another cluster or an older image.
    DatabaseId, "database"
);
id_128!(
    /// One bucket. A bucket deleted and created again under the same name has another id.
    BucketId, "bucket"
);
id_128!(
    /// One stripe. Time-ordered.
    StripeId, "stripe"
);
id_128!(
    /// One version of an object. Time-ordered.
    VersionId, "version"
);
id_128!(
    /// One multipart upload. Time-ordered.
    UploadId, "upload"
);
id_128!(
    /// One splitting of a root key into shares. Shares of different splittings do not fit together.
    SplitId, "split"
);
id_128!(
    /// The public name of a key: tells keys apart and gives nothing away about them.
    KeyId, "key"
);
id_time_ordered!(StripeId);
id_time_ordered!(VersionId);
id_time_ordered!(UploadId);

macro_rules! id_number {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps a number.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id_number!(
    /// One node's identity, given by the control group at join and never reused: a node that lost its
    /// Raft log comes back under another one.
    NodeId, u64, "n"
);
id_number!(
    /// One Raft group. Group 0 is the control group; catalog groups count from 1.
    GroupId, u32, "g"
);
id_number!(
    /// One tenant partition of the catalog: one SQLite file, hosted by one group.
    PartitionId, u64, "p"
);
id_number!(
    /// A version of the cluster's membership.
    Epoch, u64, "e"
);
id_number!(
    /// A version of the cluster's root key.
    RootEpoch, u32, "root"
);
id_number!(
    /// A version of a shard's place: counts up each time the shard is written anew.
    Generation, u32, "gen"
);
id_number!(
    /// Position of a shard in its stripe: data shards first, then parity.
    ShardIndex, u8, "#"
);

impl GroupId {
    /// The group that holds membership, tenants, roles and settings.
    pub const CONTROL: Self = Self(0);
}

/// One shard: a stripe and a position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId {
    /// The stripe.
    pub stripe: StripeId,
    /// The position in the stripe.
    pub index: ShardIndex,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.stripe, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_text_and_keep_their_time() {
        let id = StripeId::new(UnixMillis::new(1_700_000_000_123), [7; 10]);
        assert_eq!(id.to_string().parse::<StripeId>(), Ok(id));
        assert_eq!(id.created().get(), 1_700_000_000_123);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<StripeId>(&json).unwrap(), id);
    }

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        let early = VersionId::new(UnixMillis::new(1), [255; 10]);
        let late = VersionId::new(UnixMillis::new(2), [0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in ["", "12", "+0000000000000000000000000000000", &"g".repeat(32)] {
            assert!(text.parse::<DriveId>().is_err(), "{text:?}");
        }
    }
}
