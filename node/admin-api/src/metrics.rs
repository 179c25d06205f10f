//! The metrics listener: `GET /metrics` over TLS, and nothing else.
//!
//! It has no login: a collector has none. Whoever reaches the port reads figures, serial numbers and device
//! paths, never content or names of tenants. To restrict it to collectors that hold a certificate, give it a
//! TLS configuration with a client verifier.

use std::sync::Arc;

use axum::{Router, extract::State, middleware, routing};
use http::{HeaderName, StatusCode, header};
use tokio::net::TcpListener;

use crate::{headers, problem};

/// Text exposition 0.0.4.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves `render()` as `/metrics` on `listener` until `shutdown` completes.
pub async fn serve_metrics(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    render: Render,
    shutdown: impl Future<Output = ()> + Send,
) {
    crate::serve(listener, tls, router(render), shutdown).await;
}

fn router(render: Render) -> Router {
    Router::new()
        .route("/metrics", routing::get(answer))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(middleware::map_response(headers::secure))
        .with_state(render)
}

async fn answer(
    State(render): State<Render>,
) -> Result<([(HeaderName, &'static str); 1], String), StatusCode> {
    // Sources read counters of the whole node, behind its locks: not on an async thread.
    let text = tokio::task::spawn_blocking(move || render()).await.map_err(|error| {
        tracing::error!(%error, "rendering metrics failed");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn only_metrics_are_served() {
        let router = router(Arc::new(|| "up 1\n".into()));
        let get = |path: &str| router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
        let response = get("/metrics").await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "up 1\n");
        assert_eq!(get("/").await.unwrap().status(), StatusCode::NOT_FOUND);
        assert_eq!(get("/api/v1/cluster").await.unwrap().status(), StatusCode::NOT_FOUND);
    }
}
