//! Listings of current objects: version 1 and version 2.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use holdfast_model::limits::LIST_KEYS_MAX;
use holdfast_object::api::{ListPage, ListQuery, ObjectInfo};
use s3s::{
    S3Request, S3Response,
    dto::{
        CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
        ListObjectsV2Output, Object, ObjectStorageClass, Owner,
    },
};

use crate::{
    errors::Refusal,
    ops::shared::{checksum_algorithms, checksum_type, etag, timestamp},
    service::Context,
};

/// How names are written in an answer.
#[derive(Debug, Clone)]
pub(super) struct Names {
    encoding: Option<EncodingType>,
}

impl Names {
    /// # Errors
    /// `InvalidArgument` for an encoding that S3 does not have.
    pub(super) fn new(encoding: Option<EncodingType>) -> Result<Self, Refusal> {
        match &encoding {
            Some(asked) if asked.as_str() != EncodingType::URL => {
                Err(Refusal::because("InvalidArgument", "Invalid Encoding Method specified in Request")
                    .with("ArgumentName", "encoding-type"))
            }
            _ => Ok(Self { encoding }),
        }
    }

    pub(super) fn encoding(&self) -> Option<EncodingType> {
        self.encoding.clone()
    }

    /// Percent-encoded when the client asked for it, all but unreserved characters and `/`.
    pub(super) fn show(&self, name: String) -> String {
        if self.encoding.is_none() {
            return name;
        }
        let mut shown = String::with_capacity(name.len());
        for byte in name.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                    shown.push(char::from(byte))
                }
                other => shown.push_str(&format!("%{other:02X}")),
            }
        }
        shown
    }

    pub(super) fn prefixes(&self, prefixes: Vec<String>) -> Option<Vec<CommonPrefix>> {
        let shown = |prefix| CommonPrefix { prefix: Some(self.show(prefix)) };
        (!prefixes.is_empty()).then(|| prefixes.into_iter().map(shown).collect())
    }
}

/// An optional count of entries: at most a page, never negative.
pub(super) fn limit(asked: Option<i32>, name: &str) -> Result<usize, Refusal> {
    match asked {
        None => Ok(LIST_KEYS_MAX),
        Some(count) => usize::try_from(count).map(|count| count.min(LIST_KEYS_MAX)).map_err(|_| {
            Refusal::because(
                "InvalidArgument",
                format!("Argument {name} must be an integer between 0 and 2147483647"),
            )
            .with("ArgumentName", name)
            .with("ArgumentValue", count.to_string())
        }),
    }
}

/// A missing delimiter and an empty one are the same.
pub(super) fn delimiter(asked: &Option<String>) -> Option<String> {
    asked.clone().filter(|delimiter| !delimiter.is_empty())
}

async fn page(cx: &Context, bucket: &str, query: ListQuery) -> Result<ListPage, Refusal> {
    if query.limit == 0 {
        cx.objects.head_bucket(bucket).await?;
        return Ok(ListPage::default());
    }
    Ok(cx.objects.list(bucket, query).await?)
}

fn object(info: ObjectInfo, names: &Names, owner: Option<&Owner>) -> Object {
    Object {
        key: Some(names.show(info.key)),
        e_tag: etag(&info.etag),
        size: i64::try_from(info.size).ok(),
        last_modified: Some(timestamp(info.modified)),
        storage_class: Some(ObjectStorageClass::from(info.attributes.storage_class().to_owned())),
        checksum_algorithm: checksum_algorithms(&info.attributes.checksums),
        checksum_type: checksum_type(&info.attributes.checksums),
        owner: owner.cloned(),
        ..Default::default()
    }
}

