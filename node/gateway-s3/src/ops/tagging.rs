//! Tags of objects and of buckets.
//!
//! Limits are AWS's: 10 tags an object, 50 a bucket; names of 128 and values of 256 characters, of letters,
//! digits, spaces and `+ - = . _ : / @`.

use holdfast_object::{
    api::ObjectError,
    versioned::{BucketChange, DocumentKind, ObjectChange, Tags},
};
use s3s::{
    S3Request, S3Response,
    dto::{
        DeleteBucketTaggingInput, DeleteBucketTaggingOutput, DeleteObjectTaggingInput,
        DeleteObjectTaggingOutput, GetBucketTaggingInput, GetBucketTaggingOutput, GetObjectTaggingInput,
        GetObjectTaggingOutput, PutBucketTaggingInput, PutBucketTaggingOutput, PutObjectTaggingInput,
        PutObjectTaggingOutput, Tag,
    },
};

use crate::{
    errors::Refusal,
    ops::shared::{same_version, version, version_shown},
    service::Context,
};

/// Tags of one object.
const OBJECT_TAGS_MAX: usize = 10;

/// Tags of one bucket.
const BUCKET_TAGS_MAX: usize = 50;

/// Characters of a tag's name.
const NAME_CHARS_MAX: usize = 128;

/// Characters of a tag's value.
const VALUE_CHARS_MAX: usize = 256;

/// Names that begin so are AWS's own.
const RESERVED_PREFIX: &str = "aws:";

fn is_allowed(character: char) -> bool {
    character.is_alphanumeric() || character.is_whitespace() || "+-=._:/@".contains(character)
}

fn check(name: &str, value: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || !name.chars().all(is_allowed) {
        let said = "The TagKey you have provided is invalid";
        return Err(Refusal::because("InvalidTag", said).with("TagKey", name));
    }
    if value.chars().count() > VALUE_CHARS_MAX || !value.chars().all(is_allowed) {
        let said = "The TagValue you have provided is invalid";
        return Err(Refusal::because("InvalidTag", said).with("TagKey", name).with("TagValue", value));
    }
    if name.starts_with(RESERVED_PREFIX) {
        let said = "System tags cannot be added/updated by requester";
        return Err(Refusal::because("InvalidTag", said).with("TagKey", name));
    }
    Ok(())
}

fn too_many(what: &str, max: usize) -> Refusal {
    Refusal::because("BadRequest", format!("{what} cannot be greater than {max}"))
}

/// Tags as `x-amz-tagging` has them: `a=1&b=2`, encoded as in a query.
///
/// # Errors
/// `InvalidArgument` when it is not that, or names a tag twice; `BadRequest`, `InvalidTag` as of a document.
pub(super) fn from_header(text: &str) -> Result<Tags, Refusal> {
    let malformed = || {
        let said = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters \
                    without tag name duplicates.";
        Refusal::because("InvalidArgument", said)
            .with("ArgumentName", "x-amz-tagging")
            .with("ArgumentValue", text)
    };
    let decode = |piece: &str| {
        let spaced = piece.replace('+', " ");
        urlencoding::decode(&spaced).map(std::borrow::Cow::into_owned).map_err(|_| malformed())
    };
    let mut tags = Tags::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        if name.is_empty() {
            return Err(malformed());
        }
        check(&name, &value)?;
        if tags.insert(name, value).is_some() {
            return Err(malformed());
        }
    }
    if tags.len() > OBJECT_TAGS_MAX { Err(too_many("Object tags", OBJECT_TAGS_MAX)) } else { Ok(tags) }
}

fn from_document(tags: Vec<Tag>, what: &str, max: usize) -> Result<Vec<(String, String)>, Refusal> {
    if tags.len() > max {
        return Err(too_many(what, max));
    }
    let mut read: Vec<(String, String)> = Vec::with_capacity(tags.len());
    for tag in tags {
        let (Some(name), Some(value)) = (tag.key, tag.value) else {
            return Err(Refusal::new("MalformedXML"));
        };
        check(&name, &value)?;
        if read.iter().any(|(known, _)| *known == name) {
            let said = "Cannot provide multiple Tags with the same key";
            return Err(Refusal::because("InvalidTag", said).with("TagKey", name));
        }
        read.push((name, value));
    }
    Ok(read)
}

fn shown(tags: impl IntoIterator<Item = (String, String)>) -> Vec<Tag> {
    tags.into_iter().map(|(name, value)| Tag { key: Some(name), value: Some(value) }).collect()
}

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetObjectTaggingInput>,
) -> Result<S3Response<GetObjectTaggingOutput>, Refusal> {
    let input = request.input;
    let found = cx.objects.head(&input.bucket, &input.key, version(input.version_id.as_deref())?).await?;
    Ok(S3Response::new(GetObjectTaggingOutput {
        tag_set: shown(found.extras.tags),
        version_id: version_shown(found.versioned, found.version),
    }))
}

