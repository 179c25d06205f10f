//! Audit events: every write and every login, allowed or refused, on the `tracing` target `audit`.
//!
//! The guard emits them around the handler, so that no handler can forget to. A handler adds what only it
//! knows through [`Note`], an extension of its response.

use std::net::SocketAddr;

use axum::response::Response;

use crate::{Role, routes::Route};

/// Longest piece of request content in an event, in characters.
const TEXT_MAX: usize = 64;

/// What a handler adds to the event of its request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Note {
    /// Who, when there is no session to tell: the name given at login.
    pub(crate) user: Option<String>,
    /// On what: a tenant's name.
    pub(crate) target: Option<String>,
}

pub(crate) fn emit(
    route: &Route,
    actor: Option<(&str, Role)>,
    peer: Option<SocketAddr>,
    response: &Response,
) {
    let note = response.extensions().get::<Note>().cloned().unwrap_or_default();
    let user = actor.map(|(user, _)| user).or(note.user.as_deref()).unwrap_or("-");
    let role = actor.map_or("-", |(_, role)| role.name());
    let address = peer.map_or_else(|| "-".to_owned(), |peer| peer.ip().to_canonical().to_string());
    let status = response.status();
    let outcome = match status.as_u16() {
        200..=399 => "done",
        401 | 403 | 429 => "refused",
        _ => "failed",
    };
    // Request content is printed by `Debug`, which escapes line breaks and control characters.
    tracing::info!(
        target: "audit",
        action = route.id,
        outcome,
        status = status.as_u16(),
        user = ?cut(user),
        role,
        address,
        on = ?cut(note.target.as_deref().unwrap_or("-")),
    );
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(TEXT_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"ä".repeat(100)).chars().count(), 64);
    }
}
