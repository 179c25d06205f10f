//! Lifecycle rules of a bucket: put, get, delete; and the header that tells when an object expires.
//!
//! What a rule means is the catalog's (`holdfast_object::lifecycle`); here it is read from XML, refused
//! with AWS's codes where it is not sound, and shown as it was given.

mod parse;

use holdfast_object::{
    lifecycle::{Expiration, FilterForm, Lifecycle, LifecycleRule as Rule, Transition, TransitionTime},
    versioned::{DocumentKind, Expiry},
};
use s3s::{
    S3Request, S3Response,
    dto::{
        self, AbortIncompleteMultipartUpload, DeleteBucketLifecycleInput, DeleteBucketLifecycleOutput,
        GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput, LifecycleExpiration,
        LifecycleRule, LifecycleRuleAndOperator, LifecycleRuleFilter, NoncurrentVersionExpiration,
        NoncurrentVersionTransition, PutBucketLifecycleConfigurationInput,
        PutBucketLifecycleConfigurationOutput, Tag, TransitionDefaultMinimumObjectSize,
        TransitionStorageClass,
    },
};

use self::parse::{malformed, parse};
use crate::{
    errors::Refusal,
    ops::{documents, shared::timestamp},
    service::Context,
};

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutBucketLifecycleConfigurationInput>,
) -> Result<S3Response<PutBucketLifecycleConfigurationOutput>, Refusal> {
    let input = request.input;
    let given = input.lifecycle_configuration.ok_or_else(malformed)?;
    let by_class = match input.transition_default_minimum_object_size.as_ref().map(|size| size.as_str()) {
        None | Some(TransitionDefaultMinimumObjectSize::ALL_STORAGE_CLASSES_128K) => false,
        Some(TransitionDefaultMinimumObjectSize::VARIES_BY_STORAGE_CLASS) => true,
        Some(_) => return Err(Refusal::because("InvalidRequest", "Unknown default minimum object size.")),
    };
    let rules = parse(given.rules, by_class)?;
    let body = rules.encode().map_err(|error| Refusal::because("InvalidRequest", error.to_string()))?;
    if body.len() > DocumentKind::Lifecycle.size_max() {
        return Err(Refusal::because("InvalidRequest", "The lifecycle configuration is too long."));
    }
    documents::store(&cx, &input.bucket, DocumentKind::Lifecycle, body).await?;
    Ok(S3Response::new(PutBucketLifecycleConfigurationOutput {
        transition_default_minimum_object_size: Some(minimum(by_class)),
    }))
}

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetBucketLifecycleConfigurationInput>,
) -> Result<S3Response<GetBucketLifecycleConfigurationOutput>, Refusal> {
    let bucket = &request.input.bucket;
    let body = documents::load(&cx, bucket, DocumentKind::Lifecycle)
        .await?
        .ok_or_else(|| Refusal::new("NoSuchLifecycleConfiguration"))?;
    let stored =
        Lifecycle::decode(&body).map_err(|error| Refusal::because("InternalError", error.to_string()))?;
    Ok(S3Response::new(GetBucketLifecycleConfigurationOutput {
        transition_default_minimum_object_size: Some(minimum(stored.minimum_by_class)),
        rules: Some(stored.rules.into_iter().map(shown).collect()),
    }))
}

pub(crate) async fn delete(
    cx: Context,
    request: S3Request<DeleteBucketLifecycleInput>,
) -> Result<S3Response<DeleteBucketLifecycleOutput>, Refusal> {
    documents::remove(&cx, &request.input.bucket, DocumentKind::Lifecycle).await?;
    Ok(S3Response::new(DeleteBucketLifecycleOutput {}))
}

fn minimum(by_class: bool) -> TransitionDefaultMinimumObjectSize {
    TransitionDefaultMinimumObjectSize::from_static(if by_class {
        TransitionDefaultMinimumObjectSize::VARIES_BY_STORAGE_CLASS
    } else {
        TransitionDefaultMinimumObjectSize::ALL_STORAGE_CLASSES_128K
    })
}

fn number(value: u32) -> Option<i32> {
    i32::try_from(value).ok()
}

