//! What all handlers of one node share.

use std::sync::Arc;

use holdfast_model::UnixMillis;
use parking_lot::Mutex;

use crate::{AdminBackend, backoff::Backoff, password::PasswordGate, session::Ended};

#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) backend: Arc<dyn AdminBackend>,
    pub(crate) passwords: Arc<PasswordGate>,
    pub(crate) backoff: Arc<Mutex<Backoff>>,
    pub(crate) ended: Arc<Mutex<Ended>>,
}

impl AppState {
    pub(crate) fn new(backend: Arc<dyn AdminBackend>) -> Self {
        Self {
            backend,
            passwords: Arc::new(PasswordGate::new()),
            backoff: Arc::default(),
            ended: Arc::default(),
        }
    }
}

/// The time of day, as the cluster has it. A clock before 1970 reads as 1970: sessions then do not verify.
pub(crate) fn now() -> UnixMillis {
    holdfast_clock::now()
}
