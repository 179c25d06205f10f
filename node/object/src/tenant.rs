//! One tenant's operations. Everything here goes through the tenant's own entry of the directory.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use holdfast_catalog::{
    Bucket, CompleteUpload, Condition, DeleteItem, Deleted, ObjectExtras, ObjectHead, ObjectRow, Op,
    PutObject, PutPart, Response, UploadQuery, VersionRef, VersionSelector,
};
use holdfast_crypt::{BodyContext, random_array};
use holdfast_model::{BucketId, GroupId, PartitionId, TenantId, UploadId, VersionId};
use md5::{Digest, Md5};

use crate::{
    api::{
        Attributes, Body, BucketInfo, LateChecksums, ListPage, ListQuery, ObjectError, ObjectInfo, PartInfo,
        PutOptions, RangeChoice, TenantObjects, UploadInfo, WriteCondition,
    },
    body_reader::{ContentOwner, open_body},
    body_writer::{BodyTarget, BodyWriter, WrittenBody},
    directory::TenantEntry,
    service::{ObjectService, from_opaque, refused, to_opaque},
    stripes::now,
};

/// A tenant's handle.
#[derive(Debug, Clone)]
pub(crate) struct TenantHandle {
    pub(crate) service: Arc<ObjectService>,
    tenant: TenantId,
}

pub(crate) type Route = (PartitionId, GroupId);

impl TenantHandle {
    pub(crate) fn new(service: Arc<ObjectService>, tenant: TenantId) -> Self {
        Self { service, tenant }
    }

    pub(crate) fn entry(&self) -> Result<(Arc<TenantEntry>, Route), ObjectError> {
        let entry = self.service.tenant(self.tenant)?;
        let route = entry.partition()?;
        Ok((entry, route))
    }

    pub(crate) async fn bucket(&self, route: Route, name: &str) -> Result<Bucket, ObjectError> {
        let asked = name.to_owned();
        self.service.read(route, (name, ""), move |catalog| catalog.get_bucket(&asked)).await
    }

    pub(crate) async fn head_row(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
    ) -> Result<ObjectHead, ObjectError> {
        let (_, route) = self.entry()?;
        let (asked_bucket, asked_key) = (bucket.to_owned(), key.to_owned());
        self.service
            .read(route, (bucket, key), move |catalog| {
                catalog.head_object(&asked_bucket, &asked_key, version)
            })
            .await
    }

