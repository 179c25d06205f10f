//! Clients: ask nodes as a gateway would, keep a ledger of what was acknowledged, and judge what they are given.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use holdfast_blackbox::linear::{Deed, Did, Operation};
use holdfast_object::{
    ObjectService,
    api::{Attributes, Body, ListQuery, ObjectError, ObjectGateway, ObjectInfo, PutOptions, RangeChoice},
    versioned::{DeleteRequest, Extras, VersionedObjects},
};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    bodies::Content,
    keys::KeyState,
    plan::{Ask, KEYS},
    rig::{GUEST, TENANT},
    versions::{self, KnownVersion},
    world::World,
};

/// The bucket.
pub const BUCKET: &str = "b";

/// The name of the number of a write in an object's metadata.
const NUMBER: &str = "number";

/// How long a client waits after a refusal.
pub(crate) const AFTER_REFUSAL: Duration = Duration::from_millis(700);

/// Writes of one client at most.
const WRITES_MAX: u64 = 1000;

/// The longest time a client waits for the answer to one request.
const PATIENCE: Duration = Duration::from_secs(100);

/// What clients know.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Operations on each key.
    pub histories: Mutex<BTreeMap<u64, Vec<Operation>>>,
    /// Operations in the bucket that keeps versions.
    pub versions: Mutex<Vec<Operation<versions::Did>>>,
    /// Versions there whose ids somebody was told, in the order in which that was.
    pub known: Mutex<Vec<KnownVersion>>,
    /// What each write writes.
    pub contents: Mutex<BTreeMap<u64, Content>>,
    /// Figures.
    pub figures: Mutex<Figures>,
}

/// Figures of a run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Figures {
    /// Writes and deletes that were acknowledged.
    pub acknowledged: u64,
    /// Reads that were answered.
    pub read: u64,
    /// Refused, or without an answer.
    pub refused: u64,
}

/// What was done, to which of the things that histories are kept of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Deeds {
    /// To a key of the bucket without versions.
    Key(u64, Did),
    /// To the bucket with versions.
    Versions(versions::Did),
}

impl Deeds {
    fn changes(&self) -> bool {
        match self {
            Self::Key(_, did) => did.changes(),
            Self::Versions(did) => did.changes(),
        }
    }
}

/// What came of one request.
pub(crate) enum Answer {
    Done(Deeds),
    /// There was an answer, which says nothing about what is stored.
    Answered,
    /// Nothing is known of it.
    Refused,
}

/// What a request that is under way may have changed when nothing more is heard of it.
pub(crate) type Pending = Mutex<Option<Deeds>>;

/// One client's number and what it asks through.
#[derive(Debug)]
pub struct Client {
    /// The run.
    pub world: Arc<World>,
    /// What is known.
    pub ledger: Arc<Ledger>,
    /// Its number.
    pub number: u64,
    /// The node it asks first.
    pub home: usize,
    /// It is the second tenant's.
    pub guest: bool,
}

impl Client {
    /// A client of the first tenant.
    #[must_use]
    pub fn new(world: &Arc<World>, ledger: &Arc<Ledger>, number: u64, home: usize) -> Self {
        Self { world: Arc::clone(world), ledger: Arc::clone(ledger), number, home, guest: false }
    }

    /// A client of the second tenant.
    #[must_use]
    pub fn guest(world: &Arc<World>, ledger: &Arc<Ledger>, number: u64, home: usize) -> Self {
        Self { guest: true, ..Self::new(world, ledger, number, home) }
    }

    /// Asks everything, one after the other, through any node that is on.
    pub async fn run(mut self, asks: Vec<Ask>) {
        for (at, ask) in asks.into_iter().enumerate() {
            if let Ask::Wait(millis) = ask {
                sleep(Duration::from_millis(millis)).await;
                continue;
            }
            let write = self.number * WRITES_MAX + at as u64;
            if !self.ask(&ask, write).await {
                self.home = (self.home + 1) % self.world.plan.nodes;
                sleep(AFTER_REFUSAL).await;
            }
        }
    }

