//! Commands applied to an open partition. Every function decides first and mutates then.

mod buckets;
mod clearing;
mod contents;
mod events;
mod family;
mod lifecycle;
mod objects;
mod replace;
mod requests;
mod stripes;
mod uploads;
mod versions;

use holdfast_model::UnixMillis;

pub(crate) use buckets::{BUCKET_ROW_COLUMNS, bucket_row};
pub use clearing::CLEARING_MILLIS_MIN;
pub(crate) use clearing::{OF_LOWER_HALF, OF_UPPER_HALF};
pub use requests::REQUESTS_KEPT_MILLIS;
pub use stripes::{CONDEMNED_KEPT_MILLIS, SWEEP_MAX};
pub(crate) use versions::rank;

use crate::{
    command::{Command, Op},
    partition::{Split, Writer},
    response::{Outcome, Refusal, Response, decode_outcome, encode_outcome},
    rows::malformed,
};

/// What a step of a command comes to. The outer error is SQLite's and stops the replica; the inner one
/// is the command's refusal.
type Step<T> = rusqlite::Result<Result<T, Refusal>>;

/// Unwraps a [`Step`]: errors and refusals both leave the function.
macro_rules! step {
    ($step:expr) => {
        match $step? {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}
use step;

/// Applies one command but [`Op::CreatePartition`] and [`Op::DropPartition`], which are about the file itself. A request that was done
/// before gets the answer it got then.
pub(crate) fn apply(writer: &mut Writer<'_>, command: Command) -> rusqlite::Result<Outcome> {
    let Command { at, request, op, .. } = command;
    let Some(request) = request else { return apply_op(writer, op) };
    match writer.request(at, request)? {
        requests::Known::TooOld => Ok(Err(Refusal::TooOld)),
        requests::Known::Done(answer) => decode_outcome(&answer).map_err(|_| malformed(0, "stored answer")),
        requests::Known::Fresh => {
            let outcome = apply_op(writer, op)?;
            writer.remember(at, request, &encode_outcome(&outcome))?;
            Ok(outcome)
        }
    }
}

/// The key that a command is about, if it is about one.
fn key_of(op: &Op) -> Option<&str> {
    match op {
        Op::PutObject(put) => Some(&put.key),
        Op::SetObject(set) => Some(&set.key),
        Op::PutPart(put) => Some(&put.key),
        Op::CompleteUpload(complete) => Some(&complete.key),
        Op::CreateUpload { key, .. } | Op::AbortUpload { key, .. } => Some(key),
        // Looked at when it is unwrapped.
        Op::WithOrigin { .. } => None,
        _ => None,
    }
}

fn apply_op(writer: &mut Writer<'_>, op: Op) -> rusqlite::Result<Outcome> {
    if key_of(&op).is_some_and(|key| !writer.open.range.has(key.as_bytes())) {
        return Ok(Err(Refusal::Moved));
    }
    let moves = matches!(op, Op::MoveShards(_) | Op::ReplaceStripes(_));
    if moves && writer.open.clearing.phase != 0 {
        return Ok(Err(Refusal::Clearing));
    }
    match op {
        Op::CreatePartition { .. } => Ok(Ok(Response::PartitionCreated)),
        Op::DropPartition { .. } => Ok(Ok(Response::PartitionDropped)),
        Op::SplitPartition { into, database_id } => family::split(writer, Split { into, database_id }),
        Op::ClearPartition => clearing::clear(writer),
        Op::CloseBucket { bucket, token } => family::close(writer, bucket, token),
        Op::ReopenBucket { bucket, token } => family::reopen(writer, bucket, token),
        Op::DeleteClosedBucket { bucket, token } => family::delete_closed(writer, bucket, token),
        Op::Bar { stripes } => family::bar(writer, &stripes),
        Op::ShareQuota { before, shares } => Ok(family::share_quota(writer, before, &shares)),
        Op::SetQuota { quota } => Ok(buckets::set_quota(writer, quota)),
        Op::CreateBucket { bucket, name, object_lock } => {
            buckets::create(writer, bucket, &name, object_lock, &[])
        }
        Op::CreateBucketWith { bucket, name, object_lock, documents } => {
            buckets::create(writer, bucket, &name, object_lock, &documents)
        }
        Op::SetBucket { bucket, change } => buckets::set(writer, bucket, change),
        Op::DeleteBucket { name } => buckets::delete(writer, &name),
        Op::PutObject(put) => objects::put(writer, &put),
        Op::SetObject(set) => objects::set(writer, &set),
        Op::DeleteObjects { bucket, items } => objects::delete(writer, bucket, &items),
        Op::CreateUpload { bucket, key, upload, attributes, extras } => {
            uploads::create(writer, bucket, &key, upload, &attributes, &extras)
        }
        Op::PutPart(put) => uploads::put_part(writer, &put),
        Op::CompleteUpload(complete) => uploads::complete(writer, &complete),
        Op::AbortUpload { bucket, key, upload } => uploads::abort(writer, bucket, &key, upload),
        Op::RemoveGarbage { ids } => stripes::remove_garbage(writer, &ids),
        Op::MoveShards(moves) => stripes::move_shards(writer, &moves),
        Op::Condemn { stripes } => stripes::condemn(writer, &stripes),
        Op::Lifecycle { bucket, items } => lifecycle::apply(writer, bucket, &items),
        Op::ReplaceStripes(replace) => replace::replace(writer, replace),
        Op::WithOrigin { origin, op } => events::with_origin(writer, origin, *op),
        Op::SettleEvents { items } => events::settle(writer, &items),
    }
}

/// Time as a column.
fn millis(at: UnixMillis) -> i64 {
    at.get().cast_signed()
}

/// A size as a column. Sizes are checked against their limits before they get here.
fn bytes(size: u64) -> i64 {
    size.cast_signed()
}
