//! Objects: put, delete, and changes of what is kept beside their content.

use holdfast_model::{
    BucketId, VersionId,
    limits::{DELETE_KEYS_MAX, KEY_SIZE_MAX, PUT_SIZE_MAX},
};

use super::{
    Step,
    events::Told,
    step,
    versions::{NewObject, Version},
};
use crate::{
    command::{Condition, DeleteItem, ObjectChange, PutObject, SetObject},
    events::EventKind,
    partition::Writer,
    protect::{ACL_SIZE_MAX, ObjectExtras, TAGS_SIZE_MAX, may_replace},
    response::{BucketStateRule, Deleted, Outcome, Refusal, Response},
    settings::Versioning,
    used::{BucketRow, Used},
};

/// An ETag that matches any object.
const ANY: &str = "*";

pub(super) fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > KEY_SIZE_MAX {
        return Err(Refusal::Invalid(format!("key of {} bytes", key.len())));
    }
    Ok(())
}

/// Checks what is to be kept beside an object that is stored in `bucket`.
pub(super) fn check_extras(bucket: &BucketRow, extras: &ObjectExtras) -> Result<(), Refusal> {
    if let Some(fault) = extras.fault() {
        return Err(Refusal::Invalid(fault.to_owned()));
    }
    if (extras.legal_hold || extras.retention.is_some()) && !bucket.object_lock {
        return Err(Refusal::BucketState(BucketStateRule::NoObjectLock));
    }
    Ok(())
}

impl Condition {
    pub(super) fn check(&self, current: Option<&Version>) -> Result<(), Refusal> {
        if self.if_absent && current.is_some() && !holdfast_planted::is("AnythingIsAbsent") {
            return Err(Refusal::PreconditionFailed);
        }
        if holdfast_planted::is("AnyTagMatches") && current.is_some() {
            return Ok(());
        }
        check_etag(self.if_etag.as_deref(), current)
    }
}

fn check_etag(expected: Option<&str>, current: Option<&Version>) -> Result<(), Refusal> {
    match (expected, current) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Refusal::NoSuchKey),
        (Some(etag), Some(current)) if etag == ANY || etag == current.etag => Ok(()),
        (Some(_), Some(_)) => Err(Refusal::PreconditionFailed),
    }
}

pub(super) fn put(writer: &mut Writer<'_>, put: &PutObject) -> rusqlite::Result<Outcome> {
    if let Err(refusal) = check_key(&put.key) {
        return Ok(Err(refusal));
    }
    if put.size > PUT_SIZE_MAX {
        return Ok(Err(Refusal::TooLarge { size: put.size }));
    }
    let bucket = *step!(writer.bucket(put.bucket));
    if let Err(refusal) = check_extras(&bucket, &put.extras) {
        return Ok(Err(refusal));
    }
    let current = writer.current(bucket.no, &put.key)?;
    if holdfast_planted::is("OlderWins")
        && let Some(current) = current.as_ref().filter(|current| current.size > put.size)
    {
        return Ok(Ok(Response::ObjectPut { version: current.shown(), modified: current.modified }));
    }
    if let Some(current) = current.as_ref().filter(|c| c.id == put.version) {
        return Ok(Ok(Response::ObjectPut { version: current.shown(), modified: current.modified }));
    }
    if let Err(refusal) = put.condition.check(current.as_ref()) {
        return Ok(Err(refusal));
    }
    step!(writer.admit(put.size, &put.body));
    let plan = writer.plan(&bucket, &put.key, put.version, current.as_ref())?;
    step!(writer.charge_plan(put.bucket, &plan, put.size, false, Used::default()));
    let content = writer.insert_content(put.size, &put.wrapped_key, &put.body)?;
    let object = NewObject {
        key: &put.key,
        size: put.size,
        etag: &put.etag,
        upload: None,
        attributes: &put.attributes,
        extras: &put.extras,
        content,
    };
    let version = writer.write_object(&bucket, &plan, &object)?;
    let kind = writer.written_kind();
    let told = Told { kind, key: &put.key, version, content: Some((put.size, &put.etag)) };
    writer.tell(put.bucket, &told)?;
    Ok(Ok(Response::ObjectPut { version, modified: writer.now }))
}

pub(super) fn delete(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    items: &[DeleteItem],
) -> rusqlite::Result<Outcome> {
    if items.len() > DELETE_KEYS_MAX {
        return Ok(Err(Refusal::Invalid(format!("{} keys in one delete", items.len()))));
    }
    step!(writer.bucket(bucket));
    let mut answers = Vec::with_capacity(items.len());
    for item in items {
        let answer = delete_one(writer, bucket, item)?;
        if let Ok(deleted) = &answer {
            tell_deleted(writer, bucket, &item.key, deleted, (EventKind::Delete, EventKind::DeleteMarker))?;
        }
        answers.push(answer);
    }
    Ok(Ok(Response::ObjectsDeleted(answers)))
}

