//! What a tenant's objects have beyond plain keys: versions, tags, locks, settings and documents of buckets.
//!
//! The words are the catalog's, re-exported here; what only a gateway understands (policies, CORS rules,
//! access control lists) passes through as bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use holdfast_catalog::{
    Bucket, DeleteItem, LIST_UPLOADS_MAX, ObjectExtras, ObjectHead, Op, PartitionReader, Refusal, Response,
    SetObject,
};
pub use holdfast_catalog::{
    BucketChange, BucketStateRule, DefaultRetention, Deleted, Document, DocumentKind, Lifecycle,
    ListedVersion, Quota, Retention, RetentionMode, RetentionPeriod, Usage, VersionPage, VersionRef,
    VersionSelector, Versioning,
};
use holdfast_model::{BucketId, UnixMillis, UploadId, VersionId, limits::LIST_KEYS_MAX};

use crate::{
    api::{
        Attributes, Body, LateChecksums, ObjectError, ObjectInfo, PutOptions, RangeChoice, TenantObjects,
        UploadInfo, WriteCondition,
    },
    events::Origin,
    host::{chance, now},
    ownership::BucketOwnership,
    sealing::{Sealed, Sealing},
    service::{from_opaque, refused, to_opaque},
    tenant::{TenantHandle, info, unexpected},
};

/// Tags by name.
pub type Tags = BTreeMap<String, String>;

/// What is kept beside an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// Tags.
    pub tags: Tags,
    /// Access control list, as the gateway encodes it; empty is none.
    pub acl: Bytes,
    /// The bucket's default when `None`.
    pub retention: Option<Retention>,
    /// A legal hold.
    pub legal_hold: bool,
}

/// A version that was just written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The object.
    pub info: ObjectInfo,
    /// The version as clients are told of it.
    pub version: VersionRef,
    /// Whether clients are told of it: versioning is or was enabled.
    pub versioned: bool,
    /// When it expires.
    pub expiry: Option<Expiry>,
}

/// When a current version expires by the rules of its bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The moment.
    pub at: UnixMillis,
    /// Id of the rule.
    pub rule: String,
}

/// Where a part of a multipart object lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPart {
    /// The number it was uploaded as.
    pub number: u32,
    /// Where it begins in the object, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksums.
    pub checksums: BTreeMap<String, String>,
}

/// Parts of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectParts {
    /// The version they are of.
    pub version: VersionRef,
    /// How many it has; 0 when it was put whole.
    pub count: usize,
    /// Those asked for, in order.
    pub parts: Vec<ObjectPart>,
}

/// A version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// The object.
    pub info: ObjectInfo,
    /// The version as clients are told of it.
    pub version: VersionRef,
    /// Whether clients are told of it: versioning is or was enabled.
    pub versioned: bool,
    /// A legal hold is or was set, or was lifted.
    pub hold_known: bool,
    /// What is kept beside it.
    pub extras: Extras,
    /// When it expires. `None` as well when the version was named.
    pub expiry: Option<Expiry>,
}

/// A change of what is kept beside an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectChange {
    /// Replaces the tags.
    Tags(Tags),
    /// Replaces the access control list.
    Acl(Bytes),
    /// Sets or lifts the legal hold.
    LegalHold(bool),
    /// Sets, extends or lifts the retention.
    Retention {
        /// The new one.
        retention: Option<Retention>,
        /// The caller may shorten or lift a governance retention.
        bypass_governance: bool,
    },
}

/// One key or version to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteRequest {
    /// The key.
    pub key: String,
    /// This version, for good. `None`: the current one, which versioning keeps behind a delete marker.
    pub version: Option<VersionSelector>,
    /// `If-Match`: only when the object has this ETag (without quotes); `*` is any.
    pub if_etag: Option<String>,
    /// The caller may delete what a governance retention keeps.
    pub bypass_governance: bool,
}

/// What versions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionListQuery {
    /// Only keys that begin so.
    pub prefix: String,
    /// Keys that share what stands before the next delimiter are rolled up.
    pub delimiter: Option<String>,
    /// Only what comes after this.
    pub after: Option<(String, Option<VersionId>)>,
    /// Versions plus common prefixes at most.
    pub limit: usize,
}

/// What uploads to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadListQuery {
    /// Only keys that begin so.
    pub prefix: String,
    /// Keys that share what stands before the next delimiter are rolled up.
    pub delimiter: Option<String>,
    /// Only what comes after this key or common prefix; with an upload, after that upload of the key.
    pub after: Option<(String, Option<UploadId>)>,
    /// Uploads plus common prefixes at most.
    pub limit: usize,
}

