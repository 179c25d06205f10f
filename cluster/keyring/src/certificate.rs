//! Certificates that a tenant's key was destroyed: text for people, signed as it stands.
//!
//! ```text
//! HOLDFAST CERTIFICATE OF DESTRUCTION 1
//! cluster 0123…                       what happened, a line a fact
//! …
//! signed-by 89ab…                     public key, 64 hex digits
//! signature cdef…                     over every byte before this line, 128 hex digits
//! ```
//!
//! Lines end with one line feed, the last one too. Nothing in it can be changed, moved or left out: a signature
//! covers the bytes and not their meaning.

use std::fmt::Write as _;

use holdfast_crypt::{CertificateSigner, PUBLIC_KEY_SIZE, SIGNATURE_SIZE, verify_signature};
use holdfast_model::{ClusterId, KeyId, RootEpoch, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

const TITLE: &str = "HOLDFAST CERTIFICATE OF DESTRUCTION 1";
const SIGNED_BY: &str = "signed-by ";
const SIGNATURE: &str = "signature ";

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destruction {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// Whose key.
    pub tenant: TenantId,
    /// The tenant's name.
    pub tenant_name: String,
    /// Every version of the key by its public name.
    pub keys: Vec<(u32, KeyId)>,
    /// The last root that wrapped it, which is let go.
    pub wrapped_by: (RootEpoch, KeyId),
    /// The root in force, which never wrapped it.
    pub root: (RootEpoch, KeyId),
    /// Recovery shares of roots that wrapped it, as they were given out: tag, epoch, threshold, count.
    pub paper: Vec<([u8; 4], RootEpoch, u8, u8)>,
    /// The external service's key that sealed it, for people, if there was one.
    pub external: Option<String>,
    /// Who asked.
    pub by: String,
    /// Why retentions and legal holds were passed over, where they were.
    pub overridden: Option<String>,
    /// When it was decided.
    pub begun: UnixMillis,
    /// When the wrapped key was removed.
    pub destroyed: UnixMillis,
    /// Nodes that hold nothing of it any more: number, name, since when.
    pub nodes: Vec<(u64, String, UnixMillis)>,
    /// When all that was done.
    pub finished: UnixMillis,
}

/// Why a certificate is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not of this form.
    #[error("this is not a certificate of destruction of version 1, or it is not whole")]
    Form,
    /// Signed by another key.
    #[error("it names another key than the cluster's; ask the cluster for its certificate key")]
    Key,
    /// The signature is not of these bytes.
    #[error("the signature does not fit: it was changed, or another key signed it")]
    Signature,
}

impl Destruction {
    /// The certificate.
    #[must_use]
    pub fn sign(&self, signer: &CertificateSigner) -> String {
        let mut text = self.facts();
        line(&mut text, SIGNED_BY, &hex(&signer.public()));
        let signature = signer.sign(text.as_bytes());
        line(&mut text, SIGNATURE, &hex(&signature));
        text
    }

    fn facts(&self) -> String {
        let mut text = format!("{TITLE}\n");
        let mut say = |what: &str, value: String| line(&mut text, &format!("{what} "), &value);
        say("cluster", self.cluster.to_string());
        say("cluster-name", quoted(&self.cluster_name));
        say("tenant", self.tenant.to_string());
        say("tenant-name", quoted(&self.tenant_name));
        for (version, id) in &self.keys {
            say("destroyed-key", format!("version {version} id {id}"));
        }
        let root = |(epoch, id): &(RootEpoch, KeyId)| format!("epoch {} id {id}", epoch.get());
        say("last-wrapped-by-root", root(&self.wrapped_by));
        say("root-in-force", root(&self.root));
        for (tag, epoch, threshold, count) in &self.paper {
            let (tag, epoch) = (hex(tag), epoch.get());
            say("recovery-shares-to-destroy", format!("set {tag} epoch {epoch} {threshold} of {count}"));
        }
        if let Some(external) = &self.external {
            say("sealed-under-external-key", quoted(external));
        }
        say("asked-by", quoted(&self.by));
        say("retention-passed-over", self.overridden.as_deref().map_or_else(|| "no".to_owned(), quoted));
        say("begun-unix-ms", self.begun.get().to_string());
        say("destroyed-unix-ms", self.destroyed.get().to_string());
        for (number, name, at) in &self.nodes {
            say("confirmed-by", format!("node {number} {} unix-ms {}", quoted(name), at.get()));
        }
        say("finished-unix-ms", self.finished.get().to_string());
        text
    }
}

