//! Session tokens: signed, not stored, good on every node of the cluster.
//!
//! `hf1.<claims>.<mac>`: claims are JSON, mac is HMAC-SHA-256 over a fixed context and the claims, both in
//! base64url without padding. The role is not in the token: it is read from the operator's record for each
//! request. `stamp` ties a token to the password hash of that record: a new password ends all sessions.
//!
//! Pure but for the random nonce: time is an argument.

use std::{collections::HashMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use holdfast_model::UnixMillis;
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};

use crate::OperatorRecord;

/// How long a session lasts: one working day, from the login.
pub(crate) const LIFETIME: Duration = Duration::from_secs(8 * 3600);
/// Tokens from this far in the future are accepted: clocks of nodes differ.
const SKEW_MAX: Duration = Duration::from_secs(300);
/// Longest token in bytes; longer ones are not looked at.
const TOKEN_SIZE_MAX: usize = 1024;
/// Sessions ended by logout that this node remembers until they expire.
const ENDED_MAX: usize = 4096;

const PREFIX: &str = "hf1";
/// Separates this use of the session key from any other.
const CONTEXT: &[u8] = b"holdfast admin session v1\0";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    /// Login name.
    pub(crate) user: String,
    /// Unix milliseconds.
    pub(crate) issued: UnixMillis,
    /// Unix milliseconds.
    pub(crate) expires: UnixMillis,
    /// Tells two sessions of one millisecond apart.
    pub(crate) nonce: String,
    /// Of the operator's record.
    stamp: String,
}

impl Claims {
    pub(crate) fn new(record: &OperatorRecord, now: UnixMillis) -> Result<Self, getrandom::Error> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)?;
        Ok(Self {
            user: record.user.clone(),
            issued: now,
            expires: later(now, LIFETIME),
            nonce: hex::encode(nonce),
            stamp: stamp(record),
        })
    }

    /// Whether the record is still the one these claims were made for.
    pub(crate) fn fits(&self, record: &OperatorRecord) -> bool {
        self.user == record.user && self.stamp == stamp(record)
    }

    pub(crate) fn sign(&self, key: &[u8; 32]) -> String {
        let claims = serde_json::to_vec(self).expect("strings and numbers always serialize");
        let claims = URL_SAFE_NO_PAD.encode(claims);
        let mac = hmac::sign(&hmac_key(key), &message(&claims));
        format!("{PREFIX}.{claims}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// The claims of a token that was signed with `key` and is in its time, or `None`: why a token is bad is
    /// no business of who sent it.
    pub(crate) fn verify(token: &str, key: &[u8; 32], now: UnixMillis) -> Option<Self> {
        if token.len() > TOKEN_SIZE_MAX {
            return None;
        }
        let (claims, mac) = token.strip_prefix(PREFIX)?.strip_prefix('.')?.split_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(&hmac_key(key), &message(claims), &mac).ok()?;
        let claims: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let in_time = claims.issued <= later(now, SKEW_MAX)
            && now < claims.expires
            && claims.expires <= later(claims.issued, LIFETIME);
        in_time.then_some(claims)
    }
}

fn later(time: UnixMillis, by: Duration) -> UnixMillis {
    UnixMillis::new(time.get().saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

fn hmac_key(key: &[u8; 32]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key)
}

fn message(claims: &str) -> Vec<u8> {
    [CONTEXT, claims.as_bytes()].concat()
}

fn stamp(record: &OperatorRecord) -> String {
    let digest = digest::digest(&digest::SHA256, record.password_hash.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16])
}

/// Sessions that were ended by logout here, until their time is over.
///
/// Other nodes do not know of them: the browser has dropped its cookie, and a token copied before stays good
/// there until it expires or the password changes.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    until: HashMap<String, UnixMillis>,
}

impl Ended {
    pub(crate) fn end(&mut self, claims: &Claims, now: UnixMillis) {
        self.until.retain(|_, expires| *expires > now);
        if self.until.len() >= ENDED_MAX {
            let soonest =
                self.until.iter().min_by_key(|(_, expires)| **expires).map(|(nonce, _)| nonce.clone());
            if let Some(soonest) = soonest {
                self.until.remove(&soonest);
            }
        }
        self.until.insert(claims.nonce.clone(), claims.expires);
    }

    pub(crate) fn contains(&self, claims: &Claims) -> bool {
        self.until.contains_key(&claims.nonce)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Role;

    const KEY: [u8; 32] = [7; 32];
    const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);

    fn record(hash: &str) -> OperatorRecord {
        OperatorRecord { user: "admin".into(), password_hash: hash.into(), role: Role::Operator }
    }

    fn token() -> (Claims, String) {
        let claims = Claims::new(&record("h"), NOW).unwrap();
        let token = claims.sign(&KEY);
        (claims, token)
    }

    #[test]
    fn a_token_is_good_from_its_issue_to_its_end_and_not_after() {
        let (claims, token) = token();
        assert_eq!(Claims::verify(&token, &KEY, NOW), Some(claims.clone()));
        let last = UnixMillis::new(claims.expires.get() - 1);
        assert!(Claims::verify(&token, &KEY, last).is_some());
        assert_eq!(Claims::verify(&token, &KEY, claims.expires), None);
    }

    #[test]
    fn a_clock_that_is_a_little_behind_is_forgiven_and_a_token_from_tomorrow_is_not() {
        let (_, token) = token();
        let behind = |by: Duration| UnixMillis::new(NOW.get() - u64::try_from(by.as_millis()).unwrap());
        assert!(Claims::verify(&token, &KEY, behind(SKEW_MAX)).is_some());
        assert!(Claims::verify(&token, &KEY, behind(SKEW_MAX + Duration::from_secs(1))).is_none());
    }

    #[test]
    fn another_clusters_key_does_not_open_it() {
        assert_eq!(Claims::verify(&token().1, &[8; 32], NOW), None);
    }

    #[test]
    fn a_changed_password_ends_the_session() {
        let (claims, _) = token();
        assert!(claims.fits(&record("h")));
        assert!(!claims.fits(&record("i")));
    }

    #[test]
    fn a_session_longer_than_the_lifetime_is_refused_though_signed() {
        let (mut claims, _) = token();
        claims.expires = later(claims.expires, Duration::from_millis(1));
        assert_eq!(Claims::verify(&claims.sign(&KEY), &KEY, NOW), None);
    }

    #[test]
    fn ended_sessions_are_remembered_until_they_expire() {
        let mut ended = Ended::default();
        let (claims, _) = token();
        let (other, _) = token();
        ended.end(&claims, NOW);
        assert!(ended.contains(&claims) && !ended.contains(&other));
        ended.end(&other, claims.expires);
        assert!(!ended.contains(&claims));
    }

    proptest! {
        #[test]
        fn any_changed_byte_breaks_the_token(position in 0usize..400, flip in 1u8..128) {
            let (_, token) = token();
            let mut bytes = token.into_bytes();
            let position = position % bytes.len();
            bytes[position] ^= flip;
            if let Ok(changed) = String::from_utf8(bytes) {
                prop_assert_eq!(Claims::verify(&changed, &KEY, NOW), None);
            }
        }

        #[test]
        fn arbitrary_text_is_no_token(text in "\\PC{0,200}") {
            prop_assert_eq!(Claims::verify(&text, &KEY, NOW), None);
        }
    }
}
