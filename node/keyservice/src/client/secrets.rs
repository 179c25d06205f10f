//! Secrets and records of the cluster's own, and what is signed in its name.

use holdfast_crypt::CryptError;
use holdfast_keyring::certificate::Destruction;
use zeroize::Zeroizing;

use super::{Client, odd};
use crate::protocol::{Hidden, KeyError, Reply, Request};

/// Secrets asked for at once.
const SECRETS_AT_ONCE: usize = 512;

/// Bytes of sealed secrets after which no more are opened with one question.
const SECRETS_SIZE_AT_ONCE: usize = 4 * 1024 * 1024;

impl Client {
    /// Seals a secret of the cluster's own under its name.
    ///
    /// # Errors
    /// `NoClusterKey`, `Away`.
    pub fn seal_secret(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sealed(Request::SealSecret { name: name.to_owned(), secret: Hidden::of(secret) })
    }

    /// Opens what [`Client::seal_secret`] made under the same name.
    ///
    /// # Errors
    /// `NoClusterKey`, `Crypt`, `Away`.
    pub fn open_secret(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let opened = self.open_secrets(vec![(name.to_owned(), sealed.to_vec())])?.pop().flatten();
        opened.map(|secret| secret.to_vec()).ok_or_else(|| CryptError::Refused("cluster secret").into())
    }

    /// Opens many, in the order given; `None` for each that does not open.
    ///
    /// # Errors
    /// `NoClusterKey`, `Away`.
    pub fn open_secrets(
        &self,
        asked: Vec<(String, Vec<u8>)>,
    ) -> Result<Vec<Option<Zeroizing<Vec<u8>>>>, KeyError> {
        let mut opened = Vec::with_capacity(asked.len());
        let mut asked = asked.into_iter().peekable();
        while asked.peek().is_some() {
            let (mut some, mut size) = (Vec::new(), 0);
            // One that is too large for this goes alone.
            while some.len() < SECRETS_AT_ONCE && (some.is_empty() || size <= SECRETS_SIZE_AT_ONCE) {
                let Some((name, sealed)) = asked.next() else { break };
                size += name.len() + sealed.len();
                some.push((name, sealed));
            }
            let count = some.len();
            match self.ask(Request::OpenSecrets(some))? {
                Reply::Secrets(secrets) if secrets.len() == count => {
                    opened.extend(secrets.into_iter().map(|secret| secret.map(Hidden::into_inner)));
                }
                other => return Err(odd(&other)),
            }
        }
        Ok(opened)
    }

    /// Seals under the root itself what must open before the control state is there.
    ///
    /// # Errors
    /// `Locked`, `Away`.
    pub fn seal_record(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sealed(Request::SealRecord { name: name.to_owned(), plain: Hidden::of(plain) })
    }

    /// Opens what [`Client::seal_record`] made under the same name.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Away`.
    pub fn open_record(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self.ask(Request::OpenRecord { name: name.to_owned(), sealed: sealed.to_vec() })? {
            Reply::Opened(plain) => Ok(plain.expose().to_vec()),
            other => Err(odd(&other)),
        }
    }

    /// Signs a certificate of destruction.
    ///
    /// # Errors
    /// `NoClusterKey`, `Away`.
    pub fn certify(&self, destruction: Destruction) -> Result<String, KeyError> {
        match self.ask(Request::Certify(destruction))? {
            Reply::Certificate(text) => Ok(text),
            other => Err(odd(&other)),
        }
    }
}
