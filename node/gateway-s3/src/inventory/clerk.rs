//! Makes the inventories that are due.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_access::{identity::Tenant, text::instant_text};
use holdfast_model::{BucketId, TenantId, UnixMillis};
use holdfast_object::{
    api::{Attributes, ObjectError, ObjectGateway, PutOptions},
    versioned::{DocumentKind, Extras, VersionListQuery, VersionedObjects},
};
use md5::{Digest, Md5};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{
    FILE_SIZE, Inventory, LOOK_INTERVAL_MAX, LOOK_INTERVAL_MIN, LOOKS_A_DAY, PAGE, PAGE_PAUSE, PUT_TIMEOUT,
    rows::File,
};
use crate::{
    authorize::BucketAccess,
    errors::Refusal,
    identities::Identities,
    observer::{InventoryFate, Observer},
};

/// Makes inventories of the tenants that this node leads.
pub(crate) struct Clerk {
    pub objects: Arc<dyn ObjectGateway>,
    pub identities: Arc<dyn Identities>,
    pub observer: Arc<dyn Observer>,
    /// Length of a day.
    pub day: Duration,
}

/// What has been seen to: the day it was for, and when the configuration was stored that held then.
type Seen = HashMap<(TenantId, BucketId, String), (u64, UnixMillis)>;

/// That an inventory is there.
enum Done {
    /// Made now.
    Made,
    /// Whoever led before has made it.
    WasThere,
}

/// Why an inventory was not made.
#[derive(Debug)]
enum Failure {
    /// It may be at another time.
    Later(String),
    /// Not as it is configured, and as the target is.
    Never(String),
}

impl From<ObjectError> for Failure {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Unavailable(_) | ObjectError::Internal(_) | ObjectError::NoSpace(_) => {
                Self::Later(error.to_string())
            }
            other => Self::Never(other.to_string()),
        }
    }
}

/// What tells a reader that an inventory is complete, and where its files are (Amazon S3 user guide, "Inventory
/// manifest").
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    source_bucket: &'a str,
    destination_bucket: String,
    version: &'a str,
    creation_timestamp: String,
    file_format: &'a str,
    file_schema: String,
    files: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    key: String,
    size: usize,
    #[serde(rename = "MD5checksum")]
    md5: String,
}

