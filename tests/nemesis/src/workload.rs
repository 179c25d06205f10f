//! The clients: mixed S3 operations on a set of keys, each through one node until that fails. Everything that
//! was asked and answered goes into the history; bytes are compared at once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_blackbox::{
    http_client::Answer,
    linear::{Did, Operation, Recorder},
    s3::{Call, Client, first},
};
use holdfast_fault::Random;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::bodies::{Body, NUMBER_HEADER, PARTS_SIZE};

/// The bucket of the clients.
pub const BUCKET: &str = "nemesis";

/// How long a client waits for an answer. Whether what it asked was done is open then.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Between two operations of one client.
const PAUSE: Duration = Duration::from_millis(15);

/// After an operation that failed.
const PAUSE_FAILED: Duration = Duration::from_millis(150);

/// Of why an operation was refused, characters that are counted under one name.
const REASON_MAX: usize = 160;

/// A word of hexadecimal digits that has more characters is an id.
const ID_MIN: usize = 11;

/// The first part of an upload in parts, in bytes.
const FIRST_PART: usize = 5 * 1024 * 1024;

/// Kinds of operations, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// An object written whole.
    Put,
    /// An object written in parts.
    Upload,
    /// An object read.
    Get,
    /// A part of an object read.
    GetRange,
    /// An object deleted.
    Delete,
}

/// How operations of one kind ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// Done, and said so.
    pub done: u64,
    /// Refused or not answered: open whether they were done.
    pub open: u64,
}

/// What all clients share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Everything that was asked and answered.
    pub history: Recorder,
    /// Writes are numbered.
    next: AtomicU64,
    ends: Mutex<BTreeMap<Asked, Ends>>,
    reasons: Mutex<BTreeMap<String, u64>>,
    /// Broken promises seen while running.
    broken: Mutex<Vec<String>>,
    /// When writes were accepted, since the history began.
    accepted: Mutex<Vec<Duration>>,
    stopped: AtomicBool,
}

impl Shared {
    /// Tells the clients to end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// How operations ended, by kind.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<Asked, Ends> {
        self.ends.lock().clone()
    }

    /// Why operations were refused or not answered, and how often.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        self.reasons.lock().clone()
    }

    /// Broken promises seen.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().clone()
    }

    /// The longest time without an accepted write.
    #[must_use]
    pub fn longest_without_writes(&self) -> Duration {
        let mut accepted = self.accepted.lock().clone();
        accepted.sort_unstable();
        let starts = std::iter::once(&Duration::ZERO).chain(&accepted);
        starts.zip(&accepted).map(|(from, to)| *to - *from).max().unwrap_or_default()
    }

    fn count<T>(&self, asked: Asked, ended: &Result<T>) {
        let mut ends = self.ends.lock();
        let ends = ends.entry(asked).or_default();
        match ended {
            Ok(_) => ends.done += 1,
            Err(why) => {
                ends.open += 1;
                *self.reasons.lock().entry(reason(why)).or_default() += 1;
            }
        }
    }

    /// Writes `body` under `key`; whether that was accepted.
    async fn write(&self, client: &Client, key: &str, body: Body, asked: Asked) -> bool {
        let start = self.history.now();
        let written = match asked {
            Asked::Upload => upload(client, key, body).await,
            _ => put(client, key, body).await,
        };
        let end = self.history.now();
        let accepted = written.is_ok();
        if accepted {
            self.accepted.lock().push(end);
        }
        // Anything but a yes leaves open whether it was written, now or later.
        let did = Did::Wrote(body.number);
        self.history.note(key, Operation { start, end: accepted.then_some(end), did });
        self.count(asked, &written);
        accepted
    }

    async fn delete(&self, client: &Client, key: &str) -> bool {
        let start = self.history.now();
        let answer = ask(client, Call::new(Method::DELETE, BUCKET, key), Bytes::new()).await;
        let deleted = answer.and_then(|answer| accepted(&answer));
        let done = deleted.is_ok();
        let end = done.then(|| self.history.now());
        self.history.note(key, Operation { start, end, did: Did::Removed });
        self.count(Asked::Delete, &deleted);
        done
    }

    /// Reads an object, or bytes of it, and compares them; whether there was an answer.
    ///
    /// # Panics
    /// Never: a broken promise is noted.
    pub async fn read(&self, client: &Client, key: &str, range: Option<(usize, usize)>) -> bool {
        let asked = if range.is_some() { Asked::GetRange } else { Asked::Get };
        let start = self.history.now();
        let mut call = Call::new(Method::GET, BUCKET, key);
        if let Some((from, to)) = range {
            call = call.header("range", format!("bytes={from}-{to}"));
        }
        let answer = ask(client, call, Bytes::new()).await;
        let end = Some(self.history.now());
        let found = match answer {
            Ok(answer) if matches!(answer.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) => {
                match judge(&answer, range) {
                    Ok(number) => Some(number),
                    Err(why) => {
                        self.broken.lock().push(format!("{key} at {start:?}: {why}"));
                        None
                    }
                }
            }
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => None,
            Ok(answer) if answer.status == StatusCode::RANGE_NOT_SATISFIABLE => {
                // Something shorter is there; what, the answer does not say.
                self.count(asked, &Ok(()));
                return true;
            }
            answer => {
                self.count(asked, &answer.and_then(|answer| accepted(&answer)));
                return false;
            }
        };
        self.count(asked, &Ok(()));
        self.history.note(key, Operation { start, end, did: Did::Found(found) });
        true
    }
}

