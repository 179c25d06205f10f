//! Reading rules: what AWS refuses is refused here, with its codes.

use std::collections::BTreeSet;

use holdfast_model::UnixMillis;
use holdfast_object::lifecycle::{
    Expiration, FilterForm, Lifecycle, LifecycleFilter, LifecycleRule as Rule, NoncurrentExpiration,
    NoncurrentTransition, RULE_ID_SIZE_MAX, RULES_MAX, Transition, TransitionTime,
};
use s3s::dto::{
    self, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration,
    NoncurrentVersionTransition, Tag, Timestamp, TransitionStorageClass,
};

use crate::{errors::Refusal, ops::class};

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// Noncurrent versions that a rule may keep (S3: 100).
const KEEP_NEWEST_MAX: u32 = 100;

pub(super) fn malformed() -> Refusal {
    Refusal::new("MalformedXML")
}

fn invalid(said: impl Into<String>) -> Refusal {
    Refusal::because("InvalidArgument", said.into())
}

fn request(said: impl Into<String>) -> Refusal {
    Refusal::because("InvalidRequest", said.into())
}

/// As AWS makes them: 48 characters.
fn random_id() -> String {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it is up");
    hex::encode(bytes)
}

/// Reads a whole configuration.
///
/// # Errors
/// What AWS answers to rules that are not sound.
pub(super) fn parse(given: Vec<LifecycleRule>, minimum_by_class: bool) -> Result<Lifecycle, Refusal> {
    if given.is_empty() || given.len() > RULES_MAX {
        return Err(malformed());
    }
    let mut ids = BTreeSet::new();
    let mut rules = Vec::with_capacity(given.len());
    for rule in given {
        let rule = parse_rule(rule)?;
        if !ids.insert(rule.id.clone()) {
            return Err(invalid("Rule ID must be unique. Found same ID for more than one rule"));
        }
        rules.push(rule);
    }
    Ok(Lifecycle { rules, minimum_by_class })
}

fn parse_rule(rule: LifecycleRule) -> Result<Rule, Refusal> {
    let id = match rule.id.filter(|id| !id.is_empty()) {
        Some(id) if id.len() > RULE_ID_SIZE_MAX => {
            return Err(invalid(format!("ID length should not exceed allowed limit of {RULE_ID_SIZE_MAX}")));
        }
        Some(id) => id,
        None => random_id(),
    };
    let enabled = match rule.status.as_str() {
        dto::ExpirationStatus::ENABLED => true,
        dto::ExpirationStatus::DISABLED => false,
        _ => return Err(malformed()),
    };
    let filter = parse_filter(rule.prefix, rule.filter)?;
    let expiration = rule.expiration.map(parse_expiration).transpose()?;
    let noncurrent = rule.noncurrent_version_expiration.map(parse_noncurrent).transpose()?;
    let abort_uploads_days = match rule.abort_incomplete_multipart_upload {
        None => None,
        Some(abort) => Some(positive(
            abort.days_after_initiation.ok_or_else(malformed)?,
            "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer",
        )?),
    };
    let transitions = rule.transitions.unwrap_or_default();
    let transitions = transitions.into_iter().map(parse_transition).collect::<Result<Vec<_>, _>>()?;
    let noncurrent_transitions = rule.noncurrent_version_transitions.unwrap_or_default();
    let noncurrent_transitions =
        noncurrent_transitions.into_iter().map(parse_noncurrent_transition).collect::<Result<Vec<_>, _>>()?;
    let rule = Rule {
        id,
        enabled,
        filter,
        expiration,
        noncurrent,
        abort_uploads_days,
        transitions,
        noncurrent_transitions,
    };
    check_together(&rule)?;
    Ok(rule)
}

/// What each part allows and the whole does not.
fn check_together(rule: &Rule) -> Result<(), Refusal> {
    let acts = rule.expiration.is_some()
        || rule.noncurrent.is_some()
        || rule.abort_uploads_days.is_some()
        || !rule.transitions.is_empty()
        || !rule.noncurrent_transitions.is_empty();
    if !acts {
        return Err(request("At least one action needs to be specified in a rule"));
    }
    let filter = &rule.filter;
    let sized = filter.larger_than.is_some() || filter.smaller_than.is_some();
    if rule.abort_uploads_days.is_some() && (sized || !filter.tags.is_empty()) {
        return Err(request("AbortIncompleteMultipartUpload cannot be specified with Tags or object sizes."));
    }
    if matches!(rule.expiration, Some(Expiration::ExpiredMarkers(_))) && !filter.tags.is_empty() {
        return Err(request("ExpiredObjectDeleteMarker cannot be specified with Tags."));
    }
    let by_days = |transition: &Transition| matches!(transition.when, TransitionTime::Days(_));
    let dated = |expiration: Option<Expiration>| match expiration? {
        Expiration::Days(_) => Some(false),
        Expiration::Date(_) => Some(true),
        Expiration::ExpiredMarkers(_) => None,
    };
    let kinds: BTreeSet<bool> = dated(rule.expiration)
        .into_iter()
        .chain(rule.transitions.iter().map(|transition| !by_days(transition)))
        .collect();
    if kinds.len() > 1 {
        return Err(request(
            "Found mixed 'Date' and 'Days' based Expiration and Transition actions in lifecycle rule.",
        ));
    }
    if let Some(Expiration::Days(days)) = rule.expiration
        && rule
            .transitions
            .iter()
            .any(|t| matches!(t.when, TransitionTime::Days(transition) if transition >= days))
    {
        return Err(invalid(
            "'Days' in the Expiration action must be greater than 'Days' in the Transition action",
        ));
    }
    Ok(())
}

