//! How bodies are sealed beside the tenant's key: under a customer's key, which is never kept, or under a
//! named key of the tenant.
//!
//! Every body is sealed under a key of its own, wrapped under the tenant's. With one of these the wrapping has
//! a further layer inside (`holdfast_crypt::OuterKey`), so that who has the tenant's key alone opens nothing.
//! What was chosen is kept among the object's attributes; of a customer's key only a salted check is kept, by
//! which a wrong key is told before any byte is read.

pub use holdfast_crypt::OuterKey as CustomerKey;
use holdfast_crypt::{KEY_CHECK_SIZE, KeyCheck};
use serde::{Deserialize, Serialize};

use crate::api::Attributes;

/// Name of the key that is there for every tenant, used when a client names none.
pub const DEFAULT_NAMED_KEY: &str = "alias/aws/s3";

const ALGORITHM: &str = "x-amz-server-side-encryption";
const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CONTEXT: &str = "x-amz-server-side-encryption-context";
const BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";
const CUSTOMER_ALGORITHM: &str = "x-amz-server-side-encryption-customer-algorithm";
const CUSTOMER_CHECK: &str = "holdfast-customer-key-check";

/// A named key and what goes with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedKey {
    /// Its name.
    pub id: String,
    /// The encryption context, as the client wrote it; bound to the wrapping. Empty is none.
    pub context: String,
    /// Shown and nothing more: a wrapping costs no call to another service here.
    pub bucket_key: bool,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub enum Sealing {
    /// The tenant's key, whatever the bucket's default is.
    Own,
    /// A key that the client sent.
    Customer(CustomerKey),
    /// A named key.
    Named(NamedKey),
}

/// How an object, an upload or a part is sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sealed {
    /// Under the tenant's key alone.
    #[default]
    Own,
    /// Under a customer's key, told by this.
    Customer(KeyCheck),
    /// Under a named key.
    Named(NamedKey),
}

/// Why a key does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// The object is sealed under a customer's key, and none came.
    #[error("the object is sealed under a customer's key; send it")]
    Needed,
    /// A key came that is not the object's.
    #[error("the object is sealed under another key")]
    Differs,
    /// A key came and the object has none.
    #[error("the object is not sealed under a customer's key")]
    NotApplicable,
    /// The upload was begun with a customer's key, and the part comes without, or with another.
    #[error("parts must come with the key their upload was begun with")]
    PartKey,
    /// The tenant has no named key of that name.
    #[error("there is no key {0:?}")]
    NoSuchKey(String),
}

impl Sealed {
    /// What `attributes` say.
    #[must_use]
    pub fn of(attributes: &Attributes) -> Self {
        let text = |name: &str| attributes.headers.get(name).cloned();
        if let Some(check) = text(CUSTOMER_CHECK) {
            let mut bytes = [0; KEY_CHECK_SIZE];
            // What cannot be read fits no key.
            let _ = hex::decode_to_slice(check, &mut bytes);
            return Self::Customer(KeyCheck::from_bytes(bytes));
        }
        match text(KEY_ID) {
            None => Self::Own,
            Some(id) => Self::Named(NamedKey {
                id,
                context: text(CONTEXT).unwrap_or_default(),
                bucket_key: text(BUCKET_KEY).is_some(),
            }),
        }
    }

    /// Writes it to `attributes`, in place of what they said.
    pub fn note(&self, attributes: &mut Attributes) {
        for name in [ALGORITHM, KEY_ID, CONTEXT, BUCKET_KEY, CUSTOMER_ALGORITHM, CUSTOMER_CHECK] {
            attributes.headers.remove(name);
        }
        let mut set = |name: &str, value: &str| attributes.headers.insert(name.to_owned(), value.to_owned());
        match self {
            Self::Own => {}
            Self::Customer(check) => {
                set(CUSTOMER_ALGORITHM, "AES256");
                set(CUSTOMER_CHECK, &hex::encode(check.as_bytes()));
            }
            Self::Named(named) => {
                set(ALGORITHM, "aws:kms");
                set(KEY_ID, &named.id);
                if !named.context.is_empty() {
                    set(CONTEXT, &named.context);
                }
                if named.bucket_key {
                    set(BUCKET_KEY, "true");
                }
            }
        }
    }

    /// Whether a client that sent `key`, or none, may see what is so sealed.
    ///
    /// # Errors
    /// [`KeyRefusal`].
    pub fn admits(&self, key: Option<&CustomerKey>) -> Result<(), KeyRefusal> {
        match (self, key) {
            (Self::Customer(_), None) => Err(KeyRefusal::Needed),
            (Self::Customer(check), Some(key)) if check.is_of(key) => Ok(()),
            (Self::Customer(_), Some(_)) => Err(KeyRefusal::Differs),
            (Self::Own | Self::Named(_), Some(_)) => Err(KeyRefusal::NotApplicable),
            (Self::Own | Self::Named(_), None) => Ok(()),
        }
    }
}

/// What new objects of a bucket are sealed under when they do not say: its document `Encryption`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultSealing {
    /// A named key, rather than the tenant's.
    pub named: bool,
    /// Which; [`DEFAULT_NAMED_KEY`] when none is given.
    pub key: Option<String>,
    /// Kept and shown.
    pub bucket_key: bool,
}

const VERSION: u8 = 1;

impl DefaultSealing {
    /// As the document holds it: a version byte and the postcard form.
    #[must_use]
    pub fn encode(&self) -> bytes::Bytes {
        postcard::to_extend(self, vec![VERSION])
            .expect("writing to a vector fails on no type like this")
            .into()
    }

    /// Reads a document; `None` when it is of a newer release or damaged.
    #[must_use]
    pub fn decode(document: &[u8]) -> Option<Self> {
        let (&VERSION, rest) = document.split_first()? else { return None };
        postcard::from_bytes(rest).ok()
    }

    /// What it comes to.
    #[must_use]
    pub fn sealing(&self) -> Sealing {
        if !self.named {
            return Sealing::Own;
        }
        let id = self.key.clone().unwrap_or_else(|| DEFAULT_NAMED_KEY.to_owned());
        Sealing::Named(NamedKey { id, context: String::new(), bucket_key: self.bucket_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_back_and_replaces_what_was() {
        let mut attributes = Attributes::default();
        let named = NamedKey { id: "k".into(), context: "e30=".into(), bucket_key: true };
        let key = CustomerKey::generate();
        for sealed in [Sealed::Named(named), Sealed::Customer(key.check()), Sealed::Own] {
            sealed.note(&mut attributes);
            assert_eq!(Sealed::of(&attributes), sealed);
        }
        assert_eq!(attributes, Attributes::default());
    }

    #[test]
    fn only_the_key_it_was_sealed_under_is_admitted() {
        let (key, other) = (CustomerKey::generate(), CustomerKey::generate());
        let sealed = Sealed::Customer(key.check());
        assert_eq!(sealed.admits(Some(&key)), Ok(()));
        assert_eq!(sealed.admits(Some(&other)), Err(KeyRefusal::Differs));
        assert_eq!(sealed.admits(None), Err(KeyRefusal::Needed));
        assert_eq!(Sealed::Own.admits(Some(&key)), Err(KeyRefusal::NotApplicable));
    }

    #[test]
    fn default_sealings_survive_their_document() {
        let default = DefaultSealing { named: true, key: None, bucket_key: true };
        assert_eq!(DefaultSealing::decode(&default.encode()), Some(default));
        assert_eq!(DefaultSealing::decode(b"\x02"), None);
    }
}
