//! The table of all routes: who may use each, and why. What is not a row here does not answer.
//!
//! The router, the OpenAPI document and the tests are all made from this table.

mod cluster;
mod keys;
mod session;
mod tenants;

use axum::{Router, middleware::from_fn_with_state, routing::MethodRouter};

use crate::{Role, guard, openapi::Shape, state::AppState};

/// HTTP methods that routes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Post,
    Delete,
}

impl Method {
    /// `GET`
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone who reaches the port.
    Anyone,
    /// An operator with this role or a higher one.
    Session(Role),
}

impl Role {
    /// `viewer`, `operator`
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }
}

/// One row.
#[derive(Debug)]
pub struct Route {
    /// HTTP method.
    pub method: Method,
    /// Path, with parameters as `{name}`.
    pub path: &'static str,
    /// Name of the action: `operationId` of the OpenAPI document, `action` of audit events.
    pub id: &'static str,
    /// One line for the document.
    pub summary: &'static str,
    /// Who may use it.
    pub access: Access,
    /// Why they, and not fewer or more.
    pub reason: &'static str,
    pub(crate) request: Option<Shape>,
    pub(crate) answer: Answer,
    pub(crate) handler: fn() -> MethodRouter<AppState>,
}

/// What a route answers when all goes well.
#[derive(Debug)]
pub(crate) enum Answer {
    Json(u16, Shape),
    Document,
    Text,
    Nothing,
}

impl Route {
    /// Writes and logins leave an audit event; looking does not.
    #[must_use]
    pub fn is_audited(&self) -> bool {
        self.method != Method::Get
    }
}

const VIEWER: Access = Access::Session(Role::Viewer);
const OPERATOR: Access = Access::Session(Role::Operator);

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Route> {
    [session::ROUTES, cluster::ROUTES, tenants::ROUTES, keys::ROUTES].into_iter().flatten()
}

/// A router with every row behind its guard.
pub(crate) fn mount(state: &AppState) -> Router<AppState> {
    all().fold(Router::new(), |router, route| {
        let guarded = (route.handler)().layer(from_fn_with_state((state.clone(), route), guard::guard));
        router.route(route.path, guarded)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_gives_its_reason_and_only_five_are_open() {
        let mut ids = BTreeSet::new();
        for route in all() {
            assert!(ids.insert(route.id), "{} twice", route.id);
            assert!(route.reason.ends_with('.') && route.summary.ends_with('.'), "{}", route.id);
        }
        let open: Vec<_> = all().filter(|route| route.access == Access::Anyone).map(|r| r.id).collect();
        assert_eq!(open, ["healthz", "readyz", "ca", "login", "lock"]);
    }

    #[test]
    fn whatever_changes_something_needs_an_operator() {
        for route in all().filter(|route| route.is_audited()) {
            let own_session = ["login", "logout"].contains(&route.id);
            assert!(own_session || route.access == OPERATOR, "{}", route.id);
        }
    }
}
