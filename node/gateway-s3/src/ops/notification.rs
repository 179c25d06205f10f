//! What buckets ask to be told: read and set. Events themselves are queued by the catalog and sent by a worker.
//!
//! A target is named as a queue or a topic, in one of these forms; `NAME` is a webhook of the bucket's tenant, which
//! operators define:
//!
//! ```text
//! arn:holdfast:sqs::NAME:webhook    arn:holdfast:sns::NAME:webhook
//! arn:minio:sqs::NAME:webhook       as MinIO has it
//! arn:aws:sqs:REGION:ACCOUNT:NAME   arn:aws:sns:...  for tools that know no others
//! ```
//!
//! Sources: AWS, "PutBucketNotificationConfiguration", "Event notification types and destinations".

use holdfast_model::limits::KEY_SIZE_MAX;
use holdfast_object::{
    events::{
        EventKind, NOTIFICATION_NAME_SIZE_MAX, NotificationRule, Notifications, NotificationsError,
        TargetForm,
    },
    versioned::DocumentKind,
};
use s3s::{
    S3Request, S3Response,
    dto::{
        FilterRule, FilterRuleName, GetBucketNotificationConfigurationInput,
        GetBucketNotificationConfigurationOutput, NotificationConfigurationFilter,
        PutBucketNotificationConfigurationInput, PutBucketNotificationConfigurationOutput,
        QueueConfiguration, S3KeyFilter, TopicConfiguration,
    },
};

use crate::{errors::Refusal, ops::documents, service::Context};

/// Events of AWS that never happen here.
const NEVER: [&str; 5] = [
    "s3:ReducedRedundancyLostObject",
    "s3:ObjectRestore:",
    "s3:Replication:",
    "s3:LifecycleTransition",
    "s3:IntelligentTiering",
];

fn invalid(said: impl Into<String>, argument: &str, value: &str) -> Refusal {
    Refusal::because("InvalidArgument", said.into())
        .with("ArgumentName", argument)
        .with("ArgumentValue", value)
}

/// A target's name from an ARN.
fn target<'a>(arn: &'a str, form: TargetForm, region: &str, account: &str) -> Option<&'a str> {
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", partition, service, in_region, owner, resource] = parts.as_slice() else { return None };
    let service_fits = match form {
        TargetForm::Queue => *service == "sqs",
        TargetForm::Topic => *service == "sns",
    };
    let region_fits = in_region.is_empty() || *in_region == region;
    let name = match *partition {
        "holdfast" | "minio" if *resource == "webhook" => *owner,
        "aws" if owner.is_empty() || *owner == account => *resource,
        _ => return None,
    };
    (service_fits && region_fits && !name.is_empty()).then_some(name)
}

fn check_event(name: &str) -> Result<(), Refusal> {
    if EventKind::ALL.into_iter().any(|kind| kind.is_named_by(name)) {
        return Ok(());
    }
    if NEVER.iter().any(|never| name.starts_with(never)) {
        return Err(Refusal::not_implemented(&format!("The event {name}")));
    }
    Err(invalid("The event is not supported for notifications", "Event", name))
}

/// Prefix and suffix of a filter.
fn filter(
    wanted: Option<NotificationConfigurationFilter>,
) -> Result<(Option<String>, Option<String>), Refusal> {
    let rules = wanted.and_then(|filter| filter.key).and_then(|key| key.filter_rules).unwrap_or_default();
    let (mut prefix, mut suffix) = (None, None);
    for rule in rules {
        let name = rule.name.as_ref().map(|name| name.as_str().to_ascii_lowercase()).unwrap_or_default();
        let value = rule.value.unwrap_or_default();
        let place = match name.as_str() {
            FilterRuleName::PREFIX => &mut prefix,
            FilterRuleName::SUFFIX => &mut suffix,
            other => {
                return Err(invalid(
                    "filter rule name must be either prefix or suffix",
                    "FilterRule.Name",
                    other,
                ));
            }
        };
        if place.is_some() {
            let said = format!("Cannot specify more than one {name} rule in a filter.");
            return Err(invalid(said, "FilterRule.Name", &name));
        }
        if value.len() > KEY_SIZE_MAX {
            let said = "Size of filter rule value cannot exceed 1024 bytes in UTF-8 representation";
            return Err(invalid(said, "FilterRule.Value", &value));
        }
        *place = Some(value);
    }
    Ok((prefix, suffix))
}

