//! A tenant's partitions of the catalog, of which each holds the keys of a range of hashes. Most tenants have one;
//! a large one is split ([`holdfast_catalog::Op::SplitPartition`]) while clients go on.
//!
//! Which partition has a key is read from the partitions themselves and remembered. What is remembered may be out of
//! date: the partition then says so, changes nothing, and is asked again after a look. What concerns all partitions
//! (buckets, quotas, condemning) goes to the first of them, which is the one the tenant began with.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::future::try_join_all;
use holdfast_catalog::{
    DeleteItem, Deleted, HashRange, Layout, Op, Orphan, Outcome, PartitionReader, ReadError, Refusal,
    Response,
};
use holdfast_model::{BucketId, DatabaseId, PartitionId, TenantId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    api::ObjectError,
    backing::{self, Route},
    host::chance,
    quota_shares::Sharing,
    service::{ObjectService, refused},
    tenant::{TenantHandle, unexpected},
};

/// How long a request waits for a split, or the deletion of a bucket, that is under way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// After so long the deletion of a bucket was given up by whoever began it: the bucket is opened again.
const CLOSED_MAX: Duration = Duration::from_secs(3);

/// Which partition of a tenant holds which keys, as last seen.
#[derive(Debug, Default)]
pub(crate) struct Layouts(Mutex<HashMap<TenantId, Vec<(HashRange, Route)>>>);

impl Layouts {
    /// The partition that has the key, if what was last seen still fits the tenant's partitions.
    pub(crate) fn find(&self, tenant: TenantId, key: &str) -> Option<Route> {
        let layouts = self.0.lock();
        let layout = layouts.get(&tenant)?;
        layout.iter().find(|(range, _)| range.has(key.as_bytes())).map(|(_, route)| *route)
    }

    pub(crate) fn see(&self, tenant: TenantId, layout: Vec<(HashRange, Route)>) {
        self.0.lock().insert(tenant, layout);
    }
}

/// A wait that ends.
pub(crate) struct Wait {
    until: Instant,
}

impl Wait {
    pub(crate) fn new() -> Self {
        Self { until: Instant::now() + PATIENCE }
    }

    /// Pauses; refuses when it took too long.
    pub(crate) async fn pause(&self, what: &str) -> Result<(), ObjectError> {
        if Instant::now() >= self.until {
            return Err(ObjectError::Unavailable(format!("{what}; try again")));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        Ok(())
    }
}

impl TenantHandle {
    /// Reads from the partition that has the key. `bucket` is for errors.
    pub(crate) async fn read_key<T: Send + 'static>(
        &self,
        (bucket, key): (&str, &str),
        query: impl Fn(&PartitionReader) -> Result<T, ReadError> + Clone + Send + 'static,
    ) -> Result<T, ObjectError> {
        let wait = Wait::new();
        loop {
            let route = self.backing.route_of(self.tenant, key).await?;
            let reader = self.backing.reader(route).await?;
            match backing::run(reader, query.clone()).await? {
                Err(ReadError::Moved) => {
                    wait.pause("the key's partition of the catalog is being split").await?;
                    self.backing.look_again(self.tenant).await?;
                }
                other => return other.map_err(|error| backing::missing(error, (bucket, key))),
            }
        }
    }