    /// Asks once; whether there was an answer.
    pub async fn ask(&self, ask: &Ask, write: u64) -> bool {
        let world = &self.world;
        let start = self.now();
        let Some(node) = world.node(self.home) else { return false };
        let pending = Pending::default();
        let patience = PATIENCE * ask.requests();
        let key_before = world.gates[self.home].state();
        let answer = tokio::select! {
            biased;
            () = node.off.cancelled() => Answer::Refused,
            answer = tokio::time::timeout(patience, self.carry_out(&node.objects, ask, write, &pending)) => {
                answer.unwrap_or_else(|_| {
                    world.trace.violation("liveness", format_args!("c{} got no answer to {ask:?}", self.number));
                    Answer::Refused
                })
            }
        };
        let done = match answer {
            Answer::Done(deeds) => Some(Some(deeds)),
            Answer::Answered => Some(None),
            Answer::Refused => None,
        };
        let who = if self.guest { "guest" } else { "c" };
        world.trace.note(format_args!("{who}{} n{} {ask:?} #{write}: {done:?}", self.number, self.home + 1));
        if self.guest && key_before == world.gates[self.home].state() {
            self.must_be_shut_out(key_before.0, ask, done.as_ref());
        }
        {
            let mut figures = self.ledger.figures.lock();
            match &done {
                Some(Some(deeds)) if deeds.changes() => figures.acknowledged += 1,
                Some(_) => figures.read += 1,
                None => figures.refused += 1,
            }
        }
        let answered = done.is_some();
        match done {
            Some(Some(deeds)) => self.note(deeds, start, Some(self.now())),
            Some(None) => {}
            None => {
                if let Some(deeds) = pending.into_inner() {
                    self.note(deeds, start, None);
                }
            }
        }
        answered
    }

    /// While the key stands so that nobody is served, nobody is: all that may be said is that there is no such key.
    fn must_be_shut_out(&self, state: KeyState, ask: &Ask, done: Option<&Option<Deeds>>) {
        let Some(told) = done else { return };
        let nothing = matches!(told, Some(Deeds::Key(_, Did::Found(None))));
        let named = matches!(state, KeyState::Suspended | KeyState::Waits);
        if !(state.serves(ask) || nothing && named) {
            let what = format_args!("{ask:?} is answered with {told:?} while the key is {state:?}");
            self.world.trace.violation("keys", what);
        }
    }

