//! Who may do what. Pure: no clock, no I/O, no storage; the gateway brings the facts.
//!
//! - [`identity`]: tenants, their accounts, users, groups, roles, policies; [`iam`] changes them.
//! - [`policy`]: IAM documents, parsed, validated and evaluated.
//! - [`acl`]: access control lists of buckets and objects; [`ownership`] and [`block`] restrain them.
//! - [`decide`]: all of it together, for one request; what nothing allows is denied.
//! - [`cors`], [`form`]: cross-origin rules, and the policy documents of browser forms.
//! - [`website`]: a bucket as a website, and where that sends who asks.
//!
//! Documents come from strangers: every parser bounds its input and has a fuzz target.

#![forbid(unsafe_code)]

pub mod acl;
pub mod block;
pub mod cors;
pub mod decide;
pub mod form;
pub mod iam;
pub mod identity;
pub mod ownership;
pub mod policy;
pub mod text;
pub mod website;