/// A rule as it was given.
fn shown(rule: Rule) -> LifecycleRule {
    let Rule { id, enabled, filter, expiration, noncurrent, abort_uploads_days, .. } = rule;
    let tags: Vec<Tag> =
        filter.tags.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect();
    let signed = |size: Option<u64>| size.and_then(|size| i64::try_from(size).ok());
    let (larger, smaller) = (signed(filter.larger_than), signed(filter.smaller_than));
    let (prefix, filter) = match filter.form {
        FilterForm::Rule => (filter.prefix, None),
        FilterForm::Single => {
            let single = LifecycleRuleFilter {
                and: None,
                object_size_greater_than: larger,
                object_size_less_than: smaller,
                prefix: filter.prefix,
                tag: tags.into_iter().next(),
            };
            (None, Some(single))
        }
        FilterForm::And => {
            let and = LifecycleRuleAndOperator {
                object_size_greater_than: larger,
                object_size_less_than: smaller,
                prefix: filter.prefix,
                tags: (!tags.is_empty()).then_some(tags),
            };
            (None, Some(LifecycleRuleFilter { and: Some(and), ..LifecycleRuleFilter::default() }))
        }
    };
    let expiration = expiration.map(|expiration| match expiration {
        Expiration::Days(days) => LifecycleExpiration { days: number(days), ..Default::default() },
        Expiration::Date(date) => LifecycleExpiration { date: Some(timestamp(date)), ..Default::default() },
        Expiration::ExpiredMarkers(on) => {
            LifecycleExpiration { expired_object_delete_marker: Some(on), ..Default::default() }
        }
    });
    let kept = |count: u32| number(count).filter(|count| *count > 0);
    let transitions: Vec<dto::Transition> = rule.transitions.into_iter().map(shown_transition).collect();
    let noncurrent_transitions: Vec<NoncurrentVersionTransition> = rule
        .noncurrent_transitions
        .into_iter()
        .map(|transition| NoncurrentVersionTransition {
            newer_noncurrent_versions: kept(transition.keep_newest),
            noncurrent_days: number(transition.days),
            storage_class: Some(TransitionStorageClass::from(transition.class)),
        })
        .collect();
    LifecycleRule {
        abort_incomplete_multipart_upload: abort_uploads_days
            .map(|days| AbortIncompleteMultipartUpload { days_after_initiation: number(days) }),
        expiration,
        filter,
        id: Some(id),
        noncurrent_version_expiration: noncurrent.map(|noncurrent| NoncurrentVersionExpiration {
            newer_noncurrent_versions: kept(noncurrent.keep_newest),
            noncurrent_days: number(noncurrent.days),
        }),
        noncurrent_version_transitions: (!noncurrent_transitions.is_empty())
            .then_some(noncurrent_transitions),
        prefix,
        status: dto::ExpirationStatus::from_static(if enabled {
            dto::ExpirationStatus::ENABLED
        } else {
            dto::ExpirationStatus::DISABLED
        }),
        transitions: (!transitions.is_empty()).then_some(transitions),
    }
}

fn shown_transition(transition: Transition) -> dto::Transition {
    let (days, date) = match transition.when {
        TransitionTime::Days(days) => (number(days), None),
        TransitionTime::Date(date) => (None, Some(timestamp(date))),
    };
    dto::Transition { date, days, storage_class: Some(TransitionStorageClass::from(transition.class)) }
}

/// `x-amz-expiration`: when an object expires and by which rule.
pub(crate) fn header(expiry: Option<&Expiry>) -> Option<String> {
    let Expiry { at, rule } = expiry?;
    let mut date = Vec::new();
    timestamp(*at).format(dto::TimestampFormat::HttpDate, &mut date).ok()?;
    let date = String::from_utf8(date).ok()?;
    Some(format!("expiry-date=\"{date}\", rule-id=\"{}\"", urlencoding::encode(rule)))
}

#[cfg(test)]
mod tests {
    use s3s::dto::Timestamp;

    use super::*;

    fn rule() -> LifecycleRule {
        LifecycleRule {
            abort_incomplete_multipart_upload: None,
            expiration: Some(LifecycleExpiration { days: Some(1), ..Default::default() }),
            filter: None,
            id: Some("r".into()),
            noncurrent_version_expiration: None,
            noncurrent_version_transitions: None,
            prefix: Some("p/".into()),
            status: dto::ExpirationStatus::from_static(dto::ExpirationStatus::ENABLED),
            transitions: None,
        }
    }