    /// The time, for histories.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_millis(self.world.trace.millis())
    }

    /// Enters into a history what was done, or without an `end` may have been.
    pub(crate) fn note(&self, deeds: Deeds, start: Duration, end: Option<Duration>) {
        match deeds {
            Deeds::Key(key, did) => {
                self.ledger.histories.lock().entry(key).or_default().push(Operation { start, end, did });
            }
            Deeds::Versions(did) => self.ledger.versions.lock().push(Operation { start, end, did }),
        }
    }

    async fn carry_out(
        &self,
        objects: &Arc<ObjectService>,
        ask: &Ask,
        write: u64,
        pending: &Pending,
    ) -> Answer {
        let tenant = objects.open(if self.guest { GUEST } else { TENANT });
        let tenant = tenant.as_ref();
        match ask {
            Ask::Put { key, size } => {
                *pending.lock() = Some(Deeds::Key(*key, Did::Wrote(write)));
                self.put(tenant, *key, *size, write).await
            }
            Ask::Get { key } => self.get(tenant, *key, RangeChoice::All).await,
            Ask::Range { key, first, count } => {
                self.get(tenant, *key, RangeChoice::FromTo(*first, first + count - 1)).await
            }
            Ask::Delete { key } => {
                *pending.lock() = Some(Deeds::Key(*key, Did::Removed));
                self.delete(tenant, *key).await
            }
            Ask::List => self.list(tenant).await,
            Ask::PutIf { key, size, absent: true } => {
                self.put_if(tenant, *key, (*size, write), None, pending).await
            }
            Ask::PutIf { key, size, absent: false } => {
                self.put_on_top(tenant, *key, (*size, write), pending).await
            }
            Ask::Copy { from, to } => self.copy(tenant, *from, *to, write, pending).await,
            Ask::Upload(upload) => self.upload(tenant, upload, write, pending).await,
            Ask::Versioned(what) => self.versioned(tenant, what, write, pending).await,
            Ask::Wait(_) => Answer::Refused,
        }
    }

    async fn put(&self, tenant: &dyn VersionedObjects, key: u64, size: usize, write: u64) -> Answer {
        let (body, options) = self.sends(write, size);
        match tenant.put(BUCKET, &name(key), body, options, Extras::default(), None).await {
            Ok(_) => Answer::Done(Deeds::Key(key, Did::Wrote(write))),
            Err(error) => self.refused("put", &error),
        }
    }

    /// What a put of a write needs.
    pub(crate) fn sends(&self, write: u64, size: usize) -> (Body, PutOptions) {
        let content = Content::put(write, size);
        let body = body_of(content.bytes());
        self.ledger.contents.lock().insert(write, content);
        // Every other write does not say its length.
        let length = write.is_multiple_of(2).then_some(size as u64);
        (body, PutOptions { length, attributes: numbered(write), ..PutOptions::default() })
    }

    async fn get(&self, tenant: &dyn VersionedObjects, key: u64, range: RangeChoice) -> Answer {
        let (info, range, body) = match tenant.get(BUCKET, &name(key), None, range).await {
            Ok(got) => got,
            Err(ObjectError::NoSuchKey(_)) => return Answer::Done(Deeds::Key(key, Did::Found(None))),
            // Says nothing about which write it found.
            Err(ObjectError::RangeNotSatisfiable { .. }) => return Answer::Refused,
            Err(error) => return self.refused("get", &error),
        };
        match self.read(&info.info, (range.start as usize, range.end as usize), body).await {
            Some(number) => Answer::Done(Deeds::Key(key, Did::Found(Some(number)))),
            None => Answer::Refused,
        }
    }

    /// Reads a body to its end and holds it against what was written; the number of that write.
    pub(crate) async fn read(
        &self,
        info: &ObjectInfo,
        (from, to): (usize, usize),
        mut body: Body,
    ) -> Option<u64> {
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) => {
                    self.world.trace.note(format_args!("c{} body ends: {error}", self.number));
                    return None;
                }
            }
        }
        let (number, content) = self.written(info)?;
        if content.bytes().get(from..to) != Some(bytes.as_slice()) {
            let (key, size) = (&info.key, content.size());
            self.world.trace.violation(
                "bytes",
                format_args!("{key} gives {} wrong bytes of write {number} of {size}", bytes.len()),
            );
        }
        Some(number)
    }

    /// Which write an object is of, and what that wrote.
    pub(crate) fn written(&self, info: &ObjectInfo) -> Option<(u64, Content)> {
        let known = number_of(&info.attributes)
            .and_then(|number| Some((number, self.ledger.contents.lock().get(&number)?.clone())));
        if known.is_none() {
            let key = &info.key;
            self.world.trace.violation("ledger", format_args!("{key} is of a write that nobody made"));
        }
        known
    }

    async fn delete(&self, tenant: &dyn VersionedObjects, key: u64) -> Answer {
        let request = DeleteRequest { key: name(key), ..DeleteRequest::default() };
        match tenant.delete(BUCKET, vec![request]).await {
            Ok(results) => match results.into_iter().next() {
                Some(Ok(_)) => Answer::Done(Deeds::Key(key, Did::Removed)),
                Some(Err(error)) => self.refused("delete", &error),
                None => Answer::Refused,
            },
            Err(error) => self.refused("delete", &error),
        }
    }

    /// Each key listed, or not, is a read of it.
    async fn list(&self, tenant: &dyn VersionedObjects) -> Answer {
        let start = self.now();
        let query = ListQuery { limit: 100, ..ListQuery::default() };
        let page = match tenant.list(BUCKET, query).await {
            Ok(page) => page,
            Err(error) => return self.refused("list", &error),
        };
        let end = Some(self.now());
        for key in 0..KEYS {
            let listed = page.objects.iter().find(|object| object.key == name(key));
            let number = listed.and_then(|object| number_of(&object.attributes));
            if listed.is_some() == number.is_some() {
                self.note(Deeds::Key(key, Did::Found(number)), start, end);
            }
        }
        Answer::Answered
    }

    /// Whether what was asked may be refused so.
    pub(crate) fn refused(&self, what: &str, error: &ObjectError) -> Answer {
        self.world.trace.note(format_args!("c{} {what} refused: {error}", self.number));
        let wrong = match error {
            ObjectError::Unavailable(_) | ObjectError::NoSpace(_) => false,
            ObjectError::Damaged(_) => !self.world.plan.beyond,
            _ => true,
        };
        if wrong {
            self.world.trace.violation("refusal", format_args!("{what} is refused with {error}"));
        }
        Answer::Refused
    }
}

/// Bytes of a body that come at once.
const CHUNK_SIZE: usize = 17_000;

/// A body that comes in pieces.
pub(crate) fn body_of(bytes: Vec<u8>) -> Body {
    let pieces: Vec<_> = bytes.chunks(CHUNK_SIZE).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    Box::pin(stream::iter(pieces))
}

/// What is kept with the object of a write.
pub(crate) fn numbered(write: u64) -> Attributes {
    let user = BTreeMap::from([(NUMBER.to_owned(), write.to_string())]);
    Attributes { user, ..Attributes::default() }
}

/// The number of the write that an object is of.
pub(crate) fn number_of(attributes: &Attributes) -> Option<u64> {
    attributes.user.get(NUMBER)?.parse().ok()
}

/// The name of a key.
#[must_use]
pub fn name(key: u64) -> String {
    format!("key-{key}")
}
