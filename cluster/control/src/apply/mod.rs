//! What each command does to the tables. Decides first, then writes: a refusal writes nothing.

mod access_keys;
mod features;
mod identity;
mod keys;
mod membership;
mod shred;
mod tenants;

use holdfast_model::{ClusterId, NodeId, UnixMillis};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    command::{
        CATALOG_GROUPS_MAX, Command, JOIN_TOKENS_MAX, NAME_SIZE_MAX, Outcome, ROLE_OPERATOR, Refusal,
        Response,
    },
    features::FEATURE_LEVEL_EVENTS,
};

/// What a command does: an answer, or an error of SQLite that stops the replica.
type Applied = rusqlite::Result<Outcome>;

const DONE: Applied = Ok(Ok(Response::Done));

/// Applies a command of entry `index`.
pub(crate) fn apply(db: &Connection, index: u64, command: &Command) -> Applied {
    if !matches!(command, Command::InitCluster { .. }) && !exists(db, "SELECT 1 FROM cluster", [])? {
        return Ok(Err(Refusal::NoCluster));
    }
    match command {
        Command::InitCluster { .. } => init(db, command),
        Command::RegisterNode(request) => membership::register(db, request),
        Command::ActivateNode(node) => membership::activate(db, *node),
        Command::RemoveNode(node) => membership::remove(db, *node),
        Command::UpdateNode { node, peer, services } => membership::update(db, *node, *peer, services),
        Command::RegisterDrives { node, drives, at } => membership::register_drives(db, *node, drives, *at),
        Command::SetDriveState { drive, state } => membership::set_drive_state(db, *drive, *state),
        Command::SetGroupVoters { group, voters } => membership::set_group_voters(db, *group, voters),
        Command::CreateJoinToken { hash, expires } => create_token(db, hash, *expires, None),
        Command::CreateReplacementToken { hash, expires, node } => match membership::member(db, *node)? {
            Ok(_) => create_token(db, hash, *expires, Some(*node)),
            Err(refusal) => Ok(Err(refusal)),
        },
        Command::RetireNode(node) => membership::retire(db, *node),
        Command::RevokeJoinToken { hash } => {
            let changed =
                db.execute("DELETE FROM join_tokens WHERE hash = ?1 AND used_by IS NULL", [hash])?;
            Ok(if changed == 0 { Err(Refusal::TokenUnknown) } else { Ok(Response::Done) })
        }
        Command::CreateTenant(tenant) => tenants::create(db, tenant),
        Command::SetTenantState { tenant, state } => tenants::set_state(db, *tenant, *state),
        Command::SetTenantLimits { tenant, limits } => tenants::set_limits(db, *tenant, limits),
        Command::SetLevel { tenant, level } => tenants::set_level(db, *tenant, *level),
        Command::CreateAccessKey { tenant, access_key, sealed_secret, at } => {
            tenants::create_access_key(db, *tenant, access_key, sealed_secret, *at)
        }
        Command::DeleteAccessKey { access_key } => {
            db.execute("DELETE FROM access_keys WHERE access_key = ?1", [access_key])?;
            DONE
        }
        Command::AccessKeys(command) => access_keys::apply(db, command),
        Command::CreateAccount(new) => identity::create_account(db, new),
        Command::ChangeIdentities(change) => identity::change(db, change),
        Command::SetOperator { name, password_hash, role } => set_operator(db, name, password_hash, role),
        Command::DeleteOperator { name } => delete_operator(db, name),
        Command::Keys(command) => keys::apply(db, command),
        Command::Shred(command) => shred::apply(db, index, command),
        Command::Features(command) => features::apply(db, command),
        Command::SplitPartition { partition, of } => tenants::split(db, *partition, *of),
        Command::NoteLabels(labels) => membership::note_labels(db, labels),
        Command::PutSecret { name, sealed } => {
            if let Err(refusal) = check_name("secret", name) {
                return Ok(Err(refusal));
            }
            db.execute(
                "INSERT INTO secrets VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET sealed = ?2",
                params![name, sealed],
            )?;
            DONE
        }
        Command::RemoveSecret { name } => {
            // Programs of lower levels cannot read the command.
            if let Err(refusal) = features::require(db, FEATURE_LEVEL_EVENTS)? {
                return Ok(Err(refusal));
            }
            db.execute("DELETE FROM secrets WHERE name = ?1", [name])?;
            DONE
        }
    }
}

