//! What each command does to the tables. Decides first, then writes: a refusal writes nothing.

use holdfast_model::{ClusterId, GroupId, NodeId, PartitionId, TenantId, limits::NODES_MAX};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    command::{Command, NewTenant, Outcome, Refusal, RegisterNode, Response},
    view::NodeState,
};

/// What a command does: an answer, or an error of SQLite that stops the replica.
type Applied = rusqlite::Result<Outcome>;

const DONE: Applied = Ok(Ok(Response::Done));

pub(crate) fn apply(db: &Connection, command: &Command) -> Applied {
    if !matches!(command, Command::InitCluster { .. }) && !founded(db)? {
        return Ok(Err(Refusal::NoCluster));
    }
    match command {
        Command::InitCluster { cluster, name, region, level, catalog_groups, first } => {
            let existing = db
                .query_row("SELECT id FROM cluster", [], |row| row.get(0))
                .optional()?
                .map(ClusterId::from_bytes);
            match existing {
                Some(existing) if existing == *cluster => {
                    return Ok(Ok(Response::Registered(NodeId::new(1))));
                }
                Some(existing) => return Ok(Err(Refusal::ClusterExists(existing))),
                None => {}
            }
            db.execute(
                "INSERT INTO cluster VALUES (1, ?1, ?2, ?3, ?4, ?5, 1, 1, 1, ?6)",
                params![
                    cluster.as_bytes(),
                    name,
                    region,
                    level.to_string(),
                    catalog_groups,
                    first.at.get().cast_signed()
                ],
            )?;
            let node = insert_node(db, first, NodeState::Active)?;
            for group in 0..=*catalog_groups {
                set_voters(db, GroupId::new(group), &[node].into())?;
            }
            Ok(Ok(Response::Registered(node)))
        }
        Command::RegisterNode(request) => register(db, request),
        Command::ActivateNode(node) => set_node_state(db, *node, NodeState::Active),
        Command::RemoveNode(node) => set_node_state(db, *node, NodeState::Removed),
        Command::UpdateNode { node, peer, services } => {
            let changed = db.execute(
                "UPDATE nodes SET peer = ?2, s3 = ?3, admin = ?4, metrics = ?5 WHERE node = ?1",
                params![node_no(*node), peer.to_string(), services.s3, services.admin, services.metrics],
            )?;
            found(db, changed, "node", node)
        }
        Command::RegisterDrives { node, drives, at } => {
            for drive in drives {
                db.execute(
                    "INSERT INTO drives VALUES (?1, ?2, ?3, ?4, 'active', ?5)
                     ON CONFLICT (drive) DO UPDATE SET node = ?2, path = ?3, capacity = ?4",
                    params![
                        drive.drive.as_bytes(),
                        node_no(*node),
                        drive.path,
                        drive.capacity.get().cast_signed(),
                        at.get().cast_signed()
                    ],
                )?;
            }
            bump_epoch(db)?;
            DONE
        }
        Command::SetDriveState { drive, state } => {
            let changed = db.execute(
                "UPDATE drives SET state = ?2 WHERE drive = ?1",
                params![drive.as_bytes(), word(state)],
            )?;
            found(db, changed, "drive", drive)
        }
        Command::SetGroupVoters { group, voters } => {
            set_voters(db, *group, voters)?;
            bump_epoch(db)?;
            DONE
        }
        Command::CreateTenant(tenant) => create_tenant(db, tenant),
        Command::SetTenantState { tenant, state } => {
            let changed = db.execute(
                "UPDATE tenants SET state = ?2 WHERE tenant = ?1",
                params![tenant.as_bytes(), word(state)],
            )?;
            found(db, changed, "tenant", tenant)
        }
        Command::SetLevel { tenant: Some(tenant), level } => {
            let level = level.map(|level| level.to_string());
            let changed = db.execute(
                "UPDATE tenants SET level = ?2 WHERE tenant = ?1",
                params![tenant.as_bytes(), level],
            )?;
            found(db, changed, "tenant", tenant)
        }
        Command::SetLevel { tenant: None, level } => {
            if let Some(level) = level {
                db.execute("UPDATE cluster SET level = ?1", [level.to_string()])?;
            }
            DONE
        }
        Command::CreateAccessKey { tenant, access_key, sealed_secret, at } => {
            if !exists(db, "SELECT 1 FROM tenants WHERE tenant = ?1", tenant)? {
                return Ok(Err(not_found("tenant", tenant)));
            }
            insert_access_key(db, access_key, *tenant, sealed_secret, at.get())
        }
        Command::DeleteAccessKey { access_key } => {
            db.execute("DELETE FROM access_keys WHERE access_key = ?1", [access_key])?;
            DONE
        }
        Command::SetOperator { name, password_hash, role } => {
            db.execute(
                "INSERT INTO operators VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET password_hash = ?2, role = ?3",
                params![name, password_hash, role],
            )?;
            DONE
        }
        Command::CreateJoinToken { hash, expires } => {
            db.execute(
                "INSERT OR IGNORE INTO join_tokens VALUES (?1, ?2, NULL)",
                params![hash, expires.get().cast_signed()],
            )?;
            DONE
        }
        Command::PutSecret { name, sealed } => {
            db.execute(
                "INSERT INTO secrets VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET sealed = ?2",
                params![name, sealed],
            )?;
            DONE
        }
    }
}

