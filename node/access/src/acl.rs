//! Access control lists of buckets and objects.
//!
//! Stored form: one version byte, then postcard. A list that cannot be read grants nothing.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::text::CanonicalId;

/// Grants of one list at most (AWS: 100).
pub const GRANTS_MAX: usize = 100;
const VERSION: u8 = 1;

/// `http://acs.amazonaws.com/groups/global/AllUsers`
pub const ALL_USERS: &str = "http://acs.amazonaws.com/groups/global/AllUsers";
/// `http://acs.amazonaws.com/groups/global/AuthenticatedUsers`
pub const AUTHENTICATED_USERS: &str = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers";
/// `http://acs.amazonaws.com/groups/s3/LogDelivery`
pub const LOG_DELIVERY: &str = "http://acs.amazonaws.com/groups/s3/LogDelivery";

/// A list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// Whose bucket or object it is.
    pub owner: CanonicalId,
    /// In the order in which they were given.
    pub grants: Vec<Grant>,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// To whom.
    pub grantee: Grantee,
    /// What.
    pub permission: Permission,
}

/// Who is granted something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grantee {
    /// An account.
    Account(CanonicalId),
    /// Everybody, signed or not.
    AllUsers,
    /// Everybody who signs, of any account.
    AuthenticatedUsers,
    /// The log writer.
    LogDelivery,
}

/// What is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Permission {
    FullControl,
    Read,
    Write,
    ReadAcp,
    WriteAcp,
}

impl Permission {
    const ALL: [Self; 5] = [Self::FullControl, Self::Read, Self::Write, Self::ReadAcp, Self::WriteAcp];

    /// The word of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::FullControl => "FULL_CONTROL",
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::ReadAcp => "READ_ACP",
            Self::WriteAcp => "WRITE_ACP",
        }
    }

    /// Reads the word of the API.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.word() == word)
    }
}

impl Grantee {
    /// The group's URI, when it is one.
    #[must_use]
    pub const fn uri(self) -> Option<&'static str> {
        match self {
            Self::Account(_) => None,
            Self::AllUsers => Some(ALL_USERS),
            Self::AuthenticatedUsers => Some(AUTHENTICATED_USERS),
            Self::LogDelivery => Some(LOG_DELIVERY),
        }
    }

    /// Reads a group's URI.
    #[must_use]
    pub fn group(uri: &str) -> Option<Self> {
        [Self::AllUsers, Self::AuthenticatedUsers, Self::LogDelivery]
            .into_iter()
            .find(|one| one.uri() == Some(uri))
    }
}

/// The canned lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Canned {
    Private,
    PublicRead,
    PublicReadWrite,
    AuthenticatedRead,
    AwsExecRead,
    BucketOwnerRead,
    BucketOwnerFullControl,
    LogDeliveryWrite,
}

impl Canned {
    /// Reads the word of the API.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "private" => Self::Private,
            "public-read" => Self::PublicRead,
            "public-read-write" => Self::PublicReadWrite,
            "authenticated-read" => Self::AuthenticatedRead,
            "aws-exec-read" => Self::AwsExecRead,
            "bucket-owner-read" => Self::BucketOwnerRead,
            "bucket-owner-full-control" => Self::BucketOwnerFullControl,
            "log-delivery-write" => Self::LogDeliveryWrite,
            _ => return None,
        })
    }

    /// The list it stands for, on something of `owner`'s in a bucket of `bucket_owner`'s.
    #[must_use]
    pub fn list(self, owner: CanonicalId, bucket_owner: CanonicalId) -> Acl {
        let mut acl = Acl::private(owner);
        let mut add = |grantee, permission| acl.grants.push(Grant { grantee, permission });
        match self {
            // `aws-exec-read` grants to a service that does not exist here.
            Self::Private | Self::AwsExecRead => {}
            Self::PublicRead => add(Grantee::AllUsers, Permission::Read),
            Self::PublicReadWrite => {
                add(Grantee::AllUsers, Permission::Read);
                add(Grantee::AllUsers, Permission::Write);
            }
            Self::AuthenticatedRead => add(Grantee::AuthenticatedUsers, Permission::Read),
            Self::BucketOwnerRead if owner != bucket_owner => {
                add(Grantee::Account(bucket_owner), Permission::Read);
            }
            Self::BucketOwnerFullControl if owner != bucket_owner => {
                add(Grantee::Account(bucket_owner), Permission::FullControl);
            }
            Self::BucketOwnerRead | Self::BucketOwnerFullControl => {}
            Self::LogDeliveryWrite => {
                add(Grantee::LogDelivery, Permission::Write);
                add(Grantee::LogDelivery, Permission::ReadAcp);
            }
        }
        acl
    }
}

impl Acl {
    /// The owner has full control, nobody else has anything.
    #[must_use]
    pub fn private(owner: CanonicalId) -> Self {
        let full = Grant { grantee: Grantee::Account(owner), permission: Permission::FullControl };
        Self { owner, grants: vec![full] }
    }

    /// Whether it grants anything to everybody.
    #[must_use]
    pub fn is_public(&self) -> bool {
        let to_all = |grant: &Grant| matches!(grant.grantee, Grantee::AllUsers | Grantee::AuthenticatedUsers);
        self.grants.iter().any(to_all)
    }

    /// Whether only the owner is granted something.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.grants.iter().all(|grant| grant.grantee == Grantee::Account(self.owner))
    }

    /// Whether it grants `wanted` to an account (`None`: to somebody who did not sign). With
    /// `ignore_public`, grants to everybody do not count.
    #[must_use]
    pub fn grants(&self, wanted: Permission, to: Option<CanonicalId>, ignore_public: bool) -> bool {
        self.grants.iter().any(|grant| {
            let named = match grant.grantee {
                Grantee::Account(id) => to == Some(id),
                Grantee::AllUsers => !ignore_public,
                Grantee::AuthenticatedUsers => !ignore_public && to.is_some(),
                Grantee::LogDelivery => false,
            };
            named && (grant.permission == wanted || grant.permission == Permission::FullControl)
        })
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        postcard::to_extend(self, vec![VERSION]).map(Bytes::from).unwrap_or_default()
    }

    /// Reads the stored form.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: CanonicalId = CanonicalId::from_bytes([1; 32]);
    const B: CanonicalId = CanonicalId::from_bytes([2; 32]);

    #[test]
    fn canned_lists_grant_what_their_names_say() {
        let list = Canned::PublicRead.list(A, A);
        assert!(list.grants(Permission::Read, None, false) && !list.grants(Permission::Write, None, false));
        assert!(!list.grants(Permission::Read, None, true), "ignored");
        let list = Canned::AuthenticatedRead.list(A, A);
        assert!(list.grants(Permission::Read, Some(B), false) && !list.grants(Permission::Read, None, false));
        let list = Canned::BucketOwnerFullControl.list(B, A);
        assert!(list.grants(Permission::WriteAcp, Some(A), true));
        assert!(Canned::Private.list(A, B).is_private() && !list.is_private() && !list.is_public());
    }

    #[test]
    fn the_stored_form_is_read_back_and_damage_grants_nothing() {
        let list = Canned::PublicReadWrite.list(A, B);
        let stored = list.encode();
        assert_eq!(Acl::decode(&stored), Some(list));
        for cut in 0..stored.len() {
            assert_eq!(Acl::decode(&stored[..cut]), None);
        }
    }
}