/// One page of uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadListPage {
    /// In the order of (key, upload).
    pub uploads: Vec<UploadInfo>,
    /// Rolled-up prefixes in order, delimiter included.
    pub common_prefixes: Vec<String>,
    /// Where the next page starts, when there is more.
    pub next: Option<(String, Option<UploadId>)>,
}

/// All operations of one tenant that know of versions, locks and settings.
#[async_trait::async_trait]
#[allow(missing_docs)]
pub trait VersionedObjects: TenantObjects + BucketOwnership {
    /// The same operations, with what is written and read sealed so, whatever the bucket's default is.
    fn sealed(&self, sealing: Sealing) -> Arc<dyn VersionedObjects>;
    /// The same operations, for reading what is written again at once: such reads wait for each other's end when they
    /// would hold more of this node's memory than there is.
    fn for_copying(&self) -> Arc<dyn VersionedObjects>;
    /// The same operations, for a request that events tell of.
    fn asked_by(&self, origin: Origin) -> Arc<dyn VersionedObjects>;
    /// Names of the targets that events may be sent to; `None`: events cannot be told yet.
    fn event_targets(&self) -> Result<Option<BTreeSet<String>>, ObjectError>;

    /// Settings, quota and exact usage.
    async fn bucket(&self, bucket: &str) -> Result<Bucket, ObjectError>;
    async fn set_bucket(&self, bucket: &str, change: BucketChange) -> Result<(), ObjectError>;
    async fn document(&self, bucket: &str, kind: DocumentKind, id: &str) -> Result<Document, ObjectError>;
    async fn documents(&self, bucket: &str, kind: DocumentKind) -> Result<Vec<Document>, ObjectError>;
    /// What all buckets hold together.
    async fn usage(&self) -> Result<Usage, ObjectError>;
    /// What all buckets may hold together.
    async fn set_quota(&self, quota: Quota) -> Result<(), ObjectError>;

    /// Streams `body` into stripes; returns when the object is durable and committed.
    /// `late` is asked for checksums after the body ended well.
    async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Body,
        options: PutOptions,
        extras: Extras,
        late: Option<LateChecksums>,
    ) -> Result<Written, ObjectError>;
    /// Refused with [`ObjectError::DeleteMarker`] when that is what is there.
    async fn head(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
    ) -> Result<VersionInfo, ObjectError>;
    async fn get(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        range: RangeChoice,
    ) -> Result<(VersionInfo, Range<u64>, Body), ObjectError>;
    /// Parts with a number above `after`, `limit` at most, of an object made of parts.
    async fn parts(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        after: u32,
        limit: usize,
    ) -> Result<ObjectParts, ObjectError>;
    /// Returns the version that was changed.
    async fn set_object(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        change: ObjectChange,
    ) -> Result<VersionRef, ObjectError>;
    /// One result per request, in order; all of one partition are decided in one command.
    async fn delete(
        &self,
        bucket: &str,
        requests: Vec<DeleteRequest>,
    ) -> Result<Vec<Result<Deleted, ObjectError>>, ObjectError>;
    async fn list_versions(&self, bucket: &str, query: VersionListQuery) -> Result<VersionPage, ObjectError>;

    /// Returns how its parts are sealed, too.
    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        attributes: Attributes,
        extras: Extras,
    ) -> Result<(UploadId, Sealed), ObjectError>;
    /// `parts` as the client listed them: number and ETag without quotes. `checksums` are kept with the
    /// object in place of those the upload was created with (the gateway computed them from the parts').
    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        parts: &[(u32, String)],
        checksums: BTreeMap<String, String>,
        condition: WriteCondition,
    ) -> Result<Written, ObjectError>;
    async fn list_uploads(&self, bucket: &str, query: UploadListQuery)
    -> Result<UploadListPage, ObjectError>;
}

fn sum(parts: Vec<Usage>) -> Usage {
    let mut sum = Usage::default();
    parts.into_iter().for_each(|part| sum += part);
    sum
}

fn encode(extras: Extras) -> Result<ObjectExtras, ObjectError> {
    let Extras { tags, acl, retention, legal_hold } = extras;
    Ok(ObjectExtras { tags: encode_tags(&tags)?, acl, retention, legal_hold })
}

fn encode_tags(tags: &Tags) -> Result<Bytes, ObjectError> {
    if tags.is_empty() { Ok(Bytes::new()) } else { to_opaque(tags) }
}

pub(crate) fn decode_tags(tags: &[u8]) -> Result<Tags, ObjectError> {
    if tags.is_empty() { Ok(Tags::new()) } else { from_opaque(tags) }
}

