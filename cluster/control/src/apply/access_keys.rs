//! Bounds of access keys, and addresses of journals.

use holdfast_model::TenantId;
use rusqlite::{Connection, params};

use super::{Applied, DONE, exists, features, not_found, tenants};
use crate::{
    access_keys::{
        AccessKeyCommand, JOURNAL_ADDRESS_ALPHABET, JOURNAL_ADDRESS_SIZE, KeyBounds, SEALED_POLICY_SIZE_MAX,
    },
    command::{Refusal, Response},
    features::FEATURE_LEVEL_ACCESS_KEYS,
};

pub(super) fn apply(db: &Connection, command: &AccessKeyCommand) -> Applied {
    // Programs of lower levels cannot read the command.
    if let Err(refusal) = features::require(db, FEATURE_LEVEL_ACCESS_KEYS)? {
        return Ok(Err(refusal));
    }
    match command {
        AccessKeyCommand::Create { tenant, access_key, sealed_secret, bounds, at } => {
            if let Err(refusal) = check(bounds) {
                return Ok(Err(refusal));
            }
            let known = "SELECT 1 FROM access_keys WHERE access_key = ?1";
            if exists(db, known, [access_key])? {
                let same =
                    "SELECT 1 FROM access_keys WHERE access_key = ?1 AND tenant = ?2 AND sealed_secret = ?3";
                let taken = Refusal::NameTaken { what: "access key".to_owned(), name: access_key.clone() };
                let repeated = exists(db, same, params![access_key, tenant.as_bytes(), sealed_secret])?;
                return Ok(if repeated { Ok(Response::Done) } else { Err(taken) });
            }
            match tenants::create_access_key(db, *tenant, access_key, sealed_secret, *at)? {
                Ok(_) => write(db, access_key, bounds),
                refusal @ Err(_) => Ok(refusal),
            }
        }
        AccessKeyCommand::SetBounds { tenant, access_key, bounds } => {
            if let Err(refusal) = check(bounds) {
                return Ok(Err(refusal));
            }
            let owned = "SELECT 1 FROM access_keys WHERE access_key = ?1 AND tenant = ?2";
            if !exists(db, owned, params![access_key, tenant.as_bytes()])? {
                return Ok(Err(not_found("access key", access_key)));
            }
            write(db, access_key, bounds)
        }
        AccessKeyCommand::ReserveJournal { tenant, address } => reserve_journal(db, *tenant, address),
    }
}

fn check(bounds: &KeyBounds) -> Result<(), Refusal> {
    match &bounds.policy {
        Some(policy) if policy.len() > SEALED_POLICY_SIZE_MAX => {
            Err(Refusal::TooLarge { limit: SEALED_POLICY_SIZE_MAX as u64 })
        }
        _ => Ok(()),
    }
}

fn write(db: &Connection, access_key: &str, bounds: &KeyBounds) -> Applied {
    db.prepare_cached("UPDATE access_keys SET expires = ?2, policy = ?3 WHERE access_key = ?1")?
        .execute(params![access_key, bounds.expires.map(|at| at.get().cast_signed()), bounds.policy])?;
    DONE
}

fn reserve_journal(db: &Connection, tenant: TenantId, address: &str) -> Applied {
    if !tenants::is_alive(db, tenant)? {
        return Ok(Err(not_found("tenant", &tenant)));
    }
    let is_sound = address.len() == JOURNAL_ADDRESS_SIZE
        && address.bytes().all(|byte| JOURNAL_ADDRESS_ALPHABET.contains(&byte));
    if !is_sound {
        return Ok(Err(Refusal::Invalid(format!("journal address {address:?}"))));
    }
    if exists(db, "SELECT 1 FROM journal_addresses WHERE tenant = ?1", [tenant.as_bytes()])? {
        return DONE;
    }
    if exists(db, "SELECT 1 FROM journal_addresses WHERE address = ?1", [address])? {
        return Ok(Err(Refusal::NameTaken { what: "journal address".to_owned(), name: address.to_owned() }));
    }
    db.execute("INSERT INTO journal_addresses VALUES (?1, ?2)", params![tenant.as_bytes(), address])?;
    DONE
}