/// Tells what a deletion came to: of the first kind what is gone for good, of the second a marker.
pub(super) fn tell_deleted(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    key: &str,
    deleted: &Deleted,
    (removed, marked): (EventKind, EventKind),
) -> rusqlite::Result<()> {
    let (kind, version) = match deleted {
        Deleted::Nothing => return Ok(()),
        Deleted::Removed { version, .. } => (removed, *version),
        Deleted::Marked { marker } => (marked, *marker),
    };
    writer.tell(bucket, &Told { kind, key, version, content: None })
}

fn delete_one(writer: &mut Writer<'_>, bucket: BucketId, item: &DeleteItem) -> Step<Deleted> {
    if !writer.open.range.has(item.key.as_bytes()) {
        return Ok(Err(Refusal::Moved));
    }
    let row = *step!(writer.bucket(bucket));
    if let Some(selector) = item.version {
        let found = writer.find_version(&row, &item.key, selector)?;
        if let Err(refusal) = check_etag(item.if_etag.as_deref(), found.as_ref()) {
            return Ok(Err(refusal));
        }
        let Some(version) = found else { return Ok(Ok(Deleted::Nothing)) };
        if version.flags.locked(version.retain_until, writer.now, item.bypass_governance) {
            return Ok(Err(Refusal::Locked));
        }
        step!(writer.remove_version(bucket, &item.key, &version));
        return Ok(Ok(Deleted::Removed { version: version.shown(), marker: version.is_marker() }));
    }
    let current = writer.current(row.no, &item.key)?;
    if let Err(refusal) = check_etag(item.if_etag.as_deref(), current.as_ref()) {
        return Ok(Err(refusal));
    }
    if row.versioning == Versioning::Off {
        let Some(current) = current else { return Ok(Ok(Deleted::Nothing)) };
        if holdfast_planted::is("DeletesAreLost") {
            return Ok(Ok(Deleted::Removed { version: current.shown(), marker: false }));
        }
        step!(writer.remove_version(bucket, &item.key, &current));
        return Ok(Ok(Deleted::Removed { version: current.shown(), marker: false }));
    }
    if let Err(refusal) = check_key(&item.key) {
        return Ok(Err(refusal));
    }
    let proposed = VersionId::new(writer.now, item.marker);
    let plan = writer.plan(&row, &item.key, proposed, current.as_ref())?;
    step!(writer.charge_plan(bucket, &plan, 0, true, Used::default()));
    let marker = writer.write_marker(row.no, &item.key, &plan)?;
    Ok(Ok(Deleted::Marked { marker }))
}

pub(super) fn set(writer: &mut Writer<'_>, set: &SetObject) -> rusqlite::Result<Outcome> {
    let bucket = *step!(writer.bucket(set.bucket));
    let found = match set.version {
        None => writer.current(bucket.no, &set.key)?,
        Some(selector) => writer.find_version(&bucket, &set.key, selector)?,
    };
    let Some(version) = found else {
        return Ok(Err(if set.version.is_some() { Refusal::NoSuchVersion } else { Refusal::NoSuchKey }));
    };
    if version.is_marker() {
        return Ok(Err(Refusal::DeleteMarker));
    }
    let blob = |bytes: &bytes::Bytes| (!bytes.is_empty()).then(|| bytes.to_vec());
    match &set.change {
        ObjectChange::Tags(tags) if tags.len() > TAGS_SIZE_MAX => {
            return Ok(Err(Refusal::Invalid("tags that are too long".into())));
        }
        ObjectChange::Acl(acl) if acl.len() > ACL_SIZE_MAX => {
            return Ok(Err(Refusal::Invalid("an access control list that is too long".into())));
        }
        ObjectChange::Tags(tags) => {
            writer.update_version(bucket.no, &set.key, &version, "tags", blob(tags).as_deref())?;
            let kind = if tags.is_empty() { EventKind::TagsDelete } else { EventKind::TagsPut };
            tell_set(writer, set, &version, kind)?;
        }
        ObjectChange::Acl(acl) => {
            writer.update_version(bucket.no, &set.key, &version, "acl", blob(acl).as_deref())?;
            tell_set(writer, set, &version, EventKind::AclPut)?;
        }
        _ if !bucket.object_lock => {
            return Ok(Err(Refusal::BucketState(BucketStateRule::NoObjectLock)));
        }
        ObjectChange::LegalHold(on) => {
            let flags = version.flags.with_hold_named(*on);
            writer.update_flags(bucket.no, &set.key, &version, flags, version.retain_until)?;
        }
        ObjectChange::Retention { retention, bypass_governance } => {
            let old = version.flags.retention(version.retain_until);
            if !may_replace(old, *retention, writer.now, *bypass_governance) {
                return Ok(Err(Refusal::Locked));
            }
            let (flags, until) = version.flags.with_retention(*retention);
            writer.update_flags(bucket.no, &set.key, &version, flags, until)?;
        }
    }
    Ok(Ok(Response::ObjectSet { version: version.shown() }))
}

fn tell_set(
    writer: &mut Writer<'_>,
    set: &SetObject,
    version: &Version,
    kind: EventKind,
) -> rusqlite::Result<()> {
    let content = Some((version.size, version.etag.as_str()));
    writer.tell(set.bucket, &Told { kind, key: &set.key, version: version.shown(), content })
}
