//! Keys as types: zeroized on drop, never printed, never compared in variable time.

use std::fmt;

use holdfast_model::KeyId;
use zeroize::Zeroizing;

use crate::{derive::derive, labels};

/// Fresh bytes from the kernel (getrandom(2)).
///
/// # Panics
/// When the kernel has no randomness to give: nothing may be sealed then.
#[must_use]
pub fn random_array<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .expect("the kernel's random source answers once it is seeded, which it is before PID 1");
    bytes
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Zeroizing<[u8; 32]>);

        impl $name {
            /// A fresh random key.
            #[must_use]
            pub fn generate() -> Self {
                Self(Zeroizing::new(random_array()))
            }

            /// Takes key bytes that were unwrapped or read from protected storage.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(Zeroizing::new(bytes))
            }

            /// The key bytes, to be wrapped or written to protected storage.
            #[must_use]
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }

            /// The public name of this key.
            #[must_use]
            pub fn id(&self) -> KeyId {
                KeyId::from_bytes(*derive(&self.0, b"", &[labels::KEY_ID, $kind]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

key!(
    /// The bytes of a root key. What it does, it does as a [`Root`](crate::Root).
    RootKey,
    b"root"
);
key!(
    /// Seals the cluster's own secrets; wrapped by the root, so that a new root re-wraps one key.
    ClusterKey,
    b"cluster"
);
key!(
    /// What seals a tenant's metadata; derived from the tenant's key.
    MetadataKey,
    b"metadata"
);
key!(
    /// Seals a tenant's key; itself kept by nobody but the tenant's external key service, which encrypts it.
    ExternalKek,
    b"external"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_print_themselves() {
        let key = RootKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "RootKey(..)");
    }

    #[test]
    fn names_tell_keys_and_kinds_apart() {
        let id = RootKey::from_bytes([1; 32]).id();
        assert_eq!(id, RootKey::from_bytes([1; 32]).id());
        assert_ne!(id, RootKey::from_bytes([2; 32]).id());
        assert_ne!(id, ClusterKey::from_bytes([1; 32]).id());
    }
}
