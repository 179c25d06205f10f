//! HKDF-SHA-256 (RFC 5869) with a label per purpose.

use ring::hkdf;
use zeroize::Zeroizing;

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// `N` bytes (at most 255 * 32) derived from `key` and `salt` for the purpose named by `info`.
pub(crate) fn derive<const N: usize>(key: &[u8; 32], salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32) };
    let mut out = Zeroizing::new([0; N]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(key)
        .expand(info, Length(N))
        .and_then(|okm| okm.fill(out.as_mut_slice()))
        .expect("N is within RFC 5869's limit, checked above");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_and_salts_separate_keys() {
        let key = [7; 32];
        let a: Zeroizing<[u8; 32]> = derive(&key, b"s", &[b"a"]);
        assert_ne!(*a, *derive::<32>(&key, b"s", &[b"b"]));
        assert_ne!(*a, *derive::<32>(&key, b"t", &[b"a"]));
        assert_eq!(*a, *derive::<32>(&key, b"s", &[b"a"]));
    }
}
