//! A small S3 client for tests and benchmarks: every header under the caller's control, mistakes included.

mod client;
mod sign;
mod xml;

pub use client::{Call, Client, Listed};
pub use sign::{CHUNKED_TRAILER, Credentials, Moment, Payload, aws_chunked, encode, presign, sha256_hex};
pub use xml::{fields, first};