/// Which write an answer is of; its bytes are those of that write.
fn judge(answer: &Answer, range: Option<(usize, usize)>) -> Result<u64> {
    let number = answer.header(NUMBER_HEADER).context("an object that nobody wrote: it has no number")?;
    let body = Body { number: number.parse().context("an object that nobody wrote: its number")? };
    let bytes = body.bytes();
    let (from, to) = range.unwrap_or((0, usize::MAX));
    let wanted = &bytes[from.min(bytes.len())..to.saturating_add(1).min(bytes.len())];
    anyhow::ensure!(answer.body == wanted, "wrong bytes: {} of write {number}", answer.body.len());
    Ok(body.number)
}

async fn ask(client: &Client, call: Call, body: Bytes) -> Result<Answer> {
    timeout(ANSWER_LIMIT, client.send(call, body)).await.context("no answer in time")?
}

async fn put(client: &Client, key: &str, body: Body) -> Result<()> {
    let call = Call::new(Method::PUT, BUCKET, key).header(NUMBER_HEADER, body.number);
    accepted(&ask(client, call, body.bytes().into()).await?)
}

async fn upload(client: &Client, key: &str, body: Body) -> Result<()> {
    let begin = Call::new(Method::POST, BUCKET, key).query("uploads", "").header(NUMBER_HEADER, body.number);
    let answer = ask(client, begin, Bytes::new()).await?;
    accepted(&answer)?;
    let id = first(&answer.text(), "UploadId").context("no UploadId")?;
    let bytes = Bytes::from(body.bytes());
    let mut parts = String::new();
    for (number, range) in [(1, 0..FIRST_PART), (2, FIRST_PART..PARTS_SIZE)] {
        let call = Call::new(Method::PUT, BUCKET, key).query("partNumber", number).query("uploadId", &id);
        let answer = ask(client, call, bytes.slice(range)).await?;
        accepted(&answer)?;
        let etag = answer.header("etag").context("a part without ETag")?;
        parts += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let end = Call::new(Method::POST, BUCKET, key).query("uploadId", &id);
    let answer = ask(client, end, document.into()).await?;
    accepted(&answer)?;
    // The status is sent before the outcome is known: an error may follow in the document.
    anyhow::ensure!(answer.text().contains("CompleteMultipartUploadResult"), "{}", answer.text());
    Ok(())
}

/// An error unless the answer is a yes: its status, and what its document says.
fn accepted(answer: &Answer) -> Result<()> {
    let says = |tag| first(&answer.text(), tag).unwrap_or_default();
    let status = answer.status.as_u16();
    anyhow::ensure!(answer.status.is_success(), "{status} {}: {}", says("Code"), says("Message"));
    Ok(())
}

/// Under which name a refusal is counted: what went wrong first, without the numbers and ids in it.
fn reason(why: &anyhow::Error) -> String {
    let text = why.root_cause().to_string();
    // Without where it is explained.
    let text = text.split(": https://").next().unwrap_or_default();
    let text: String = text.chars().take(REASON_MAX).collect();
    let numbered = |word: &str| word.len() > ID_MIN && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    // The status is kept: it comes first.
    let mut reason = words.next().unwrap_or_default().to_owned();
    for word in words {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if numbered(bare) {
            reason.push('#');
            reason.push_str(&word[bare.len()..]);
        } else {
            let digit = |c: char| if c.is_ascii_digit() { '#' } else { c };
            reason.extend(word.chars().map(digit));
        }
    }
    while reason.contains("##") {
        reason = reason.replace("##", "#");
    }
    reason
}

/// One client: one operation after the other, until told to stop.
pub async fn work(shared: Arc<Shared>, clients: Vec<Client>, number: usize, keys: u64, seed: u64) {
    let mut node = number % clients.len();
    let mut random = Random::new(seed ^ (number as u64) << 32);
    while !shared.stopped.load(Ordering::Relaxed) {
        let key = format!("key-{:03}", random.below(keys));
        let client = &clients[node];
        let write = |shared: &Shared| shared.next.fetch_add(1, Ordering::Relaxed) + 1;
        let answered = match random.below(100) {
            0..40 => {
                let body = Body::whole(write(&shared));
                shared.write(client, &key, body, Asked::Put).await
            }
            40..41 => {
                let body = Body::in_parts(write(&shared));
                shared.write(client, &key, body, Asked::Upload).await
            }
            41..50 => shared.delete(client, &key).await,
            50..60 => {
                let from = random.below(200_000) as usize;
                let range = (from, from + random.below(150_000) as usize);
                shared.read(client, &key, Some(range)).await
            }
            _ => shared.read(client, &key, None).await,
        };
        if answered {
            sleep(PAUSE).await;
        } else {
            node = (node + 1) % clients.len();
            sleep(PAUSE_FAILED).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn answer(number: &str, body: Vec<u8>) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(NUMBER_HEADER, number.parse().unwrap());
        Answer { status: StatusCode::OK, headers, body: body.into() }
    }

    #[test]
    fn a_refusal_is_counted_by_what_it_says_and_not_by_its_numbers() {
        let error = "<Error><Code>SlowDown</Code><Message>group 12 has no leader, 3 of 4</Message></Error>";
        let refused = Answer {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: HeaderMap::new(),
            body: error.as_bytes().to_vec().into(),
        };
        let why = accepted(&refused).unwrap_err();
        assert_eq!(reason(&why), "503 SlowDown: group # has no leader, # of #");
        assert_eq!(reason(&why.context("while writing")), "503 SlowDown: group # has no leader, # of #");
        let stripe = anyhow::anyhow!(
            "503 ServiceUnavailable: stripe 019dae2c-01fe-77a0b1c2d3e4f5061728: 5 of 6 written"
        );
        assert_eq!(reason(&stripe), "503 ServiceUnavailable: stripe #dae#c-#fe-#: # of # written");
        let shared = Shared::default();
        shared.count(Asked::Put, &accepted(&refused));
        shared.count(Asked::Put, &Ok(()));
        assert_eq!(shared.ends()[&Asked::Put], Ends { done: 1, open: 1 });
        assert_eq!(shared.reasons().into_values().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn bytes_that_are_not_those_of_the_write_they_claim_are_noticed() {
        let body = Body::whole(7);
        let size = body.size();
        assert!(size > 100, "{size}");
        assert_eq!(judge(&answer("7", body.bytes()), None).unwrap(), 7);
        assert_eq!(judge(&answer("7", body.bytes()[10..=50].to_vec()), Some((10, 50))).unwrap(), 7);
        let mut turned = body.bytes();
        turned[size / 2] ^= 1;
        assert!(judge(&answer("7", turned), None).is_err(), "one bit");
        assert!(judge(&answer("7", body.bytes()[1..].to_vec()), None).is_err(), "one byte less");
        assert!(judge(&answer("8", body.bytes()), None).is_err(), "those of another write");
        assert!(judge(&answer("what", body.bytes()), None).is_err(), "nobody's");
    }
}