impl Clerk {
    /// Makes what is due until `ended` completes.
    pub(crate) async fn run(&self, ended: impl Future<Output = ()>) {
        let mut ticks = interval((self.day / LOOKS_A_DAY).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let working = async {
            let mut seen = Seen::new();
            loop {
                ticks.tick().await;
                self.look(&mut seen).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = working => {}
        }
    }

    async fn look(&self, seen: &mut Seen) {
        let snapshot = self.identities.snapshot();
        seen.retain(|(tenant, ..), _| self.objects.leads(*tenant));
        for (id, tenant) in snapshot.tenants.iter().filter(|(id, _)| self.objects.leads(**id)) {
            let objects = self.objects.open(*id);
            if let Err(error) = self.tenant(&*objects, *id, tenant, seen).await {
                tracing::warn!(tenant = %id, %error, "inventories cannot be looked at; will be tried again");
            }
        }
    }

    async fn tenant(
        &self,
        objects: &dyn VersionedObjects,
        id: TenantId,
        tenant: &Tenant,
        seen: &mut Seen,
    ) -> Result<(), ObjectError> {
        for bucket in objects.buckets_with(DocumentKind::Inventory).await? {
            let info = objects.bucket(&bucket).await?;
            for document in objects.documents(&bucket, DocumentKind::Inventory).await? {
                let Ok(inventory) = serde_json::from_slice::<Inventory>(&document.body) else {
                    tracing::warn!(bucket, id = document.id, "an inventory's configuration cannot be read");
                    continue;
                };
                let due = inventory.frequency.due(self.identities.now_millis() / self.day_millis());
                let of = (id, info.id, inventory.id.clone());
                if !inventory.enabled || seen.get(&of) == Some(&(due, document.changed)) {
                    continue;
                }
                match self.make(objects, tenant, &bucket, &inventory, due).await {
                    Ok(Done::Made) => self.observer.inventory(InventoryFate::Made),
                    Ok(Done::WasThere) => {}
                    Err(Failure::Later(error)) => {
                        self.observer.inventory(InventoryFate::Delayed);
                        tracing::warn!(
                            bucket,
                            id = inventory.id,
                            error,
                            "an inventory is not made; will be tried again"
                        );
                        continue;
                    }
                    Err(Failure::Never(error)) => {
                        self.observer.inventory(InventoryFate::Missed);
                        tracing::warn!(
                            bucket,
                            id = inventory.id,
                            error,
                            "an inventory is not made before the next midnight"
                        );
                    }
                }
                seen.insert(of, (due, document.changed));
            }
        }
        Ok(())
    }

    fn day_millis(&self) -> u64 {
        u64::try_from(self.day.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    async fn make(
        &self,
        objects: &dyn VersionedObjects,
        tenant: &Tenant,
        source: &str,
        inventory: &Inventory,
        due: u64,
    ) -> Result<Done, Failure> {
        let midnight = instant_text(due.saturating_mul(self.day_millis()));
        let root = inventory.root(source);
        let name = midnight.get(..16).unwrap_or(&midnight).replace(':', "-");
        let manifest_key = format!("{root}/{name}Z/manifest.json");
        self.check_target(objects, tenant, source, inventory).await?;
        match objects.head(&inventory.target, &manifest_key, None).await {
            Ok(_) => return Ok(Done::WasThere),
            Err(ObjectError::NoSuchKey(_) | ObjectError::DeleteMarker { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let begun = self.identities.now_millis();
        let files = self.files(objects, source, inventory, &root).await?;
        let manifest = Manifest {
            source_bucket: source,
            destination_bucket: format!("arn:aws:s3:::{}", inventory.target),
            version: "2016-11-30",
            creation_timestamp: begun.to_string(),
            file_format: "CSV",
            file_schema: inventory.schema(),
            files,
        };
        let count = manifest.files.len();
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| Failure::Never(error.to_string()))?;
        let sum = hex::encode(Md5::digest(&text));
        let sum_key = format!("{root}/{name}Z/manifest.checksum");
        put(objects, &inventory.target, &sum_key, sum.into(), "text/plain").await?;
        put(objects, &inventory.target, &manifest_key, text.into(), "application/json").await?;
        tracing::info!(bucket = source, id = inventory.id, files = count, manifest_key, "inventory made");
        Ok(Done::Made)
    }

    /// The target may have been deleted since the inventory was set up, and be somebody else's now.
    async fn check_target(
        &self,
        objects: &dyn VersionedObjects,
        tenant: &Tenant,
        source: &str,
        inventory: &Inventory,
    ) -> Result<(), Failure> {
        let owner = async |bucket: &str| match BucketAccess::load(objects, tenant, bucket).await {
            Ok(found) => Ok(found.owner.canonical),
            Err(refusal) => Err(unreachable_bucket(bucket, &refusal)),
        };
        if owner(source).await? != owner(&inventory.target).await? {
            return Err(Failure::Never("the target is another account's".to_owned()));
        }
        Ok(())
    }

    async fn files(
        &self,
        objects: &dyn VersionedObjects,
        source: &str,
        inventory: &Inventory,
        root: &str,
    ) -> Result<Vec<Listed>, Failure> {
        let (mut files, mut file, mut after) = (Vec::new(), File::default(), None);
        loop {
            let prefix = inventory.filter.clone().unwrap_or_default();
            let query = VersionListQuery { prefix, delimiter: None, after, limit: PAGE };
            let page = objects.list_versions(source, query).await?;
            let wanted = |version: &&_| inventory.holds(version);
            for version in page.versions.iter().filter(wanted) {
                file.add(inventory, source, version)?;
            }
            let is_last = page.next.is_none();
            if file.size() >= FILE_SIZE || (is_last && !file.is_empty()) {
                files.push(deliver(objects, inventory, root, std::mem::take(&mut file)).await?);
            }
            if is_last {
                return Ok(files);
            }
            after = page.next;
            sleep(PAGE_PAUSE).await;
        }
    }
}

/// Puts a data file under a name of its own.
async fn deliver(
    objects: &dyn VersionedObjects,
    inventory: &Inventory,
    root: &str,
    file: File,
) -> Result<Listed, Failure> {
    let done = file.end()?;
    let mut unique = [0; 16];
    getrandom::fill(&mut unique).map_err(|error| Failure::Later(error.to_string()))?;
    let key = format!("{root}/data/{}.csv.gz", hex::encode(unique));
    let listed = Listed { key, size: done.bytes.len(), md5: done.md5 };
    put(objects, &inventory.target, &listed.key, done.bytes.into(), "application/x-gzip").await?;
    Ok(listed)
}

async fn put(
    objects: &dyn VersionedObjects,
    bucket: &str,
    key: &str,
    bytes: Bytes,
    kind: &str,
) -> Result<(), Failure> {
    let mut attributes = Attributes::default();
    attributes.headers.insert("content-type".to_owned(), kind.to_owned());
    let options = PutOptions { length: Some(bytes.len() as u64), attributes, ..PutOptions::default() };
    let body = Box::pin(futures::stream::once(async move { Ok(bytes) }));
    match timeout(PUT_TIMEOUT, objects.put(bucket, key, body, options, Extras::default(), None)).await {
        Ok(written) => Ok(written.map(drop)?),
        Err(_) => Err(Failure::Later(format!("{key} took too long to be put"))),
    }
}

fn unreachable_bucket(bucket: &str, refusal: &Refusal) -> Failure {
    let said = format!("{bucket}: {}: {}", refusal.code, refusal.text());
    if refusal.code == "NoSuchBucket" { Failure::Never(said) } else { Failure::Later(said) }
}
