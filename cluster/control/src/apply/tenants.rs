//! Tenants, their partitions, levels and access keys.

use holdfast_model::{GroupId, Level, PartitionId, TenantId, TenantLimits, UnixMillis};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Applied, DONE, check_name, exists, found, not_found, word};
use crate::{
    command::{NewTenant, Refusal, Response},
    features::FEATURE_LEVEL_SPLITS,
    view::TenantState,
};

/// Partitions of one group at most: each costs open files and caches on every node.
pub const PARTITIONS_PER_GROUP_MAX: u32 = 4096;

/// A new tenant's partition goes to the group that hosts the fewest.
pub(super) fn create(db: &Connection, new: &NewTenant) -> Applied {
    let same = db
        .prepare_cached(
            "SELECT partition_no, group_no FROM partitions WHERE tenant = ?1 ORDER BY partition_no",
        )?
        .query_row([new.tenant.as_bytes()], partition_of)
        .optional()?;
    if let Some((partition, group)) = same {
        return Ok(Ok(Response::TenantCreated(partition, group)));
    }
    if let Err(refusal) =
        check_name("tenant", &new.name).and_then(|()| check_name("access key", &new.access_key))
    {
        return Ok(Err(refusal));
    }
    if exists(db, "SELECT 1 FROM tenants WHERE name = ?1", [&new.name])? {
        return Ok(Err(Refusal::NameTaken { what: "tenant".to_owned(), name: new.name.clone() }));
    }
    if !super::keys::may_wrap(db, &new.wrapped_key)? {
        return Ok(Err(super::keys::stale("root")));
    }
    if let Some(refusal) = insert_access_key(db, new.tenant, &new.access_key, &new.sealed_secret, new.at)? {
        return Ok(Err(refusal));
    }
    let partition = next_partition(db)?;
    let group = db.query_row(
        "SELECT g.group_no FROM groups g LEFT JOIN partitions p ON p.group_no = g.group_no
         WHERE g.group_no > 0 GROUP BY g.group_no ORDER BY count(p.partition_no), g.group_no LIMIT 1",
        [],
        |row| row.get(0).map(GroupId::new),
    )?;
    db.execute(
        "INSERT INTO tenants VALUES (?1, ?2, ?3, ?4, ?5, 'active', ?6)",
        params![
            new.tenant.as_bytes(),
            new.name,
            new.database_id.as_bytes(),
            new.wrapped_key,
            new.level.map(|level| level.to_string()),
            new.at.get().cast_signed()
        ],
    )?;
    db.execute(
        "INSERT INTO partitions (partition_no, tenant, group_no) VALUES (?1, ?2, ?3)",
        params![partition.get().cast_signed(), new.tenant.as_bytes(), group.get()],
    )?;
    Ok(Ok(Response::TenantCreated(partition, group)))
}

/// A number for a half of a partition. The catalog group is told afterwards, and again until it has done it.
pub(super) fn split(db: &Connection, partition: PartitionId, of: u32) -> Applied {
    let found = db
        .prepare_cached("SELECT tenant, group_no FROM partitions WHERE partition_no = ?1")?
        .query_row([partition.get().cast_signed()], |row| {
            Ok((TenantId::from_bytes(row.get(0)?), GroupId::new(row.get(1)?)))
        })
        .optional()?;
    let Some((tenant, group)) = found else { return Ok(Err(not_found("partition", &partition))) };
    if let Err(refusal) = super::features::require(db, FEATURE_LEVEL_SPLITS)? {
        return Ok(Err(refusal));
    }
    if !is_alive(db, tenant)? {
        return Ok(Err(not_found("tenant", &tenant)));
    }
    let count = |sql: &str, value: &dyn rusqlite::ToSql| -> rusqlite::Result<u32> {
        db.prepare_cached(sql)?.query_row([value], |row| row.get(0))
    };
    if count("SELECT count(*) FROM partitions WHERE tenant = ?1", tenant.as_bytes())? != of {
        return Ok(Err(Refusal::Changed(format!("partitions of tenant {tenant}"))));
    }
    if count("SELECT count(*) FROM partitions WHERE group_no = ?1", &group.get())? >= PARTITIONS_PER_GROUP_MAX
    {
        return Ok(Err(Refusal::TooLarge { limit: u64::from(PARTITIONS_PER_GROUP_MAX) }));
    }
    let into = next_partition(db)?;
    db.execute(
        "INSERT INTO partitions (partition_no, tenant, group_no, split_from) VALUES (?1, ?2, ?3, ?4)",
        params![into.get().cast_signed(), tenant.as_bytes(), group.get(), partition.get().cast_signed()],
    )?;
    Ok(Ok(Response::PartitionAdded(into, group)))
}

