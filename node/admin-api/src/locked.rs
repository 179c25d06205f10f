//! What a node answers that does not have its keys: whether it is locked and what it waits for, and the way
//! to unlock it. Everything else is refused with that reason.
//!
//! A locked node cannot tell one operator from another: the key that signs sessions is locked as well. So
//! what unlocks it is its own credential: the passphrase, or enough recovery shares. One attempt is judged at
//! a time, and a wrong one costs a pause.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    middleware,
    response::{IntoResponse, Response},
    routing,
};
use http::{StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::{
    BODY_SIZE_MAX, headers,
    problem::{Body, Problem},
};

/// Pause after a wrong passphrase or wrong shares.
const WRONG_PAUSE: Duration = Duration::from_secs(1);

/// When clients of a locked node may ask again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Shares in one request at most.
const SHARES_MAX: usize = 32;

/// Whether a node has its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LockState {
    /// It has its keys, or needs none yet.
    Unlocked,
    /// It serves shards and votes, and cannot open anything.
    Locked,
}

/// What a node says of its lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LockStatus {
    /// The node that answers.
    pub node: String,
    /// Whether it has its keys.
    pub state: LockState,
    /// Whether its own shares are sealed under a passphrase that has not been entered.
    pub passphrase_wanted: bool,
    /// Shares of the root that are there.
    pub shares: u8,
    /// Shares that are needed; null while no share was seen.
    #[schema(required = true)]
    pub shares_needed: Option<u8>,
    /// What it waits for, in a sentence.
    pub detail: String,
}

/// What an operator unlocks a node with.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnlockRequest {
    /// The passphrase of this node's shares.
    #[serde(deserialize_with = "wiped_after_use")]
    Passphrase(Zeroizing<String>),
    /// Enough recovery shares.
    RecoveryShares(Vec<ShareText>),
}

impl std::fmt::Debug for UnlockRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnlockRequest(..)")
    }
}

/// A recovery share as it was typed.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct ShareText(#[serde(deserialize_with = "wiped_after_use")] Zeroizing<String>);

impl std::fmt::Debug for ShareText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShareText(..)")
    }
}

impl AsRef<str> for ShareText {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

fn wiped_after_use<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// Why an attempt did not unlock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    /// Wrong passphrase or shares; says what is wrong with them.
    #[error("{0}")]
    Refused(String),
    /// The node failed.
    #[error("{0}")]
    Failed(String),
}

/// A node that is locked.
#[async_trait]
pub trait LockedBackend: Send + Sync + 'static {
    /// What it waits for.
    fn status(&self) -> LockStatus;

    /// Tries a passphrase or recovery shares.
    async fn unlock(&self, request: UnlockRequest) -> Result<LockStatus, UnlockError>;
}

struct Locked {
    backend: Arc<dyn LockedBackend>,
    attempts: Semaphore,
}

/// The admin service of a locked node.
pub fn locked_router(backend: Arc<dyn LockedBackend>) -> Router {
    let state = Arc::new(Locked { backend, attempts: Semaphore::new(1) });
    Router::new()
        .route("/healthz", routing::get(async || "ok\n"))
        .route("/readyz", routing::get(async || (StatusCode::SERVICE_UNAVAILABLE, "locked\n")))
        .route("/api/v1/lock", routing::get(show))
        .route("/api/v1/unlock", routing::post(unlock))
        .fallback(refuse)
        .layer(DefaultBodyLimit::max(BODY_SIZE_MAX))
        .layer(middleware::map_response(headers::secure))
        .with_state(state)
}

/// The S3 service of a locked node: every request gets the protocol's 503 with the reason.
pub fn locked_s3_router(backend: Arc<dyn LockedBackend>) -> Router {
    Router::new().fallback(refuse_s3).with_state(backend)
}

async fn show(State(state): State<Arc<Locked>>) -> Json<LockStatus> {
    Json(state.backend.status())
}

