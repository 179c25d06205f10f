//! Secrets of the cluster that the key service has opened for this node, each asked for once.
//!
//! The control state is read anew with every change of it; what is sealed in it is mostly what it was before.

use std::{collections::HashMap, sync::Arc};

use holdfast_keyservice::{Client, KeyError};
use parking_lot::Mutex;
use zeroize::Zeroizing;

/// What a sealed secret holds.
pub type Plain = Arc<Zeroizing<Vec<u8>>>;

/// What was asked for last, by name, with the bytes it was opened from.
#[derive(Default)]
pub struct Opened(Mutex<HashMap<String, (Vec<u8>, Plain)>>);

impl Opened {
    /// Opens all of these, in the order given; `None` for each that does not open. What is not among them is forgotten.
    ///
    /// # Errors
    /// As [`Client::open_secrets`]; then what is known stays.
    pub fn all(&self, keyring: &Client, asked: &[(String, &[u8])]) -> Result<Vec<Option<Plain>>, KeyError> {
        let mut known = self.0.lock();
        let is_known =
            |(name, sealed): &(String, &[u8])| known.get(name).is_some_and(|(from, _)| from == sealed);
        let fresh: Vec<_> = asked.iter().filter(|one| !is_known(one)).collect();
        let opened = keyring
            .open_secrets(fresh.iter().map(|(name, sealed)| (name.clone(), sealed.to_vec())).collect())?;
        let mut now = HashMap::with_capacity(asked.len());
        for ((name, sealed), plain) in fresh.into_iter().zip(opened) {
            if let Some(plain) = plain {
                now.insert(name.clone(), (sealed.to_vec(), Arc::new(plain)));
            }
        }
        let mut answer = Vec::with_capacity(asked.len());
        for (name, sealed) in asked {
            if !now.contains_key(name)
                && let Some(found) = known.remove(name).filter(|(from, _)| from == sealed)
            {
                now.insert(name.clone(), found);
            }
            answer.push(now.get(name).filter(|(from, _)| from == sealed).map(|(_, plain)| Arc::clone(plain)));
        }
        *known = now;
        Ok(answer)
    }
}
