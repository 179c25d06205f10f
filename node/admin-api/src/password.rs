//! Operators' passwords: argon2id (RFC 9106), checked off the async threads.
//!
//! Invariants:
//! - at most [`CHECKS_AT_ONCE`] checks run at a time (64 MiB each); at most [`CHECKS_WAITING_MAX`] wait;
//! - an unknown user costs one full check against [`NOBODY`], as a wrong password does.

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Memory of one hash in KiB: 64 MiB (RFC 9106, second recommended option; above the OWASP minimum).
const MEMORY_KIB: u32 = 64 * 1024;
/// Passes over the memory.
const PASSES: u32 = 3;
/// Lanes. One: a node has other work for its cores.
const LANES: u32 = 1;

/// Stored hashes may ask for this much memory at most, in KiB; a record is not trusted to exhaust the node.
const STORED_MEMORY_MAX_KIB: u32 = 256 * 1024;
/// Stored hashes may ask for this many passes at most.
const STORED_PASSES_MAX: u32 = 10;

/// Longest password in bytes.
pub(crate) const PASSWORD_SIZE_MAX: usize = 1024;

/// Checks that run at the same time.
const CHECKS_AT_ONCE: usize = 2;
/// Checks that wait for their turn; further logins are refused as busy.
const CHECKS_WAITING_MAX: usize = 16;

/// Well-formed, of the same cost as [`hash_password`]'s, and the hash of no known password: all-zero output.
const NOBODY: &str =
    "$argon2id$v=19$m=65536,t=3,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A password could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashPasswordError {
    /// Longer than a login accepts.
    #[error("the password is {0} bytes long, at most {PASSWORD_SIZE_MAX} are accepted")]
    TooLong(usize),
    /// No random salt, or no memory.
    #[error("hashing the password failed: {0}")]
    Argon2(argon2::password_hash::Error),
}

/// The argon2id PHC string of a password, with a fresh random salt: what `bootstrap.operator_password_hash`
/// takes. Works for about a tenth of a second with 64 MiB; call it off the async threads.
///
/// # Errors
/// The password is too long, or the system gave no random numbers.
pub fn hash_password(password: &str) -> Result<String, HashPasswordError> {
    if password.len() > PASSWORD_SIZE_MAX {
        return Err(HashPasswordError::TooLong(password.len()));
    }
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("constants within argon2's ranges");
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash = hasher.hash_password(password.as_bytes()).map_err(HashPasswordError::Argon2)?;
    Ok(hash.to_string())
}

/// Why a check gave no verdict.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("too many logins are being checked")]
    Busy,
    #[error("the stored password hash of this account is not usable: {0}")]
    BadRecord(String),
}

/// Lets few password checks run at a time.
#[derive(Debug)]
pub(crate) struct PasswordGate {
    admitted: Semaphore,
    running: Semaphore,
}

impl PasswordGate {
    pub(crate) fn new() -> Self {
        Self {
            admitted: Semaphore::new(CHECKS_AT_ONCE + CHECKS_WAITING_MAX),
            running: Semaphore::new(CHECKS_AT_ONCE),
        }
    }

    /// Whether `password` is the one of `stored`; `None` is an unknown user, for whom the answer is always no.
    pub(crate) async fn check(
        &self,
        password: Zeroizing<String>,
        stored: Option<String>,
    ) -> Result<bool, CheckError> {
        let _admitted = self.admitted.try_acquire().map_err(|_| CheckError::Busy)?;
        let _turn = self.running.acquire().await.expect("the semaphore is never closed");
        let known = stored.is_some();
        let work = move || verify(&password, stored.as_deref().unwrap_or(NOBODY));
        let matches = tokio::task::spawn_blocking(work).await.map_err(|_| CheckError::Busy)??;
        Ok(matches && known)
    }
}

fn verify(password: &str, stored: &str) -> Result<bool, CheckError> {
    let bad = |what: &dyn std::fmt::Display| CheckError::BadRecord(what.to_string());
    let hash = PasswordHash::new(stored).map_err(|e| bad(&e))?;
    let algorithm = Algorithm::try_from(hash.algorithm.as_str()).map_err(|e| bad(&e))?;
    let params = Params::try_from(&hash).map_err(|e| bad(&e))?;
    if algorithm != Algorithm::Argon2id {
        return Err(bad(&"it is not argon2id"));
    }
    if params.m_cost() > STORED_MEMORY_MAX_KIB || params.t_cost() > STORED_PASSES_MAX {
        return Err(bad(&"it asks for more memory or passes than a node gives"));
    }
    match Argon2::default().verify_password(password.as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(bad(&error)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A hash that is quick to check, for tests of what surrounds it.
    pub(crate) fn cheap_hash(password: &str) -> String {
        let params = Params::new(64, 1, 1, None).unwrap();
        let hash: PasswordHash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_with_salt(password.as_bytes(), b"0123456789abcdef")
            .unwrap();
        hash.to_string()
    }

    #[test]
    fn a_hashed_password_verifies_and_another_does_not() {
        let stored = hash_password("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=65536,t=3,p=1$"), "{stored}");
        assert_eq!(verify("correct horse", &stored), Ok(true));
        assert_eq!(verify("correct horsf", &stored), Ok(false));
        assert!(matches!(
            hash_password(&"x".repeat(PASSWORD_SIZE_MAX + 1)),
            Err(HashPasswordError::TooLong(_))
        ));
    }

    #[test]
    fn the_check_for_nobody_costs_what_a_real_one_costs() {
        let real = Params::try_from(&PasswordHash::new(&hash_password("x").unwrap()).unwrap()).unwrap();
        let nobody = Params::try_from(&PasswordHash::new(NOBODY).unwrap()).unwrap();
        assert_eq!(
            (real.m_cost(), real.t_cost(), real.p_cost()),
            (nobody.m_cost(), nobody.t_cost(), nobody.p_cost())
        );
        assert_eq!(verify("", NOBODY), Ok(false));
    }

    #[test]
    fn records_of_other_algorithms_or_unbounded_cost_are_refused() {
        let good = cheap_hash("x");
        for bad in [
            good.replace("argon2id", "argon2d"),
            good.replace("m=64", "m=1048576"),
            good.replace("t=1", "t=11"),
            "plain".into(),
        ] {
            assert!(matches!(verify("x", &bad), Err(CheckError::BadRecord(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_unknown_user_is_refused() {
        let gate = PasswordGate::new();
        assert_eq!(gate.check(Zeroizing::new("x".into()), None).await, Ok(false));
        assert_eq!(gate.check(Zeroizing::new("x".into()), Some(cheap_hash("x"))).await, Ok(true));
    }

    #[tokio::test]
    async fn beyond_the_queue_logins_are_busy() {
        let gate = PasswordGate::new();
        let all = u32::try_from(CHECKS_AT_ONCE + CHECKS_WAITING_MAX).unwrap();
        let _taken = gate.admitted.acquire_many(all).await.unwrap();
        assert_eq!(gate.check(Zeroizing::new("x".into()), None).await, Err(CheckError::Busy));
    }
}
