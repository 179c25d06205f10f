//! One tenant's operations. Everything here goes through the tenant's own entry of the directory.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use holdfast_catalog::{
    Bucket, Candidate, CompleteUpload, Condition, DocumentKind, Lifecycle, ListedObject, ObjectExtras,
    ObjectHead, ObjectRow, Op, PartitionReader, PutObject, PutPart, ReadError, Response, VersionRef,
    VersionSelector, Versioning,
};
use holdfast_crypt::{Outer, OuterKey};
use holdfast_model::{BucketId, Level, TenantId, UnixMillis, UploadId, VersionId, limits::LIST_KEYS_MAX};
use md5::{Digest, Md5};

use crate::{
    api::{
        Attributes, Body, BucketInfo, LateChecksums, ListPage, ListQuery, ObjectError, ObjectInfo, PartInfo,
        PutOptions, RangeChoice, TenantObjects, UploadInfo, WriteCondition,
    },
    backing::{self, Backing, BodyName, DAY_MILLIS, Lookup, Route, Taker},
    events::Origin,
    host::{chance, now},
    sealing::{CustomerKey, DefaultSealing, KeyRefusal, Sealed, Sealing},
    service::{from_opaque, to_opaque},
    versioned::{Expiry, UploadListQuery, VersionedObjects, Written, decode_tags},
    workers::read_level,
};

/// Documents of a bucket that a write asks for.
const KINDS_OF_PLACE: &[DocumentKind] =
    &[DocumentKind::Encryption, DocumentKind::Level, DocumentKind::Lifecycle, DocumentKind::Notification];

/// A tenant's handle.
#[derive(Clone)]
pub struct TenantHandle {
    pub(crate) backing: Arc<dyn Backing>,
    pub(crate) tenant: TenantId,
    /// What is asked for; the bucket's default when `None`.
    sealing: Option<Sealing>,
    taker: Taker,
    /// The request that changes come from, for the events they make.
    origin: Option<Arc<Origin>>,
}

/// A bucket as a write needs it.
pub(crate) struct Place {
    pub(crate) bucket: Bucket,
    default: DefaultSealing,
    rules: Option<Bytes>,
    /// The bucket's own level.
    level: Option<Level>,
    /// Whether it asks to be told of events.
    pub(crate) notifies: bool,
}

/// A further key for one body, and what its wrapping is bound to.
pub(crate) struct Layer {
    key: OuterKey,
    context: String,
}

impl Layer {
    fn outer(&self) -> Outer<'_> {
        Outer { key: &self.key, context: self.context.as_bytes() }
    }
}