/// One configuration as it was asked for.
struct Asked {
    form: TargetForm,
    id: Option<String>,
    arn: String,
    events: Vec<String>,
    filter: Option<NotificationConfigurationFilter>,
}

impl From<QueueConfiguration> for Asked {
    fn from(asked: QueueConfiguration) -> Self {
        let QueueConfiguration { id, queue_arn: arn, filter, events } = asked;
        let events = events.into_iter().map(String::from).collect();
        Self { form: TargetForm::Queue, id, arn, events, filter }
    }
}

impl From<TopicConfiguration> for Asked {
    fn from(asked: TopicConfiguration) -> Self {
        let TopicConfiguration { id, topic_arn: arn, filter, events } = asked;
        let events = events.into_iter().map(String::from).collect();
        Self { form: TargetForm::Topic, id, arn, events, filter }
    }
}

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutBucketNotificationConfigurationInput>,
) -> Result<S3Response<PutBucketNotificationConfigurationOutput>, Refusal> {
    let input = request.input;
    let done = Ok(S3Response::new(PutBucketNotificationConfigurationOutput {}));
    let wanted = input.notification_configuration;
    if wanted.event_bridge_configuration.is_some() {
        return Err(Refusal::not_implemented("Event notification to EventBridge"));
    }
    if wanted.lambda_function_configurations.is_some_and(|list| !list.is_empty()) {
        return Err(Refusal::not_implemented("Event notification to a function"));
    }
    let queues = wanted.queue_configurations.unwrap_or_default().into_iter().map(Asked::from);
    let topics = wanted.topic_configurations.unwrap_or_default().into_iter().map(Asked::from);
    let asked: Vec<Asked> = topics.chain(queues).collect();
    if asked.is_empty() {
        // Removing what is not there would be a command that older programs do not know.
        if documents::load(&cx, &input.bucket, DocumentKind::Notification).await?.is_some() {
            documents::remove(&cx, &input.bucket, DocumentKind::Notification).await?;
        }
        return done;
    }
    let Some(targets) = cx.objects.event_targets()? else {
        return Err(Refusal::not_implemented(
            "Event notification while nodes of the cluster are older than it",
        ));
    };
    let owner = &cx.call.access()?.bucket()?.owner;
    let account = owner.number.to_string();
    let mut rules = Vec::with_capacity(asked.len());
    for (at, Asked { form, id, arn, events, filter: wanted }) in asked.into_iter().enumerate() {
        events.iter().try_for_each(|name| check_event(name))?;
        if events.is_empty() {
            return Err(Refusal::new("MalformedXML"));
        }
        let known = target(&arn, form, &cx.region, &account).filter(|name| targets.contains(*name));
        let Some(target) = known.map(str::to_owned) else {
            let said = "Unable to validate the following destination configurations";
            return Err(invalid(said, &arn, "The destination does not exist"));
        };
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("{}-{at}", cx.call.id));
        if id.len() > NOTIFICATION_NAME_SIZE_MAX {
            return Err(invalid("The notification id is too long", "Id", &id));
        }
        let (prefix, suffix) = filter(wanted)?;
        rules.push(NotificationRule { id, form, arn, target, events, prefix, suffix });
    }
    let rules = Notifications { owner: owner.canonical.to_string(), rules };
    rules.check().map_err(|error| unsound(&error))?;
    documents::store(&cx, &input.bucket, DocumentKind::Notification, rules.encode()).await?;
    done
}

