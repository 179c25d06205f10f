//! ListMultipartUploads: uploads in progress, in the order of (key, time they were begun).

use holdfast_object::{
    api::UploadInfo,
    versioned::{UploadListPage, UploadListQuery},
};
use s3s::{
    S3Request, S3Response,
    dto::{ListMultipartUploadsInput, ListMultipartUploadsOutput, MultipartUpload, StorageClass},
};

use crate::{
    errors::Refusal,
    lists,
    ops::{
        list::{Names, delimiter, limit},
        multipart::{Declared, algorithm, initiator, kind},
        shared::timestamp,
    },
    service::Context,
};

pub(crate) async fn list(
    cx: Context,
    request: S3Request<ListMultipartUploadsInput>,
) -> Result<S3Response<ListMultipartUploadsOutput>, Refusal> {
    let input = request.input;
    let names = Names::new(input.encoding_type)?;
    let limit = limit(input.max_uploads, "max-uploads")?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let key_marker = input.key_marker.clone().filter(|marker| !marker.is_empty());
    let id_marker = input.upload_id_marker.as_deref().filter(|marker| !marker.is_empty());
    let after = match (key_marker, id_marker) {
        // Without a key an upload's id says nothing.
        (None, _) => None,
        (Some(key), None) => Some((key, None)),
        (Some(key), Some(id)) => {
            let id = id.parse().map_err(|_| {
                Refusal::because("InvalidArgument", "Invalid uploadId marker")
                    .with("ArgumentName", "upload-id-marker")
                    .with("ArgumentValue", id)
            })?;
            Some((key, Some(id)))
        }
    };
    let page = if limit == 0 {
        cx.objects.head_bucket(&input.bucket).await?;
        UploadListPage::default()
    } else {
        let query =
            UploadListQuery { prefix: prefix.clone(), delimiter: delimiter(&input.delimiter), after, limit };
        cx.objects.list_uploads(&input.bucket, query).await?
    };
    let access = cx.call.access()?;
    let facts = &access.bucket()?.facts;
    let shown = |upload: UploadInfo| {
        let owner = lists::owner_of_upload(access, facts, &upload.acl);
        let declared = Declared::of(&upload.attributes);
        MultipartUpload {
            key: Some(names.show(upload.key)),
            upload_id: Some(upload.upload.to_string()),
            initiated: Some(timestamp(upload.initiated)),
            initiator: Some(initiator(&owner)),
            owner: Some(owner),
            storage_class: Some(StorageClass::from(upload.attributes.storage_class().to_owned())),
            checksum_algorithm: algorithm(declared),
            checksum_type: kind(declared),
        }
    };
    let (next_key, next_id) = page.next.map_or((None, None), |(key, id)| (Some(names.show(key)), id));
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: Some(names.show(prefix)),
        delimiter: input.delimiter.map(|delimiter| names.show(delimiter)),
        key_marker: Some(names.show(input.key_marker.unwrap_or_default())),
        upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
        max_uploads: i32::try_from(limit).ok(),
        is_truncated: Some(next_key.is_some()),
        next_key_marker: next_key,
        next_upload_id_marker: next_id.map(|id| id.to_string()),
        uploads: Some(page.uploads.into_iter().map(shown).collect()),
        common_prefixes: names.prefixes(page.common_prefixes),
        encoding_type: names.encoding(),
        request_charged: None,
    }))
}
