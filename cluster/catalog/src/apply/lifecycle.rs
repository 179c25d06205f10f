//! Steps of lifecycle rules. The worker judged a version some time ago; here each step is taken only if that
//! version still stands where it stood, so that nothing written meanwhile is touched.

use holdfast_model::{BucketId, VersionId, limits::DELETE_KEYS_MAX};

use super::{Step, objects::tell_deleted, step, versions::Version};
use crate::{
    command::{LifecycleItem, LifecycleStep},
    events::EventKind,
    partition::Writer,
    response::{Deleted, Outcome, Refusal, Response},
    settings::Versioning,
    used::Used,
};

pub(super) fn apply(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    items: &[LifecycleItem],
) -> rusqlite::Result<Outcome> {
    if items.len() > DELETE_KEYS_MAX {
        return Ok(Err(Refusal::Invalid(format!("{} lifecycle steps in one command", items.len()))));
    }
    step!(writer.bucket(bucket));
    let mut answers = Vec::with_capacity(items.len());
    for item in items {
        let answer = take(writer, bucket, item)?;
        if let Ok(deleted) = &answer {
            tell_deleted(writer, bucket, &item.key, deleted, (EventKind::Expired, EventKind::ExpiredMarker))?;
        }
        answers.push(answer);
    }
    Ok(Ok(Response::ObjectsDeleted(answers)))
}

fn take(writer: &mut Writer<'_>, bucket: BucketId, item: &LifecycleItem) -> Step<Deleted> {
    if !writer.open.range.has(item.key.as_bytes()) {
        return Ok(Err(Refusal::Moved));
    }
    let row = *step!(writer.bucket(bucket));
    let newest = writer.newest(row.no, &item.key)?;
    let is_newest = newest.as_ref().is_some_and(|newest| newest.id == item.version);
    match &item.step {
        LifecycleStep::ExpireCurrent { marker } => {
            let Some(current) = newest.filter(|newest| is_newest && !newest.is_marker()) else {
                return Ok(Ok(Deleted::Nothing));
            };
            if row.versioning == Versioning::Off {
                return remove(writer, bucket, &item.key, &current);
            }
            let proposed = VersionId::new(writer.now, *marker);
            let plan = writer.plan(&row, &item.key, proposed, Some(&current))?;
            step!(writer.charge_plan(bucket, &plan, 0, true, Used::default()));
            let marker = writer.write_marker(row.no, &item.key, &plan)?;
            Ok(Ok(Deleted::Marked { marker }))
        }
        LifecycleStep::ExpireNoncurrent => match writer.old_version(row.no, &item.key, item.version)? {
            Some(version) if !is_newest => remove(writer, bucket, &item.key, &version),
            _ => Ok(Ok(Deleted::Nothing)),
        },
        LifecycleStep::ExpireMarker => {
            let Some(marker) = newest.filter(|newest| is_newest && newest.is_marker()) else {
                return Ok(Ok(Deleted::Nothing));
            };
            if writer.count_old(row.no, &item.key)? > 1 {
                return Ok(Ok(Deleted::Nothing));
            }
            remove(writer, bucket, &item.key, &marker)
        }
        LifecycleStep::Attributes(attributes) => {
            let found = match newest.filter(|_| is_newest) {
                Some(newest) => Some(newest),
                None => writer.old_version(row.no, &item.key, item.version)?,
            };
            if let Some(version) = found.filter(|version| !version.is_marker()) {
                writer.update_version(row.no, &item.key, &version, "attributes", Some(attributes))?;
            }
            Ok(Ok(Deleted::Nothing))
        }
    }
}

fn remove(writer: &mut Writer<'_>, bucket: BucketId, key: &str, version: &Version) -> Step<Deleted> {
    if version.flags.locked(version.retain_until, writer.now, false) {
        return Ok(Err(Refusal::Locked));
    }
    step!(writer.remove_version(bucket, key, version));
    Ok(Ok(Deleted::Removed { version: version.shown(), marker: version.is_marker() }))
}