fn create_token(db: &Connection, hash: &[u8; 32], expires: UnixMillis, replaces: Option<NodeId>) -> Applied {
    db.execute(
        "INSERT OR IGNORE INTO join_tokens (hash, expires, replaces) VALUES (?1, ?2, ?3)",
        params![hash, expires.get().cast_signed(), replaces.map(|node| node.get().cast_signed())],
    )?;
    db.execute(
        "DELETE FROM join_tokens WHERE hash NOT IN
         (SELECT hash FROM join_tokens ORDER BY expires DESC, hash LIMIT ?1)",
        params![JOIN_TOKENS_MAX as i64],
    )?;
    DONE
}

fn init(db: &Connection, command: &Command) -> Applied {
    let Command::InitCluster { cluster, name, region, level, catalog_groups, first } = command else {
        unreachable!("called for InitCluster only");
    };
    let existing =
        db.query_row("SELECT id FROM cluster", [], |row| row.get(0)).optional()?.map(ClusterId::from_bytes);
    match existing {
        Some(existing) if existing == *cluster => {
            return Ok(Ok(Response::Registered(membership::FIRST_NODE)));
        }
        Some(existing) => return Ok(Err(Refusal::ClusterExists(existing))),
        None => {}
    }
    if !(1..=CATALOG_GROUPS_MAX).contains(catalog_groups) {
        return Ok(Err(Refusal::Invalid(format!("{catalog_groups} catalog groups"))));
    }
    if let Err(refusal) = check_name("cluster", name).and_then(|()| check_name("node", &first.name)) {
        return Ok(Err(refusal));
    }
    db.execute(
        "INSERT INTO cluster VALUES (1, ?1, ?2, ?3, ?4, ?5, 1, ?6, 1, ?7, 1)",
        params![
            cluster.as_bytes(),
            name,
            region,
            level.to_string(),
            catalog_groups,
            membership::FIRST_NODE.get().cast_signed(),
            first.at.get().cast_signed()
        ],
    )?;
    let node = membership::found(db, first, *catalog_groups)?;
    Ok(Ok(Response::Registered(node)))
}

fn set_operator(db: &Connection, name: &str, password_hash: &str, role: &str) -> Applied {
    if let Err(refusal) = check_name("operator", name) {
        return Ok(Err(refusal));
    }
    if role != ROLE_OPERATOR && is_last_operator(db, name)? {
        return Ok(Err(Refusal::Last { what: ROLE_OPERATOR.to_owned(), name: name.to_owned() }));
    }
    db.execute(
        "INSERT INTO operators VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET password_hash = ?2, role = ?3",
        params![name, password_hash, role],
    )?;
    DONE
}

fn delete_operator(db: &Connection, name: &str) -> Applied {
    if is_last_operator(db, name)? {
        return Ok(Err(Refusal::Last { what: ROLE_OPERATOR.to_owned(), name: name.to_owned() }));
    }
    let changed = db.execute("DELETE FROM operators WHERE name = ?1", [name])?;
    found(changed, "operator", &name)
}

fn is_last_operator(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    let others = "SELECT 1 FROM operators WHERE role = ?1 AND name <> ?2";
    Ok(exists(db, "SELECT 1 FROM operators WHERE role = ?1 AND name = ?2", [ROLE_OPERATOR, name])?
        && !exists(db, others, [ROLE_OPERATOR, name])?)
}

/// A new version of the membership.
fn bump_epoch(db: &Connection) -> rusqlite::Result<()> {
    db.execute("UPDATE cluster SET epoch = epoch + 1", []).map(drop)
}

fn exists(db: &Connection, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<bool> {
    db.prepare_cached(sql)?.exists(params)
}

fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > NAME_SIZE_MAX {
        return Err(Refusal::Invalid(format!("{what} name of {} bytes", name.len())));
    }
    Ok(())
}

fn found(changed: usize, what: &str, name: &impl std::fmt::Display) -> Applied {
    if changed == 0 { Ok(Err(not_found(what, name))) } else { DONE }
}

fn not_found(what: &str, name: &impl std::fmt::Display) -> Refusal {
    Refusal::NotFound { what: what.to_owned(), name: name.to_string() }
}

/// The snake-case word that serde gives a state.
fn word<T: serde::Serialize>(state: &T) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("a state serialises to a word, not {other:?}"),
    }
}
