//! ListObjectVersions: versions and delete markers, keys in order and each key's newest version first.

use holdfast_model::VersionId;
use holdfast_object::{
    api::ObjectError,
    versioned::{ListedVersion, VersionListQuery, VersionPage, VersionSelector, attributes_of},
};
use s3s::{
    S3Request, S3Response,
    dto::{
        DeleteMarkerEntry, ListObjectVersionsInput, ListObjectVersionsOutput, ObjectVersion,
        ObjectVersionStorageClass, Owner,
    },
};

use crate::{
    errors::Refusal,
    ops::{
        list::{Names, delimiter, limit},
        shared::{checksum_algorithms, checksum_type, etag, timestamp, version, version_text},
    },
    service::Context,
};

/// Before every version of a key: ids sort by time, and versions are listed newest first.
const NEWEST: VersionId = VersionId::from_bytes([0xff; VersionId::SIZE]);

/// The version a marker names. The null version is looked up by a client that names it so; when it is gone,
/// its key is listed again from its newest version: nothing that is there is left out.
async fn marker(
    cx: &Context,
    bucket: &str,
    key: &str,
    named: Option<&str>,
) -> Result<Option<VersionId>, Refusal> {
    match version(named)? {
        None => Ok(None),
        Some(VersionSelector::Id(id)) => Ok(Some(id)),
        Some(VersionSelector::Null) => {
            match cx.objects.head(bucket, key, Some(VersionSelector::Null)).await {
                Ok(found) => Ok(Some(found.version.id)),
                Err(ObjectError::DeleteMarker { version, .. }) => Ok(Some(version.id)),
                Err(ObjectError::NoSuchVersion(_) | ObjectError::NoSuchKey(_)) => Ok(Some(NEWEST)),
                Err(other) => Err(other.into()),
            }
        }
    }
}

fn object(version: ListedVersion, names: &Names, owner: &Owner) -> Result<ObjectVersion, Refusal> {
    let attributes = attributes_of(&version)?;
    Ok(ObjectVersion {
        key: Some(names.show(version.key)),
        version_id: Some(version_text(version.version)),
        is_latest: Some(version.latest),
        e_tag: etag(&version.etag),
        size: i64::try_from(version.size).ok(),
        last_modified: Some(timestamp(version.modified)),
        storage_class: Some(ObjectVersionStorageClass::from(attributes.storage_class().to_owned())),
        checksum_algorithm: checksum_algorithms(&attributes.checksums),
        checksum_type: checksum_type(&attributes.checksums),
        owner: Some(owner.clone()),
        ..Default::default()
    })
}

fn delete_marker(version: ListedVersion, names: &Names, owner: &Owner) -> DeleteMarkerEntry {
    DeleteMarkerEntry {
        key: Some(names.show(version.key)),
        version_id: Some(version_text(version.version)),
        is_latest: Some(version.latest),
        last_modified: Some(timestamp(version.modified)),
        owner: Some(owner.clone()),
    }
}

pub(crate) async fn list(
    cx: Context,
    request: S3Request<ListObjectVersionsInput>,
) -> Result<S3Response<ListObjectVersionsOutput>, Refusal> {
    let input = request.input;
    let names = Names::new(input.encoding_type)?;
    let limit = limit(input.max_keys, "max-keys")?;
    let key_marker = input.key_marker.as_deref().filter(|marker| !marker.is_empty());
    let version_marker = input.version_id_marker.as_deref().filter(|marker| !marker.is_empty());
    let after = match (key_marker, version_marker) {
        (None, Some(_)) => {
            let said = "A version-id marker cannot be specified without a key marker.";
            return Err(Refusal::because("InvalidArgument", said).with("ArgumentName", "version-id-marker"));
        }
        (None, None) => None,
        (Some(key), named) => Some((key.to_owned(), marker(&cx, &input.bucket, key, named).await?)),
    };
    let query = VersionListQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: delimiter(&input.delimiter),
        after,
        limit,
    };
    let page = if limit == 0 {
        cx.objects.head_bucket(&input.bucket).await?;
        VersionPage::default()
    } else {
        cx.objects.list_versions(&input.bucket, query).await?
    };
    // The id also of a null version: a client that deletes a page before it asks for the next one could not
    // come back to a place called `null`.
    let next_version = page.next.as_ref().and_then(|(_, id)| *id).map(|id| id.to_string());
    let (markers, versions): (Vec<_>, Vec<_>) = page.versions.into_iter().partition(|found| found.marker);
    let markers: Vec<_> = markers.into_iter().map(|found| delete_marker(found, &names, &cx.owner)).collect();
    Ok(S3Response::new(ListObjectVersionsOutput {
        name: Some(input.bucket),
        prefix: Some(names.show(input.prefix.unwrap_or_default())),
        key_marker: Some(names.show(input.key_marker.unwrap_or_default())),
        version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
        max_keys: i32::try_from(limit).ok(),
        is_truncated: Some(page.next.is_some()),
        versions: Some(
            versions.into_iter().map(|found| object(found, &names, &cx.owner)).collect::<Result<_, _>>()?,
        ),
        delete_markers: (!markers.is_empty()).then_some(markers),
        common_prefixes: names.prefixes(page.common_prefixes),
        delimiter: input.delimiter.map(|delimiter| names.show(delimiter)),
        next_version_id_marker: next_version,
        next_key_marker: page.next.map(|(key, _)| names.show(key)),
        encoding_type: names.encoding(),
        request_charged: None,
    }))
}
