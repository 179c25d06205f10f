//! What concerns all partitions of a tenant, once it has several. Each partition decides by its own rows, and
//! who proposes puts the answers together:
//!
//! - deleting a bucket: it is closed everywhere, which each partition refuses that holds something of it; then
//!   nothing can come in, and it is deleted everywhere. Between the two it may be opened again.
//! - condemning stripes: each partition bars those it does not know; what all of them barred is nobody's.
//! - a quota: each partition has a share, and the shares add up to it.

use holdfast_model::{BucketId, PartitionId, StripeId};

use super::{
    buckets::remove,
    step,
    stripes::{SWEEP_MAX, bar_one, forget_condemned},
};
use crate::{
    partition::{Split, Writer},
    response::{Outcome, Refusal, Response},
    settings::Quota,
    used::Limits,
};

/// Decides a split. It is carried out behind the log entry (`split.rs`): until then the partition has all its keys.
pub(super) fn split(writer: &mut Writer<'_>, split: Split) -> rusqlite::Result<Outcome> {
    let into = split.into.get().cast_signed();
    if writer.db.prepare_cached("SELECT 1 FROM splits WHERE partition = ?1")?.exists([into])? {
        return Ok(Ok(Response::PartitionSplit));
    }
    if writer.open.clearing.phase != 0 || writer.open.split.is_some() {
        return Ok(Err(Refusal::Clearing));
    }
    if writer.open.range.halves().is_none() {
        return Ok(Err(Refusal::Invalid("a partition of a single hash cannot be split".to_owned())));
    }
    writer.db.prepare_cached("INSERT INTO splits VALUES (?1)")?.execute([into])?;
    writer.open.split = Some(split);
    Ok(Ok(Response::PartitionSplit))
}

pub(super) fn close(writer: &mut Writer<'_>, bucket: BucketId, token: [u8; 16]) -> rusqlite::Result<Outcome> {
    let row = step!(writer.bucket(bucket));
    if !row.used.is_empty() {
        return Ok(Err(Refusal::BucketNotEmpty));
    }
    row.closed = Some(token);
    Ok(Ok(Response::BucketClosed))
}

pub(super) fn reopen(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    token: [u8; 16],
) -> rusqlite::Result<Outcome> {
    let row = step!(writer.bucket(bucket));
    if row.closed == Some(token) {
        row.closed = None;
    }
    Ok(Ok(Response::BucketReopened))
}

/// Either every partition deletes the bucket or none: a token that is in force in one of them was put in force
/// in all, because only then is the deletion proposed, and every close and reopen since reached all of them.
pub(super) fn delete_closed(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    token: [u8; 16],
) -> rusqlite::Result<Outcome> {
    let row = *step!(writer.bucket(bucket));
    match row.closed {
        Some(closed) if closed == token && row.used.is_empty() => remove(writer, bucket, &row),
        Some(closed) => Ok(Err(Refusal::BucketClosed { token: closed })),
        None => Ok(Err(Refusal::BucketNotEmpty)),
    }
}

pub(super) fn bar(writer: &mut Writer<'_>, stripes: &[StripeId]) -> rusqlite::Result<Outcome> {
    if stripes.len() > SWEEP_MAX {
        return Ok(Err(Refusal::Invalid(format!("{} stripes barred at once", stripes.len()))));
    }
    forget_condemned(writer)?;
    let mut answers = Vec::with_capacity(stripes.len());
    for stripe in stripes {
        let known = writer.stripe_content(*stripe)?.is_some();
        if !known {
            bar_one(writer, *stripe)?;
        }
        answers.push(!known);
    }
    Ok(Ok(Response::Condemned(answers)))
}

pub(super) fn share_quota(writer: &mut Writer<'_>, before: u64, shares: &[(PartitionId, Quota)]) -> Outcome {
    if writer.open.quota_shares.cast_unsigned() != before {
        return Err(Refusal::Moved);
    }
    writer.open.quota_shares += 1;
    if let Some((_, share)) = shares.iter().find(|(partition, _)| *partition == writer.partition) {
        writer.open.quota = Limits::of(*share);
    }
    Ok(Response::QuotaShared)
}