    fn code(rules: Vec<LifecycleRule>) -> &'static str {
        parse(rules, false).unwrap_err().code
    }

    fn filtered(filter: LifecycleRuleFilter) -> LifecycleRule {
        LifecycleRule { prefix: None, filter: Some(filter), ..rule() }
    }

    #[test]
    fn rules_are_shown_as_they_were_given() {
        let tag = |name: &str| Tag { key: Some(name.into()), value: Some("v".into()) };
        let and = LifecycleRuleAndOperator {
            prefix: Some("p".into()),
            tags: Some(vec![tag("a"), tag("b")]),
            object_size_greater_than: Some(10),
            ..Default::default()
        };
        let single = LifecycleRuleFilter { tag: Some(tag("a")), ..Default::default() };
        for given in [
            rule(),
            filtered(LifecycleRuleFilter::default()),
            filtered(LifecycleRuleFilter { prefix: Some(String::new()), ..Default::default() }),
            filtered(single),
            filtered(LifecycleRuleFilter { and: Some(and), ..Default::default() }),
            LifecycleRule {
                noncurrent_version_expiration: Some(NoncurrentVersionExpiration {
                    noncurrent_days: Some(3),
                    newer_noncurrent_versions: Some(2),
                }),
                ..rule()
            },
        ] {
            let stored = parse(vec![given.clone()], false).unwrap();
            let read = Lifecycle::decode(&stored.encode().unwrap()).unwrap();
            assert_eq!(read.rules.into_iter().map(shown).collect::<Vec<_>>(), [given]);
        }
    }

    #[test]
    fn rules_that_are_not_sound_are_refused_with_the_code_of_aws() {
        let expiring = |days, date: Option<&str>, marker| LifecycleRule {
            expiration: Some(LifecycleExpiration {
                days,
                date: date.map(|date| Timestamp::parse(dto::TimestampFormat::DateTime, date).unwrap()),
                expired_object_delete_marker: marker,
            }),
            ..rule()
        };
        let status = |text: &'static str| dto::ExpirationStatus::from_static(text);
        let cases = [
            (vec![rule(), rule()], "InvalidArgument"),
            (vec![LifecycleRule { id: Some("i".repeat(256)), ..rule() }], "InvalidArgument"),
            (vec![LifecycleRule { status: status("enabled"), ..rule() }], "MalformedXML"),
            (vec![LifecycleRule { prefix: None, ..rule() }], "MalformedXML"),
            (vec![LifecycleRule { filter: Some(Default::default()), ..rule() }], "MalformedXML"),
            (vec![LifecycleRule { expiration: None, ..rule() }], "InvalidRequest"),
            (vec![expiring(Some(0), None, None)], "InvalidArgument"),
            (vec![expiring(Some(-1), None, None)], "InvalidArgument"),
            (vec![expiring(Some(1), None, Some(true))], "MalformedXML"),
            (vec![expiring(None, Some("2030-01-01T00:00:01Z"), None)], "InvalidArgument"),
            (vec![], "MalformedXML"),
        ];
        for (rules, expected) in cases {
            assert_eq!(code(rules.clone()), expected, "{rules:?}");
        }
        assert!(parse(vec![expiring(None, Some("2017-09-27T00:00:00Z"), None)], false).is_ok());
        let transition = |class: &'static str| LifecycleRule {
            transitions: Some(vec![dto::Transition {
                days: Some(0),
                date: None,
                storage_class: Some(TransitionStorageClass::from_static(class)),
            }]),
            ..rule()
        };
        assert!(parse(vec![transition("STANDARD_IA")], false).is_ok());
        assert_eq!(code(vec![transition("STANDARD")]), "MalformedXML");
        assert_eq!(code(vec![transition("CHEAP")]), "MalformedXML");
        assert_eq!(code(vec![transition("GLACIER")]), "NotImplemented");
    }

    #[test]
    fn rules_without_an_id_get_one() {
        let nameless = |id| LifecycleRule { id, ..rule() };
        let rules = parse(vec![nameless(None), nameless(Some(String::new()))], false).unwrap().rules;
        assert!(rules.iter().all(|rule| rule.id.len() == 48) && rules[0].id != rules[1].id);
    }
}
