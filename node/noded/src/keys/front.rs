//! What a node answers to clients and operators while it is locked.
//!
//! It takes the same addresses that its services take later, with the certificate they showed last; a node
//! that never served shows its peer certificate, which names no host.

use std::sync::Arc;

use anyhow::Result;
use holdfast_admin_api::{
    LockStatus, LockedBackend, UnlockError, UnlockRequest, locked_router, locked_s3_router,
};
use holdfast_model::config::Listen;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Unlocker;
use crate::{metrics, node::listen};

/// The services of a locked node.
pub struct Front {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

struct Answers(Arc<Unlocker>);

#[async_trait::async_trait]
impl LockedBackend for Answers {
    fn status(&self) -> LockStatus {
        self.0.status()
    }

    async fn unlock(&self, request: UnlockRequest) -> Result<LockStatus, UnlockError> {
        Arc::clone(&self.0).unlock_with(request).await
    }
}

impl Front {
    /// Listens and answers.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub async fn open(
        unlocker: &Arc<Unlocker>,
        addresses: &Listen,
        tls: &Arc<rustls::ServerConfig>,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let backend: Arc<dyn LockedBackend> = Arc::new(Answers(Arc::clone(unlocker)));
        let routers = [
            (addresses.admin, "admin", locked_router(Arc::clone(&backend))),
            (addresses.s3, "S3", locked_s3_router(backend)),
        ];
        for (address, what, router) in routers {
            let listener = listen(address, what).await?;
            let ended = stop.clone().cancelled_owned();
            tasks.spawn(holdfast_admin_api::serve(listener, Arc::clone(tls), router, ended));
        }
        let listener = listen(addresses.metrics, "metrics").await?;
        let monitor = metrics::of_locked(Arc::clone(unlocker));
        let render = Arc::new(move || monitor.render());
        let ended = stop.clone().cancelled_owned();
        tasks.spawn(holdfast_admin_api::serve_metrics(listener, Arc::clone(tls), render, ended));
        Ok(Self { stop, tasks })
    }

    /// Gives the addresses back.
    pub async fn close(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
