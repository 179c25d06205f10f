//! Accounts, identities, and keys of users.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Applied, DONE, check_name, exists, not_found};
use crate::{
    command::Refusal,
    identity::{
        ACCOUNT_NUMBER_LIMIT, ACCOUNTS_MAX, CHANGE_ROWS_MAX, IDENTITIES_MAX, IDENTITY_SIZE_MAX,
        IdentityChange, IdentityWrite, KeyWrite, NewAccount, Then,
    },
};

pub(super) fn create_account(db: &Connection, new: &NewAccount) -> Applied {
    if !super::tenants::is_alive(db, new.tenant)? {
        return Ok(Err(not_found("tenant", &new.tenant)));
    }
    if let Err(refusal) = check_name("account", &new.name).and_then(|()| check_name("e-mail", &new.email)) {
        return Ok(Err(refusal));
    }
    if new.account == 0 || new.account >= ACCOUNT_NUMBER_LIMIT {
        return Ok(Err(Refusal::Invalid(format!("account number {}", new.account))));
    }
    let number = new.account.cast_signed();
    let same = "SELECT 1 FROM accounts WHERE account = ?1 AND tenant = ?2 AND canonical = ?3";
    if exists(db, same, params![number, new.tenant.as_bytes(), new.canonical])? {
        return DONE;
    }
    let first = "SELECT 1 FROM accounts WHERE tenant = ?1 AND first = 1";
    if new.first && exists(db, first, [new.tenant.as_bytes()])? {
        return Ok(Err(taken("first account of", &new.tenant.to_string())));
    }
    if exists(
        db,
        "SELECT 1 FROM accounts WHERE account = ?1 OR canonical = ?2",
        params![number, new.canonical],
    )? {
        return Ok(Err(taken("account number", &new.account.to_string())));
    }
    for (what, column, value) in [("account", "name", &new.name), ("e-mail", "email", &new.email)] {
        let sql = format!("SELECT 1 FROM accounts WHERE tenant = ?1 AND {column} = ?2");
        if exists(db, &sql, params![new.tenant.as_bytes(), value])? {
            return Ok(Err(taken(what, value)));
        }
    }
    let count: i64 = db
        .prepare_cached("SELECT count(*) FROM accounts WHERE tenant = ?1")?
        .query_row([new.tenant.as_bytes()], |row| row.get(0))?;
    if count >= ACCOUNTS_MAX {
        return Ok(Err(Refusal::Invalid(format!("a tenant has at most {ACCOUNTS_MAX} accounts"))));
    }
    if let Some((access_key, sealed)) = &new.access_key {
        if let Err(refusal) = check_name("access key", access_key) {
            return Ok(Err(refusal));
        }
        if exists(db, "SELECT 1 FROM access_keys WHERE access_key = ?1", [access_key])? {
            return Ok(Err(taken("access key", access_key)));
        }
        db.prepare_cached(INSERT_KEY)?.execute(params![
            access_key,
            new.tenant.as_bytes(),
            sealed,
            new.at.get().cast_signed(),
            number,
            None::<String>
        ])?;
    }
    db.execute(
        "INSERT INTO accounts (account, tenant, canonical, name, email, first, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            number,
            new.tenant.as_bytes(),
            new.canonical,
            new.name,
            new.email,
            new.first,
            new.at.get().cast_signed()
        ],
    )?;
    DONE
}

const INSERT_KEY: &str = "INSERT INTO access_keys (access_key, tenant, sealed_secret, created, account, user)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

