//! Stands before every route: who asks, may they, did the console ask; and the audit event afterwards.

use std::{net::SocketAddr, time::Duration};

use axum::{
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, header, request::Parts};

use crate::{
    Role, audit,
    problem::Problem,
    routes::{Access, Route},
    session::Claims,
    state::{AppState, now},
};

/// The session's cookie. `__Host-` makes browsers insist on Secure, the whole host and no Domain.
pub(crate) const COOKIE: &str = "__Host-holdfast";
/// A write that is authenticated by cookie carries this header: no other site can make a browser send it.
pub(crate) const CSRF_HEADER: &str = "x-holdfast-csrf";
/// A request is answered within this time, whatever the cluster does.
const DEADLINE: Duration = Duration::from_secs(30);
/// A login is answered within this time. No cluster holds it up, only the processor: a password check that takes 0.1 s
/// took an emulated machine on a busy host more than 30 s.
const LOGIN_DEADLINE: Duration = Duration::from_secs(180);

/// Who asks; an extension of every request behind the guard.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) claims: Claims,
    pub(crate) role: Role,
}

pub(crate) async fn guard(
    State((state, route)): State<(AppState, &'static Route)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let (actor, response) = match admit(&state, route, &parts).await {
        Err(Refusal { problem, who }) => (who, problem.into_response()),
        Ok(session) => {
            let actor = session.as_ref().map(|session| (session.claims.user.clone(), session.role));
            if let Some(session) = session {
                parts.extensions.insert(session);
            }
            let deadline = deadline(route);
            let answer = tokio::time::timeout(deadline, next.run(Request::from_parts(parts, body))).await;
            (actor, answer.unwrap_or_else(|_| deadline_exceeded(deadline).into_response()))
        }
    };
    if route.is_audited() {
        audit::emit(route, actor.as_ref().map(|(user, role)| (user.as_str(), *role)), peer, &response);
    }
    response
}

fn deadline(route: &Route) -> Duration {
    if route.id == "login" { LOGIN_DEADLINE } else { DEADLINE }
}

fn deadline_exceeded(deadline: Duration) -> Problem {
    Problem::deadline(format!(
        "No answer within {} s. What was asked for may still happen: look before you repeat it.",
        deadline.as_secs()
    ))
}

/// Why a request goes no further, and whose it is when that is proven.
struct Refusal {
    problem: Problem,
    who: Option<(String, Role)>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, who: None }
    }
}

async fn admit(state: &AppState, route: &Route, request: &Parts) -> Result<Option<Session>, Refusal> {
    let headers = &request.headers;
    let writes = !matches!(request.method, Method::GET | Method::HEAD);
    if writes && !origin_is_ours(request) {
        return Err(Problem::cross_site("The Origin header names another site.").into());
    }
    let Access::Session(needed) = route.access else {
        return Ok(None);
    };
    let (token, by_cookie) = credentials(headers).ok_or_else(|| {
        Problem::session_required("Log in with POST /api/v1/session, then send its token or cookie.")
    })?;
    let over = || Problem::session_required("The session is over or was never valid. Log in again.");
    let claims = Claims::verify(&token, &state.backend.session_key(), now()).ok_or_else(over)?;
    if state.ended.lock().contains(&claims) {
        return Err(over().into());
    }
    let record = state.backend.operator(&claims.user).await.map_err(Problem::from)?;
    let role = record.filter(|record| claims.fits(record)).ok_or_else(over)?.role;
    let refuse = |problem| Err(Refusal { problem, who: Some((claims.user.clone(), role)) });
    if writes && by_cookie && !headers.contains_key(CSRF_HEADER) {
        let detail = format!("A write that is authenticated by cookie carries {CSRF_HEADER}: 1.");
        return refuse(Problem::cross_site(detail));
    }
    if role < needed {
        let detail =
            format!("{} needs the role {}; {} is {}.", route.id, needed.name(), claims.user, role.name());
        return refuse(Problem::forbidden(detail));
    }
    Ok(Some(Session { claims, role }))
}

/// The token, and whether it came by cookie. A bearer token wins: a program that sends one means it.
fn credentials(headers: &HeaderMap) -> Option<(String, bool)> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| (token.trim().to_owned(), false));
    }
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, token)| (token.to_owned(), true))
}

/// Browsers name the site that sends a write. Programs send no Origin, and have no cookie to abuse.
fn origin_is_ours(request: &Parts) -> bool {
    let Some(origin) = request.headers.get(header::ORIGIN) else {
        return true;
    };
    let host = request
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| request.uri.authority().map(|authority| authority.as_str()));
    match (origin.to_str().ok().and_then(|origin| origin.strip_prefix("https://")), host) {
        (Some(origin), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::try_from(*name).unwrap(), http::HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn the_cookie_is_found_among_others_and_by_its_exact_name() {
        let one = headers(&[("cookie", "a=b; __Host-holdfast=tok; c=d")]);
        assert_eq!(credentials(&one), Some(("tok".into(), true)));
        let two = headers(&[("cookie", "a=b"), ("cookie", "__Host-holdfast=tok")]);
        assert_eq!(credentials(&two), Some(("tok".into(), true)));
        assert_eq!(credentials(&headers(&[("cookie", "x__Host-holdfast=tok")])), None);
    }

    #[test]
    fn a_bearer_token_wins_and_another_scheme_is_not_one() {
        let both = headers(&[("authorization", "bearer t"), ("cookie", "__Host-holdfast=c")]);
        assert_eq!(credentials(&both), Some(("t".into(), false)));
        assert_eq!(credentials(&headers(&[("authorization", "Basic t")])), None);
    }

    #[test]
    fn only_our_own_https_origin_is_ours() {
        let with = |origin: Option<&str>| {
            let mut request = Request::builder().header("host", "n1:8443");
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            origin_is_ours(&request.body(()).unwrap().into_parts().0)
        };
        assert!(with(None) && with(Some("https://n1:8443")));
        for other in
            ["https://n1", "http://n1:8443", "null", "https://evil.example", "https://n1:8443.evil.example"]
        {
            assert!(!with(Some(other)), "{other}");
        }
    }
}