fn founded(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM cluster)", [], |row| row.get(0))
}

fn register(db: &Connection, request: &RegisterNode) -> Applied {
    let same =
        db.query_row("SELECT node FROM nodes WHERE request = ?1", [request.request], node_of).optional()?;
    if let Some(node) = same {
        return Ok(Ok(Response::Registered(node)));
    }
    let token = db
        .query_row("SELECT expires, used_by FROM join_tokens WHERE hash = ?1", [request.token_hash], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, Option<i64>>(1)?))
        })
        .optional()?;
    match token {
        None => return Ok(Err(Refusal::TokenUnknown)),
        Some((_, Some(node))) => return Ok(Err(Refusal::TokenUsed(NodeId::new(node.cast_unsigned())))),
        Some((expires, None)) if expires <= request.at.get() => return Ok(Err(Refusal::TokenExpired)),
        Some(_) => {}
    }
    let taken = db
        .query_row("SELECT 1 FROM nodes WHERE name = ?1 AND state <> 'removed'", [&request.name], |_| Ok(()))
        .optional()?;
    if taken.is_some() {
        return Ok(Err(Refusal::NameTaken { what: "node".to_owned(), name: request.name.clone() }));
    }
    let count: i64 =
        db.query_row("SELECT count(*) FROM nodes WHERE state <> 'removed'", [], |row| row.get(0))?;
    if count >= NODES_MAX as i64 {
        return Ok(Err(Refusal::TooManyNodes));
    }
    let node = insert_node(db, request, NodeState::Joining)?;
    db.execute(
        "UPDATE join_tokens SET used_by = ?2 WHERE hash = ?1",
        params![request.token_hash, node_no(node)],
    )?;
    Ok(Ok(Response::Registered(node)))
}

fn insert_node(db: &Connection, request: &RegisterNode, state: NodeState) -> rusqlite::Result<NodeId> {
    let node =
        db.query_row("UPDATE cluster SET next_node = next_node + 1 RETURNING next_node - 1", [], node_of)?;
    db.execute(
        "INSERT INTO nodes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            node_no(node),
            request.request,
            request.name,
            request.peer.to_string(),
            request.services.s3,
            request.services.admin,
            request.services.metrics,
            word(&state),
            request.at.get().cast_signed()
        ],
    )?;
    bump_epoch(db)?;
    Ok(node)
}

fn set_node_state(db: &Connection, node: NodeId, state: NodeState) -> Applied {
    let changed =
        db.execute("UPDATE nodes SET state = ?2 WHERE node = ?1", params![node_no(node), word(&state)])?;
    bump_epoch(db)?;
    found(db, changed, "node", &node)
}

