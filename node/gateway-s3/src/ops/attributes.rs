//! GetObjectAttributes: what is known of an object, its parts page by page.

use holdfast_object::versioned::{ObjectParts, VersionInfo};
use s3s::{
    S3Request, S3Response,
    dto::{
        Checksum, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectAttributesParts,
        ObjectAttributes, ObjectPart, StorageClass,
    },
};

use crate::{
    errors::Refusal,
    ops::{
        list::limit,
        shared::{
            checksum_type, etag, fill_checksums, same_version, timestamp_seconds, version, version_shown,
        },
    },
    service::Context,
    sse,
};

/// What can be asked for.
const KNOWN: [&str; 5] = [
    ObjectAttributes::CHECKSUM,
    ObjectAttributes::ETAG,
    ObjectAttributes::OBJECT_PARTS,
    ObjectAttributes::OBJECT_SIZE,
    ObjectAttributes::STORAGE_CLASS,
];

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetObjectAttributesInput>,
) -> Result<S3Response<GetObjectAttributesOutput>, Refusal> {
    let input = request.input;
    let selector = version(input.version_id.as_deref())?;
    // One header with a list, several, or both (RFC 9110, section 5.3); the library takes each for one name.
    let names: Vec<&str> =
        input.object_attributes.iter().flat_map(|named| named.as_str().split(',')).map(str::trim).collect();
    if names.is_empty() || names.iter().any(|name| !KNOWN.contains(name)) {
        return Err(Refusal::because("InvalidArgument", "Invalid attribute name specified.")
            .with("ArgumentName", "x-amz-object-attributes"));
    }
    let asked = |name: &str| names.contains(&name);
    let limit = limit(input.max_parts, "x-amz-max-parts")?;
    let marker = u32::try_from(input.part_number_marker.unwrap_or(0))
        .map_err(|_| Refusal::because("InvalidArgument", "x-amz-part-number-marker must not be negative."))?;
    let found = cx.objects.head(&input.bucket, &input.key, selector).await?;
    sse::admit(&cx.call.headers, &found.info.attributes)?;
    let info = &found.info;
    let mut output = GetObjectAttributesOutput {
        last_modified: Some(timestamp_seconds(info.modified)),
        version_id: version_shown(found.versioned, found.version),
        ..Default::default()
    };
    output.e_tag = etag(&info.etag).filter(|_| asked(ObjectAttributes::ETAG));
    output.object_size = i64::try_from(info.size).ok().filter(|_| asked(ObjectAttributes::OBJECT_SIZE));
    output.storage_class = asked(ObjectAttributes::STORAGE_CLASS)
        .then(|| StorageClass::from(info.attributes.storage_class().to_owned()));
    if asked(ObjectAttributes::CHECKSUM) && !info.attributes.checksums.is_empty() {
        let mut checksum =
            Checksum { checksum_type: checksum_type(&info.attributes.checksums), ..Default::default() };
        fill_checksums!(checksum, &info.attributes.checksums);
        output.checksum = Some(checksum);
    }
    if asked(ObjectAttributes::OBJECT_PARTS) && info.etag.contains('-') {
        let selector = Some(same_version(found.version));
        // One more than there is room for tells whether there is more.
        let page = cx.objects.parts(&input.bucket, &input.key, selector, marker, limit + 1).await?;
        output.object_parts = Some(parts(&found, page, marker, limit));
    }
    Ok(S3Response::new(output))
}

/// Takes the quotes off the ETag of an answer: AWS gives it without them here, and only here, which the
/// library's type cannot express.
pub(crate) fn without_quotes(document: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(document);
    text.replace("<ETag>\"", "<ETag>").replace("\"</ETag>", "</ETag>").into_bytes()
}

/// The parts are listed when they or the object have checksums; otherwise only counted, as AWS does.
fn parts(found: &VersionInfo, page: ObjectParts, marker: u32, limit: usize) -> GetObjectAttributesParts {
    let mut answer =
        GetObjectAttributesParts { total_parts_count: i32::try_from(page.count).ok(), ..Default::default() };
    if found.info.attributes.checksums.is_empty() && page.parts.iter().all(|part| part.checksums.is_empty()) {
        return answer;
    }
    let truncated = page.parts.len() > limit;
    let listed = &page.parts[..page.parts.len().min(limit)];
    let last = listed.last().map_or(marker, |part| part.number);
    answer.is_truncated = Some(truncated);
    answer.max_parts = i32::try_from(limit).ok();
    answer.part_number_marker = i32::try_from(marker).ok();
    answer.next_part_number_marker = i32::try_from(last).ok();
    let shown = |part: &holdfast_object::versioned::ObjectPart| {
        let mut shown = ObjectPart {
            part_number: i32::try_from(part.number).ok(),
            size: i64::try_from(part.size).ok(),
            ..Default::default()
        };
        fill_checksums!(shown, &part.checksums);
        shown
    };
    answer.parts = Some(listed.iter().map(shown).collect());
    answer
}