impl std::fmt::Debug for TenantHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantHandle").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl TenantHandle {
    /// The operations of one tenant.
    #[must_use]
    pub fn new(backing: Arc<dyn Backing>, tenant: TenantId) -> Self {
        Self { backing, tenant, sealing: None, taker: Taker::Client, origin: None }
    }

    /// The same operations, with what is written and read sealed so.
    pub(crate) fn with_sealing(&self, sealing: Sealing) -> Self {
        Self { sealing: Some(sealing), ..self.clone() }
    }

    /// The same operations, with what is read going into a write.
    pub(crate) fn with_copying(&self) -> Self {
        Self { taker: Taker::Copy, ..self.clone() }
    }

    /// The same operations, for a request that events tell of.
    pub(crate) fn with_origin(&self, origin: Origin) -> Self {
        Self { origin: Some(Arc::new(origin)), ..self.clone() }
    }

    /// A change with the request it comes from, if its bucket asks to be told.
    pub(crate) fn told(&self, notifies: bool, op: Op) -> Op {
        match &self.origin {
            Some(origin) if notifies => Op::WithOrigin { origin: (**origin).clone(), op: Box::new(op) },
            _ => op,
        }
    }

    /// A bucket's id, and whether it asks to be told of events.
    pub(crate) async fn bucket_to_change(&self, name: &str) -> Result<(BucketId, bool), ObjectError> {
        let asked = name.to_owned();
        let kinds = &[DocumentKind::Notification];
        let query = move |catalog: &PartitionReader| catalog.bucket_with(&asked, kinds);
        let (bucket, rules) = self.read(self.route()?, (name, ""), query).await?;
        Ok((bucket.id, !rules.is_empty()))
    }

    fn customer_key(&self) -> Option<&CustomerKey> {
        match &self.sealing {
            Some(Sealing::Customer(key)) => Some(key),
            Some(Sealing::Own | Sealing::Named(_)) | None => None,
        }
    }

    /// How something that is begun now is sealed.
    pub(crate) fn begin_sealing(&self, place: &Place) -> Result<(Sealed, Option<Layer>), ObjectError> {
        let sealed = match self.sealing.clone().unwrap_or_else(|| place.default.sealing()) {
            Sealing::Own => Sealed::Own,
            Sealing::Customer(key) => Sealed::Customer(key.check()),
            Sealing::Named(named) => Sealed::Named(named),
        };
        let layer = self.layer(&sealed)?;
        Ok((sealed, layer))
    }

    /// The key that opens what is sealed so, once the client has shown that it has its part of it.
    fn layer(&self, sealed: &Sealed) -> Result<Option<Layer>, ObjectError> {
        sealed.admits(self.customer_key())?;
        Ok(match sealed {
            Sealed::Own => None,
            Sealed::Customer(_) => {
                self.customer_key().map(|key| Layer { key: key.clone(), context: String::new() })
            }
            Sealed::Named(named) => {
                let key = self.backing.named_key(self.tenant, &named.id)?;
                Some(Layer { key, context: named.context.clone() })
            }
        })
    }

    /// When an object expires by the bucket's rules, as clients are told: in whole days even where days are shortened
    /// for tests, because programs that read it count in days.
    fn expiry(
        &self,
        rules: Option<&Bytes>,
        (key, size): (&str, u64),
        tags: &[u8],
        modified: UnixMillis,
    ) -> Result<Option<Expiry>, ObjectError> {
        let Some(rules) = rules else { return Ok(None) };
        let rules = Lifecycle::decode(rules).map_err(|error| ObjectError::Damaged(error.to_string()))?;
        let tags: Vec<(String, String)> = decode_tags(tags)?.into_iter().collect();
        let object = Candidate { key, size, tags: &tags };
        let found = rules.current_expires(&object, modified, DAY_MILLIS);
        Ok(found.map(|(at, rule)| Expiry { at, rule: rule.to_owned() }))
    }

    pub(crate) fn route(&self) -> Result<Route, ObjectError> {
        self.backing.route(self.tenant)
    }

    /// Reads what was decided before now. `what` names the bucket and key asked for, for errors.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        route: Route,
        what: (&str, &str),
        query: impl FnOnce(&PartitionReader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ObjectError> {
        backing::query(self.backing.reader(route).await?, what, query).await
    }

    pub(crate) async fn bucket(&self, route: Route, name: &str) -> Result<Bucket, ObjectError> {
        let asked = name.to_owned();
        self.read(route, (name, ""), move |catalog| catalog.get_bucket(&asked)).await
    }

    /// A bucket and what it says about new objects.
    pub(crate) async fn place(&self, route: Route, name: &str) -> Result<Place, ObjectError> {
        let asked = name.to_owned();
        let query = move |catalog: &PartitionReader| catalog.bucket_with(&asked, KINDS_OF_PLACE);
        let (bucket, documents) = self.read(route, (name, ""), query).await?;
        let find = |kind| documents.iter().find(|(found, _)| *found == kind).map(|(_, body)| body.clone());
        let (default, rules) = (find(DocumentKind::Encryption), find(DocumentKind::Lifecycle));
        let level = find(DocumentKind::Level).and_then(|document| read_level(&document));
        let notifies = find(DocumentKind::Notification).is_some();
        let default = match default {
            None => DefaultSealing::default(),
            Some(document) => DefaultSealing::decode(&document).ok_or_else(|| {
                ObjectError::Damaged(format!("default encryption of bucket {name:?} cannot be read"))
            })?,
        };
        Ok(Place { bucket, default, rules, level, notifies })
    }

    pub(crate) async fn head_row(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
    ) -> Result<(ObjectHead, Option<Expiry>), ObjectError> {
        let (asked_bucket, asked_key) = (bucket.to_owned(), key.to_owned());
        let query = move |catalog: &PartitionReader| {
            let head = catalog.head_object(&asked_bucket, &asked_key, version)?;
            Ok((head, document(catalog, &asked_bucket, DocumentKind::Lifecycle)?))
        };
        let (head, rules) = self.read_key((bucket, key), query).await?;
        let rules = rules.filter(|_| version.is_none());
        let expiry = self.expiry(rules.as_ref(), (key, head.size), &head.tags, head.modified)?;
        Ok((head, expiry))
    }

    pub(crate) async fn get_row(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        range: RangeChoice,
    ) -> Result<(ObjectHead, Option<Expiry>, Range<u64>, Body), ObjectError> {
        let (asked_bucket, asked_key) = (bucket.to_owned(), key.to_owned());
        let query = move |catalog: &PartitionReader| {
            let select = |head: &ObjectHead| range.resolve(head.size).unwrap_or(0..0);
            let row = catalog.get_object_range(&asked_bucket, &asked_key, version, select)?;
            Ok((row, document(catalog, &asked_bucket, DocumentKind::Lifecycle)?))
        };
        let (ObjectRow { head, content }, rules) = self.read_key((bucket, key), query).await?;
        let layer = self.layer(&Sealed::of(&from_opaque(&head.attributes)?))?;
        let range = range.resolve(head.size)?;
        let outer = layer.as_ref().map(Layer::outer);
        let (tenant, bucket_id, taker) = (self.tenant, head.bucket, self.taker);
        let name = BodyName { tenant, bucket: bucket_id, key, outer, level: None, taker };
        let lookup = self.lookup(bucket, key, head.version);
        let body = self.backing.open_body(name, content, range.clone(), Some(lookup)).await?;
        let rules = rules.filter(|_| version.is_none());
        let expiry = self.expiry(rules.as_ref(), (key, head.size), &head.tags, head.modified)?;
        Ok((head, expiry, range, body))
    }

    /// Finds ranges of one version of an object again, for a read that takes long.
    fn lookup(&self, bucket: &str, key: &str, version: VersionRef) -> Lookup {
        let (tenant, bucket, key) = (self.clone(), bucket.to_owned(), key.to_owned());
        Arc::new(move |range| {
            let (tenant, bucket, key) = (tenant.clone(), bucket.clone(), key.clone());
            Box::pin(async move {
                let selector =
                    if version.null { VersionSelector::Null } else { VersionSelector::Id(version.id) };
                let (asked_bucket, asked_key) = (bucket.clone(), key.clone());
                let query = move |catalog: &PartitionReader| {
                    let range = range.clone();
                    catalog.get_object_range(&asked_bucket, &asked_key, Some(selector), |_| range)
                };
                let row = tenant.read_key((&bucket, &key), query).await?;
                if row.head.version.id == version.id {
                    Ok(row.content)
                } else {
                    Err(ObjectError::NoSuchVersion(key))
                }
            })
        })
    }

    pub(crate) async fn put_with(
        &self,
        bucket: &str,
        key: &str,
        body: Body,
        options: PutOptions,
        late: Option<LateChecksums>,
        extras: ObjectExtras,
    ) -> Result<Written, ObjectError> {
        let route = self.route()?;
        let place = self.place(route, bucket).await?;
        let found = &place.bucket;
        let (sealed, layer) = self.begin_sealing(&place)?;
        let outer = layer.as_ref().map(Layer::outer);
        let name = BodyName {
            tenant: self.tenant,
            bucket: found.id,
            key,
            outer,
            level: place.level,
            taker: self.taker,
        };
        let mut written = self.backing.write_body(name, body, &options).await?;
        let stripes = written.body.stripes().to_vec();
        let mut attributes = options.attributes;
        sealed.note(&mut attributes);
        if let Some(late) = late {
            attributes.checksums.extend(late());
        }
        let etag = etag_of(&sealed, written.md5);
        let tags = extras.tags.clone();
        let put = PutObject {
            bucket: found.id,
            key: key.to_owned(),
            version: VersionId::new(now(), chance()),
            size: written.size,
            etag: etag.clone(),
            attributes: to_opaque(&attributes)?,
            extras,
            wrapped_key: written.wrapped_key,
            body: written.body,
            condition: condition(options.condition),
        };
        match self.propose_key((bucket, key), self.told(place.notifies, Op::PutObject(put))).await? {
            Response::ObjectPut { version, modified } => {
                written.draft.keep(&stripes);
                let size = written.size;
                let expiry = self.expiry(place.rules.as_ref(), (key, size), &tags, modified)?;
                let key = key.to_owned();
                let info = ObjectInfo { key, version: version.id, size, etag, modified, attributes };
                Ok(Written { info, version, versioned: found.versioning != Versioning::Off, expiry })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Aborts the uploads of a bucket that holds nothing else, as S3 does when it is deleted. `false` when it
    /// holds objects or versions.
    async fn drop_uploads(&self, bucket: &str) -> Result<bool, ObjectError> {
        let found = VersionedObjects::bucket(self, bucket).await?;
        if found.usage.objects > 0 || found.usage.old_versions > 0 {
            return Ok(false);
        }
        loop {
            let query = UploadListQuery { limit: LIST_KEYS_MAX, ..UploadListQuery::default() };
            let page = VersionedObjects::list_uploads(self, bucket, query).await?;
            for upload in page.uploads {
                match self.abort_upload(bucket, &upload.key, upload.upload).await {
                    Ok(()) | Err(ObjectError::NoSuchUpload(_)) => {}
                    Err(other) => return Err(other),
                }
            }
            if page.next.is_none() {
                return Ok(true);
            }
        }
    }

    pub(crate) async fn complete_with(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        parts: &[(u32, String)],
        checksums: BTreeMap<String, String>,
        write_condition: WriteCondition,
    ) -> Result<Written, ObjectError> {
        let route = self.route()?;
        let place = self.place(route, bucket).await?;
        let found = &place.bucket;
        let attributes = match self.list_parts(bucket, key, upload, 0, 0).await {
            Ok((info, _)) => Some(Attributes { checksums, ..info.attributes }),
            // A repeated completion finds no upload; the catalog knows whether it was completed so.
            Err(ObjectError::NoSuchUpload(_)) => None,
            Err(other) => return Err(other),
        };
        let complete = CompleteUpload {
            bucket: found.id,
            key: key.to_owned(),
            upload,
            parts: parts.to_vec(),
            version: VersionId::new(now(), chance()),
            etag: multipart_etag(parts)?,
            attributes: attributes.as_ref().map(to_opaque).transpose()?,
            condition: condition(write_condition),
        };
        match self.propose_key((bucket, key), self.told(place.notifies, Op::CompleteUpload(complete))).await?
        {
            Response::UploadCompleted(done) => Ok(Written {
                expiry: self.expiry(place.rules.as_ref(), (key, done.size), b"", done.modified)?,
                info: ObjectInfo {
                    key: key.to_owned(),
                    version: done.version.id,
                    size: done.size,
                    etag: done.etag,
                    modified: done.modified,
                    attributes: attributes.unwrap_or_default(),
                },
                version: done.version,
                versioned: found.versioning != Versioning::Off,
            }),
            other => Err(unexpected(&other)),
        }
    }
}

/// The MD5 of the content, but for what is sealed under a customer's key: that would tell of the content.
fn etag_of(sealed: &Sealed, md5: [u8; 16]) -> String {
    match sealed {
        Sealed::Own | Sealed::Named(_) => hex::encode(md5),
        Sealed::Customer(_) => hex::encode(chance::<16>()),
    }
}

fn listed(row: ListedObject) -> Result<ObjectInfo, ObjectError> {
    Ok(ObjectInfo {
        attributes: from_opaque(&row.attributes)?,
        key: row.key,
        version: row.version,
        size: row.size,
        etag: row.etag,
        modified: row.modified,
    })
}

/// A document of the bucket, if it has one.
fn document(catalog: &PartitionReader, bucket: &str, kind: DocumentKind) -> Result<Option<Bytes>, ReadError> {
    match catalog.document(bucket, kind, "") {
        Ok(document) => Ok(Some(document.body)),
        Err(ReadError::NoSuchDocument) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn condition(condition: WriteCondition) -> Condition {
    Condition { if_absent: condition.if_absent, if_etag: condition.if_etag }
}

pub(crate) fn unexpected(response: &Response) -> ObjectError {
    ObjectError::Internal(format!("the catalog answered {response:?}"))
}

pub(crate) fn info(key: String, row: &ObjectHead) -> Result<ObjectInfo, ObjectError> {
    Ok(ObjectInfo {
        key,
        version: row.version.id,
        size: row.size,
        etag: row.etag.clone(),
        modified: row.modified,
        attributes: from_opaque(&row.attributes)?,
    })
}

/// ETag of a multipart object: MD5 over the parts' MD5s, then the count of parts.
fn multipart_etag(parts: &[(u32, String)]) -> Result<String, ObjectError> {
    let mut md5 = Md5::new();
    for (number, etag) in parts {
        let mut digest = [0; 16];
        hex::decode_to_slice(etag, &mut digest).map_err(|_| ObjectError::InvalidPart(*number))?;
        md5.update(digest);
    }
    Ok(format!("{}-{}", hex::encode(md5.finalize()), parts.len()))
}

#[async_trait::async_trait]
impl TenantObjects for TenantHandle {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), ObjectError> {
        match self.delete_empty(bucket).await {
            Err(ObjectError::BucketNotEmpty(_)) if self.drop_uploads(bucket).await? => {
                self.delete_empty(bucket).await
            }
            decided => decided,
        }
    }

    async fn head_bucket(&self, bucket: &str) -> Result<BucketInfo, ObjectError> {
        let route = self.route()?;
        let row = self.bucket(route, bucket).await?;
        Ok(BucketInfo { name: row.name, created: row.created })
    }

    async fn list_buckets(&self) -> Result<Vec<BucketInfo>, ObjectError> {
        let route = self.route()?;
        let rows = self.read(route, ("", ""), |catalog| catalog.list_buckets()).await?;
        Ok(rows.into_iter().map(|row| BucketInfo { name: row.name, created: row.created }).collect())
    }

    async fn list(&self, bucket: &str, query: ListQuery) -> Result<ListPage, ObjectError> {
        let asked = bucket.to_owned();
        let limit = query.limit.min(LIST_KEYS_MAX);
        let one = move |catalog: &PartitionReader| {
            let query = holdfast_catalog::ListQuery {
                prefix: &query.prefix,
                delimiter: query.delimiter.as_deref(),
                after: query.after.as_deref(),
                limit,
            };
            catalog.list(&asked, &query)
        };
        let together = |pages| holdfast_catalog::ListPage::merged(pages, limit);
        let page = self.read_together(bucket, one, together).await?;
        Ok(ListPage {
            objects: page.objects.into_iter().map(listed).collect::<Result<_, ObjectError>>()?,
            common_prefixes: page.common_prefixes,
            next: page.next,
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
        let route = self.route()?;
        // Refuse before the body is taken in, as S3 does.
        let (begun, _) = self.list_parts(bucket, key, upload, 0, 0).await?;
        let sealed = Sealed::of(&begun.attributes);
        let layer = self.layer(&sealed).map_err(|error| match error {
            ObjectError::Key(KeyRefusal::Needed | KeyRefusal::Differs | KeyRefusal::NotApplicable) => {
                KeyRefusal::PartKey.into()
            }
            other => other,
        })?;
        let place = self.place(route, bucket).await?;
        let bucket_id = place.bucket.id;
        let outer = layer.as_ref().map(Layer::outer);
        let name = BodyName {
            tenant: self.tenant,
            bucket: bucket_id,
            key,
            outer,
            level: place.level,
            taker: self.taker,
        };
        let mut written = self.backing.write_body(name, body, &options).await?;
        let stripes = written.body.stripes().to_vec();
        let mut checksums: BTreeMap<String, String> = options.attributes.checksums;
        if let Some(late) = late {
            checksums.extend(late());
        }
        let etag = etag_of(&sealed, written.md5);
        let put = PutPart {
            bucket: bucket_id,
            key: key.to_owned(),
            upload,
            number,
            size: written.size,
            etag: etag.clone(),
            checksums: to_opaque(&checksums)?,
            wrapped_key: written.wrapped_key,
            body: written.body,
        };
        self.propose_key((bucket, key), Op::PutPart(put)).await?;
        written.draft.keep(&stripes);
        Ok(PartInfo { number, size: written.size, etag, modified: now(), checksums, sealed })
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload: UploadId) -> Result<(), ObjectError> {
        let route = self.route()?;
        let bucket_id = self.bucket(route, bucket).await?.id;
        let op = Op::AbortUpload { bucket: bucket_id, key: key.to_owned(), upload };
        self.propose_key((bucket, key), op).await.map(drop)
    }

    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        after: u32,
        limit: usize,
    ) -> Result<(UploadInfo, Vec<PartInfo>), ObjectError> {
        let (asked_bucket, asked_key) = (bucket.to_owned(), key.to_owned());
        let (row, parts) = self
            .read_key((bucket, key), move |catalog| {
                if limit == 0 {
                    return Ok((catalog.get_upload(&asked_bucket, &asked_key, upload)?, Vec::new()));
                }
                catalog.list_parts(&asked_bucket, &asked_key, upload, after, limit)
            })
            .await?;
        let info = UploadInfo {
            key: row.key,
            upload: row.upload,
            initiated: row.initiated,
            attributes: from_opaque(&row.attributes)?,
            acl: row.extras.acl,
        };
        let sealed = Sealed::of(&info.attributes);
        let parts: Result<Vec<PartInfo>, ObjectError> = parts
            .into_iter()
            .map(|part| {
                Ok(PartInfo {
                    number: part.number,
                    size: part.size,
                    etag: part.etag,
                    modified: part.modified,
                    checksums: from_opaque(&part.checksums)?,
                    sealed: sealed.clone(),
                })
            })
            .collect();
        Ok((info, parts?))
    }
}