pub(crate) async fn version_1(
    cx: Context,
    request: S3Request<ListObjectsInput>,
) -> Result<S3Response<ListObjectsOutput>, Refusal> {
    let input = request.input;
    let names = Names::new(input.encoding_type)?;
    let limit = limit(input.max_keys, "max-keys")?;
    let query = ListQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: delimiter(&input.delimiter),
        after: input.marker.clone().filter(|marker| !marker.is_empty()),
        limit,
    };
    let grouped = query.delimiter.is_some();
    let page = page(&cx, &input.bucket, query).await?;
    let contents = page.objects.into_iter().map(|info| object(info, &names, Some(&cx.owner))).collect();
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(names.show(input.prefix.unwrap_or_default())),
        marker: Some(names.show(input.marker.unwrap_or_default())),
        max_keys: i32::try_from(limit).ok(),
        is_truncated: Some(page.next.is_some()),
        contents: Some(contents),
        common_prefixes: names.prefixes(page.common_prefixes),
        delimiter: input.delimiter.map(|delimiter| names.show(delimiter)),
        // Without a delimiter AWS leaves it out: the last key is the marker.
        next_marker: page.next.filter(|_| grouped).map(|next| names.show(next)),
        encoding_type: names.encoding(),
        request_charged: None,
    }))
}

pub(crate) async fn version_2(
    cx: Context,
    request: S3Request<ListObjectsV2Input>,
) -> Result<S3Response<ListObjectsV2Output>, Refusal> {
    let input = request.input;
    let names = Names::new(input.encoding_type)?;
    let limit = limit(input.max_keys, "max-keys")?;
    let after = match input.continuation_token.as_deref() {
        Some(token) if !token.is_empty() => Some(read_token(token)?),
        _ => input.start_after.clone().filter(|start| !start.is_empty()),
    };
    let query = ListQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: delimiter(&input.delimiter),
        after,
        limit,
    };
    let page = page(&cx, &input.bucket, query).await?;
    let owner = input.fetch_owner.unwrap_or(false).then_some(&cx.owner);
    let count = page.objects.len() + page.common_prefixes.len();
    let contents = page.objects.into_iter().map(|info| object(info, &names, owner)).collect();
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(names.show(input.prefix.unwrap_or_default())),
        max_keys: i32::try_from(limit).ok(),
        key_count: i32::try_from(count).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_deref().map(write_token),
        contents: Some(contents),
        common_prefixes: names.prefixes(page.common_prefixes),
        delimiter: input.delimiter.map(|delimiter| names.show(delimiter)),
        encoding_type: names.encoding(),
        start_after: input.start_after.map(|start| names.show(start)),
        request_charged: None,
    }))
}

/// Where a page starts, opaque to clients.
fn write_token(after: &str) -> String {
    URL_SAFE_NO_PAD.encode(after)
}

fn read_token(token: &str) -> Result<String, Refusal> {
    let after = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    after.ok_or_else(|| {
        Refusal::because("InvalidArgument", "The continuation token provided is incorrect")
            .with("ArgumentName", "continuation-token")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_only_when_asked_for() {
        let name = "a b+c/é%2F\u{1}".to_owned();
        assert_eq!(Names::new(None).unwrap().show(name.clone()), name);
        let url = Names::new(Some(EncodingType::from_static(EncodingType::URL))).unwrap();
        assert_eq!(url.show(name), "a%20b%2Bc/%C3%A9%252F%01");
        assert!(Names::new(Some(EncodingType::from_static("rot13"))).is_err());
    }

    #[test]
    fn limits_are_capped_and_never_negative() {
        assert_eq!(limit(None, "max-keys"), Ok(1000));
        assert_eq!(limit(Some(5000), "max-keys"), Ok(1000));
        assert_eq!(limit(Some(0), "max-keys"), Ok(0));
        assert_eq!(limit(Some(-1), "max-keys").unwrap_err().code, "InvalidArgument");
    }

    #[test]
    fn a_token_names_any_key_and_nonsense_is_refused() {
        for key in ["a", "ü/\u{10ffff}", "a b\n"] {
            assert_eq!(read_token(&write_token(key)).as_deref(), Ok(key));
        }
        assert!(read_token("!").is_err());
    }
}
