//! An object layer in memory, for tests and for trying clients by hand. It follows the contract of
//! `holdfast_object::api` and keeps nothing.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::StreamExt;
use holdfast_model::{TenantId, UnixMillis, UploadId, VersionId, limits};
use holdfast_object::api::*;
use md5::{Digest, Md5};
use parking_lot::Mutex;

#[derive(Clone)]
struct Stored {
    info: ObjectInfo,
    content: Bytes,
}

struct Upload {
    info: UploadInfo,
    parts: BTreeMap<u32, (PartInfo, Bytes)>,
}

#[derive(Default)]
struct Bucket {
    created: u64,
    objects: BTreeMap<String, Stored>,
    uploads: BTreeMap<(String, UploadId), Upload>,
    completed: BTreeMap<(String, UploadId), ObjectInfo>,
}

/// One tenant.
pub struct MemoryTenant {
    id: TenantId,
    buckets: Mutex<BTreeMap<String, Bucket>>,
    counter: AtomicU64,
    /// Smallest part but the last; tests lower it.
    pub part_size_min: AtomicU64,
    /// Puts that have begun.
    pub puts_begun: AtomicU64,
}

/// Tenants by access key.
pub struct MemoryGateway {
    pub tenants: BTreeMap<String, (Credential, Arc<MemoryTenant>)>,
}

impl MemoryGateway {
    /// Each key is a tenant: access key, secret.
    pub fn new(keys: &[(&str, &str)]) -> Arc<Self> {
        let tenant = |(number, (key, secret)): (usize, &(&str, &str))| {
            let id = TenantId::from_bytes([number as u8 + 1; 16]);
            let credential =
                Credential { tenant: id, tenant_name: format!("tenant-{key}"), secret: (*secret).to_owned() };
            let tenant = MemoryTenant {
                id,
                buckets: Mutex::default(),
                counter: AtomicU64::new(1),
                part_size_min: AtomicU64::new(limits::PART_SIZE_MIN),
                puts_begun: AtomicU64::new(0),
            };
            ((*key).to_owned(), (credential, Arc::new(tenant)))
        };
        Arc::new(Self { tenants: keys.iter().enumerate().map(tenant).collect() })
    }
}

#[async_trait::async_trait]
impl ObjectGateway for MemoryGateway {
    async fn credential(&self, access_key: &str) -> Result<Option<Credential>, ObjectError> {
        Ok(self.tenants.get(access_key).map(|(credential, _)| credential.clone()))
    }
    fn open(&self, tenant: TenantId) -> Arc<dyn TenantObjects> {
        let found = self.tenants.values().find(|(_, objects)| objects.id == tenant);
        Arc::clone(&found.expect("only tenants of known keys are opened").1) as _
    }
    fn region(&self) -> String {
        "us-east-1".to_owned()
    }
}

fn now() -> UnixMillis {
    UnixMillis::new(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64)
}

impl MemoryTenant {
    fn random(&self) -> [u8; 10] {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        random
    }

    fn with<T>(
        &self,
        bucket: &str,
        act: impl FnOnce(&mut Bucket) -> Result<T, ObjectError>,
    ) -> Result<T, ObjectError> {
        let mut buckets = self.buckets.lock();
        act(buckets.get_mut(bucket).ok_or_else(|| ObjectError::NoSuchBucket(bucket.to_owned()))?)
    }

    /// Whether a key is there: tests ask whether anything was stored.
    pub fn holds(&self, bucket: &str, key: &str) -> bool {
        self.buckets.lock().get(bucket).is_some_and(|bucket| bucket.objects.contains_key(key))
    }

    fn store(
        &self,
        bucket: &mut Bucket,
        key: &str,
        content: Bytes,
        etag: String,
        attributes: Attributes,
        condition: &WriteCondition,
    ) -> Result<ObjectInfo, ObjectError> {
        let present = bucket.objects.get(key);
        if condition.if_absent && present.is_some() {
            return Err(ObjectError::PreconditionFailed);
        }
        if let Some(etag) = &condition.if_etag {
            let present = present.ok_or_else(|| ObjectError::NoSuchKey(key.to_owned()))?;
            if present.info.etag != *etag {
                return Err(ObjectError::PreconditionFailed);
            }
        }
        let info = ObjectInfo {
            key: key.to_owned(),
            version: VersionId::new(now(), self.random()),
            size: content.len() as u64,
            etag,
            modified: now(),
            attributes,
        };
        bucket.objects.insert(key.to_owned(), Stored { info: info.clone(), content });
        Ok(info)
    }

    fn stored(&self, bucket: &str, key: &str) -> Result<Stored, ObjectError> {
        self.with(bucket, |bucket| {
            bucket.objects.get(key).cloned().ok_or_else(|| ObjectError::NoSuchKey(key.to_owned()))
        })
    }
}

