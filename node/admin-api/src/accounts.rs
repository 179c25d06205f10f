//! Accounts of a tenant: they share its buckets' names and grant each other access.

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AccountStatus,
    audit::Note,
    problem::{Body, Problem},
    state::AppState,
};

/// Longest name of an account and longest e-mail address, in bytes.
const TEXT_SIZE_MAX: usize = 255;

/// All accounts of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountList {
    /// The tenant's first account first, then by name.
    accounts: Vec<AccountStatus>,
}

/// An account to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAccount {
    /// Shown beside its canonical id. Unique in the tenant.
    name: String,
    /// Another way to name it in a grant. Unique in the tenant.
    email: String,
}

fn check(new: &NewAccount) -> Result<(), Problem> {
    let sound =
        |text: &str| !text.is_empty() && text.len() <= TEXT_SIZE_MAX && !text.chars().any(char::is_control);
    if !sound(&new.name) {
        return Err(Problem::invalid("An account's name is 1 to 255 bytes without control characters."));
    }
    let (local, domain) = new.email.split_once('@').unwrap_or(("", ""));
    if !sound(&new.email) || local.is_empty() || domain.is_empty() || new.email.contains(char::is_whitespace)
    {
        return Err(Problem::invalid("An e-mail address is of the form name@domain, at most 255 bytes."));
    }
    Ok(())
}

pub(crate) async fn list(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
) -> Result<Json<AccountList>, Problem> {
    Ok(Json(AccountList { accounts: state.backend.accounts(&tenant).await? }))
}

pub(crate) async fn create(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
    Body(new): Body<NewAccount>,
) -> Response {
    let result = match check(&new) {
        Ok(()) => state.backend.create_account(&tenant, &new.name, &new.email).await.map_err(Problem::from),
        Err(problem) => Err(problem),
    };
    let target = format!("{tenant}/{}", new.name);
    let answer = result.map(|created| (StatusCode::CREATED, Json(created)));
    (Extension(Note { user: None, target: Some(target) }), answer).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_name_and_a_domain() {
        let fits = |name: &str, email: &str| {
            check(&NewAccount { name: name.to_owned(), email: email.to_owned() }).is_ok()
        };
        assert!(fits("alt", "alt@example.com"));
        for (name, email) in
            [("", "a@b"), ("a", "b"), ("a", "@b"), ("a", "a@"), ("a\n", "a@b"), ("a", "a b@c")]
        {
            assert!(!fits(name, email), "{name:?} {email:?}");
        }
    }
}