async fn unlock(
    State(state): State<Arc<Locked>>,
    Body(request): Body<UnlockRequest>,
) -> Result<Json<LockStatus>, Problem> {
    if matches!(&request, UnlockRequest::RecoveryShares(shares) if shares.len() > SHARES_MAX) {
        return Err(Problem::invalid(format!("There are at most {SHARES_MAX} recovery shares.")));
    }
    let Ok(_one_at_a_time) = state.attempts.try_acquire() else {
        return Err(Problem::too_many_attempts("Another attempt is being judged.").retry_after(WRONG_PAUSE));
    };
    match state.backend.unlock(request).await {
        Ok(status) => Ok(Json(status)),
        Err(UnlockError::Refused(what)) => {
            tokio::time::sleep(WRONG_PAUSE).await;
            Err(Problem::forbidden(what))
        }
        Err(UnlockError::Failed(what)) => Err(Problem::internal(what)),
    }
}

async fn refuse(State(state): State<Arc<Locked>>) -> Problem {
    let status = state.backend.status();
    Problem::locked(format!("{} is locked. {}", status.node, status.detail)).retry_after(RETRY_AFTER)
}

async fn refuse_s3(State(backend): State<Arc<dyn LockedBackend>>) -> Response {
    let status = backend.status();
    let message = escape(&format!("{} is locked. {}", status.node, status.detail));
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>ServiceUnavailable</Code><Message>{message}</Message></Error>"
    );
    let retry = RETRY_AFTER.as_secs().to_string();
    let headers = [
        (header::CONTENT_TYPE, "application/xml".to_owned()),
        (header::RETRY_AFTER, retry),
        // The body of a request is not read.
        (header::CONNECTION, "close".to_owned()),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    struct Node;

    #[async_trait]
    impl LockedBackend for Node {
        fn status(&self) -> LockStatus {
            LockStatus {
                node: "n<1>".into(),
                state: LockState::Locked,
                passphrase_wanted: true,
                shares: 1,
                shares_needed: Some(2),
                detail: "Waits for one more.".into(),
            }
        }

        async fn unlock(&self, request: UnlockRequest) -> Result<LockStatus, UnlockError> {
            match request {
                UnlockRequest::Passphrase(text) if *text == "right" => {
                    Ok(LockStatus { state: LockState::Unlocked, ..self.status() })
                }
                _ => Err(UnlockError::Refused("wrong".into())),
            }
        }
    }

    async fn answer(router: Router, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let response = router.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_locked_node_says_what_it_waits_for_and_opens_with_the_right_word_only() {
        let router = locked_router(Arc::new(Node));
        let (status, body) = answer(router.clone(), "GET", "/api/v1/lock", "").await;
        assert!(
            status == 200 && body.contains("\"state\":\"locked\"") && body.contains("one more"),
            "{body}"
        );
        let (status, body) = answer(router.clone(), "GET", "/api/v1/cluster", "").await;
        assert!(status == 503 && body.contains("one more") && body.contains("problem:locked"), "{body}");
        assert_eq!(answer(router.clone(), "GET", "/readyz", "").await.0, 503);
        assert_eq!(
            answer(router.clone(), "POST", "/api/v1/unlock", r#"{"passphrase":"wrong"}"#).await.0,
            403
        );
        assert_eq!(
            answer(router.clone(), "POST", "/api/v1/unlock", r#"{"recovery_shares":["x"]}"#).await.0,
            403
        );
        assert_eq!(answer(router.clone(), "POST", "/api/v1/unlock", r#"{"else":1}"#).await.0, 400);
        let (status, body) = answer(router, "POST", "/api/v1/unlock", r#"{"passphrase":"right"}"#).await;
        assert!(status == 200 && body.contains("unlocked"), "{body}");
    }

    #[tokio::test]
    async fn s3_gets_its_own_error_document() {
        let (status, body) = answer(locked_s3_router(Arc::new(Node)), "PUT", "/bucket/key", "content").await;
        assert_eq!(status, 503);
        assert!(body.contains("<Code>ServiceUnavailable</Code>") && body.contains("n&lt;1&gt; is locked"));
    }
}
