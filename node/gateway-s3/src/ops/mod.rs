//! The handlers: S3's inputs and outputs to and from calls on the object layer.

pub(crate) mod bucket;
pub(crate) mod complete;
pub(crate) mod condition;
pub(crate) mod copy;
pub(crate) mod list;
pub(crate) mod multipart;
pub(crate) mod read;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod write;
