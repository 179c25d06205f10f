//! A chip's answers as they are read, without a chip: for the fuzzer, which has the parsers to itself here.
//!
//! Each takes a whole answer, and says in a few words what it is read as. What must hold of an answer that is read at
//! all is asserted: its parts are the whole of it.

use crate::{
    commands::{StorageKey, parse_created, parse_started, point_of},
    session, transport,
    wire::Reader,
};

/// As the answer to CreatePrimary.
#[must_use]
pub fn storage_key(answer: &[u8]) -> String {
    with_body(answer, |body| {
        let Some(key) = StorageKey::parse(body) else { return "malformed" };
        if point_of(&key.public).is_some() { "storage key" } else { "another key" }
    })
}

/// As the answer to StartAuthSession.
#[must_use]
pub fn started(answer: &[u8]) -> String {
    with_body(answer, |body| match parse_started(body) {
        Some((_, [])) => "no nonce",
        Some((_, _)) => "session",
        None => "malformed",
    })
}

/// As the answer to a command in a session, with so many handles; its parameters as those of Create, and as a key's.
#[must_use]
pub fn in_session(answer: &[u8], handles: usize) -> String {
    with_body(answer, |body| {
        let Some(parsed) = session::parse(body, handles) else { return "malformed" };
        let sizes = 4 * handles + 4 + 2 + 1 + 2;
        let parts = parsed.parameters.len() + parsed.nonce.len() + parsed.proof.len();
        assert_eq!(sizes + parts, body.len(), "an answer has bytes that are no part of it");
        assert_eq!(parsed.handle.is_some(), handles > 0);
        let created = parse_created(parsed.parameters).is_some();
        let unsealed = Reader::new(parsed.parameters).sized().is_some();
        match (created, unsealed) {
            (true, _) => "two areas",
            (false, true) => "one area",
            (false, false) if parsed.attributes == 0 => "no area, attributes of none",
            (false, false) => "no area",
        }
    })
}

fn with_body(answer: &[u8], read: impl FnOnce(&[u8]) -> &'static str) -> String {
    match transport::parse(answer) {
        Some((0, body)) => read(body).to_owned(),
        Some(_) => "refused".to_owned(),
        None => "no answer".to_owned(),
    }
}