fn version_info(key: &str, head: &ObjectHead, expiry: Option<Expiry>) -> Result<VersionInfo, ObjectError> {
    let extras = Extras {
        tags: decode_tags(&head.tags)?,
        acl: head.acl.clone(),
        retention: head.retention,
        legal_hold: head.legal_hold,
    };
    let versioned = head.versioning != Versioning::Off;
    Ok(VersionInfo {
        info: info(key.to_owned(), head)?,
        version: head.version,
        versioned,
        hold_known: head.hold_known,
        extras,
        expiry,
    })
}

/// Attributes of a version that was listed; a delete marker has none.
///
/// # Errors
/// `Internal` when they cannot be read.
pub fn attributes_of(version: &ListedVersion) -> Result<Attributes, ObjectError> {
    if version.marker { Ok(Attributes::default()) } else { from_opaque(&version.attributes) }
}

impl TenantHandle {
    async fn bucket_id(&self, bucket: &str) -> Result<BucketId, ObjectError> {
        Ok(TenantHandle::bucket(self, self.route()?, bucket).await?.id)
    }
}

#[async_trait::async_trait]
impl VersionedObjects for TenantHandle {
    fn sealed(&self, sealing: Sealing) -> Arc<dyn VersionedObjects> {
        Arc::new(self.with_sealing(sealing))
    }

    fn for_copying(&self) -> Arc<dyn VersionedObjects> {
        Arc::new(self.with_copying())
    }

    fn asked_by(&self, origin: Origin) -> Arc<dyn VersionedObjects> {
        Arc::new(self.with_origin(origin))
    }

    fn event_targets(&self) -> Result<Option<BTreeSet<String>>, ObjectError> {
        self.backing.event_targets(self.tenant)
    }

    async fn bucket(&self, bucket: &str) -> Result<Bucket, ObjectError> {
        let mut found = TenantHandle::bucket(self, self.route()?, bucket).await?;
        let asked = bucket.to_owned();
        let parts = self.read_all(bucket, move |catalog| Ok(catalog.get_bucket(&asked)?.usage)).await?;
        found.usage = sum(parts);
        Ok(found)
    }

    async fn set_bucket(&self, bucket: &str, change: BucketChange) -> Result<(), ObjectError> {
        let id = self.bucket_id(bucket).await?;
        self.to_first(Op::SetBucket { bucket: id, change }, bucket).await.map(drop)
    }

    async fn document(&self, bucket: &str, kind: DocumentKind, id: &str) -> Result<Document, ObjectError> {
        let route = self.route()?;
        let (asked, id) = (bucket.to_owned(), id.to_owned());
        self.read(route, (bucket, ""), move |catalog| catalog.document(&asked, kind, &id)).await
    }

    async fn documents(&self, bucket: &str, kind: DocumentKind) -> Result<Vec<Document>, ObjectError> {
        let route = self.route()?;
        let asked = bucket.to_owned();
        self.read(route, (bucket, ""), move |catalog| catalog.documents(&asked, kind)).await
    }

    async fn usage(&self) -> Result<Usage, ObjectError> {
        Ok(sum(self.read_all("", |catalog| catalog.usage()).await?))
    }

    async fn set_quota(&self, quota: Quota) -> Result<(), ObjectError> {
        match self.backing.propose(self.route()?, Op::SetQuota { quota }).await? {
            Err(Refusal::Moved) => self.share_quota(Some(quota), None).await.map(drop),
            outcome => outcome.map(drop).map_err(|refusal| refused(refusal, "", "")),
        }
    }

