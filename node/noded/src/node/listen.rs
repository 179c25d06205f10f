//! Ports to listen on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::TcpListener;

use super::STARTING_POLL;

/// How long an address that is in use is waited for.
const FREE_WITHIN: Duration = Duration::from_secs(10);

/// Listens for TCP connections.
///
/// # Errors
/// When the address cannot be had.
pub(crate) async fn listen(address: std::net::SocketAddr, what: &str) -> Result<TcpListener> {
    when_free(|| TcpListener::bind(address))
        .await
        .with_context(|| format!("listening for {what} on {address}"))
}

/// Binds an address, waiting a while when it is still in use: a process that was killed is seen to be gone
/// before the last of its threads has let go of its sockets.
pub(super) async fn when_free<T, E: std::error::Error + 'static, F: Future<Output = Result<T, E>>>(
    bind: impl Fn() -> F,
) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        match bind().await {
            Err(error) if is_in_use(&error) && begun.elapsed() < FREE_WITHIN => {
                tokio::time::sleep(STARTING_POLL).await;
            }
            outcome => return outcome,
        }
    }
}

fn is_in_use(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::AddrInUse)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
