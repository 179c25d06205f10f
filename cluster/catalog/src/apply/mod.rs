//! Commands applied to an open partition. Every function decides first and mutates then.

mod buckets;
mod contents;
mod objects;
mod stripes;
mod uploads;

use holdfast_model::UnixMillis;

pub use stripes::{CONDEMNED_KEPT_MILLIS, SWEEP_MAX};

use crate::{
    command::Op,
    partition::Writer,
    response::{Outcome, Refusal, Response},
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

/// Applies one command but [`Op::CreatePartition`], which makes the file itself.
pub(crate) fn apply(writer: &mut Writer<'_>, at: UnixMillis, op: Op) -> rusqlite::Result<Outcome> {
    match op {
        Op::CreatePartition { .. } => Ok(Ok(Response::PartitionCreated)),
        Op::CreateBucket { bucket, name } => buckets::create(writer, at, bucket, &name),
        Op::DeleteBucket { name } => buckets::delete(writer, &name),
        Op::PutObject(put) => objects::put(writer, at, &put),
        Op::DeleteObjects { bucket, items } => objects::delete(writer, at, bucket, &items),
        Op::CreateUpload { bucket, key, upload, attributes } => {
            uploads::create(writer, at, bucket, &key, upload, &attributes)
        }
        Op::PutPart(put) => uploads::put_part(writer, at, &put),
        Op::CompleteUpload(complete) => uploads::complete(writer, at, &complete),
        Op::AbortUpload { bucket, key, upload } => uploads::abort(writer, at, bucket, &key, upload),
        Op::RemoveGarbage { ids } => stripes::remove_garbage(writer, &ids),
        Op::MoveShards(moves) => stripes::move_shards(writer, at, &moves),
        Op::Condemn { stripes } => stripes::condemn(writer, at, &stripes),
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