fn set_voters(
    db: &Connection,
    group: GroupId,
    voters: &std::collections::BTreeSet<NodeId>,
) -> rusqlite::Result<()> {
    let text = voters.iter().map(|node| node.get().to_string()).collect::<Vec<_>>().join(",");
    db.execute(
        "INSERT INTO groups VALUES (?1, ?2) ON CONFLICT (group_no) DO UPDATE SET voters = ?2",
        params![group.get(), text],
    )
    .map(drop)
}

/// A new tenant's partition goes to the group that hosts the fewest.
fn create_tenant(db: &Connection, new: &NewTenant) -> Applied {
    let same = db
        .query_row(
            "SELECT partition_no, group_no FROM partitions WHERE tenant = ?1 ORDER BY partition_no",
            [new.tenant.as_bytes()],
            partition_of,
        )
        .optional()?;
    if let Some((partition, group)) = same {
        return Ok(Ok(Response::TenantCreated(partition, group)));
    }
    let taken = db.query_row("SELECT 1 FROM tenants WHERE name = ?1", [&new.name], |_| Ok(())).optional()?;
    if taken.is_some() {
        return Ok(Err(Refusal::NameTaken { what: "tenant".to_owned(), name: new.name.clone() }));
    }
    if let Err(refusal) =
        insert_access_key(db, &new.access_key, new.tenant, &new.sealed_secret, new.at.get())?
    {
        return Ok(Err(refusal));
    }
    let partition = db.query_row(
        "UPDATE cluster SET next_partition = next_partition + 1 RETURNING next_partition - 1",
        [],
        |row| Ok(PartitionId::new(row.get::<_, i64>(0)?.cast_unsigned())),
    )?;
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
        "INSERT INTO partitions VALUES (?1, ?2, ?3)",
        params![partition.get().cast_signed(), new.tenant.as_bytes(), group.get()],
    )?;
    Ok(Ok(Response::TenantCreated(partition, group)))
}

fn insert_access_key(db: &Connection, access_key: &str, tenant: TenantId, sealed: &[u8], at: u64) -> Applied {
    let owner = db
        .query_row("SELECT tenant FROM access_keys WHERE access_key = ?1", [access_key], |row| row.get(0))
        .optional()?
        .map(TenantId::from_bytes);
    match owner {
        Some(owner) if owner == tenant => DONE,
        Some(_) => Ok(Err(Refusal::NameTaken { what: "access key".to_owned(), name: access_key.to_owned() })),
        None => {
            db.execute(
                "INSERT INTO access_keys VALUES (?1, ?2, ?3, ?4)",
                params![access_key, tenant.as_bytes(), sealed, at.cast_signed()],
            )?;
            DONE
        }
    }
}

fn bump_epoch(db: &Connection) -> rusqlite::Result<()> {
    db.execute("UPDATE cluster SET epoch = epoch + 1", []).map(drop)
}

fn exists(db: &Connection, sql: &str, tenant: &TenantId) -> rusqlite::Result<bool> {
    Ok(db.query_row(sql, [tenant.as_bytes()], |_| Ok(())).optional()?.is_some())
}

fn found(_: &Connection, changed: usize, what: &str, name: &impl std::fmt::Display) -> Applied {
    if changed == 0 { Ok(Err(not_found(what, name))) } else { DONE }
}

fn not_found(what: &str, name: &impl std::fmt::Display) -> Refusal {
    Refusal::NotFound { what: what.to_owned(), name: name.to_string() }
}

fn node_no(node: NodeId) -> i64 {
    node.get().cast_signed()
}

fn node_of(row: &Row<'_>) -> rusqlite::Result<NodeId> {
    Ok(NodeId::new(row.get::<_, i64>(0)?.cast_unsigned()))
}

fn partition_of(row: &Row<'_>) -> rusqlite::Result<(PartitionId, GroupId)> {
    Ok((PartitionId::new(row.get::<_, i64>(0)?.cast_unsigned()), GroupId::new(row.get(1)?)))
}

/// The snake-case word that serde gives a state.
pub(crate) fn word<T: serde::Serialize>(state: &T) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("a state serialises to a word, not {other:?}"),
    }
}