async fn gather(mut body: Body, options: &PutOptions) -> Result<(Bytes, String), ObjectError> {
    let mut content = Vec::new();
    while let Some(bytes) = body.next().await {
        content.extend_from_slice(&bytes?);
    }
    if let Some(declared) = options.length
        && declared != content.len() as u64
    {
        return Err(BodyError::Length { declared, received: content.len() as u64 }.into());
    }
    let md5 = Md5::digest(&content);
    if options.content_md5.is_some_and(|expected| expected[..] != md5[..]) {
        return Err(BodyError::Mismatch("Content-MD5").into());
    }
    Ok((content.into(), hex::encode(md5)))
}

fn no_upload(upload: UploadId) -> ObjectError {
    ObjectError::NoSuchUpload(upload.to_string())
}

#[async_trait::async_trait]
impl TenantObjects for MemoryTenant {
    fn tenant(&self) -> TenantId {
        self.id
    }

    async fn create_bucket(&self, bucket: &str) -> Result<(), ObjectError> {
        let mut buckets = self.buckets.lock();
        if buckets.contains_key(bucket) {
            return Err(ObjectError::BucketAlreadyOwnedByYou(bucket.to_owned()));
        }
        buckets.insert(bucket.to_owned(), Bucket { created: now().get(), ..Bucket::default() });
        Ok(())
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), ObjectError> {
        self.with(bucket, |found| match found.objects.is_empty() && found.uploads.is_empty() {
            true => Ok(()),
            false => Err(ObjectError::BucketNotEmpty(bucket.to_owned())),
        })?;
        self.buckets.lock().remove(bucket);
        Ok(())
    }

    async fn head_bucket(&self, bucket: &str) -> Result<BucketInfo, ObjectError> {
        self.with(bucket, |found| {
            Ok(BucketInfo { name: bucket.to_owned(), created: UnixMillis::new(found.created) })
        })
    }

    async fn list_buckets(&self) -> Result<Vec<BucketInfo>, ObjectError> {
        let buckets = self.buckets.lock();
        let info = |(name, bucket): (&String, &Bucket)| BucketInfo {
            name: name.clone(),
            created: UnixMillis::new(bucket.created),
        };
        Ok(buckets.iter().map(info).collect())
    }

