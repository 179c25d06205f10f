//! Every label that separates one use of a key from another, in one place: the table in `docs/keys.md`.
//!
//! A label is part of a published format: it is never changed and never used for something else.

/// HKDF info of an envelope's key; the purpose follows.
pub(crate) const ENVELOPE: &[u8] = b"holdfast envelope v1 ";
/// HKDF info of a tenant's metadata key.
pub(crate) const TENANT_METADATA: &[u8] = b"holdfast tenant metadata v1";
/// HKDF info of the seed that signs the cluster's certificates.
pub(crate) const CERTIFICATE_SEED: &[u8] = b"holdfast certificate seed v1";
/// HKDF info of a key's public name; the kind of key follows.
pub(crate) const KEY_ID: &[u8] = b"holdfast key id v1 ";

/// Purpose of an envelope that holds a body key.
pub(crate) const BODY_KEY: &str = "body key";
/// Purpose of an envelope that holds a record's manifest, or a tenant's part of a catalog record.
pub(crate) const RECORD_MANIFEST: &str = "record manifest";
/// Purpose of an envelope that holds a tenant key.
pub(crate) const TENANT_KEY: &str = "tenant key";
/// Purpose of an envelope that holds a tenant key under a key of the tenant's external service.
pub(crate) const EXTERNAL_TENANT_KEY: &str = "tenant key under an external key";
/// Purpose of an envelope that holds the cluster key.
pub(crate) const CLUSTER_KEY: &str = "cluster key";
/// Purpose of an envelope that holds a secret of the cluster under the root itself.
pub(crate) const ROOT_RECORD: &str = "root record";
/// Purpose of an envelope that holds a secret of the cluster.
pub(crate) const CLUSTER_SECRET: &str = "cluster secret";
/// Purpose of an envelope that holds a node's shares under its passphrase.
pub(crate) const SHARES: &str = "node shares";

/// Associated data of a cell begins with this.
pub(crate) const CELL: &[u8; 5] = b"cell\x01";

#[cfg(test)]
mod tests {
    #[test]
    fn no_label_is_used_twice_and_no_envelope_label_begins_another() {
        let purposes = [
            super::BODY_KEY,
            super::RECORD_MANIFEST,
            super::TENANT_KEY,
            super::EXTERNAL_TENANT_KEY,
            super::CLUSTER_KEY,
            super::ROOT_RECORD,
            super::CLUSTER_SECRET,
            super::SHARES,
        ];
        for (i, one) in purposes.iter().enumerate() {
            for other in &purposes[i + 1..] {
                assert!(one != other);
            }
        }
        for (one, other) in [
            (super::ENVELOPE, super::TENANT_METADATA),
            (super::ENVELOPE, super::KEY_ID),
            (super::KEY_ID, super::TENANT_METADATA),
            (super::CERTIFICATE_SEED, super::ENVELOPE),
            (super::CERTIFICATE_SEED, super::KEY_ID),
            (super::CERTIFICATE_SEED, super::TENANT_METADATA),
        ] {
            assert!(!one.starts_with(other) && !other.starts_with(one));
        }
    }
}
