//! One tenant's operations. Everything here goes through the tenant's own entry of the directory.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use holdfast_catalog::{
    Bucket, CompleteUpload, Condition, ObjectExtras, ObjectHead, ObjectRow, Op, PartitionReader, PutObject,
    PutPart, ReadError, Response, VersionSelector, Versioning,
};
use holdfast_crypt::random_array;
use holdfast_model::{TenantId, UploadId, VersionId, limits::LIST_KEYS_MAX};
use md5::{Digest, Md5};

use crate::{
    api::{
        Attributes, Body, BucketInfo, LateChecksums, ListPage, ListQuery, ObjectError, ObjectInfo, PartInfo,
        PutOptions, RangeChoice, TenantObjects, UploadInfo, WriteCondition,
    },
    backing::{self, Backing, BodyName, Route},
    service::{from_opaque, refused, to_opaque},
    stripes::now,
    versioned::{UploadListQuery, VersionedObjects, Written},
};

/// A tenant's handle.
#[derive(Clone)]
pub struct TenantHandle {
    pub(crate) backing: Arc<dyn Backing>,
    tenant: TenantId,
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
        Self { backing, tenant }
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

    pub(crate) async fn head_row(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
    ) -> Result<ObjectHead, ObjectError> {
        let (asked_bucket, asked_key) = (bucket.to_owned(), key.to_owned());
        let query = move |catalog: &PartitionReader| catalog.head_object(&asked_bucket, &asked_key, version);
        self.read(self.route()?, (bucket, key), query).await
    }

    pub(crate) async fn get_row(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        range: RangeChoice,
    ) -> Result<(ObjectHead, Range<u64>, Body), ObjectError> {
        let (asked_bucket, asked_key) = (bucket.to_owned(), key.to_owned());
        let query = move |catalog: &PartitionReader| {
            let select = |head: &ObjectHead| range.resolve(head.size).unwrap_or(0..0);
            catalog.get_object_range(&asked_bucket, &asked_key, version, select)
        };
        let ObjectRow { head, content } = self.read(self.route()?, (bucket, key), query).await?;
        let range = range.resolve(head.size)?;
        let name = BodyName { tenant: self.tenant, bucket: head.bucket, key };
        let body = self.backing.open_body(name, content, range.clone()).await?;
        Ok((head, range, body))
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
        let found = self.bucket(route, bucket).await?;
        let name = BodyName { tenant: self.tenant, bucket: found.id, key };
        let written = self.backing.write_body(name, body, &options).await?;
        let mut attributes = options.attributes;
        if let Some(late) = late {
            attributes.checksums.extend(late());
        }
        let etag = hex::encode(written.md5);
        let put = PutObject {
            bucket: found.id,
            key: key.to_owned(),
            version: VersionId::new(now(), random_array()),
            size: written.size,
            etag: etag.clone(),
            attributes: to_opaque(&attributes)?,
            extras,
            wrapped_key: written.wrapped_key,
            body: written.body,
            condition: condition(options.condition),
        };
        match self.backing.propose(route, Op::PutObject(put)).await?.map_err(|r| refused(r, bucket, key))? {
            Response::ObjectPut { version, modified } => {
                let (key, size) = (key.to_owned(), written.size);
                let info = ObjectInfo { key, version: version.id, size, etag, modified, attributes };
                Ok(Written { info, version, versioned: found.versioning != Versioning::Off })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Aborts the uploads of a bucket that holds nothing else, as S3 does when it is deleted. `false` when it
    /// holds objects or versions.
    async fn drop_uploads(&self, bucket: &str) -> Result<bool, ObjectError> {
        let found = self.bucket(self.route()?, bucket).await?;
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
        let found = self.bucket(route, bucket).await?;
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
            version: VersionId::new(now(), random_array()),
            etag: multipart_etag(parts)?,
            attributes: attributes.as_ref().map(to_opaque).transpose()?,
            condition: condition(write_condition),
        };
        let outcome = self.backing.propose(route, Op::CompleteUpload(complete)).await?;
        match outcome.map_err(|refusal| refused(refusal, bucket, key))? {
            Response::UploadCompleted(done) => Ok(Written {
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
        let delete = async || {
            let op = Op::DeleteBucket { name: bucket.to_owned() };
            let outcome = self.backing.propose(self.route()?, op).await?;
            outcome.map(drop).map_err(|r| refused(r, bucket, ""))
        };
        match delete().await {
            Err(ObjectError::BucketNotEmpty(_)) if self.drop_uploads(bucket).await? => delete().await,
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
        let route = self.route()?;
        let asked = bucket.to_owned();
        let page = self
            .read(route, (bucket, ""), move |catalog| {
                let query = holdfast_catalog::ListQuery {
                    prefix: &query.prefix,
                    delimiter: query.delimiter.as_deref(),
                    after: query.after.as_deref(),
                    limit: query.limit,
                };
                catalog.list(&asked, &query)
            })
            .await?;
        Ok(ListPage {
            objects: page
                .objects
                .into_iter()
                .map(|row| ObjectInfo {
                    key: row.key,
                    version: row.version,
                    size: row.size,
                    etag: row.etag,
                    modified: row.modified,
                    attributes: Attributes::default(),
                })
                .collect(),
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
        self.list_parts(bucket, key, upload, 0, 0).await?;
        let bucket_id = self.bucket(route, bucket).await?.id;
        let name = BodyName { tenant: self.tenant, bucket: bucket_id, key };
        let written = self.backing.write_body(name, body, &options).await?;
        let mut checksums: BTreeMap<String, String> = options.attributes.checksums;
        if let Some(late) = late {
            checksums.extend(late());
        }
        let etag = hex::encode(written.md5);
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
        self.backing.propose(route, Op::PutPart(put)).await?.map_err(|r| refused(r, bucket, key))?;
        Ok(PartInfo { number, size: written.size, etag, modified: now(), checksums })
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload: UploadId) -> Result<(), ObjectError> {
        let route = self.route()?;
        let bucket_id = self.bucket(route, bucket).await?.id;
        let op = Op::AbortUpload { bucket: bucket_id, key: key.to_owned(), upload };
        self.backing.propose(route, op).await?.map(drop).map_err(|r| refused(r, bucket, key))
    }

    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        after: u32,
        limit: usize,
    ) -> Result<(UploadInfo, Vec<PartInfo>), ObjectError> {
        let route = self.route()?;
        let (asked_bucket, asked_key) = (bucket.to_owned(), key.to_owned());
        let (row, parts) = self
            .read(route, (bucket, key), move |catalog| {
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
        };
        let parts: Result<Vec<PartInfo>, ObjectError> = parts
            .into_iter()
            .map(|part| {
                Ok(PartInfo {
                    number: part.number,
                    size: part.size,
                    etag: part.etag,
                    modified: part.modified,
                    checksums: from_opaque(&part.checksums)?,
                })
            })
            .collect();
        Ok((info, parts?))
    }
}