    async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Body,
        options: PutOptions,
        late: Option<LateChecksums>,
    ) -> Result<ObjectInfo, ObjectError> {
        self.head_bucket(bucket).await?;
        self.puts_begun.fetch_add(1, Ordering::Relaxed);
        let (content, etag) = gather(body, &options).await?;
        let mut attributes = options.attributes;
        attributes.checksums.extend(late.map(|late| late()).unwrap_or_default());
        self.with(bucket, |found| self.store(found, key, content, etag, attributes, &options.condition))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, ObjectError> {
        Ok(self.stored(bucket, key)?.info)
    }

    async fn get(
        &self,
        bucket: &str,
        key: &str,
        range: RangeChoice,
    ) -> Result<(ObjectInfo, Range<u64>, Body), ObjectError> {
        let stored = self.stored(bucket, key)?;
        let range = range.resolve(stored.info.size)?;
        let content = stored.content.slice(range.start as usize..range.end as usize);
        let pieces: Vec<Result<Bytes, BodyError>> =
            content.chunks(65_536).map(|piece| Ok(content.slice_ref(piece))).collect();
        Ok((stored.info, range, Box::pin(futures::stream::iter(pieces))))
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<bool, ObjectError> {
        self.with(bucket, |bucket| Ok(bucket.objects.remove(key).is_some()))
    }

    async fn delete_many(
        &self,
        bucket: &str,
        keys: &[String],
    ) -> Result<Vec<Result<bool, ObjectError>>, ObjectError> {
        self.with(bucket, |bucket| {
            Ok(keys.iter().map(|key| Ok(bucket.objects.remove(key).is_some())).collect())
        })
    }

    async fn list(&self, bucket: &str, query: ListQuery) -> Result<ListPage, ObjectError> {
        self.with(bucket, |bucket| {
            let mut page = ListPage::default();
            let mut last: Option<String> = None;
            for (key, stored) in bucket.objects.iter().filter(|(key, _)| key.starts_with(&query.prefix)) {
                let rest = &key[query.prefix.len()..];
                let group = query.delimiter.as_ref().and_then(|delimiter| {
                    rest.find(delimiter.as_str())
                        .map(|at| key[..query.prefix.len() + at + delimiter.len()].to_owned())
                });
                let entry = group.as_ref().unwrap_or(key);
                if query.after.as_ref().is_some_and(|after| entry <= after) || last.as_ref() == Some(entry) {
                    continue;
                }
                if page.objects.len() + page.common_prefixes.len() == query.limit {
                    page.next = last;
                    return Ok(page);
                }
                last = Some(entry.clone());
                match group {
                    Some(group) => page.common_prefixes.push(group),
                    None => page
                        .objects
                        .push(ObjectInfo { attributes: Attributes::default(), ..stored.info.clone() }),
                }
            }
            Ok(page)
        })
    }

    async fn copy(
        &self,
        source: (&str, &str),
        target: (&str, &str),
        attributes: Option<Attributes>,
        condition: WriteCondition,
    ) -> Result<ObjectInfo, ObjectError> {
        let stored = self.stored(source.0, source.1)?;
        let etag = hex::encode(Md5::digest(&stored.content));
        let attributes = attributes.unwrap_or(stored.info.attributes);
        self.with(target.0, |bucket| {
            self.store(bucket, target.1, stored.content, etag, attributes, &condition)
        })
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        attributes: Attributes,
    ) -> Result<UploadId, ObjectError> {
        let upload = UploadId::new(now(), self.random());
        let info = UploadInfo { key: key.to_owned(), upload, initiated: now(), attributes };
        self.with(bucket, |bucket| {
            bucket.uploads.insert((key.to_owned(), upload), Upload { info, parts: BTreeMap::new() });
            Ok(upload)
        })
    }

    async fn put_part(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        number: u32,
        body: Body,
        options: PutOptions,
        late: Option<LateChecksums>,
    ) -> Result<PartInfo, ObjectError> {
        let place = (key.to_owned(), upload);
        self.with(bucket, |bucket| {
            bucket.uploads.contains_key(&place).then_some(()).ok_or_else(|| no_upload(upload))
        })?;
        let (content, etag) = gather(body, &options).await?;
        let checksums = late.map(|late| late()).unwrap_or_default();
        let info = PartInfo { number, size: content.len() as u64, etag, modified: now(), checksums };
        self.with(bucket, |bucket| {
            let found = bucket.uploads.get_mut(&place).ok_or_else(|| no_upload(upload))?;
            found.parts.insert(number, (info.clone(), content));
            Ok(info)
        })
    }

    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        parts: &[(u32, String)],
        checksums: BTreeMap<String, String>,
        condition: WriteCondition,
    ) -> Result<ObjectInfo, ObjectError> {
        let place = (key.to_owned(), upload);
        let min = self.part_size_min.load(Ordering::Relaxed);
        self.with(bucket, |bucket| {
            if let Some(done) = bucket.completed.get(&place) {
                return Ok(done.clone());
            }
            let found = bucket.uploads.get(&place).ok_or_else(|| no_upload(upload))?;
            let (mut content, mut hashes) = (Vec::new(), Vec::new());
            for (at, (number, etag)) in parts.iter().enumerate() {
                let part = found.parts.get(number).filter(|(info, _)| info.etag == *etag);
                let (info, bytes) = part.ok_or(ObjectError::InvalidPart(*number))?;
                if at + 1 < parts.len() && info.size < min {
                    return Err(ObjectError::PartTooSmall { number: *number, size: info.size, min });
                }
                content.extend_from_slice(bytes);
                hashes.extend_from_slice(&hex::decode(&info.etag).expect("an ETag is hexadecimal"));
            }
            let etag = format!("{}-{}", hex::encode(Md5::digest(&hashes)), parts.len());
            let attributes = Attributes { checksums, ..found.info.attributes.clone() };
            let info = self.store(bucket, key, content.into(), etag, attributes, &condition)?;
            bucket.uploads.remove(&place);
            bucket.completed.insert(place, info.clone());
            Ok(info)
        })
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload: UploadId) -> Result<(), ObjectError> {
        self.with(bucket, |bucket| {
            bucket.uploads.remove(&(key.to_owned(), upload)).map(|_| ()).ok_or_else(|| no_upload(upload))
        })
    }

    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        after: u32,
        limit: usize,
    ) -> Result<(UploadInfo, Vec<PartInfo>), ObjectError> {
        self.with(bucket, |bucket| {
            let found = bucket.uploads.get(&(key.to_owned(), upload)).ok_or_else(|| no_upload(upload))?;
            let parts = found.parts.range(after + 1..).take(limit).map(|(_, (info, _))| info.clone());
            Ok((found.info.clone(), parts.collect()))
        })
    }

    async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, UploadId)>,
        limit: usize,
    ) -> Result<Vec<UploadInfo>, ObjectError> {
        self.with(bucket, |bucket| {
            let wanted = |(place, _): &(&(String, UploadId), &Upload)| {
                place.0.starts_with(prefix) && after.as_ref().is_none_or(|after| *place > after)
            };
            Ok(bucket
                .uploads
                .iter()
                .filter(wanted)
                .take(limit)
                .map(|(_, upload)| upload.info.clone())
                .collect())
        })
    }
}
