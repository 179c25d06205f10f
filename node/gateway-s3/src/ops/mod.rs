//! The handlers: S3's inputs and outputs to and from calls on the object layer.

pub(crate) mod acl;
pub(crate) mod attributes;
pub(crate) mod bucket;
pub(crate) mod class;
pub(crate) mod complete;
pub(crate) mod condition;
pub(crate) mod copy;
pub(crate) mod cors;
pub(crate) mod delete;
pub(crate) mod documents;
pub(crate) mod encryption;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod lock;
pub(crate) mod multipart;
pub(crate) mod policy;
pub(crate) mod read;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod tagging;
pub(crate) mod unused;
pub(crate) mod uploads;
pub(crate) mod versioning;
pub(crate) mod versions;
pub(crate) mod website;
pub(crate) mod write;