fn next_partition(db: &Connection) -> rusqlite::Result<PartitionId> {
    db.query_row(
        "UPDATE cluster SET next_partition = next_partition + 1 RETURNING next_partition - 1",
        [],
        |row| Ok(PartitionId::new(row.get::<_, i64>(0)?.cast_unsigned())),
    )
}

pub(super) fn set_state(db: &Connection, tenant: TenantId, state: TenantState) -> Applied {
    if state == TenantState::Shredding {
        return Ok(Err(Refusal::Invalid("a tenant is destroyed by an order of its own".to_owned())));
    }
    let changed = db.execute(
        "UPDATE tenants SET state = ?2 WHERE tenant = ?1 AND state <> 'shredding'",
        params![tenant.as_bytes(), word(&state)],
    )?;
    found(changed, "tenant", &tenant)
}

pub(super) fn set_limits(db: &Connection, tenant: TenantId, limits: &TenantLimits) -> Applied {
    if !is_alive(db, tenant)? {
        return Ok(Err(not_found("tenant", &tenant)));
    }
    if let Err(why) = limits.check() {
        return Ok(Err(Refusal::Invalid(why)));
    }
    let large = |limit: Option<u64>| limit.map(u64::cast_signed);
    db.execute(
        "INSERT INTO tenant_limits VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (tenant) DO UPDATE SET
         requests_per_second = ?2, requests_at_once = ?3, in_bytes_per_second = ?4, out_bytes_per_second = ?5",
        params![
            tenant.as_bytes(),
            limits.requests_per_second,
            limits.requests_at_once,
            large(limits.in_bytes_per_second),
            large(limits.out_bytes_per_second)
        ],
    )?;
    DONE
}

pub(super) fn set_level(db: &Connection, tenant: Option<TenantId>, level: Option<Level>) -> Applied {
    let level = level.map(|level| level.to_string());
    match (tenant, level) {
        (Some(tenant), level) => {
            let sql = "UPDATE tenants SET level = ?2 WHERE tenant = ?1";
            found(db.execute(sql, params![tenant.as_bytes(), level])?, "tenant", &tenant)
        }
        (None, Some(level)) => {
            db.execute("UPDATE cluster SET level = ?1", [level])?;
            DONE
        }
        (None, None) => Ok(Err(Refusal::Invalid("the cluster's default level must be a level".to_owned()))),
    }
}

pub(super) fn create_access_key(
    db: &Connection,
    tenant: TenantId,
    access_key: &str,
    sealed_secret: &[u8],
    at: UnixMillis,
) -> Applied {
    if !is_alive(db, tenant)? {
        return Ok(Err(not_found("tenant", &tenant)));
    }
    if let Err(refusal) = check_name("access key", access_key) {
        return Ok(Err(refusal));
    }
    match insert_access_key(db, tenant, access_key, sealed_secret, at)? {
        Some(refusal) => Ok(Err(refusal)),
        None => DONE,
    }
}

/// Whether a tenant is there and not being destroyed.
pub(super) fn is_alive(db: &Connection, tenant: TenantId) -> rusqlite::Result<bool> {
    exists(db, "SELECT 1 FROM tenants WHERE tenant = ?1 AND state <> 'shredding'", [tenant.as_bytes()])
}

fn insert_access_key(
    db: &Connection,
    tenant: TenantId,
    access_key: &str,
    sealed: &[u8],
    at: UnixMillis,
) -> rusqlite::Result<Option<Refusal>> {
    let owner = db
        .prepare_cached("SELECT tenant FROM access_keys WHERE access_key = ?1")?
        .query_row([access_key], |row| row.get(0))
        .optional()?
        .map(TenantId::from_bytes);
    if let Some(owner) = owner {
        let taken = Refusal::NameTaken { what: "access key".to_owned(), name: access_key.to_owned() };
        return Ok((owner != tenant).then_some(taken));
    }
    db.execute(
        "INSERT INTO access_keys (access_key, tenant, sealed_secret, created) VALUES (?1, ?2, ?3, ?4)",
        params![access_key, tenant.as_bytes(), sealed, at.get().cast_signed()],
    )?;
    Ok(None)
}

pub(super) fn partition_of(row: &Row<'_>) -> rusqlite::Result<(PartitionId, GroupId)> {
    Ok((PartitionId::new(row.get::<_, i64>(0)?.cast_unsigned()), GroupId::new(row.get(1)?)))
}
