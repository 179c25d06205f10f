//! The control group's state: membership, drives, tenants, access keys, operators, join tokens, settings.
//!
//! Every node hosts a replica and reads it locally. Changes are [`Command`]s, decided where they are
//! applied: two nodes that join under one name at once get one answer each, the same on every replica.
//!
//! Nothing secret is here in the clear: tenant keys are wrapped under the root key, access keys' secrets and
//! the CA's key under the cluster key, which the root wraps; what identities and access keys may is sealed under their
//! tenant's metadata key; join tokens are hashes, passwords argon2id.

#![forbid(unsafe_code)]

mod access_keys;
mod apply;
mod command;
mod features;
mod identity;
mod keys;
mod machine;
mod reader;
mod shred;
mod view;

pub use access_keys::{
    AccessKeyCommand, JOURNAL_ADDRESS_ALPHABET, JOURNAL_ADDRESS_SIZE, KEY_POLICY_SIZE_MAX, KeyBounds,
    SEALED_POLICY_SIZE_MAX,
};
pub use command::{
    CATALOG_GROUPS_MAX, COMMAND_VERSION, Command, DecodeError, DriveEntry, JOIN_TOKENS_MAX, NAME_SIZE_MAX,
    NewTenant, Outcome, ROLE_OPERATOR, Refusal, RegisterNode, Response, decode_outcome, encode_outcome,
};
pub use features::{
    FEATURE_LEVEL, FEATURE_LEVEL_ACCESS_KEYS, FEATURE_LEVEL_BASE, FEATURE_LEVEL_EVENTS,
    FEATURE_LEVEL_EXTERNAL_KEYS, FEATURE_LEVEL_SPLITS, FeatureCommand,
};
pub use identity::{
    ACCOUNT_NUMBER_LIMIT, ACCOUNTS_MAX, CHANGE_ROWS_MAX, IDENTITIES_MAX, IDENTITY_SIZE_MAX, IdentityChange,
    IdentityWrite, KeyWrite, NewAccount, Then,
};
pub use keys::{
    HOLDERS_MAX, KeyCommand, KeysView, RECOVERY_SETS_MAX, RecoveryRecord, Rewrapped, RootRecord, Splitting,
};
pub use machine::{
    CONTROL_DIGEST_ENTRIES, ControlMachine, FILE as CONTROL_FILE, IMAGE_KIND as CONTROL_IMAGE_KIND,
};
pub use reader::ControlReader;
pub use shred::{
    Destroyed, Finished, SHRED_TEXT_SIZE_MAX, SHREDS_MAX, ShredCommand, ShredOrder, ShredRecord,
};
pub use view::{
    AccessKeyRecord, AccountRecord, ClusterRecord, ControlView, DriveRecord, DriveState, IdentityRecord,
    JoinTokenRecord, NodeRecord, NodeState, OperatorRecord, ServiceAddresses, TenantRecord, TenantState,
};
