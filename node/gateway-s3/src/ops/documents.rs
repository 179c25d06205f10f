//! Documents of buckets, as handlers need them.

use bytes::Bytes;
use holdfast_object::{
    api::ObjectError,
    versioned::{BucketChange, DocumentKind},
};

use crate::{errors::Refusal, service::Context};

/// A document without an id; `None` when the bucket has none.
///
/// # Errors
/// `NoSuchBucket` and what the object layer answers.
pub(crate) async fn load(cx: &Context, bucket: &str, kind: DocumentKind) -> Result<Option<Bytes>, Refusal> {
    match cx.objects.document(bucket, kind, "").await {
        Ok(document) => Ok(Some(document.body)),
        Err(ObjectError::NoSuchDocument) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Stores a document without an id.
///
/// # Errors
/// `NoSuchBucket` and what the object layer answers.
pub(crate) async fn store(
    cx: &Context,
    bucket: &str,
    kind: DocumentKind,
    body: Bytes,
) -> Result<(), Refusal> {
    let change = BucketChange::Document { kind, id: String::new(), body: Some(body) };
    Ok(cx.objects.set_bucket(bucket, change).await?)
}

/// Stores, or with `None` removes, one of several documents of a kind.
///
/// # Errors
/// `NoSuchBucket` and what the object layer answers.
pub(crate) async fn store_as(
    cx: &Context,
    bucket: &str,
    (kind, id): (DocumentKind, &str),
    body: Option<Bytes>,
) -> Result<(), Refusal> {
    let change = BucketChange::Document { kind, id: id.to_owned(), body };
    Ok(cx.objects.set_bucket(bucket, change).await?)
}

/// Removes a document without an id, if it is there.
///
/// # Errors
/// `NoSuchBucket` and what the object layer answers.
pub(crate) async fn remove(cx: &Context, bucket: &str, kind: DocumentKind) -> Result<(), Refusal> {
    let change = BucketChange::Document { kind, id: String::new(), body: None };
    Ok(cx.objects.set_bucket(bucket, change).await?)
}
