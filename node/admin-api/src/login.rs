//! Sessions: begin, look at, end.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Extension, Json,
    extract::{ConnectInfo, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::{
    AdminError, Role, Secret,
    audit::Note,
    guard::{COOKIE, Session},
    password::{CheckError, PASSWORD_SIZE_MAX},
    problem::{Body, Problem},
    session::{Claims, LIFETIME},
    state::{AppState, now},
};

/// Longest login name in bytes.
const USER_SIZE_MAX: usize = 64;

/// Name and password of an operator.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// Login name.
    user: String,
    /// Password.
    #[serde(deserialize_with = "wiped_after_use")]
    #[schema(value_type = String, format = Password)]
    password: Zeroizing<String>,
}

fn wiped_after_use<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// A session just begun.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewSession {
    /// For programs: `Authorization: Bearer ...`. Browsers have the cookie.
    token: Secret,
    /// When the session ends.
    expires_unix_ms: u64,
    /// Login name.
    user: String,
    /// What the account may do.
    role: Role,
}

/// The session of this request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionInfo {
    /// Login name.
    user: String,
    /// What the account may do.
    role: Role,
    /// When the session ends.
    expires_unix_ms: u64,
    /// The node that answers.
    node: String,
}

pub(crate) async fn begin(
    State(state): State<AppState>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    Body(login): Body<Login>,
) -> Response {
    let note = Note { user: Some(login.user.clone()), target: None };
    let result = authenticate(&state, peer.map(|Extension(ConnectInfo(peer))| peer), login).await;
    (Extension(note), result).into_response()
}

async fn authenticate(state: &AppState, peer: Option<SocketAddr>, login: Login) -> Result<Response, Problem> {
    let refused = || Problem::login_refused("The name or the password is wrong.");
    if login.user.len() > USER_SIZE_MAX || login.password.len() > PASSWORD_SIZE_MAX {
        return Err(refused());
    }
    // Without an address (a test, a unix socket) all such callers share one delay.
    let address = peer.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
    state.backoff.lock().begin(&login.user, address, Instant::now()).map_err(|wait| {
        Problem::too_many_attempts("Wait before the next login from this address.").retry_after(wait)
    })?;
    let record = state.backend.operator(&login.user).await?;
    let stored = record.as_ref().map(|record| record.password_hash.clone());
    // Noted when the check ends, whether or not the caller waits for it: an attempt that was only slow is none of
    // those that make the next one wait.
    let (backoff, user) = (Arc::clone(&state.backoff), login.user.clone());
    let matched = move || backoff.lock().succeeded(&user, address);
    let matches =
        state.passwords.check(login.password, stored, matched).await.map_err(|error| match error {
            CheckError::Busy => Problem::from(AdminError::Unavailable {
                what: "Too many logins are being checked on this node.".into(),
                retry_after: std::time::Duration::from_secs(2),
            }),
            CheckError::BadRecord(_) => Problem::from(AdminError::Internal {
                doing: "checking a password".into(),
                source: error.to_string().into(),
            }),
        })?;
    let record = record.filter(|_| matches).ok_or_else(refused)?;

    let claims = Claims::new(&record, now()).map_err(|error| {
        Problem::from(AdminError::Internal {
            doing: "drawing random numbers".into(),
            source: error.to_string().into(),
        })
    })?;
    let token = claims.sign(&state.backend.session_key());
    let cookie = set_cookie(&token, LIFETIME.as_secs());
    let body = NewSession {
        token: Secret::new(token),
        expires_unix_ms: claims.expires.get(),
        user: record.user,
        role: record.role,
    };
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], Json(body)).into_response())
}

pub(crate) async fn show(
    State(state): State<AppState>,
    Extension(session): Extension<Session>,
) -> Json<SessionInfo> {
    Json(SessionInfo {
        user: session.claims.user,
        role: session.role,
        expires_unix_ms: session.claims.expires.get(),
        node: state.backend.node_name(),
    })
}

pub(crate) async fn end(State(state): State<AppState>, Extension(session): Extension<Session>) -> Response {
    state.ended.lock().end(&session.claims, now());
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, set_cookie("", 0))]).into_response()
}

fn set_cookie(token: &str, max_age_seconds: u64) -> HeaderValue {
    let text =
        format!("{COOKIE}={token}; Path=/; Max-Age={max_age_seconds}; Secure; HttpOnly; SameSite=Strict");
    HeaderValue::try_from(text).expect("a token is base64url and dots")
}
