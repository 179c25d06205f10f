//! Roots, their splittings, and what they wrap.

use std::collections::BTreeMap;

use holdfast_model::{RootEpoch, SplitId, TenantId};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Applied, DONE, not_found};
use crate::{
    command::Refusal,
    keys::{HOLDERS_MAX, KeyCommand, RECOVERY_SETS_MAX, RecoveryRecord, Rewrapped, Splitting},
};

pub(super) fn apply(db: &Connection, command: &KeyCommand) -> Applied {
    match command {
        KeyCommand::Found { epoch, root, splitting, cluster_key, at } => {
            if current(db)?.is_some() {
                return DONE;
            }
            if let Err(refusal) = check(splitting) {
                return Ok(Err(refusal));
            }
            db.execute("INSERT INTO keys VALUES (1, ?1, NULL)", [cluster_key])?;
            insert(db, *epoch, root.as_bytes(), splitting, at.get())?;
            DONE
        }
        KeyCommand::Split { epoch, replaces, splitting } => split(db, *epoch, *replaces, splitting),
        KeyCommand::SetThreshold(wanted) => {
            if *wanted == Some(0) {
                return Ok(Err(Refusal::Invalid("a threshold of no shares".to_owned())));
            }
            db.execute("UPDATE keys SET threshold_wanted = ?1", [wanted])?;
            DONE
        }
        KeyCommand::NoteRecovery(record) => note_recovery(db, record),
        KeyCommand::Roll { epoch, root, splitting, cluster_key, tenants, at } => {
            if current(db)? == Some((*epoch, splitting.split)) {
                return DONE;
            }
            if let Some(refusal) = check_roll(db, *epoch, splitting, tenants)? {
                return Ok(Err(refusal));
            }
            for (tenant, key) in tenants {
                set_key(db, *tenant, key)?;
            }
            db.execute("UPDATE keys SET cluster_key = ?1", [cluster_key])?;
            insert(db, *epoch, root.as_bytes(), splitting, at.get())?;
            DONE
        }
        KeyCommand::Retire { epoch } => {
            if current(db)?.map(|(current, _)| current) != Some(*epoch) {
                return Ok(Err(stale("root")));
            }
            db.execute("DELETE FROM roots WHERE epoch < ?1", [epoch.get()])?;
            DONE
        }
        KeyCommand::SetTenantKey { tenant, key } => {
            if !may_wrap(db, &key.now)? {
                return Ok(Err(stale("root")));
            }
            if super::tenants::is_alive(db, *tenant)? {
                if set_key(db, *tenant, key)? == 0 { Ok(Err(stale("tenant key"))) } else { DONE }
            } else {
                Ok(Err(not_found("tenant", tenant)))
            }
        }
    }
}

/// Whether the root that wrapped something is the current one: nothing else may be kept, or it would be
/// lost with a root that is on its way out.
pub(super) fn may_wrap(db: &Connection, wrapped: &[u8]) -> rusqlite::Result<bool> {
    let epoch = wrapped.first_chunk().map(|bytes| RootEpoch::new(u32::from_be_bytes(*bytes)));
    // Before the first root is recorded nothing can be wrapped by an older one.
    Ok(current(db)?.is_none_or(|(current, _)| Some(current) == epoch))
}

pub(super) fn stale(what: &str) -> Refusal {
    Refusal::Stale { what: what.to_owned() }
}

fn current(db: &Connection) -> rusqlite::Result<Option<(RootEpoch, SplitId)>> {
    db.prepare_cached("SELECT epoch, split FROM roots ORDER BY epoch DESC LIMIT 1")?
        .query_row([], |row| Ok((RootEpoch::new(row.get(0)?), SplitId::from_bytes(row.get(1)?))))
        .optional()
}

fn check(splitting: &Splitting) -> Result<(), Refusal> {
    let holders = splitting.holders.len();
    let fits = (1..=HOLDERS_MAX).contains(&holders)
        && (1..=holders).contains(&usize::from(splitting.threshold))
        && splitting.holders.values().all(|x| *x != 0);
    if fits { Ok(()) } else { Err(Refusal::Invalid(format!("a splitting of {holders}"))) }
}

fn insert(
    db: &Connection,
    epoch: RootEpoch,
    key_id: &[u8; 16],
    splitting: &Splitting,
    at: u64,
) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO roots VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            epoch.get(),
            key_id,
            splitting.split.as_bytes(),
            splitting.threshold,
            holders(splitting),
            at.cast_signed()
        ],
    )
    .map(drop)
}

fn holders(splitting: &Splitting) -> String {
    serde_json::to_string(&splitting.holders).expect("numbers serialise")
}

fn split(db: &Connection, epoch: RootEpoch, replaces: SplitId, splitting: &Splitting) -> Applied {
    if let Err(refusal) = check(splitting) {
        return Ok(Err(refusal));
    }
    let changed = db.execute(
        "UPDATE roots SET split = ?1, threshold = ?2, holders = ?3
         WHERE epoch = ?4 AND split IN (?5, ?1) AND epoch = (SELECT max(epoch) FROM roots)",
        params![
            splitting.split.as_bytes(),
            splitting.threshold,
            holders(splitting),
            epoch.get(),
            replaces.as_bytes()
        ],
    )?;
    if changed == 0 { Ok(Err(stale("splitting"))) } else { DONE }
}

fn note_recovery(db: &Connection, record: &RecoveryRecord) -> Applied {
    db.execute(
        "INSERT OR IGNORE INTO recovery_sets VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            record.at.get().cast_signed(),
            record.set,
            record.epoch.get(),
            record.threshold,
            record.count
        ],
    )?;
    db.execute(
        "DELETE FROM recovery_sets WHERE (at, set_tag) NOT IN
         (SELECT at, set_tag FROM recovery_sets ORDER BY at DESC, set_tag LIMIT ?1)",
        params![RECOVERY_SETS_MAX as i64],
    )?;
    DONE
}

fn check_roll(
    db: &Connection,
    epoch: RootEpoch,
    splitting: &Splitting,
    tenants: &BTreeMap<TenantId, Rewrapped>,
) -> rusqlite::Result<Option<Refusal>> {
    if let Err(refusal) = check(splitting) {
        return Ok(Some(refusal));
    }
    let Some((now, _)) = current(db)? else { return Ok(Some(Refusal::NoCluster)) };
    if now.get() + 1 != epoch.get() {
        return Ok(Some(stale("root")));
    }
    // Every tenant, each as it is now: one left out would be lost with the old root.
    let mut statement = db.prepare_cached("SELECT tenant, wrapped_key FROM tenants")?;
    let known: BTreeMap<TenantId, Vec<u8>> = statement
        .query_map([], |row| Ok((TenantId::from_bytes(row.get(0)?), row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let whole = known.len() == tenants.len()
        && known.iter().all(|(tenant, wrapped)| tenants.get(tenant).is_some_and(|key| key.was == *wrapped));
    Ok((!whole).then(|| stale("set of tenants")))
}

fn set_key(db: &Connection, tenant: TenantId, key: &Rewrapped) -> rusqlite::Result<usize> {
    db.execute(
        "UPDATE tenants SET wrapped_key = ?3 WHERE tenant = ?1 AND wrapped_key IN (?2, ?3)",
        params![tenant.as_bytes(), key.was, key.now],
    )
}