    pub(crate) async fn get_row(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionSelector>,
        range: RangeChoice,
    ) -> Result<(ObjectHead, Range<u64>, Body), ObjectError> {
        let (entry, route) = self.entry()?;
        let (asked_bucket, asked_key) = (bucket.to_owned(), key.to_owned());
        let ObjectRow { head, content } = self
            .service
            .read(route, (bucket, key), move |catalog| {
                catalog.get_object_range(&asked_bucket, &asked_key, version, |head| {
                    range.resolve(head.size).unwrap_or(0..0)
                })
            })
            .await?;
        let range = range.resolve(head.size)?;
        let owner = ContentOwner {
            cluster: self.service.directory.cluster(),
            tenant: self.tenant,
            tenant_key: Arc::clone(&entry.key),
            bucket: head.bucket,
            name: key.to_owned(),
        };
        let body = open_body(&self.service.stripes, &owner, content, range.clone()).await?;
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
    ) -> Result<(ObjectInfo, VersionRef), ObjectError> {
        let (entry, route) = self.entry()?;
        let bucket_id = self.bucket(route, bucket).await?.id;
        let written = self.write_body(&entry, bucket_id, key, body, &options).await?;
        let mut attributes = options.attributes;
        if let Some(late) = late {
            attributes.checksums.extend(late());
        }
        let etag = hex::encode(written.md5);
        let put = PutObject {
            bucket: bucket_id,
            key: key.to_owned(),
            version: VersionId::new(now(), random_array()),
            size: written.size,
            etag: etag.clone(),
            attributes: to_opaque(&attributes)?,
            extras,
            wrapped_key: Bytes::copy_from_slice(written.sealed_key.as_bytes()),
            body: written.body,
            condition: condition(options.condition),
        };
        match self.service.propose(route, Op::PutObject(put)).await?.map_err(|r| refused(r, bucket, key))? {
            Response::ObjectPut { version, modified } => {
                let (key, size) = (key.to_owned(), written.size);
                Ok((ObjectInfo { key, version: version.id, size, etag, modified, attributes }, version))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn write_body(
        &self,
        entry: &TenantEntry,
        bucket: BucketId,
        key: &str,
        mut body: Body,
        options: &PutOptions,
    ) -> Result<WrittenBody, ObjectError> {
        let target = BodyTarget {
            context: BodyContext {
                cluster: self.service.directory.cluster(),
                tenant: self.tenant,
                bucket,
                content: VersionId::new(now(), random_array()),
            },
            tenant_key: Arc::clone(&entry.key),
            name: key.to_owned(),
            level: entry.level,
        };
        let mut writer = BodyWriter::begin(&self.service.stripes, target, options.length);
        while let Some(chunk) = body.next().await {
            writer.push(chunk?).await?;
        }
        writer.finish(options.content_md5).await
    }
}

/// Deletes a key as a client does that knows nothing of versions.
fn plain_delete(key: &str) -> DeleteItem {
    DeleteItem {
        key: key.to_owned(),
        version: None,
        if_etag: None,
        marker: random_array(),
        bypass_governance: false,
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

    async fn create_bucket(&self, bucket: &str) -> Result<(), ObjectError> {
        let (_, route) = self.entry()?;
        let id = BucketId::from_bytes(random_array());
        let op = Op::CreateBucket { bucket: id, name: bucket.to_owned(), object_lock: false };
        self.service.propose(route, op).await?.map(drop).map_err(|r| refused(r, bucket, ""))
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), ObjectError> {
        let (_, route) = self.entry()?;
        let op = Op::DeleteBucket { name: bucket.to_owned() };
        self.service.propose(route, op).await?.map(drop).map_err(|r| refused(r, bucket, ""))
    }

    async fn head_bucket(&self, bucket: &str) -> Result<BucketInfo, ObjectError> {
        let (_, route) = self.entry()?;
        let row = self.bucket(route, bucket).await?;
        Ok(BucketInfo { name: row.name, created: row.created })
    }

    async fn list_buckets(&self) -> Result<Vec<BucketInfo>, ObjectError> {
        let (_, route) = self.entry()?;
        let rows = self.service.read(route, ("", ""), |catalog| catalog.list_buckets()).await?;
        Ok(rows.into_iter().map(|row| BucketInfo { name: row.name, created: row.created }).collect())
    }

    async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Body,
        options: PutOptions,
        late: Option<LateChecksums>,
    ) -> Result<ObjectInfo, ObjectError> {
        self.put_with(bucket, key, body, options, late, ObjectExtras::default()).await.map(|(info, _)| info)
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, ObjectError> {
        info(key.to_owned(), &self.head_row(bucket, key, None).await?)
    }

    async fn get(
        &self,
        bucket: &str,
        key: &str,
        range: RangeChoice,
    ) -> Result<(ObjectInfo, Range<u64>, Body), ObjectError> {
        let (head, range, body) = self.get_row(bucket, key, None, range).await?;
        Ok((info(key.to_owned(), &head)?, range, body))
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<bool, ObjectError> {
        let mut results = self.delete_many(bucket, &[key.to_owned()]).await?;
        results.pop().unwrap_or(Ok(false))
    }

    async fn delete_many(
        &self,
        bucket: &str,
        keys: &[String],
    ) -> Result<Vec<Result<bool, ObjectError>>, ObjectError> {
        let (_, route) = self.entry()?;
        let bucket_id = self.bucket(route, bucket).await?.id;
        let items = keys.iter().map(|key| plain_delete(key)).collect();
        let op = Op::DeleteObjects { bucket: bucket_id, items };
        match self.service.propose(route, op).await?.map_err(|r| refused(r, bucket, ""))? {
            Response::ObjectsDeleted(results) if results.len() == keys.len() => Ok(results
                .into_iter()
                .zip(keys)
                .map(|(result, key)| {
                    result.map(|deleted| deleted != Deleted::Nothing).map_err(|r| refused(r, bucket, key))
                })
                .collect()),
            other => Err(unexpected(&other)),
        }
    }

    async fn list(&self, bucket: &str, query: ListQuery) -> Result<ListPage, ObjectError> {
        let (_, route) = self.entry()?;
        let asked = bucket.to_owned();
        let page = self
            .service
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

    async fn copy(
        &self,
        source: (&str, &str),
        target: (&str, &str),
        attributes: Option<Attributes>,
        condition: WriteCondition,
    ) -> Result<ObjectInfo, ObjectError> {
        let (from, _, body) = self.get(source.0, source.1, RangeChoice::All).await?;
        let options = PutOptions {
            length: Some(from.size),
            content_md5: None,
            attributes: attributes.unwrap_or(from.attributes),
            condition,
        };
        self.put(target.0, target.1, body, options, None).await
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        attributes: Attributes,
    ) -> Result<UploadId, ObjectError> {
        let (_, route) = self.entry()?;
        let bucket_id = self.bucket(route, bucket).await?.id;
        let upload = UploadId::new(now(), random_array());
        let op = Op::CreateUpload {
            bucket: bucket_id,
            key: key.to_owned(),
            upload,
            attributes: to_opaque(&attributes)?,
            extras: ObjectExtras::default(),
        };
        self.service.propose(route, op).await?.map_err(|r| refused(r, bucket, key))?;
        Ok(upload)
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
        let (entry, route) = self.entry()?;
        // Refuse before the body is taken in, as S3 does.
        self.list_parts(bucket, key, upload, 0, 0).await?;
        let bucket_id = self.bucket(route, bucket).await?.id;
        let written = self.write_body(&entry, bucket_id, key, body, &options).await?;
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
            wrapped_key: Bytes::copy_from_slice(written.sealed_key.as_bytes()),
            body: written.body,
        };
        self.service.propose(route, Op::PutPart(put)).await?.map_err(|r| refused(r, bucket, key))?;
        Ok(PartInfo { number, size: written.size, etag, modified: now(), checksums })
    }

    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        parts: &[(u32, String)],
        checksums: BTreeMap<String, String>,
        write_condition: WriteCondition,
    ) -> Result<ObjectInfo, ObjectError> {
        let (_, route) = self.entry()?;
        let bucket_id = self.bucket(route, bucket).await?.id;
        let attributes = match self.list_parts(bucket, key, upload, 0, 0).await {
            Ok((info, _)) => Some(Attributes { checksums, ..info.attributes }),
            // A repeated completion finds no upload; the catalog knows whether it was completed so.
            Err(ObjectError::NoSuchUpload(_)) => None,
            Err(other) => return Err(other),
        };
        let complete = CompleteUpload {
            bucket: bucket_id,
            key: key.to_owned(),
            upload,
            parts: parts.to_vec(),
            version: VersionId::new(now(), random_array()),
            etag: multipart_etag(parts)?,
            attributes: attributes.as_ref().map(to_opaque).transpose()?,
            condition: condition(write_condition),
        };
        match self
            .service
            .propose(route, Op::CompleteUpload(complete))
            .await?
            .map_err(|r| refused(r, bucket, key))?
        {
            Response::UploadCompleted(done) => Ok(ObjectInfo {
                key: key.to_owned(),
                version: done.version.id,
                size: done.size,
                etag: done.etag,
                modified: done.modified,
                attributes: attributes.unwrap_or_default(),
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload: UploadId) -> Result<(), ObjectError> {
        let (_, route) = self.entry()?;
        let bucket_id = self.bucket(route, bucket).await?.id;
        let op = Op::AbortUpload { bucket: bucket_id, key: key.to_owned(), upload };
        self.service.propose(route, op).await?.map(drop).map_err(|r| refused(r, bucket, key))
    }

    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        after: u32,
        limit: usize,
    ) -> Result<(UploadInfo, Vec<PartInfo>), ObjectError> {
        let (_, route) = self.entry()?;
        let (asked_bucket, asked_key) = (bucket.to_owned(), key.to_owned());
        let (row, parts) = self
            .service
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

    async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, UploadId)>,
        limit: usize,
    ) -> Result<Vec<UploadInfo>, ObjectError> {
        let (_, route) = self.entry()?;
        let (asked, prefix) = (bucket.to_owned(), prefix.to_owned());
        let page = self
            .service
            .read(route, (bucket, ""), move |catalog| {
                let after = after.as_ref().map(|(key, upload)| (key.as_str(), Some(*upload)));
                let query = UploadQuery { prefix: &prefix, delimiter: None, after, limit };
                catalog.list_uploads(&asked, &query)
            })
            .await?;
        page.uploads
            .into_iter()
            .map(|row| {
                Ok(UploadInfo {
                    key: row.key,
                    upload: row.upload,
                    initiated: row.initiated,
                    attributes: from_opaque(&row.attributes)?,
                })
            })
            .collect()
    }
}
