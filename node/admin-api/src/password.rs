//! Operators' passwords: argon2id (RFC 9106), checked off the async threads.
//!
//! Invariants:
//! - at most [`CHECKS_AT_ONCE`] checks run at a time (64 MiB each), those included that nobody waits for any more; at
//!   most [`CHECKS_WAITING_MAX`] wait;
//! - who asks again while a check of the same password runs gets its verdict: on a machine that takes longer than a
//!   client waits, the second attempt goes on where the first one was given up;
//! - an unknown user costs one full check against [`NOBODY`], as a wrong password does.

use std::{collections::HashMap, sync::Arc};

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use parking_lot::Mutex;
use ring::{digest::SHA256_OUTPUT_LEN, hmac, rand::SystemRandom};
use tokio::sync::{Semaphore, watch};
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("too many logins are being checked")]
    Busy,
    #[error("the stored password hash of this account is not usable: {0}")]
    BadRecord(String),
}

/// Names a check under way without its password: a code of password and record under a key of this process.
type Name = [u8; SHA256_OUTPUT_LEN];

/// What comes of a check; `None` while it runs.
type Verdict = watch::Receiver<Option<Result<bool, CheckError>>>;

/// Lets few password checks run at a time.
#[derive(Debug)]
pub(crate) struct PasswordGate {
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
    /// `None` when the system gave no random numbers: then no check is joined.
    naming: Option<hmac::Key>,
    under_way: Arc<Mutex<HashMap<Name, Verdict>>>,
}

impl PasswordGate {
    pub(crate) fn new() -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(CHECKS_AT_ONCE + CHECKS_WAITING_MAX)),
            running: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            naming: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            under_way: Arc::default(),
        }
    }

    /// Whether `password` is the one of `stored`; `None` is an unknown user, for whom the answer is always no.
    ///
    /// `matched` is called when it is, also when the caller has stopped waiting by then. A check that has begun is
    /// carried to its end: it cannot be interrupted.
    pub(crate) async fn check(
        &self,
        password: Zeroizing<String>,
        stored: Option<String>,
        matched: impl FnOnce() + Send + 'static,
    ) -> Result<bool, CheckError> {
        let name = self.naming.as_ref().map(|key| name(key, &password, stored.as_deref()));
        let joined = || self.under_way.lock().get(&name?).cloned();
        if let Some(verdict) = joined() {
            return outcome(verdict).await.inspect(told(matched));
        }
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| CheckError::Busy)?;
        let turn = Arc::clone(&self.running).acquire_owned().await.expect("the semaphore is never closed");
        if let Some(verdict) = joined() {
            drop(turn);
            return outcome(verdict).await.inspect(told(matched));
        }
        let (tell, verdict) = watch::channel(None);
        if let Some(name) = name {
            self.under_way.lock().insert(name, verdict.clone());
        }
        let under_way = Arc::clone(&self.under_way);
        tokio::task::spawn_blocking(move || {
            // Whoever asked: until the work is done it takes up its place.
            let _places = (admitted, turn);
            let matches = verify(&password, stored.as_deref().unwrap_or(NOBODY));
            let matches = matches.map(|matches| matches && stored.is_some());
            let matches = matches.inspect(told(matched));
            if let Some(name) = name {
                under_way.lock().remove(&name);
            }
            tell.send_replace(Some(matches));
        });
        outcome(verdict).await
    }
}

/// Calls `matched` when the password matches.
fn told(matched: impl FnOnce()) -> impl FnOnce(&bool) {
    move |matches| {
        if *matches {
            matched();
        }
    }
}

async fn outcome(mut verdict: Verdict) -> Result<bool, CheckError> {
    // It ends without a verdict only when the program does.
    let told = verdict.wait_for(Option::is_some).await.map_err(|_| CheckError::Busy)?;
    told.clone().unwrap_or(Err(CheckError::Busy))
}

fn name(key: &hmac::Key, password: &str, stored: Option<&str>) -> Name {
    let mut code = hmac::Context::with_key(key);
    code.update(&(password.len() as u64).to_le_bytes());
    code.update(password.as_bytes());
    code.update(&[u8::from(stored.is_some())]);
    code.update(stored.unwrap_or_default().as_bytes());
    code.sign().as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
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
    use std::{pin::Pin, sync::mpsc, task::Poll};

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
        assert_eq!(gate.check(Zeroizing::new("x".into()), None, || unreachable!()).await, Ok(false));
        assert_eq!(gate.check(Zeroizing::new("x".into()), Some(cheap_hash("x")), || ()).await, Ok(true));
    }

    #[tokio::test]
    async fn beyond_the_queue_logins_are_busy() {
        let gate = PasswordGate::new();
        let all = u32::try_from(CHECKS_AT_ONCE + CHECKS_WAITING_MAX).unwrap();
        let _taken = gate.admitted.acquire_many(all).await.unwrap();
        assert_eq!(gate.check(Zeroizing::new("x".into()), None, || ()).await, Err(CheckError::Busy));
    }

    /// A check that stands still in the middle until it is told to go on.
    fn held_check(
        gate: &Arc<PasswordGate>,
        password: &str,
    ) -> (tokio::task::JoinHandle<()>, mpsc::Sender<()>) {
        let (go_on, held) = mpsc::channel();
        let (gate, password) = (Arc::clone(gate), Zeroizing::new(password.to_owned()));
        let stored = Some(cheap_hash(&password));
        let check = tokio::spawn(async move {
            let matched = move || held.recv().unwrap();
            assert_eq!(gate.check(password, stored, matched).await, Ok(true));
        });
        (check, go_on)
    }

    async fn until(what: impl Fn() -> bool) {
        while !what() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_check_that_was_given_up_keeps_its_place_until_its_work_is_done() {
        let gate = Arc::new(PasswordGate::new());
        let (check, go_on) = held_check(&gate, "x");
        until(|| gate.running.available_permits() == CHECKS_AT_ONCE - 1).await;
        check.abort();
        assert!(check.await.unwrap_err().is_cancelled());
        assert_eq!(gate.running.available_permits(), CHECKS_AT_ONCE - 1, "its thread still computes");
        go_on.send(()).unwrap();
        until(|| gate.running.available_permits() == CHECKS_AT_ONCE).await;
    }

    #[tokio::test]
    async fn who_asks_again_gets_the_verdict_of_the_check_that_runs() {
        let gate = Arc::new(PasswordGate::new());
        let (first, go_on) = held_check(&gate, "x");
        until(|| gate.under_way.lock().len() == 1).await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let again = async |password: &str| {
            gate.check(Zeroizing::new(password.to_owned()), Some(cheap_hash("x")), || ()).await
        };
        assert_eq!(again("y").await, Ok(false), "another password has a check of its own");
        let joined = again("x");
        tokio::pin!(joined);
        assert!(is_pending(&mut joined).await);
        go_on.send(()).unwrap();
        assert_eq!(joined.await, Ok(true));
        until(|| gate.under_way.lock().is_empty()).await;
    }

    /// Whether a future that was given a turn is not done.
    async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending())).await
    }
}
