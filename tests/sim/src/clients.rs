//! Clients: ask nodes as a gateway would, keep a ledger of what was acknowledged, and judge what they are given.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use holdfast_blackbox::linear::{Did, Operation};
use holdfast_object::{
    ObjectService,
    api::{Attributes, ListQuery, ObjectError, ObjectGateway, PutOptions, RangeChoice},
    versioned::{DeleteRequest, Extras, VersionedObjects},
};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    bodies::body,
    plan::{Ask, KEYS},
    rig::TENANT,
    world::World,
};

/// The bucket.
pub const BUCKET: &str = "b";

/// The name of the number of a write in an object's metadata.
const NUMBER: &str = "number";

/// How long a client waits after a refusal.
const AFTER_REFUSAL: Duration = Duration::from_millis(700);

/// Writes of one client at most.
const WRITES_MAX: u64 = 1000;

/// The longest time a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(100);

/// What clients know.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Operations on each key.
    pub histories: Mutex<BTreeMap<u64, Vec<Operation>>>,
    /// Size of each write.
    pub sizes: Mutex<BTreeMap<u64, usize>>,
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

/// What came of one request.
enum Answer {
    Done(Did),
    /// Nothing is known of it.
    Refused,
}

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
}

impl Client {
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
        let start = Duration::from_millis(world.trace.millis());
        let Some(node) = world.node(self.home) else { return false };
        let answer = tokio::select! {
            biased;
            () = node.off.cancelled() => Answer::Refused,
            answer = tokio::time::timeout(PATIENCE, self.carry_out(&node.objects, ask, write)) => {
                answer.unwrap_or_else(|_| {
                    world.trace.violation("liveness", format_args!("c{} got no answer to {ask:?}", self.number));
                    Answer::Refused
                })
            }
        };
        let end = Duration::from_millis(world.trace.millis());
        let key = match ask {
            Ask::Put { key, .. } | Ask::Get { key } | Ask::Range { key, .. } | Ask::Delete { key } => {
                Some(*key)
            }
            Ask::List | Ask::Wait(_) => None,
        };
        let wrote = match ask {
            Ask::Put { .. } => Some(Did::Wrote(write)),
            Ask::Delete { .. } => Some(Did::Removed),
            _ => None,
        };
        let (done, operation) = match answer {
            Answer::Done(did) => (true, Some(Operation { start, end: Some(end), did })),
            Answer::Refused => (false, wrote.map(|did| Operation { start, end: None, did })),
        };
        world.trace.note(format_args!(
            "c{} n{} {ask:?} #{write}: {:?}",
            self.number,
            self.home + 1,
            operation.filter(|_| done).map(|operation| operation.did)
        ));
        {
            let mut figures = self.ledger.figures.lock();
            match (done, wrote) {
                (true, Some(_)) => figures.acknowledged += 1,
                (true, None) => figures.read += 1,
                (false, _) => figures.refused += 1,
            }
        }
        if let (Some(key), Some(operation)) = (key, operation) {
            self.ledger.histories.lock().entry(key).or_default().push(operation);
        }
        done
    }

    async fn carry_out(&self, objects: &Arc<ObjectService>, ask: &Ask, write: u64) -> Answer {
        let tenant = objects.open(TENANT);
        match *ask {
            Ask::Put { key, size } => self.put(tenant.as_ref(), key, size, write).await,
            Ask::Get { key } => self.get(tenant.as_ref(), key, None).await,
            Ask::Range { key, first, count } => self.get(tenant.as_ref(), key, Some((first, count))).await,
            Ask::Delete { key } => self.delete(tenant.as_ref(), key).await,
            Ask::List => self.list(tenant.as_ref()).await,
            Ask::Wait(_) => Answer::Refused,
        }
    }

    async fn put(&self, tenant: &dyn VersionedObjects, key: u64, size: usize, write: u64) -> Answer {
        self.ledger.sizes.lock().insert(write, size);
        let content = Bytes::from(body(write, size));
        let pieces: Vec<_> = content.chunks(CHUNK_SIZE).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let user = BTreeMap::from([(NUMBER.to_owned(), write.to_string())]);
        let attributes = Attributes { user, ..Attributes::default() };
        // Every other write does not say its length.
        let length = write.is_multiple_of(2).then_some(size as u64);
        let options = PutOptions { length, attributes, ..PutOptions::default() };
        let (key, content) = (name(key), Box::pin(stream::iter(pieces)));
        match tenant.put(BUCKET, &key, content, options, Extras::default(), None).await {
            Ok(_) => Answer::Done(Did::Wrote(write)),
            Err(error) => self.refused("put", &error),
        }
    }

    async fn get(&self, tenant: &dyn VersionedObjects, key: u64, part: Option<(u64, u64)>) -> Answer {
        let range = match part {
            Some((first, count)) => RangeChoice::FromTo(first, first + count - 1),
            None => RangeChoice::All,
        };
        let (info, range, mut stream) = match tenant.get(BUCKET, &name(key), None, range).await {
            Ok(got) => got,
            Err(ObjectError::NoSuchKey(_)) => return Answer::Done(Did::Found(None)),
            // Says nothing about which write it found.
            Err(ObjectError::RangeNotSatisfiable { .. }) => return Answer::Refused,
            Err(error) => return self.refused("get", &error),
        };
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) => {
                    self.world.trace.note(format_args!("c{} body ends: {error}", self.number));
                    return Answer::Refused;
                }
            }
        }
        let number = info.info.attributes.user.get(NUMBER).and_then(|number| number.parse().ok());
        let known = number.and_then(|number: u64| Some((number, *self.ledger.sizes.lock().get(&number)?)));
        let Some((number, size)) = known else {
            self.world.trace.violation("ledger", format_args!("key {key} is of a write that nobody made"));
            return Answer::Refused;
        };
        let (from, to) = (range.start as usize, range.end as usize);
        if to > size || bytes != body(number, size)[from..to] {
            self.world.trace.violation(
                "bytes",
                format_args!("key {key} gives {} wrong bytes of write {number} of {size}", bytes.len()),
            );
        }
        Answer::Done(Did::Found(Some(number)))
    }

    async fn delete(&self, tenant: &dyn VersionedObjects, key: u64) -> Answer {
        let request = DeleteRequest { key: name(key), ..DeleteRequest::default() };
        match tenant.delete(BUCKET, vec![request]).await {
            Ok(results) => match results.into_iter().next() {
                Some(Ok(_)) => Answer::Done(Did::Removed),
                Some(Err(error)) => self.refused("delete", &error),
                None => Answer::Refused,
            },
            Err(error) => self.refused("delete", &error),
        }
    }

    /// Each key listed, or not, is a read of it.
    async fn list(&self, tenant: &dyn VersionedObjects) -> Answer {
        let start = Duration::from_millis(self.world.trace.millis());
        let query = ListQuery { limit: 100, ..ListQuery::default() };
        let page = match tenant.list(BUCKET, query).await {
            Ok(page) => page,
            Err(error) => return self.refused("list", &error),
        };
        let end = Some(Duration::from_millis(self.world.trace.millis()));
        let mut histories = self.ledger.histories.lock();
        for key in 0..KEYS {
            let listed = page.objects.iter().find(|object| object.key == name(key));
            let number = listed.and_then(|object| object.attributes.user.get(NUMBER)?.parse().ok());
            if listed.is_some() == number.is_some() {
                let did = Did::Found(number);
                histories.entry(key).or_default().push(Operation { start, end, did });
            }
        }
        Answer::Done(Did::Found(None))
    }

    /// Whether what was asked may be refused so.
    fn refused(&self, what: &str, error: &ObjectError) -> Answer {
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

/// The name of a key.
#[must_use]
pub fn name(key: u64) -> String {
    format!("key-{key}")
}
