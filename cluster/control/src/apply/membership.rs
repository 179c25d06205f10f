//! Nodes, drives and the voters of groups. What changes them bumps the epoch; what changes nothing does not.

use std::{collections::BTreeSet, net::SocketAddr};

use holdfast_model::{
    DriveId, GroupId, NodeId, UnixMillis,
    limits::{DRIVES_PER_NODE_MAX, NODES_MAX},
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Applied, DONE, bump_epoch, check_name, exists, not_found, word};
use crate::{
    command::{DriveEntry, Refusal, RegisterNode, Response},
    view::{DriveState, NodeState, ServiceAddresses},
};

/// The node that founds the cluster.
pub(super) const FIRST_NODE: NodeId = NodeId::new(1);

/// Registers the first node and makes it the voter of every group.
pub(super) fn found(db: &Connection, first: &RegisterNode, catalog_groups: u32) -> rusqlite::Result<NodeId> {
    let node = insert_node(db, first, NodeState::Active)?;
    for group in 0..=catalog_groups {
        write_voters(db, GroupId::new(group), &[node].into())?;
    }
    Ok(node)
}

pub(super) fn register(db: &Connection, request: &RegisterNode) -> Applied {
    let same = db
        .prepare_cached("SELECT node, state FROM nodes WHERE request = ?1")?
        .query_row([request.request], |row| Ok((node_of(row)?, row.get::<_, String>(1)?)))
        .optional()?;
    match same {
        Some((node, state)) if state == word(&NodeState::Removed) => return Ok(Err(removed("node", &node))),
        Some((node, _)) => return Ok(Ok(Response::Registered(node))),
        None => {}
    }
    let token = db
        .prepare_cached("SELECT expires, used_by, replaces FROM join_tokens WHERE hash = ?1")?
        .query_row([request.token_hash], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, Option<i64>>(1)?, row.get(2)?))
        })
        .optional()?;
    let replaces: Option<i64> = match token {
        None => return Ok(Err(Refusal::TokenUnknown)),
        Some((_, Some(node), _)) => return Ok(Err(Refusal::TokenUsed(NodeId::new(node.cast_unsigned())))),
        Some((expires, None, _)) if expires <= request.at.get() => return Ok(Err(Refusal::TokenExpired)),
        Some((_, None, replaces)) => replaces,
    };
    if let Err(refusal) = check_name("node", &request.name) {
        return Ok(Err(refusal));
    }
    let taken = "SELECT 1 FROM nodes WHERE name = ?1 AND state <> 'removed' AND node IS NOT ?2";
    if exists(db, taken, params![request.name, replaces])? {
        return Ok(Err(Refusal::NameTaken { what: "node".to_owned(), name: request.name.clone() }));
    }
    let count: i64 = db.query_row(
        "SELECT count(*) FROM nodes WHERE state <> 'removed' AND node IS NOT ?1",
        [replaces],
        |row| row.get(0),
    )?;
    if count >= NODES_MAX as i64 {
        return Ok(Err(Refusal::TooManyNodes));
    }
    if let Some(replaced) = replaces {
        db.execute("UPDATE nodes SET state = 'removed' WHERE node = ?1", [replaced])?;
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
        "INSERT INTO nodes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1)",
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

pub(super) fn activate(db: &Connection, node: NodeId) -> Applied {
    set_node_state(db, node, NodeState::Active)
}

pub(super) fn retire(db: &Connection, node: NodeId) -> Applied {
    let others = "SELECT 1 FROM nodes WHERE state = 'active' AND node <> ?1";
    if !exists(db, others, [node_no(node)])? {
        return Ok(Err(Refusal::Last { what: "active node".to_owned(), name: node.to_string() }));
    }
    set_node_state(db, node, NodeState::Leaving)
}

pub(super) fn remove(db: &Connection, node: NodeId) -> Applied {
    let others = "SELECT 1 FROM nodes WHERE state = 'active' AND node <> ?1";
    if !exists(db, others, [node_no(node)])? {
        return Ok(Err(Refusal::Last { what: "active node".to_owned(), name: node.to_string() }));
    }
    set_node_state(db, node, NodeState::Removed)
}

fn set_node_state(db: &Connection, node: NodeId, state: NodeState) -> Applied {
    let current = match member(db, node)? {
        Ok(current) => current,
        Err(Refusal::Removed { .. }) if state == NodeState::Removed => return DONE,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // Who is leaving does not become a full member again.
    if current == word(&NodeState::Leaving) && state == NodeState::Active {
        return DONE;
    }
    if current != word(&state) {
        db.execute("UPDATE nodes SET state = ?2 WHERE node = ?1", params![node_no(node), word(&state)])?;
        bump_epoch(db)?;
    }
    DONE
}

/// The state of a node that is not removed.
pub(super) fn member(db: &Connection, node: NodeId) -> rusqlite::Result<Result<String, Refusal>> {
    let state: Option<String> = db
        .prepare_cached("SELECT state FROM nodes WHERE node = ?1")?
        .query_row([node_no(node)], |row| row.get(0))
        .optional()?;
    Ok(match state {
        None => Err(not_found("node", &node)),
        Some(state) if state == word(&NodeState::Removed) => Err(removed("node", &node)),
        Some(state) => Ok(state),
    })
}

pub(super) fn update(
    db: &Connection,
    node: NodeId,
    peer: SocketAddr,
    services: &ServiceAddresses,
) -> Applied {
    if let Err(refusal) = member(db, node)? {
        return Ok(Err(refusal));
    }
    let changed = db.execute(
        "UPDATE nodes SET peer = ?2, s3 = ?3, admin = ?4, metrics = ?5
         WHERE node = ?1 AND (peer, s3, admin, metrics) <> (?2, ?3, ?4, ?5)",
        params![node_no(node), peer.to_string(), services.s3, services.admin, services.metrics],
    )?;
    if changed > 0 {
        bump_epoch(db)?;
    }
    DONE
}

pub(super) fn register_drives(
    db: &Connection,
    node: NodeId,
    drives: &[DriveEntry],
    at: UnixMillis,
) -> Applied {
    if let Err(refusal) = member(db, node)? {
        return Ok(Err(refusal));
    }
    if drives.len() > DRIVES_PER_NODE_MAX {
        return Ok(Err(Refusal::Invalid(format!("{} drives on one node", drives.len()))));
    }
    let mut changed = 0;
    for drive in drives {
        changed += db
            .prepare_cached(
                "INSERT INTO drives VALUES (?1, ?2, ?3, ?4, 'active', ?5)
                 ON CONFLICT (drive) DO UPDATE SET node = ?2, path = ?3, capacity = ?4
                 WHERE state <> 'removed' AND (node, path, capacity) <> (?2, ?3, ?4)",
            )?
            .execute(params![
                drive.drive.as_bytes(),
                node_no(node),
                drive.path,
                drive.capacity.get().cast_signed(),
                at.get().cast_signed()
            ])?;
    }
    if changed > 0 {
        bump_epoch(db)?;
    }
    DONE
}

/// Changes no membership: who is a member and who may be placed on is what it was.
pub(super) fn note_labels(db: &Connection, labels: &[(DriveId, u64)]) -> Applied {
    if labels.len() > DRIVES_PER_NODE_MAX {
        return Ok(Err(Refusal::Invalid(format!("labels of {} drives at once", labels.len()))));
    }
    for (drive, counter) in labels {
        db.prepare_cached(
            "INSERT INTO drive_labels SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM drives WHERE drive = ?1)
             ON CONFLICT (drive) DO UPDATE SET counter = ?2 WHERE counter < ?2",
        )?
        .execute(params![drive.as_bytes(), counter.cast_signed()])?;
    }
    DONE
}

pub(super) fn set_drive_state(db: &Connection, drive: DriveId, state: DriveState) -> Applied {
    let current: Option<String> = db
        .prepare_cached("SELECT state FROM drives WHERE drive = ?1")?
        .query_row([drive.as_bytes()], |row| row.get(0))
        .optional()?;
    match current {
        None => return Ok(Err(not_found("drive", &drive))),
        Some(current) if current == word(&state) => return DONE,
        Some(current) if current == word(&DriveState::Removed) => return Ok(Err(removed("drive", &drive))),
        Some(_) => {}
    }
    db.execute("UPDATE drives SET state = ?2 WHERE drive = ?1", params![drive.as_bytes(), word(&state)])?;
    bump_epoch(db)?;
    DONE
}

pub(super) fn set_group_voters(db: &Connection, group: GroupId, voters: &BTreeSet<NodeId>) -> Applied {
    if !exists(db, "SELECT 1 FROM groups WHERE group_no = ?1", [group.get()])? {
        return Ok(Err(not_found("group", &group)));
    }
    if voters.is_empty() {
        return Ok(Err(Refusal::Invalid(format!("group {group} without voters"))));
    }
    for voter in voters {
        if let Err(refusal) = member(db, *voter)? {
            return Ok(Err(refusal));
        }
    }
    if write_voters(db, group, voters)? {
        bump_epoch(db)?;
    }
    DONE
}

/// Whether that changed anything.
fn write_voters(db: &Connection, group: GroupId, voters: &BTreeSet<NodeId>) -> rusqlite::Result<bool> {
    let text = voters.iter().map(|node| node.get().to_string()).collect::<Vec<_>>().join(",");
    let changed = db.execute(
        "INSERT INTO groups VALUES (?1, ?2)
         ON CONFLICT (group_no) DO UPDATE SET voters = ?2 WHERE voters <> ?2",
        params![group.get(), text],
    )?;
    Ok(changed > 0)
}

fn removed(what: &str, name: &impl std::fmt::Display) -> Refusal {
    Refusal::Removed { what: what.to_owned(), name: name.to_string() }
}

fn node_no(node: NodeId) -> i64 {
    node.get().cast_signed()
}

fn node_of(row: &Row<'_>) -> rusqlite::Result<NodeId> {
    Ok(NodeId::new(row.get::<_, i64>(0)?.cast_unsigned()))
}
