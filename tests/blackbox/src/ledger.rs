//! What was promised to a client, and whether it still holds.
//!
//! A ledger gets an entry before each PUT and its answer after it. Later every key must hold either a
//! body whose PUT was acknowledged or, only while an answer never came, one of the bodies that were
//! under way; a key without an acknowledged body may be absent. Anything else is a broken promise.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use http::{Method, StatusCode};
use parking_lot::Mutex;

use crate::s3::{Call, Client, sha256_hex};

#[derive(Debug, Clone, Default)]
struct Entry {
    /// Hash of the last body whose PUT was answered 200.
    acknowledged: Option<String>,
    /// Hashes of bodies sent after it whose answer never came.
    uncertain: Vec<String>,
}

/// Shared by the writers of one test.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Books>>);

#[derive(Debug, Default)]
struct Books {
    entries: BTreeMap<String, Entry>,
    answers: usize,
}

/// Result of a check of every key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Keys whose acknowledged body was read back.
    pub intact: usize,
    /// Keys that hold a body whose answer never came (allowed: it arrived whole).
    pub arrived_unanswered: usize,
    /// Keys never acknowledged and absent (allowed).
    pub absent: usize,
    /// Broken promises, one line each.
    pub broken: Vec<String>,
}

impl Ledger {
    /// Notes that a body is about to be sent.
    pub fn sending(&self, key: &str, body: &[u8]) {
        self.0.lock().entries.entry(key.to_owned()).or_default().uncertain.push(sha256_hex(body));
    }

    /// Notes that its PUT was answered 200.
    pub fn acknowledged(&self, key: &str, body: &[u8]) {
        let entry = Entry { acknowledged: Some(sha256_hex(body)), uncertain: Vec::new() };
        let mut books = self.0.lock();
        books.entries.insert(key.to_owned(), entry);
        books.answers += 1;
    }

    /// How many PUTs were answered 200.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.0.lock().answers
    }

    /// Sends a body and keeps the books; `Ok(false)` when no 200 came.
    ///
    /// # Errors
    /// When the request cannot be built.
    pub async fn put(&self, client: &Client, bucket: &str, key: &str, body: Vec<u8>) -> Result<bool> {
        self.sending(key, &body);
        let answered = client.put(bucket, key, body.clone()).await.is_ok();
        if answered {
            self.acknowledged(key, &body);
        }
        Ok(answered)
    }

    /// Reads every key back through `client` and judges what it holds.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn verify(&self, client: &Client, bucket: &str) -> Result<Verdict> {
        let entries = self.0.lock().entries.clone();
        let mut verdict = Verdict::default();
        for (key, entry) in &entries {
            let answer = client.send(Call::new(Method::GET, bucket, key), Vec::new()).await?;
            let found = match answer.status {
                StatusCode::OK => Some(sha256_hex(&answer.body)),
                StatusCode::NOT_FOUND => None,
                status => {
                    verdict.broken.push(format!("{key}: {status} {}", answer.text()));
                    continue;
                }
            };
            match judge(entry, found.as_deref()) {
                Judgement::Intact => verdict.intact += 1,
                Judgement::ArrivedUnanswered => verdict.arrived_unanswered += 1,
                Judgement::Absent => verdict.absent += 1,
                Judgement::Lost => verdict.broken.push(format!("{key}: acknowledged, now absent")),
                Judgement::Wrong => {
                    verdict.broken.push(format!("{key}: {} bytes that nobody sent", answer.body.len()));
                }
            }
        }
        Ok(verdict)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Intact,
    ArrivedUnanswered,
    Absent,
    Lost,
    Wrong,
}

fn judge(entry: &Entry, found: Option<&str>) -> Judgement {
    match (found, entry.acknowledged.as_deref()) {
        (None, None) => Judgement::Absent,
        (None, Some(_)) => Judgement::Lost,
        (Some(hash), Some(acknowledged)) if hash == acknowledged => Judgement::Intact,
        (Some(hash), _) if entry.uncertain.iter().any(|sent| sent == hash) => Judgement::ArrivedUnanswered,
        (Some(_), _) => Judgement::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(acknowledged: Option<&str>, uncertain: &[&str]) -> Entry {
        Entry {
            acknowledged: acknowledged.map(str::to_owned),
            uncertain: uncertain.iter().map(|&hash| hash.to_owned()).collect(),
        }
    }

    #[test]
    fn an_acknowledged_body_that_is_gone_or_changed_is_a_broken_promise() {
        assert_eq!(judge(&entry(Some("a"), &[]), None), Judgement::Lost);
        assert_eq!(judge(&entry(Some("a"), &[]), Some("b")), Judgement::Wrong);
        assert_eq!(judge(&entry(Some("a"), &["b"]), Some("a")), Judgement::Intact);
    }

    #[test]
    fn an_unanswered_body_may_be_whole_or_absent_but_nothing_else() {
        assert_eq!(judge(&entry(None, &["b"]), None), Judgement::Absent);
        assert_eq!(judge(&entry(None, &["b"]), Some("b")), Judgement::ArrivedUnanswered);
        assert_eq!(judge(&entry(Some("a"), &["b"]), Some("b")), Judgement::ArrivedUnanswered);
        assert_eq!(judge(&entry(None, &["b"]), Some("half of b")), Judgement::Wrong);
    }
}
