//! The message of an event, as AWS has it. Pure.
//!
//! Source: AWS, "Event message structure": versions 2.1, and 2.3 for lifecycle, tagging and access control lists.

use std::fmt::Write as _;

use holdfast_model::UnixMillis;
use holdfast_object::events::{Event, EventKind, VersionRef};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// Who lifecycle is, as AWS says it.
const LIFECYCLE_PRINCIPAL: &str = "s3.amazonaws.com";

/// The message of an event with the number `no`, in a cluster's region.
#[must_use]
pub fn message(event: &Event, no: u64, region: &str) -> Value {
    let time = iso_8601(event.at);
    let request = &event.origin.request;
    if event.kind == EventKind::Test {
        return json!({
            "Service": "Amazon S3",
            "Event": event.kind.name(),
            "Time": time,
            "Bucket": event.bucket,
            "RequestId": request,
            "HostId": "",
        });
    }
    let (version, principal) = match event.kind {
        EventKind::Expired | EventKind::ExpiredMarker => ("2.3", LIFECYCLE_PRINCIPAL),
        EventKind::TagsPut | EventKind::TagsDelete | EventKind::AclPut => {
            ("2.3", event.origin.principal.as_str())
        }
        _ => ("2.1", event.origin.principal.as_str()),
    };
    let mut object = json!({
        "key": encode_key(&event.key),
        // Of two events of one key the later one has the greater, compared as text.
        "sequencer": format!("{no:016X}"),
    });
    if let Some(size) = event.size {
        object["size"] = size.into();
    }
    if let Some(etag) = &event.etag {
        object["eTag"] = etag.as_str().into();
    }
    if let Some(version) = event.version {
        object["versionId"] = version_text(version).into();
    }
    json!({ "Records": [{
        "eventVersion": version,
        "eventSource": "aws:s3",
        "awsRegion": region,
        "eventTime": time,
        "eventName": event.kind.name().trim_start_matches("s3:"),
        "userIdentity": { "principalId": principal },
        "requestParameters": { "sourceIPAddress": event.origin.address },
        "responseElements": { "x-amz-request-id": request, "x-amz-id-2": "" },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": event.rule,
            "bucket": {
                "name": event.bucket,
                "ownerIdentity": { "principalId": event.owner },
                "arn": format!("arn:aws:s3:::{}", event.bucket),
            },
            "object": object,
        },
    }] })
}

fn version_text(version: VersionRef) -> String {
    if version.null { "null".to_owned() } else { version.id.to_string() }
}

/// As forms are encoded, with slashes as they are: `a b/ä` is `a+b/%C3%A4`.
fn encode_key(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b' ' => text.push('+'),
            b'/' | b'-' | b'_' | b'.' | b'*' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                text.push(char::from(byte))
            }
            // Writing to a string does not fail.
            other => drop(write!(text, "%{other:02X}")),
        }
    }
    text
}

/// `2026-11-28T01:02:03.004Z`
fn iso_8601(at: UnixMillis) -> String {
    let nanoseconds = i128::from(at.get()) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second, millis) = (at.hour(), at.minute(), at.second(), at.millisecond());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use holdfast_model::VersionId;
    use holdfast_object::events::{Origin, WrittenBy};

    use super::*;

    fn event(kind: EventKind) -> Event {
        let id = VersionId::new(UnixMillis::new(1), [0; 10]);
        Event {
            kind,
            at: UnixMillis::new(1_795_827_723_004),
            bucket: "b".into(),
            owner: "owner".into(),
            key: "a b/ä+1.jpg".into(),
            version: Some(VersionRef { id, null: false }),
            size: Some(7),
            etag: Some("etag".into()),
            rule: "rule".into(),
            origin: Origin {
                by: WrittenBy::Put,
                principal: "AWS:someone".into(),
                address: "192.0.2.1".into(),
                request: "req".into(),
            },
        }
    }

    #[test]
    fn an_event_is_told_as_aws_tells_it() {
        let message = message(&event(EventKind::CompleteUpload), 255, "local");
        let id = VersionId::new(UnixMillis::new(1), [0; 10]).to_string();
        let expected = json!({ "Records": [{
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "local",
            "eventTime": "2026-11-28T01:02:03.004Z",
            "eventName": "ObjectCreated:CompleteMultipartUpload",
            "userIdentity": { "principalId": "AWS:someone" },
            "requestParameters": { "sourceIPAddress": "192.0.2.1" },
            "responseElements": { "x-amz-request-id": "req", "x-amz-id-2": "" },
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "rule",
                "bucket": {
                    "name": "b",
                    "ownerIdentity": { "principalId": "owner" },
                    "arn": "arn:aws:s3:::b",
                },
                "object": {
                    "key": "a+b/%C3%A4%2B1.jpg",
                    "size": 7,
                    "eTag": "etag",
                    "versionId": id,
                    "sequencer": "00000000000000FF",
                },
            },
        }] });
        assert_eq!(message, expected);
    }

    #[test]
    fn a_deletion_has_no_content_and_lifecycle_is_named() {
        let gone = Event { size: None, etag: None, version: None, ..event(EventKind::Expired) };
        let record = &message(&gone, 1, "local")["Records"][0];
        assert_eq!(record["eventName"], "LifecycleExpiration:Delete");
        assert_eq!(
            (&record["eventVersion"], &record["userIdentity"]["principalId"]),
            (&json!("2.3"), &json!(LIFECYCLE_PRINCIPAL))
        );
        let object = record["s3"]["object"].as_object().unwrap();
        assert_eq!(object.keys().collect::<Vec<_>>(), ["key", "sequencer"]);
    }

    #[test]
    fn a_test_event_has_its_own_form() {
        let message = message(&event(EventKind::Test), 1, "local");
        assert_eq!((&message["Event"], &message["Bucket"]), (&json!("s3:TestEvent"), &json!("b")));
        assert!(message.get("Records").is_none());
    }
}