    /// Reads from every partition, in the order of their numbers.
    pub(crate) async fn read_all<T: Send + 'static>(
        &self,
        bucket: &str,
        query: impl Fn(&PartitionReader) -> Result<T, ReadError> + Clone + Send + 'static,
    ) -> Result<Vec<T>, ObjectError> {
        let routes = self.backing.routes(self.tenant).await?;
        try_join_all(routes.into_iter().map(|route| {
            let query = query.clone();
            async move { backing::query(self.backing.reader(route).await?, (bucket, ""), query).await }
        }))
        .await
    }

    /// Reads from every partition and puts their answers together; again when a partition was split meanwhile.
    pub(crate) async fn read_together<T: Send + 'static>(
        &self,
        bucket: &str,
        query: impl Fn(&PartitionReader) -> Result<T, ReadError> + Clone + Send + 'static,
        together: impl Fn(Vec<T>) -> Option<T>,
    ) -> Result<T, ObjectError> {
        let wait = Wait::new();
        loop {
            if let Some(whole) = together(self.read_all(bucket, query.clone()).await?) {
                return Ok(whole);
            }
            wait.pause("a partition of the catalog is being split").await?;
            self.backing.look_again(self.tenant).await?;
        }
    }

    /// Proposes what is about a key to the partition that has it.
    pub(crate) async fn propose_key(
        &self,
        (bucket, key): (&str, &str),
        op: Op,
    ) -> Result<Response, ObjectError> {
        let mut shared = Sharing::NotYet;
        let wait = Wait::new();
        loop {
            let route = self.backing.route_of(self.tenant, key).await?;
            match self.backing.propose(route, op.clone()).await? {
                Ok(response) => return Ok(response),
                Err(Refusal::Moved) => {
                    wait.pause("the key's partition of the catalog is being split").await?;
                    self.backing.look_again(self.tenant).await?;
                }
                Err(Refusal::BucketClosed { token }) => {
                    self.wait_for_bucket(bucket, token).await?;
                    wait.pause("the bucket is being deleted").await?;
                }
                Err(Refusal::QuotaExceeded { tenant: true })
                    if shared != Sharing::AllToOne
                        && self.share_quota(None, shared.next(route.0)).await? =>
                {
                    shared = if shared == Sharing::NotYet { Sharing::Evenly } else { Sharing::AllToOne };
                }
                Err(refusal) => return Err(refused(refusal, bucket, key)),
            }
        }
    }

    /// Waits until a bucket is deleted or open again; opens it when nobody goes on with its deletion.
    async fn wait_for_bucket(&self, bucket: &str, token: [u8; 16]) -> Result<(), ObjectError> {
        let begun = Instant::now();
        loop {
            let found = self.bucket(self.route()?, bucket).await?;
            if found.closed != Some(token) {
                return Ok(());
            }
            if begun.elapsed() > CLOSED_MAX {
                return self.to_first(Op::ReopenBucket { bucket: found.id, token }, bucket).await.map(drop);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Proposes what is about all partitions.
    pub(crate) async fn to_first(&self, op: Op, bucket: &str) -> Result<Response, ObjectError> {
        let outcome = self.backing.propose(self.route()?, op).await?;
        outcome.map_err(|refusal| refused(refusal, bucket, ""))
    }

    /// Deletes an empty bucket. One of several partitions is closed everywhere first: see `apply/family.rs` of the
    /// catalog.
    pub(crate) async fn delete_empty(&self, name: &str) -> Result<(), ObjectError> {
        let whole: Outcome =
            self.backing.propose(self.route()?, Op::DeleteBucket { name: name.to_owned() }).await?;
        match whole {
            Err(Refusal::Moved) => {}
            decided => return decided.map(drop).map_err(|refusal| refused(refusal, name, "")),
        }
        let bucket: BucketId = self.bucket(self.route()?, name).await?.id;
        let token = chance();
        match self.to_first(Op::CloseBucket { bucket, token }, name).await {
            Ok(_) => self.to_first(Op::DeleteClosedBucket { bucket, token }, name).await.map(drop),
            Err(error) => {
                // Closed in those partitions that hold nothing of it.
                self.to_first(Op::ReopenBucket { bucket, token }, name).await?;
                Err(error)
            }
        }
    }

    /// Deletes keys and versions: one command for those of each partition. One answer each, in order.
    pub(crate) async fn delete_items(
        &self,
        (name, bucket, notifies): (&str, BucketId, bool),
        items: Vec<DeleteItem>,
    ) -> Result<Vec<Result<Deleted, ObjectError>>, ObjectError> {
        let wait = Wait::new();
        let mut answers: Vec<Option<Result<Deleted, ObjectError>>> = items.iter().map(|_| None).collect();
        loop {
            let mut by_route: BTreeMap<Route, Vec<usize>> = BTreeMap::new();
            for at in (0..items.len()).filter(|at| answers[*at].is_none()) {
                let route = self.backing.route_of(self.tenant, &items[at].key).await?;
                by_route.entry(route).or_default().push(at);
            }
            if by_route.is_empty() {
                return Ok(answers.into_iter().flatten().collect());
            }
            let (mut moved, mut closed) = (false, None);
            for (route, which) in by_route {
                let theirs = which.iter().map(|at| items[*at].clone()).collect();
                let op = self.told(notifies, Op::DeleteObjects { bucket, items: theirs });
                let decided = match self.backing.propose(route, op).await? {
                    Ok(Response::ObjectsDeleted(results)) if results.len() == which.len() => results,
                    Ok(other) => return Err(unexpected(&other)),
                    Err(refusal) => return Err(refused(refusal, name, "")),
                };
                for (at, result) in which.into_iter().zip(decided) {
                    match result {
                        Err(Refusal::Moved) => moved = true,
                        Err(Refusal::BucketClosed { token }) => closed = Some(token),
                        result => answers[at] = Some(result.map_err(|r| refused(r, name, &items[at].key))),
                    }
                }
            }
            if moved {
                wait.pause("a partition of the catalog is being split").await?;
                self.backing.look_again(self.tenant).await?;
            }
            if let Some(token) = closed {
                self.wait_for_bucket(name, token).await?;
                wait.pause("the bucket is being deleted").await?;
            }
        }
    }
}

/// Condemns stripes that the catalog may not know: from then on they can never become part of an object, and their
/// shards are garbage. `propose` is to the first partition. Returns how many were condemned.
///
/// Once a tenant has several partitions, each bars those it does not know; what all of them barred is condemned.
pub(crate) async fn condemn<F: Future<Output = Result<Outcome, ObjectError>>>(
    propose: impl Fn(Op) -> F,
    stripes: Vec<Orphan>,
) -> Result<usize, ObjectError> {
    let answers = |outcome: Outcome| match outcome {
        Ok(Response::Condemned(answers)) => Ok(answers),
        Ok(other) => Err(unexpected(&other)),
        Err(refusal) => Err(ObjectError::Internal(refusal.to_string())),
    };
    let condemned = match propose(Op::Condemn { stripes: stripes.clone() }).await? {
        Err(Refusal::Moved) => {
            let ids = stripes.iter().map(|orphan| orphan.stripe).collect();
            let barred = answers(propose(Op::Bar { stripes: ids }).await?)?;
            let unknown = stripes.into_iter().zip(barred).filter(|(_, barred)| *barred);
            let stripes: Vec<Orphan> = unknown.map(|(orphan, _)| orphan).collect();
            if stripes.is_empty() {
                return Ok(0);
            }
            answers(propose(Op::Condemn { stripes }).await?)?
        }
        outcome => answers(outcome)?,
    };
    Ok(condemned.into_iter().filter(|condemned| *condemned).count())
}

impl ObjectService {
    /// Where a partition stands. `None`: it is not split off yet.
    ///
    /// # Errors
    /// When its group has no leader, or the tenant's key is not on this node.
    pub async fn layout(&self, route: Route) -> Result<Option<Layout>, ObjectError> {
        self.barrier(route.1).await?;
        let catalog = self.catalogs.get(&route.1);
        if catalog.is_none_or(|catalog| catalog.identity(route.0).is_none()) {
            return Ok(None);
        }
        self.read(route, ("", ""), |catalog| catalog.layout()).await.map(Some)
    }

    /// Gives the upper half of a partition's keys to a new one. `false`: not yet, because what an earlier split left
    /// behind is still being cleared away.
    ///
    /// # Errors
    /// When the group does not decide.
    pub async fn split_off(
        &self,
        source: Route,
        into: PartitionId,
        database_id: DatabaseId,
    ) -> Result<bool, ObjectError> {
        match self.propose(source, Op::SplitPartition { into, database_id }).await? {
            Ok(Response::PartitionSplit) => Ok(true),
            Err(Refusal::Clearing) => Ok(false),
            Ok(other) => Err(unexpected(&other)),
            Err(refusal) => Err(ObjectError::Internal(refusal.to_string())),
        }
    }

    /// Clears some of what a split left behind; `true` when nothing is left.
    ///
    /// # Errors
    /// When the group does not decide.
    pub async fn clear_after_split(&self, route: Route) -> Result<bool, ObjectError> {
        match self.propose(route, Op::ClearPartition).await? {
            Ok(Response::Cleared { done }) => Ok(done),
            Ok(other) => Err(unexpected(&other)),
            Err(refusal) => Err(ObjectError::Internal(refusal.to_string())),
        }
    }
}