/// Checks a certificate against the cluster's public key; returns the lines of facts.
///
/// # Errors
/// [`CertificateError`].
pub fn verify<'t>(text: &'t str, public: &[u8; PUBLIC_KEY_SIZE]) -> Result<&'t str, CertificateError> {
    let form = CertificateError::Form;
    let body = text.strip_suffix('\n').ok_or(form)?;
    let at = body.rfind('\n').ok_or(form)? + 1;
    let (signed, last) = (&text[..at], &body[at..]);
    let signature: [u8; SIGNATURE_SIZE] = last.strip_prefix(SIGNATURE).and_then(unhex).ok_or(form)?;
    let at = signed.trim_end_matches('\n').rfind('\n').ok_or(form)? + 1;
    let (facts, by) = signed.split_at(at);
    let by: [u8; PUBLIC_KEY_SIZE] =
        by.strip_suffix('\n').and_then(|by| by.strip_prefix(SIGNED_BY)).and_then(unhex).ok_or(form)?;
    if !facts.starts_with(TITLE) {
        return Err(form);
    }
    if by != *public {
        return Err(CertificateError::Key);
    }
    verify_signature(public, signed.as_bytes(), &signature).map_err(|_| CertificateError::Signature)?;
    Ok(facts)
}

/// A public key as people hand it on.
#[must_use]
pub fn parse_public_key(text: &str) -> Option<[u8; PUBLIC_KEY_SIZE]> {
    unhex(text.trim())
}

/// A public key for people.
#[must_use]
pub fn show_public_key(public: &[u8; PUBLIC_KEY_SIZE]) -> String {
    hex(public)
}

fn line(text: &mut String, what: &str, value: &str) {
    text.push_str(what);
    text.push_str(value);
    text.push('\n');
}

/// No line break can hide in a name.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// Lower case only: there is one way to write a certificate.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use holdfast_crypt::ClusterKey;

    use super::*;

    fn destruction() -> Destruction {
        Destruction {
            cluster: ClusterId::from_bytes([1; 16]),
            cluster_name: "holdfast".into(),
            tenant: TenantId::from_bytes([2; 16]),
            tenant_name: "demo\nsignature 00".into(),
            keys: vec![(1, KeyId::from_bytes([3; 16])), (2, KeyId::from_bytes([4; 16]))],
            wrapped_by: (RootEpoch::new(1), KeyId::from_bytes([5; 16])),
            root: (RootEpoch::new(2), KeyId::from_bytes([6; 16])),
            paper: vec![([7; 4], RootEpoch::new(1), 2, 3)],
            by: "admin".into(),
            external: Some("transit key k at https://vault.example".into()),
            overridden: Some("a court's order".into()),
            begun: UnixMillis::new(10),
            destroyed: UnixMillis::new(11),
            nodes: vec![(1, "n1".into(), UnixMillis::new(12))],
            finished: UnixMillis::new(13),
        }
    }

    #[test]
    fn a_certificate_verifies_and_one_with_any_byte_changed_or_missing_does_not() {
        let signer = ClusterKey::from_bytes([9; 32]).certificate_signer();
        let text = destruction().sign(&signer);
        let facts = verify(&text, &signer.public()).unwrap();
        assert!(
            facts.contains("destroyed-key version 2 id 0404") && facts.contains("confirmed-by node 1"),
            "{text}"
        );
        let other = ClusterKey::from_bytes([8; 32]).certificate_signer();
        assert_eq!(verify(&text, &other.public()), Err(CertificateError::Key));
        assert_eq!(verify(&destruction().sign(&other), &signer.public()), Err(CertificateError::Key));
        let mut tried = 0;
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            for bit in 0..7 {
                changed[at] ^= 1 << bit;
                let Ok(read) = std::str::from_utf8(&changed) else { continue };
                assert!(verify(read, &signer.public()).is_err(), "bit {bit} of byte {at}");
                changed[at] ^= 1 << bit;
                tried += 1;
            }
            assert!(verify(&text[..at], &signer.public()).is_err(), "cut at {at}");
        }
        assert!(verify(&format!("{text}\n"), &signer.public()).is_err());
        assert!(verify(&format!("\n{text}"), &signer.public()).is_err());
        println!("{tried} changed certificates refused");
    }

    #[test]
    fn public_keys_are_written_and_read() {
        let public = ClusterKey::from_bytes([9; 32]).certificate_signer().public();
        assert_eq!(parse_public_key(&format!("{}\n", show_public_key(&public))), Some(public));
        assert_eq!(parse_public_key("00"), None);
    }
}
