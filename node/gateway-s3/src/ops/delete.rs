//! Objects gone: one key or version, or many in one request.

use holdfast_model::limits::{DELETE_KEYS_MAX, KEY_SIZE_MAX};
use holdfast_object::{
    api::ObjectError,
    versioned::{DeleteRequest, Deleted},
};
use s3s::{
    S3Request, S3Response,
    dto::{
        DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, Error,
        ObjectIdentifier,
    },
};

use crate::{
    actions::{BYPASS, DELETE},
    errors::Refusal,
    ops::shared::{version, version_text},
    service::Context,
};

/// `If-Match`: an ETag without its quotes, or `*`.
fn etag_of(cx: &Context) -> Option<String> {
    let value = cx.call.headers.get(http::header::IF_MATCH)?.to_str().ok()?;
    Some(value.trim().trim_matches('"').to_owned())
}

/// A condition on what is not there holds: AWS answers as for any key that is deleted already.
fn gone(result: Result<Deleted, ObjectError>) -> Result<Deleted, ObjectError> {
    match result {
        Err(ObjectError::NoSuchKey(_)) => Ok(Deleted::Nothing),
        other => other,
    }
}

pub(crate) async fn one(
    cx: Context,
    request: S3Request<DeleteObjectInput>,
) -> Result<S3Response<DeleteObjectOutput>, Refusal> {
    let input = request.input;
    if input.if_match_last_modified_time.is_some() || input.if_match_size.is_some() {
        return Err(Refusal::not_implemented(
            "A condition on size or time, which only directory buckets have,",
        ));
    }
    let asked = DeleteRequest {
        key: input.key,
        version: version(input.version_id.as_deref())?,
        if_etag: etag_of(&cx),
        bypass_governance: input.bypass_governance_retention.unwrap_or(false),
    };
    let mut results = cx.objects.delete(&input.bucket, vec![asked]).await?;
    let deleted = gone(results.pop().ok_or_else(|| Refusal::new("InternalError"))?)?;
    let mut output = DeleteObjectOutput { version_id: input.version_id, ..Default::default() };
    match deleted {
        Deleted::Marked { marker } => {
            output.delete_marker = Some(true);
            output.version_id = Some(version_text(marker));
        }
        Deleted::Removed { marker: true, .. } => output.delete_marker = Some(true),
        Deleted::Removed { .. } | Deleted::Nothing => {}
    }
    Ok(S3Response::new(output))
}

fn parse(object: &ObjectIdentifier, bypass_governance: bool) -> Result<DeleteRequest, Refusal> {
    if object.last_modified_time.is_some() || object.size.is_some() {
        return Err(Refusal::not_implemented(
            "A condition on size or time, which only directory buckets have,",
        ));
    }
    if object.key.is_empty() {
        return Err(Refusal::new("UserKeyMustBeSpecified"));
    }
    if object.key.len() > KEY_SIZE_MAX {
        return Err(Refusal::new("KeyTooLongError"));
    }
    // Unlike on DELETE of one key, an id that cannot be one is answered as one that is not there.
    let version = version(object.version_id.as_deref()).map_err(|_| Refusal::new("NoSuchVersion"))?;
    Ok(DeleteRequest {
        key: object.key.clone(),
        version,
        if_etag: object.e_tag.as_ref().map(|etag| etag.value().to_owned()),
        bypass_governance,
    })
}

pub(crate) async fn many(
    cx: Context,
    request: S3Request<DeleteObjectsInput>,
) -> Result<S3Response<DeleteObjectsOutput>, Refusal> {
    let input = request.input;
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > DELETE_KEYS_MAX {
        return Err(Refusal::new("MalformedXML"));
    }
    let quiet = input.delete.quiet.unwrap_or(false);
    let bypass = input.bypass_governance_retention.unwrap_or(false);
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    let (mut asked, mut requests) = (Vec::new(), Vec::new());
    for object in objects {
        let parsed = match parse(&object, bypass) {
            Ok(request) => may_delete(&cx, &input.bucket, &object, bypass).await.map(|()| request),
            Err(refusal) => Err(refusal),
        };
        match parsed {
            Ok(request) => {
                requests.push(request);
                asked.push(object);
            }
            Err(refusal) => errors.push(error(object, &refusal)),
        }
    }
    let results = cx.objects.delete(&input.bucket, requests).await?;
    for (object, result) in asked.into_iter().zip(results) {
        match gone(result) {
            Ok(_) if quiet => {}
            Ok(done) => deleted.push(shown(object, done)),
            Err(failed) => errors.push(error(object, &Refusal::from(failed))),
        }
    }
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: (!deleted.is_empty()).then_some(deleted),
        errors: (!errors.is_empty()).then_some(errors),
        ..Default::default()
    }))
}

/// Each key is decided on for itself.
async fn may_delete(
    cx: &Context,
    bucket: &str,
    object: &ObjectIdentifier,
    bypass: bool,
) -> Result<(), Refusal> {
    let access = cx.call.access()?;
    let version = object.version_id.as_deref();
    for need in DELETE.iter().chain(bypass.then_some(&BYPASS)) {
        access.check(need, &*cx.objects, bucket, Some(&object.key), version).await?;
    }
    Ok(())
}

fn shown(object: ObjectIdentifier, done: Deleted) -> DeletedObject {
    let mut shown =
        DeletedObject { key: Some(object.key), version_id: object.version_id, ..Default::default() };
    match done {
        Deleted::Marked { marker } => {
            shown.delete_marker = Some(true);
            shown.delete_marker_version_id = Some(version_text(marker));
        }
        Deleted::Removed { version, marker: true } => {
            shown.delete_marker = Some(true);
            shown.delete_marker_version_id = Some(version_text(version));
        }
        Deleted::Removed { .. } | Deleted::Nothing => {}
    }
    shown
}

fn error(object: ObjectIdentifier, refusal: &Refusal) -> Error {
    Error {
        code: Some(refusal.code.to_owned()),
        key: Some(object.key),
        message: Some(refusal.text().to_owned()),
        version_id: object.version_id,
    }
}