fn unsound(error: &NotificationsError) -> Refusal {
    match error {
        NotificationsError::Overlap(..) => Refusal::because(
            "InvalidArgument",
            "Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules if the prefixes are \
             overlapping for the same event type.",
        ),
        NotificationsError::SameId(id) => {
            invalid("Same ID used for multiple configurations. IDs must be unique", "Id", id)
        }
        other => Refusal::because("InvalidArgument", other.to_string()),
    }
}

fn shown_filter(rule: &NotificationRule) -> Option<NotificationConfigurationFilter> {
    let one = |name: &'static str, value: &Option<String>| {
        let value = value.clone()?;
        Some(FilterRule { name: Some(FilterRuleName::from_static(name)), value: Some(value) })
    };
    let rules: Vec<FilterRule> =
        [one("Prefix", &rule.prefix), one("Suffix", &rule.suffix)].into_iter().flatten().collect();
    let key = S3KeyFilter { filter_rules: Some(rules) };
    key.filter_rules
        .as_ref()
        .is_some_and(|rules| !rules.is_empty())
        .then_some(NotificationConfigurationFilter { key: Some(key) })
}

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetBucketNotificationConfigurationInput>,
) -> Result<S3Response<GetBucketNotificationConfigurationOutput>, Refusal> {
    let mut output = GetBucketNotificationConfigurationOutput::default();
    let body = documents::load(&cx, &request.input.bucket, DocumentKind::Notification).await?;
    let Some(body) = body else { return Ok(S3Response::new(output)) };
    let rules = Notifications::decode(&body).map_err(|_| Refusal::new("InternalError"))?;
    let (mut queues, mut topics) = (Vec::new(), Vec::new());
    for rule in rules.rules {
        let (filter, id) = (shown_filter(&rule), Some(rule.id));
        let events = rule.events.into_iter().map(Into::into).collect();
        match rule.form {
            TargetForm::Queue => queues.push(QueueConfiguration { events, filter, id, queue_arn: rule.arn }),
            TargetForm::Topic => topics.push(TopicConfiguration { events, filter, id, topic_arn: rule.arn }),
        }
    }
    output.queue_configurations = (!queues.is_empty()).then_some(queues);
    output.topic_configurations = (!topics.is_empty()).then_some(topics);
    Ok(S3Response::new(output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_named_in_each_form_and_no_other() {
        let queue = |arn| target(arn, TargetForm::Queue, "local", "123456789012");
        for arn in [
            "arn:holdfast:sqs::hook:webhook",
            "arn:minio:sqs::hook:webhook",
            "arn:minio:sqs:local:hook:webhook",
            "arn:aws:sqs:local:123456789012:hook",
        ] {
            assert_eq!(queue(arn), Some("hook"), "{arn}");
        }
        for arn in [
            "",
            "hook",
            "arn:holdfast:sns::hook:webhook",
            "arn:holdfast:sqs::hook:kafka",
            "arn:holdfast:sqs:elsewhere:hook:webhook",
            "arn:holdfast:sqs:::webhook",
            "arn:aws:sqs:local:999999999999:hook",
            "arn:aws:sqs:local:123456789012:hook:more",
        ] {
            assert_eq!(queue(arn), None, "{arn}");
        }
        let topic = target("arn:holdfast:sns::hook:webhook", TargetForm::Topic, "local", "1");
        assert_eq!(topic, Some("hook"));
    }

    #[test]
    fn events_that_never_happen_here_are_told_apart_from_those_that_are_none() {
        assert!(check_event("s3:ObjectCreated:*").is_ok());
        assert_eq!(check_event("s3:Replication:*").unwrap_err().code, "NotImplemented");
        assert_eq!(check_event("s3:ObjectCreated").unwrap_err().code, "InvalidArgument");
    }
}
