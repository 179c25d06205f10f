//! Tenants that are destroyed.

use std::collections::BTreeMap;

use holdfast_model::{GroupId, KeyId, RootEpoch, TenantId};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Applied, DONE, not_found, word};
use crate::{
    command::Refusal,
    features::FEATURE_LEVEL_EXTERNAL_KEYS,
    shred::{Destroyed, Finished, SHRED_TEXT_SIZE_MAX, SHREDS_MAX, ShredCommand, ShredOrder, ShredRecord},
    view::TenantState,
};

pub(super) fn apply(db: &Connection, index: u64, command: &ShredCommand) -> Applied {
    match command {
        ShredCommand::Begin(order) => begin(db, order, None),
        ShredCommand::BeginExternal { order, external } => {
            // Programs of lower levels cannot read the command.
            if let Err(refusal) = super::features::require(db, FEATURE_LEVEL_EXTERNAL_KEYS)? {
                return Ok(Err(refusal));
            }
            begin(db, order, Some(external))
        }
        ShredCommand::Destroy { tenant, through, at } => {
            let Some(mut record) = load(db, *tenant)? else { return Ok(Err(not_found("shredding", tenant))) };
            if record.destroyed.is_some() {
                return DONE;
            }
            let newest = "SELECT epoch, key_id FROM roots ORDER BY epoch DESC LIMIT 1";
            let Some((epoch, root)) =
                db.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?
            else {
                return Ok(Err(super::keys::stale("root")));
            };
            db.execute("DELETE FROM partitions WHERE tenant = ?1", [tenant.as_bytes()])?;
            db.execute("DELETE FROM tenant_limits WHERE tenant = ?1", [tenant.as_bytes()])?;
            db.execute("DELETE FROM tenants WHERE tenant = ?1", [tenant.as_bytes()])?;
            let mut through = through.clone();
            through.insert(GroupId::CONTROL, index);
            let (epoch, root) = (RootEpoch::new(epoch), KeyId::from_bytes(root));
            record.destroyed = Some(Destroyed { epoch, root, at: *at, through });
            store(db, *tenant, &record)
        }
        ShredCommand::Confirm { tenant, node, at } => {
            let Some(mut record) = load(db, *tenant)? else { return Ok(Err(not_found("shredding", tenant))) };
            if record.destroyed.is_none() {
                return Ok(Err(Refusal::Invalid("a key that is not destroyed yet was confirmed".to_owned())));
            }
            record.confirmed.entry(*node).or_insert(*at);
            store(db, *tenant, &record)
        }
        ShredCommand::Finish { tenant, certificate, at } => {
            let Some(mut record) = load(db, *tenant)? else { return Ok(Err(not_found("shredding", tenant))) };
            if record.destroyed.is_none() || certificate.len() > SHRED_TEXT_SIZE_MAX {
                return Ok(Err(Refusal::Invalid("a shredding cannot end so".to_owned())));
            }
            record.finished.get_or_insert_with(|| Finished { at: *at, certificate: certificate.clone() });
            store(db, *tenant, &record)
        }
    }
}

fn begin(db: &Connection, order: &ShredOrder, external: Option<&String>) -> Applied {
    let tenant = order.tenant;
    if load(db, tenant)?.is_some() {
        return DONE;
    }
    let found = db
        .prepare_cached("SELECT name, state, wrapped_key FROM tenants WHERE tenant = ?1")?
        .query_row([tenant.as_bytes()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
        })
        .optional()?;
    let Some((name, state, wrapped)) = found else { return Ok(Err(not_found("tenant", &tenant))) };
    if state != word(&TenantState::Suspended) {
        return Ok(Err(Refusal::Invalid(format!("tenant {name} is {state}, not suspended"))));
    }
    if wrapped != order.was {
        return Ok(Err(super::keys::stale("tenant key")));
    }
    if [order.overridden.as_ref(), external]
        .into_iter()
        .flatten()
        .any(|text| text.len() > SHRED_TEXT_SIZE_MAX)
    {
        return Ok(Err(Refusal::Invalid("a reason that is too long".to_owned())));
    }
    let kept: i64 = db.query_row("SELECT count(*) FROM shreds", [], |row| row.get(0))?;
    if kept >= SHREDS_MAX as i64 {
        return Ok(Err(Refusal::TooLarge { limit: SHREDS_MAX as u64 }));
    }
    let partitions = db
        .prepare_cached(
            "SELECT partition_no, group_no FROM partitions WHERE tenant = ?1 ORDER BY partition_no",
        )?
        .query_map([tenant.as_bytes()], super::tenants::partition_of)?
        .collect::<rusqlite::Result<_>>()?;
    let of_tenant = params![tenant.as_bytes()];
    db.execute(
        "DELETE FROM identities WHERE account IN (SELECT account FROM accounts WHERE tenant = ?1)",
        of_tenant,
    )?;
    db.execute("DELETE FROM accounts WHERE tenant = ?1", of_tenant)?;
    db.execute("DELETE FROM access_keys WHERE tenant = ?1", of_tenant)?;
    db.execute("DELETE FROM journal_addresses WHERE tenant = ?1", of_tenant)?;
    for secret in &order.secrets {
        db.execute("DELETE FROM secrets WHERE name = ?1", [secret])?;
    }
    let state = word(&TenantState::Shredding);
    db.execute("UPDATE tenants SET state = ?2 WHERE tenant = ?1", params![tenant.as_bytes(), state])?;
    let record = ShredRecord {
        name,
        keys: order.keys.clone(),
        by: order.by.clone(),
        overridden: order.overridden.clone(),
        external: external.cloned(),
        begun: order.at,
        partitions,
        destroyed: None,
        confirmed: BTreeMap::new(),
        finished: None,
    };
    store(db, tenant, &record)
}

fn load(db: &Connection, tenant: TenantId) -> rusqlite::Result<Option<ShredRecord>> {
    let body: Option<String> = db
        .prepare_cached("SELECT body FROM shreds WHERE tenant = ?1")?
        .query_row([tenant.as_bytes()], |row| row.get(0))
        .optional()?;
    body.map(|body| serde_json::from_str(&body))
        .transpose()
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn store(db: &Connection, tenant: TenantId, record: &ShredRecord) -> Applied {
    let body = serde_json::to_string(record)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    db.execute(
        "INSERT INTO shreds VALUES (?1, ?2) ON CONFLICT (tenant) DO UPDATE SET body = ?2",
        params![tenant.as_bytes(), body],
    )?;
    DONE
}