fn parse_filter(
    rule_prefix: Option<String>,
    given: Option<LifecycleRuleFilter>,
) -> Result<LifecycleFilter, Refusal> {
    let filter = match (rule_prefix, given) {
        (Some(_), Some(_)) | (None, None) => return Err(malformed()),
        (Some(prefix), None) => {
            LifecycleFilter { form: FilterForm::Rule, prefix: Some(prefix), ..LifecycleFilter::default() }
        }
        (None, Some(given)) => {
            let conditions = usize::from(given.and.is_some())
                + usize::from(given.prefix.is_some())
                + usize::from(given.tag.is_some())
                + usize::from(given.object_size_greater_than.is_some())
                + usize::from(given.object_size_less_than.is_some());
            if conditions > 1 {
                return Err(malformed());
            }
            match given.and {
                Some(and) => LifecycleFilter {
                    form: FilterForm::And,
                    prefix: and.prefix,
                    tags: and.tags.unwrap_or_default().into_iter().map(tag).collect::<Result<_, _>>()?,
                    larger_than: size(and.object_size_greater_than)?,
                    smaller_than: size(and.object_size_less_than)?,
                },
                None => LifecycleFilter {
                    form: FilterForm::Single,
                    prefix: given.prefix,
                    tags: given.tag.into_iter().map(tag).collect::<Result<_, _>>()?,
                    larger_than: size(given.object_size_greater_than)?,
                    smaller_than: size(given.object_size_less_than)?,
                },
            }
        }
    };
    let names: BTreeSet<&String> = filter.tags.iter().map(|(name, _)| name).collect();
    if names.len() < filter.tags.len() {
        return Err(request("Duplicate Tag Keys are not allowed."));
    }
    if let (Some(least), Some(most)) = (filter.larger_than, filter.smaller_than)
        && least.saturating_add(1) >= most
    {
        return Err(request("'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'."));
    }
    Ok(filter)
}

fn tag(tag: Tag) -> Result<(String, String), Refusal> {
    match (tag.key, tag.value) {
        (Some(key), Some(value)) if !key.is_empty() => Ok((key, value)),
        _ => Err(malformed()),
    }
}

fn size(given: Option<i64>) -> Result<Option<u64>, Refusal> {
    given
        .map(|size| u64::try_from(size).map_err(|_| invalid("Object sizes of a filter must not be negative")))
        .transpose()
}

fn positive(given: i32, said: &'static str) -> Result<u32, Refusal> {
    u32::try_from(given).ok().filter(|days| *days > 0).ok_or_else(|| invalid(said))
}

fn midnight(date: Timestamp) -> Result<UnixMillis, Refusal> {
    let nanos = time::OffsetDateTime::from(date).unix_timestamp_nanos();
    let millis = u64::try_from(nanos / 1_000_000).ok().filter(|millis| millis % DAY_MILLIS == 0);
    millis
        .filter(|_| nanos % 1_000_000 == 0)
        .map(UnixMillis::new)
        .ok_or_else(|| invalid("'Date' must be at midnight GMT"))
}

fn parse_expiration(given: LifecycleExpiration) -> Result<Expiration, Refusal> {
    match (given.days, given.date, given.expired_object_delete_marker) {
        (Some(days), None, None) => {
            positive(days, "'Days' for Expiration action must be a positive integer").map(Expiration::Days)
        }
        (None, Some(date), None) => midnight(date).map(Expiration::Date),
        (None, None, Some(on)) => Ok(Expiration::ExpiredMarkers(on)),
        _ => Err(malformed()),
    }
}

fn keep_newest(given: Option<i32>) -> Result<u32, Refusal> {
    let Some(given) = given else { return Ok(0) };
    u32::try_from(given).ok().filter(|count| (1..=KEEP_NEWEST_MAX).contains(count)).ok_or_else(|| {
        invalid(format!("'NewerNoncurrentVersions' must be an integer from 1 to {KEEP_NEWEST_MAX}"))
    })
}

fn parse_noncurrent(given: NoncurrentVersionExpiration) -> Result<NoncurrentExpiration, Refusal> {
    let said = "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer";
    let days = positive(given.noncurrent_days.ok_or_else(malformed)?, said)?;
    Ok(NoncurrentExpiration { days, keep_newest: keep_newest(given.newer_noncurrent_versions)? })
}

fn transition_class(given: Option<TransitionStorageClass>) -> Result<String, Refusal> {
    let given = given.ok_or_else(malformed)?;
    match given.as_str() {
        // Nothing moves back to the classes objects begin in.
        "STANDARD" | "REDUCED_REDUNDANCY" => Err(malformed()),
        name => class::check(name).map(str::to_owned).map_err(|refusal| match refusal.code {
            "InvalidStorageClass" => malformed(),
            _ => refusal,
        }),
    }
}

fn not_negative(given: i32) -> Result<u32, Refusal> {
    u32::try_from(given).map_err(|_| invalid("'Days' in a Transition action must not be negative"))
}

fn parse_transition(given: dto::Transition) -> Result<Transition, Refusal> {
    // The moment first: what is malformed is so whatever the class.
    let when = match (given.days, given.date) {
        (Some(days), None) => TransitionTime::Days(not_negative(days)?),
        (None, Some(date)) => TransitionTime::Date(midnight(date)?),
        _ => return Err(malformed()),
    };
    Ok(Transition { when, class: transition_class(given.storage_class)? })
}

fn parse_noncurrent_transition(given: NoncurrentVersionTransition) -> Result<NoncurrentTransition, Refusal> {
    Ok(NoncurrentTransition {
        class: transition_class(given.storage_class)?,
        days: not_negative(given.noncurrent_days.ok_or_else(malformed)?)?,
        keep_newest: keep_newest(given.newer_noncurrent_versions)?,
    })
}
