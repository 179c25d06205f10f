//! Errors on the wire: `application/problem+json` (RFC 9457).
//!
//! `type` is a URN that programs compare; `title` is the same for each occurrence; `detail` is the sentence
//! for this one. Causes inside the node are logged and not sent.

use std::time::Duration;

use axum::body::HttpBody as _;
use axum::{
    Json,
    extract::{FromRequest, OptionalFromRequest, Request, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::AdminError;

pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// Why a request was not carried out (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// For programs: `urn:holdfast:problem:...`, one for each kind.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "urn:holdfast:problem:session-required")]
    kind: &'static str,
    /// The kind in words.
    #[schema(value_type = String)]
    title: &'static str,
    /// The HTTP status again.
    status: u16,
    /// This occurrence in a sentence.
    detail: String,
    /// When the same request may work.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
}

macro_rules! kinds {
    ($( $name:ident = $status:ident, $slug:literal, $title:literal; )*) => {
        impl Problem {
            $( pub(crate) fn $name(detail: impl Into<String>) -> Self {
                Self {
                    kind: concat!("urn:holdfast:problem:", $slug),
                    title: $title,
                    status: StatusCode::$status.as_u16(),
                    detail: detail.into(),
                    retry_after_seconds: None,
                }
            } )*
        }
    };
}

kinds! {
    invalid = BAD_REQUEST, "invalid-request", "The request is not valid";
    session_required = UNAUTHORIZED, "session-required", "A session is required";
    login_refused = UNAUTHORIZED, "login-refused", "The login was refused";
    forbidden = FORBIDDEN, "forbidden", "The account may not do this";
    cross_site = FORBIDDEN, "cross-site-request", "The request did not come from the console";
    not_found = NOT_FOUND, "not-found", "There is no such thing";
    wrong_method = METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not know this method";
    conflict = CONFLICT, "conflict", "The state does not allow it";
    body_too_large = PAYLOAD_TOO_LARGE, "body-too-large", "The request body is too large";
    unsupported_body = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON";
    too_many_attempts = TOO_MANY_REQUESTS, "too-many-attempts", "Too many failed logins";
    internal = INTERNAL_SERVER_ERROR, "internal-error", "The node failed";
    unavailable = SERVICE_UNAVAILABLE, "unavailable", "The cluster cannot do this now";
    locked = SERVICE_UNAVAILABLE, "locked", "The node does not have its keys";
    deadline = GATEWAY_TIMEOUT, "deadline-exceeded", "The cluster did not answer in time";
}

impl Problem {
    pub(crate) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after_seconds =
            Some(delay.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("made from a StatusCode");
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"holdfast\""));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::NotFound { .. } => Self::not_found(format!("{error}.")),
            AdminError::Conflict { what } => Self::conflict(what),
            AdminError::Invalid { what } => Self::invalid(what),
            AdminError::Unavailable { what, retry_after } => Self::unavailable(what).retry_after(retry_after),
            AdminError::Internal { doing, source } => {
                tracing::error!(%doing, cause = %chain(&*source), "an admin request failed inside the node");
                Self::internal(format!("The node failed while {doing}; its log has the cause."))
            }
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// A JSON body, or the problem that it is not one.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match <Json<T> as FromRequest<S>>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(match &rejection {
                JsonRejection::MissingJsonContentType(_) => {
                    Problem::unsupported_body("Send `Content-Type: application/json`.")
                }
                rejection if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                    Problem::body_too_large(format!("The limit is {} bytes.", crate::BODY_SIZE_MAX))
                }
                rejection => Problem::invalid(rejection.body_text()),
            }),
        }
    }
}

/// No body at all is `None`; one without a content type is refused rather than passed over.
impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if !request.headers().contains_key(header::CONTENT_TYPE) && request.body().is_end_stream() {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

pub(crate) async fn method_not_allowed(method: http::Method) -> Problem {
    Problem::wrong_method(format!("The path does not answer {method}; openapi.json lists what it does."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stay_inside() {
        let error =
            AdminError::Internal { doing: "reading x".into(), source: "secret path /state/keys".into() };
        let problem = Problem::from(error);
        assert_eq!(problem.status, 500);
        assert!(!problem.detail.contains("secret"), "{}", problem.detail);
    }

    #[test]
    fn retry_after_is_never_zero() {
        let problem = Problem::unavailable("x").retry_after(Duration::from_millis(1));
        assert_eq!(problem.retry_after_seconds, Some(1));
        let response = problem.into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
    }
}