/// Replaces the tags, and tells of which version.
async fn set(
    cx: &Context,
    (bucket, key): (&str, &str),
    named: Option<&str>,
    tags: Tags,
) -> Result<Option<String>, Refusal> {
    // The object is looked at first: what is not there, or a delete marker, is answered as for a GET.
    let found = cx.objects.head(bucket, key, version(named)?).await?;
    let selector = Some(same_version(found.version));
    let changed = cx.objects.set_object(bucket, key, selector, ObjectChange::Tags(tags)).await?;
    Ok(version_shown(found.versioned, changed))
}

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutObjectTaggingInput>,
) -> Result<S3Response<PutObjectTaggingOutput>, Refusal> {
    let input = request.input;
    let tags = from_document(input.tagging.tag_set, "Object tags", OBJECT_TAGS_MAX)?;
    cx.call.access()?.check_tags(&cx.call, &*cx.objects, tags.iter().cloned()).await?;
    let target = (input.bucket.as_str(), input.key.as_str());
    let version_id = set(&cx, target, input.version_id.as_deref(), tags.into_iter().collect()).await?;
    Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
}

pub(crate) async fn delete(
    cx: Context,
    request: S3Request<DeleteObjectTaggingInput>,
) -> Result<S3Response<DeleteObjectTaggingOutput>, Refusal> {
    let input = request.input;
    let target = (input.bucket.as_str(), input.key.as_str());
    let version_id = set(&cx, target, input.version_id.as_deref(), Tags::new()).await?;
    Ok(S3Response::new(DeleteObjectTaggingOutput { version_id }))
}

/// The bucket's document: pairs of name and value, in the order the client gave them, as JSON.
fn document(body: Option<&[(String, String)]>) -> Result<BucketChange, Refusal> {
    let body = body.map(serde_json::to_vec).transpose();
    let body = body.map_err(|error| Refusal::because("InternalError", error.to_string()))?;
    Ok(BucketChange::Document { kind: DocumentKind::Tags, id: String::new(), body: body.map(Into::into) })
}

pub(crate) async fn bucket_get(
    cx: Context,
    request: S3Request<GetBucketTaggingInput>,
) -> Result<S3Response<GetBucketTaggingOutput>, Refusal> {
    let found = match cx.objects.document(&request.input.bucket, DocumentKind::Tags, "").await {
        Err(ObjectError::NoSuchDocument) => return Err(Refusal::new("NoSuchTagSet")),
        found => found?,
    };
    let tags: Vec<(String, String)> = serde_json::from_slice(&found.body).map_err(|error| {
        tracing::error!(%error, "a bucket's tags cannot be read");
        Refusal::new("InternalError")
    })?;
    Ok(S3Response::new(GetBucketTaggingOutput { tag_set: shown(tags) }))
}

pub(crate) async fn bucket_put(
    cx: Context,
    request: S3Request<PutBucketTaggingInput>,
) -> Result<S3Response<PutBucketTaggingOutput>, Refusal> {
    let input = request.input;
    let tags = from_document(input.tagging.tag_set, "Bucket tag count", BUCKET_TAGS_MAX)?;
    cx.objects.set_bucket(&input.bucket, document(Some(&tags))?).await?;
    Ok(S3Response::new(PutBucketTaggingOutput {}))
}

pub(crate) async fn bucket_delete(
    cx: Context,
    request: S3Request<DeleteBucketTaggingInput>,
) -> Result<S3Response<DeleteBucketTaggingOutput>, Refusal> {
    cx.objects.set_bucket(&request.input.bucket, document(None)?).await?;
    Ok(S3Response::new(DeleteBucketTaggingOutput {}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_in_a_header_are_decoded_and_kept_to_their_limits() {
        let tags = from_header("a%20b=c%2Bd&e=&f+g=h").unwrap();
        let pairs: Vec<(&str, &str)> = tags.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("a b", "c+d"), ("e", ""), ("f g", "h")]);
        assert!(from_header("").unwrap().is_empty());
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join("&");
        assert!(from_header(&many(10)).is_ok());
        let long = |name: usize, value: usize| format!("{}={}", "n".repeat(name), "v".repeat(value));
        assert!(from_header(&long(128, 256)).is_ok());
        for (text, code) in [
            (many(11), "BadRequest"),
            (long(129, 1), "InvalidTag"),
            (long(1, 257), "InvalidTag"),
            ("a=1&a=2".to_owned(), "InvalidArgument"),
            ("=1".to_owned(), "InvalidArgument"),
            ("a=%ff".to_owned(), "InvalidArgument"),
            ("a=%3C".to_owned(), "InvalidTag"),
            ("aws:a=1".to_owned(), "InvalidTag"),
        ] {
            assert_eq!(from_header(&text).unwrap_err().code, code, "{text}");
        }
    }
}
