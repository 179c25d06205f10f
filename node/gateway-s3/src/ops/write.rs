//! Objects in.

use holdfast_object::{api::PutOptions, versioned::Extras};
use s3s::{
    S3Request, S3Response,
    dto::{PutObjectInput, PutObjectOutput},
};

use crate::{
    errors::Refusal,
    intake::plan,
    ops::{
        encryption, lifecycle, lock,
        shared::{
            attributes, checksum_type, etag, fill_checksums, version_written, write_condition, write_refused,
        },
        tagging,
    },
    service::Context,
};

/// What is kept beside a new object, from its headers.
///
/// # Errors
/// Tags or a lock that are not well-formed.
pub(super) fn extras(cx: &Context, tags: Option<&str>) -> Result<Extras, Refusal> {
    let lock = lock::Asked::parse(&cx.call.headers)?;
    let tags = tags.map(tagging::from_header).transpose()?.unwrap_or_default();
    let acl = cx.call.access()?.object_acl.clone();
    Ok(Extras { tags, acl, retention: lock.retention, legal_hold: lock.legal_hold })
}

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutObjectInput>,
) -> Result<S3Response<PutObjectOutput>, Refusal> {
    let input = request.input;
    let condition = write_condition(&cx.call.headers)?;
    let options = PutOptions {
        length: cx.call.plan.length,
        content_md5: plan::content_md5(&cx.call.headers)?,
        attributes: attributes(&cx.call.headers, input.metadata)?,
        condition: condition.clone(),
    };
    let extras = extras(&cx, input.tagging.as_deref())?;
    if extras.retention.is_some() || extras.legal_hold {
        // Before the body is taken in; the catalog decides again.
        lock::check_enabled(&cx, &input.bucket).await?;
    }
    let body = Box::pin(cx.call.take_content()?);
    let late = cx.call.outcome.late();
    let written = cx.objects.put(&input.bucket, &input.key, body, options, extras, Some(late)).await;
    let written = written.map_err(|error| write_refused(error, &condition))?;
    let checksums = cx.call.outcome.checksums();
    let mut output = PutObjectOutput {
        e_tag: etag(&written.info.etag),
        checksum_type: checksum_type(&checksums),
        expiration: lifecycle::header(written.expiry.as_ref()),
        version_id: version_written(written.versioned, written.version),
        ..Default::default()
    };
    encryption::tell!(output, cx, Sealed::of(&written.info.attributes));
    fill_checksums!(output, &checksums);
    Ok(S3Response::new(output))
}
