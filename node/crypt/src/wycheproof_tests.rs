//! The ciphers and the derivation against Project Wycheproof's vectors: both AES-GCM implementations must
//! take what is valid and refuse what is not.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use ring::{aead, hkdf};
use wycheproof::TestResult;

/// AES-256-GCM with what all of our layouts use: 96-bit nonces, 128-bit tags.
#[test]
fn both_ciphers_agree_with_every_vector_for_our_sizes() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    let groups = set.test_groups.iter();
    for group in groups.filter(|g| g.key_size == 256 && g.nonce_size == 96 && g.tag_size == 128) {
        for test in &group.tests {
            let what = format!("vector {}: {}", test.tc_id, test.comment);
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
            let bulk = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &test.key).unwrap());
            let mut bytes = sealed.clone();
            let opened = bulk
                .open_in_place(
                    aead::Nonce::assume_unique_for_key(nonce),
                    aead::Aad::from(&test.aad[..]),
                    &mut bytes,
                )
                .map(|plain| plain.to_vec());
            let wrapper = Aes256Gcm::new_from_slice(&test.key).unwrap();
            let also = wrapper.decrypt(&nonce.into(), Payload { msg: &sealed, aad: &test.aad });
            if test.result == TestResult::Invalid {
                assert!(opened.is_err() && also.is_err(), "{what}");
                invalid += 1;
                continue;
            }
            assert_eq!(opened.as_deref(), Ok(&test.pt[..]), "{what}");
            assert_eq!(also.as_deref(), Ok(&test.pt[..]), "{what}");
            let mut bytes = test.pt.to_vec();
            let tag = bulk
                .seal_in_place_separate_tag(
                    aead::Nonce::assume_unique_for_key(nonce),
                    aead::Aad::from(&test.aad[..]),
                    &mut bytes,
                )
                .unwrap();
            bytes.extend_from_slice(tag.as_ref());
            assert_eq!(bytes, sealed, "{what}");
            valid += 1;
        }
    }
    assert!(valid > 30 && invalid > 10, "{valid} valid, {invalid} invalid");
}

#[test]
fn the_derivation_agrees_with_every_vector() {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut valid = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &test.salt).extract(&test.ikm);
        let info = [&test.info[..]];
        let mut out = vec![0; test.size];
        let done = key.expand(&info, Length(test.size)).and_then(|okm| okm.fill(&mut out));
        if test.result == TestResult::Invalid {
            assert!(done.is_err(), "vector {}", test.tc_id);
        } else {
            done.unwrap();
            assert_eq!(out, test.okm[..], "vector {}", test.tc_id);
            valid += 1;
        }
    }
    assert!(valid > 50, "{valid} valid");
}