    async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Body,
        options: PutOptions,
        extras: Extras,
        late: Option<LateChecksums>,
    ) -> Result<Written, ObjectError> {
        self.put_with(bucket, key, body, options, late, encode(extras)?).await
    }

    async fn head(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
    ) -> Result<VersionInfo, ObjectError> {
        let (head, expiry) = self.head_row(bucket, key, version).await?;
        version_info(key, &head, expiry)
    }

    async fn get(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        range: RangeChoice,
    ) -> Result<(VersionInfo, Range<u64>, Body), ObjectError> {
        let (head, expiry, range, body) = self.get_row(bucket, key, version, range).await?;
        Ok((version_info(key, &head, expiry)?, range, body))
    }

    async fn parts(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        after: u32,
        limit: usize,
    ) -> Result<ObjectParts, ObjectError> {
        let (asked_bucket, asked_key) = (bucket.to_owned(), key.to_owned());
        let query = move |catalog: &PartitionReader| {
            catalog.object_parts(&asked_bucket, &asked_key, version, after, limit)
        };
        let found = self.read_key((bucket, key), query).await?;
        let shown = |part: holdfast_catalog::ObjectPartRow| {
            let checksums = from_opaque(&part.checksums)?;
            Ok(ObjectPart { number: part.number, offset: part.offset, size: part.size, checksums })
        };
        Ok(ObjectParts {
            version: found.version,
            count: found.count,
            parts: found.parts.into_iter().map(shown).collect::<Result<_, ObjectError>>()?,
        })
    }

    async fn set_object(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        change: ObjectChange,
    ) -> Result<VersionRef, ObjectError> {
        let change = match change {
            ObjectChange::Tags(tags) => holdfast_catalog::ObjectChange::Tags(encode_tags(&tags)?),
            ObjectChange::Acl(acl) => holdfast_catalog::ObjectChange::Acl(acl),
            ObjectChange::LegalHold(on) => holdfast_catalog::ObjectChange::LegalHold(on),
            ObjectChange::Retention { retention, bypass_governance } => {
                holdfast_catalog::ObjectChange::Retention { retention, bypass_governance }
            }
        };
        let (id, notifies) = self.bucket_to_change(bucket).await?;
        let set = SetObject { bucket: id, key: key.to_owned(), version, change };
        match self.propose_key((bucket, key), self.told(notifies, Op::SetObject(set))).await? {
            Response::ObjectSet { version } => Ok(version),
            other => Err(unexpected(&other)),
        }
    }

    async fn delete(
        &self,
        bucket: &str,
        requests: Vec<DeleteRequest>,
    ) -> Result<Vec<Result<Deleted, ObjectError>>, ObjectError> {
        let item = |request: DeleteRequest| DeleteItem {
            key: request.key,
            version: request.version,
            if_etag: request.if_etag,
            marker: chance(),
            bypass_governance: request.bypass_governance,
        };
        let (id, notifies) = self.bucket_to_change(bucket).await?;
        self.delete_items((bucket, id, notifies), requests.into_iter().map(item).collect()).await
    }

    async fn list_versions(&self, bucket: &str, query: VersionListQuery) -> Result<VersionPage, ObjectError> {
        let asked = bucket.to_owned();
        let limit = query.limit.min(LIST_KEYS_MAX);
        let one = move |catalog: &PartitionReader| {
            let after = query.after.as_ref();
            let query = holdfast_catalog::VersionQuery {
                prefix: &query.prefix,
                delimiter: query.delimiter.as_deref(),
                after: after.map(|(key, version)| holdfast_catalog::VersionMarker { key, version: *version }),
                limit,
            };
            catalog.list_versions(&asked, &query)
        };
        self.read_together(bucket, one, |pages| VersionPage::merged(pages, limit)).await
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        mut attributes: Attributes,
        extras: Extras,
    ) -> Result<(UploadId, Sealed), ObjectError> {
        let upload = UploadId::new(now(), chance());
        let route = self.route()?;
        let place = self.place(route, bucket).await?;
        let (sealed, _) = self.begin_sealing(&place)?;
        sealed.note(&mut attributes);
        let (attributes, extras) = (to_opaque(&attributes)?, encode(extras)?);
        let (bucket_id, key_owned) = (place.bucket.id, key.to_owned());
        let op = Op::CreateUpload { bucket: bucket_id, key: key_owned, upload, attributes, extras };
        self.propose_key((bucket, key), op).await?;
        Ok((upload, sealed))
    }

    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        parts: &[(u32, String)],
        checksums: BTreeMap<String, String>,
        condition: WriteCondition,
    ) -> Result<Written, ObjectError> {
        self.complete_with(bucket, key, upload, parts, checksums, condition).await
    }

    async fn list_uploads(
        &self,
        bucket: &str,
        query: UploadListQuery,
    ) -> Result<UploadListPage, ObjectError> {
        let asked = bucket.to_owned();
        let limit = query.limit.min(LIST_UPLOADS_MAX);
        let one = move |catalog: &PartitionReader| {
            let query = holdfast_catalog::UploadQuery {
                prefix: &query.prefix,
                delimiter: query.delimiter.as_deref(),
                after: query.after.as_ref().map(|(key, upload)| (key.as_str(), *upload)),
                limit,
            };
            catalog.list_uploads(&asked, &query)
        };
        let together = |pages| holdfast_catalog::UploadPage::merged(pages, limit);
        let page = self.read_together(bucket, one, together).await?;
        let shown = |row: holdfast_catalog::UploadRow| {
            let attributes = from_opaque(&row.attributes)?;
            Ok(UploadInfo {
                key: row.key,
                upload: row.upload,
                initiated: row.initiated,
                attributes,
                acl: row.extras.acl,
            })
        };
        Ok(UploadListPage {
            uploads: page.uploads.into_iter().map(shown).collect::<Result<_, ObjectError>>()?,
            common_prefixes: page.common_prefixes,
            next: page.next,
        })
    }
}