pub(super) fn change(db: &Connection, change: &IdentityChange) -> Applied {
    let number = change.account.cast_signed();
    let account = "SELECT 1 FROM accounts WHERE account = ?1 AND tenant = ?2";
    if !exists(db, account, params![number, change.tenant.as_bytes()])? {
        return Ok(Err(not_found("account", &change.account)));
    }
    if change.rows.len() + change.keys.len() > CHANGE_ROWS_MAX {
        return Ok(Err(Refusal::Invalid(format!("a change of more than {CHANGE_ROWS_MAX} rows"))));
    }
    // All is decided before anything is written.
    let mut repeated = change.rows.iter().any(|row| row.then != Then::Keep);
    let mut added = 0;
    for row in &change.rows {
        let found = version_of(db, number, row)?;
        let done = match &row.then {
            Then::Put { version, .. } => found == Some(version.cast_signed()),
            Then::Delete => found.is_none(),
            Then::Keep => false,
        };
        repeated &= done || row.then == Then::Keep;
        if found == row.expected.map(u64::cast_signed) {
            if let Then::Put { body, .. } = &row.then {
                if let Err(refusal) = check_name("identity", &row.name) {
                    return Ok(Err(refusal));
                }
                if body.len() > IDENTITY_SIZE_MAX {
                    return Ok(Err(Refusal::TooLarge { limit: IDENTITY_SIZE_MAX as u64 }));
                }
                added += i64::from(found.is_none());
            }
        } else if !done {
            return Ok(Err(Refusal::Changed(row.name.clone())));
        }
    }
    if repeated {
        return DONE;
    }
    if added > 0 {
        let count: i64 = db
            .prepare_cached("SELECT count(*) FROM identities WHERE account = ?1")?
            .query_row([number], |row| row.get(0))?;
        if count + added > IDENTITIES_MAX {
            return Ok(Err(Refusal::TooLarge { limit: IDENTITIES_MAX.cast_unsigned() }));
        }
    }
    for key in &change.keys {
        let (access_key, creates) = match key {
            KeyWrite::Create { access_key, .. } => (access_key, true),
            KeyWrite::SetActive { access_key, .. } | KeyWrite::Delete { access_key } => (access_key, false),
        };
        if let Err(refusal) = check_name("access key", access_key) {
            return Ok(Err(refusal));
        }
        let owner: Option<Option<i64>> = db
            .prepare_cached("SELECT account FROM access_keys WHERE access_key = ?1")?
            .query_row([access_key], |row| row.get(0))
            .optional()?;
        match owner {
            Some(_) if creates => return Ok(Err(taken("access key", access_key))),
            Some(owner) if !creates && owner != Some(number) && !is_first(db, number, owner)? => {
                return Ok(Err(not_found("access key", access_key)));
            }
            None if !creates => return Ok(Err(not_found("access key", access_key))),
            _ => {}
        }
    }
    write(db, number, change)
}

/// A key from before accounts were is the first account's.
fn is_first(db: &Connection, number: i64, owner: Option<i64>) -> rusqlite::Result<bool> {
    Ok(owner.is_none() && exists(db, "SELECT 1 FROM accounts WHERE account = ?1 AND first = 1", [number])?)
}

fn write(db: &Connection, number: i64, change: &IdentityChange) -> Applied {
    for row in &change.rows {
        match &row.then {
            Then::Keep => {}
            Then::Put { version, body } => {
                db.prepare_cached(
                    "INSERT INTO identities VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (account, kind, name) DO UPDATE SET version = ?4, body = ?5",
                )?
                .execute(params![
                    number,
                    row.kind,
                    row.name,
                    version.cast_signed(),
                    body
                ])?;
            }
            Then::Delete => {
                db.prepare_cached("DELETE FROM identities WHERE account = ?1 AND kind = ?2 AND name = ?3")?
                    .execute(params![number, row.kind, row.name])?;
            }
        }
    }
    for key in &change.keys {
        match key {
            KeyWrite::Create { access_key, user, sealed_secret } => {
                db.prepare_cached(INSERT_KEY)?.execute(params![
                    access_key,
                    change.tenant.as_bytes(),
                    sealed_secret,
                    change.at.get().cast_signed(),
                    number,
                    user
                ])?;
            }
            KeyWrite::SetActive { access_key, active } => {
                db.prepare_cached("UPDATE access_keys SET active = ?2 WHERE access_key = ?1")?
                    .execute(params![access_key, active])?;
            }
            KeyWrite::Delete { access_key } => {
                db.prepare_cached("DELETE FROM access_keys WHERE access_key = ?1")?.execute([access_key])?;
            }
        }
    }
    DONE
}

fn version_of(db: &Connection, account: i64, row: &IdentityWrite) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT version FROM identities WHERE account = ?1 AND kind = ?2 AND name = ?3")?
        .query_row(params![account, row.kind, row.name], |row| row.get(0))
        .optional()
}

fn taken(what: &str, name: &str) -> Refusal {
    Refusal::NameTaken { what: what.to_owned(), name: name.to_owned() }
}
