//! Objects in, objects gone.

use holdfast_model::limits::DELETE_KEYS_MAX;
use holdfast_object::api::PutOptions;
use s3s::{
    S3Request, S3Response,
    dto::{
        DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, Error,
        PutObjectInput, PutObjectOutput,
    },
};

use crate::{
    errors::Refusal,
    intake::plan,
    ops::shared::{
        attributes, checksum_type, encryption, etag, fill_checksums, only_null_version, write_condition,
    },
    service::Context,
};

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutObjectInput>,
) -> Result<S3Response<PutObjectOutput>, Refusal> {
    let input = request.input;
    let options = PutOptions {
        length: cx.call.plan.length,
        content_md5: plan::content_md5(&cx.call.headers)?,
        attributes: attributes(&cx.call.headers, input.metadata)?,
        condition: write_condition(&cx.call.headers)?,
    };
    let body = Box::pin(cx.call.take_content()?);
    let late = cx.call.outcome.late();
    let info = cx.objects.put(&input.bucket, &input.key, body, options, Some(late)).await?;
    let checksums = cx.call.outcome.checksums();
    let mut output = PutObjectOutput {
        e_tag: etag(&info.etag),
        checksum_type: checksum_type(&checksums),
        server_side_encryption: encryption(),
        ..Default::default()
    };
    fill_checksums!(output, &checksums);
    Ok(S3Response::new(output))
}

pub(crate) async fn delete(
    cx: Context,
    request: S3Request<DeleteObjectInput>,
) -> Result<S3Response<DeleteObjectOutput>, Refusal> {
    let input = request.input;
    let conditional = input.if_match.is_some()
        || input.if_match_last_modified_time.is_some()
        || input.if_match_size.is_some();
    if conditional {
        return Err(Refusal::not_implemented("A conditional delete"));
    }
    only_null_version(input.version_id.as_deref())?;
    cx.objects.delete(&input.bucket, &input.key).await?;
    Ok(S3Response::new(DeleteObjectOutput { version_id: input.version_id, ..Default::default() }))
}

pub(crate) async fn delete_many(
    cx: Context,
    request: S3Request<DeleteObjectsInput>,
) -> Result<S3Response<DeleteObjectsOutput>, Refusal> {
    let input = request.input;
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > DELETE_KEYS_MAX {
        return Err(Refusal::new("MalformedXML"));
    }
    let quiet = input.delete.quiet.unwrap_or(false);
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    let (mut asked, mut keys) = (Vec::new(), Vec::new());
    for object in objects {
        let conditional =
            object.e_tag.is_some() || object.last_modified_time.is_some() || object.size.is_some();
        let refused = if conditional {
            Err(Refusal::not_implemented("A conditional delete"))
        } else if object.key.is_empty() {
            Err(Refusal::because("UserKeyMustBeSpecified", ""))
        } else {
            only_null_version(object.version_id.as_deref())
        };
        match refused {
            Ok(()) => {
                keys.push(object.key.clone());
                asked.push(object);
            }
            Err(refusal) => errors.push(error(object.key, object.version_id, &refusal)),
        }
    }
    let results = cx.objects.delete_many(&input.bucket, &keys).await?;
    for (object, result) in asked.into_iter().zip(results) {
        match result {
            Ok(_) if quiet => {}
            Ok(_) => deleted.push(DeletedObject {
                key: Some(object.key),
                version_id: object.version_id,
                ..Default::default()
            }),
            Err(failed) => errors.push(error(object.key, object.version_id, &Refusal::from(failed))),
        }
    }
    let some = |errors: Vec<Error>| (!errors.is_empty()).then_some(errors);
    let deleted = (!deleted.is_empty()).then_some(deleted);
    Ok(S3Response::new(DeleteObjectsOutput { deleted, errors: some(errors), ..Default::default() }))
}

fn error(key: String, version_id: Option<String>, refusal: &Refusal) -> Error {
    Error {
        code: Some(refusal.code.to_owned()),
        key: Some(key),
        message: Some(refusal.text().to_owned()),
        version_id,
    }
}
