//! What access control needs of buckets: their documents as of one moment, and owners from the first.

use bytes::Bytes;
use holdfast_catalog::{Bucket, DocumentKind, Op};
use holdfast_model::BucketId;

use crate::{api::ObjectError, host::chance, service::refused, tenant::TenantHandle};

/// A bucket with some of its documents.
pub type BucketWith = (Bucket, Vec<(DocumentKind, Bytes)>);

/// See the module.
#[async_trait::async_trait]
pub trait BucketOwnership: Send + Sync + 'static {
    /// Creates a bucket that has these documents from its first moment.
    async fn create_bucket_with(
        &self,
        bucket: &str,
        object_lock: bool,
        documents: Vec<(DocumentKind, Bytes)>,
    ) -> Result<(), ObjectError>;
    /// A bucket and its documents of these kinds.
    async fn bucket_with(
        &self,
        bucket: &str,
        kinds: &'static [DocumentKind],
    ) -> Result<BucketWith, ObjectError>;
    /// The document of one kind of every bucket that has it, by name.
    async fn documents_of_all(&self, kind: DocumentKind) -> Result<Vec<(String, Bytes)>, ObjectError>;
    /// Buckets that have documents of one kind, whatever their ids.
    async fn buckets_with(&self, kind: DocumentKind) -> Result<Vec<String>, ObjectError>;
}

#[async_trait::async_trait]
impl BucketOwnership for TenantHandle {
    async fn create_bucket_with(
        &self,
        bucket: &str,
        object_lock: bool,
        documents: Vec<(DocumentKind, Bytes)>,
    ) -> Result<(), ObjectError> {
        let id = BucketId::from_bytes(chance());
        let op = Op::CreateBucketWith { bucket: id, name: bucket.to_owned(), object_lock, documents };
        let outcome = self.backing.propose(self.route()?, op).await?;
        outcome.map(drop).map_err(|refusal| refused(refusal, bucket, ""))
    }

    async fn bucket_with(
        &self,
        bucket: &str,
        kinds: &'static [DocumentKind],
    ) -> Result<BucketWith, ObjectError> {
        let asked = bucket.to_owned();
        self.read(self.route()?, (bucket, ""), move |catalog| catalog.bucket_with(&asked, kinds)).await
    }

    async fn buckets_with(&self, kind: DocumentKind) -> Result<Vec<String>, ObjectError> {
        self.read(self.route()?, ("", ""), move |catalog| catalog.buckets_with(kind)).await
    }

    async fn documents_of_all(&self, kind: DocumentKind) -> Result<Vec<(String, Bytes)>, ObjectError> {
        self.read(self.route()?, ("", ""), move |catalog| catalog.documents_of_all(kind)).await
    }
}
