//! Reading the control state: one consistent view, and word of when it changed.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use holdfast_catalog::{
    StateDigest,
    sqlite::{Form, Pool, copy_database, io_error},
};
use holdfast_model::{
    ByteCount, ClusterId, DatabaseId, DriveId, Epoch, GroupId, KeyId, NodeId, PartitionId, RootEpoch,
    SplitId, TenantId, TenantLimits, UnixMillis,
};
use parking_lot::RwLock;
use rusqlite::{Connection, OptionalExtension, Row, types::Type};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::access_keys::KeyBounds;
use crate::keys::{KeysView, RecoveryRecord, RootRecord, Splitting};
use crate::machine::Digests;
use crate::view::{
    AccessKeyRecord, AccountRecord, ClusterRecord, ControlView, DriveRecord, IdentityRecord, JoinTokenRecord,
    NodeRecord, OperatorRecord, ServiceAddresses, TenantRecord,
};

/// The file that readers read: another one after a snapshot was installed.
#[derive(Debug, Clone)]
pub(crate) struct Source(Arc<RwLock<Arc<Pool>>>);

impl Source {
    pub(crate) fn new(path: &Path) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(Pool::new(path, Form::Plain)))))
    }

    pub(crate) fn replace(&self, path: &Path) {
        *self.0.write() = Arc::new(Pool::new(path, Form::Plain));
    }
}

/// Reads this node's replica. Clones share it.
#[derive(Debug, Clone)]
pub struct ControlReader {
    source: Source,
    changes: watch::Receiver<u64>,
    digests: Digests,
}

impl ControlReader {
    pub(crate) fn new(source: Source, changes: watch::Receiver<u64>, digests: Digests) -> Self {
        Self { source, changes, digests }
    }

    /// The latest digests of this replica's state, oldest first.
    #[must_use]
    pub fn state_digests(&self) -> Vec<StateDigest> {
        self.digests.lock().iter().copied().collect()
    }

    /// Holds the index of the next entry to be applied; changes with every applied entry.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Everything at one moment. Blocking; a few milliseconds.
    ///
    /// # Errors
    /// As rusqlite.
    pub fn view(&self) -> rusqlite::Result<ControlView> {
        let pool = Arc::clone(&self.source.0.read());
        let mut connection = pool.get()?;
        let moment = connection.transaction()?;
        read_view(&moment)
    }

    /// Copies the control database, as of one moment, to `to`, which must not exist. Blocks nobody.
    ///
    /// # Errors
    /// I/O.
    pub fn copy_to(&self, to: &Path) -> std::io::Result<()> {
        let pool = Arc::clone(&self.source.0.read());
        let wrap = |e: rusqlite::Error| io_error("copying", pool.path(), &e);
        let mut connection = pool.get().map_err(wrap)?;
        let moment = connection.transaction().map_err(wrap)?;
        // The first read fixes the moment that the transaction shows.
        moment.query_row("SELECT count(*) FROM meta", [], |_| Ok(())).map_err(wrap)?;
        copy_database(&moment, to, &Form::Plain)
    }
}

const NODES: &str = "SELECT node, name, peer, s3, admin, metrics, state, joined, feature_level FROM nodes";

/// A tenant's partitions, and which of them come from which.
type Partitions = (Vec<(PartitionId, GroupId)>, BTreeMap<PartitionId, PartitionId>);

fn read_view(db: &Connection) -> rusqlite::Result<ControlView> {
    let mut partitions: BTreeMap<TenantId, Partitions> = BTreeMap::new();
    let of_all = "SELECT tenant, partition_no, group_no, split_from FROM partitions ORDER BY partition_no";
    for (tenant, partition, group, from) in rows(db, of_all, |row| {
        let from: Option<i64> = row.get(3)?;
        Ok((
            TenantId::from_bytes(row.get(0)?),
            PartitionId::new(unsigned(row, 1)?),
            GroupId::new(row.get(2)?),
            from.map(|from| PartitionId::new(from.cast_unsigned())),
        ))
    })? {
        let of_tenant = partitions.entry(tenant).or_default();
        of_tenant.0.push((partition, group));
        of_tenant.1.extend(from.map(|from| (partition, from)));
    }
    Ok(ControlView {
        next_index: db
            .query_row("SELECT next_index FROM meta", [], |row| unsigned(row, 0))
            .optional()?
            .unwrap_or(0),
        cluster: db
            .query_row(
                "SELECT id, name, region, level, catalog_groups, epoch, founded, feature_level FROM cluster",
                [],
                |row| {
                    Ok(ClusterRecord {
                        id: ClusterId::from_bytes(row.get(0)?),
                        name: row.get(1)?,
                        region: row.get(2)?,
                        level: parsed(row, 3)?,
                        catalog_groups: row.get(4)?,
                        epoch: Epoch::new(unsigned(row, 5)?),
                        founded: UnixMillis::new(unsigned(row, 6)?),
                        feature_level: row.get(7)?,
                    })
                },
            )
            .optional()?,
        nodes: rows(db, NODES, |row| {
            let node = NodeId::new(unsigned(row, 0)?);
            let services = ServiceAddresses { s3: row.get(3)?, admin: row.get(4)?, metrics: row.get(5)? };
            let record = NodeRecord {
                node,
                name: row.get(1)?,
                peer: parsed(row, 2)?,
                services,
                state: from_word(row, 6)?,
                joined: UnixMillis::new(unsigned(row, 7)?),
                feature_level: row.get(8)?,
            };
            Ok((node, record))
        })?
        .into_iter()
        .collect(),
        groups: rows(db, "SELECT group_no, voters FROM groups", |row| {
            let voters: String = row.get(1)?;
            let voters = voters
                .split(',')
                .filter(|text| !text.is_empty())
                .map(|text| text.parse().map(NodeId::new).map_err(|e| malformed(1, e)))
                .collect::<rusqlite::Result<_>>()?;
            Ok((GroupId::new(row.get(0)?), voters))
        })?
        .into_iter()
        .collect(),
        drives: rows(
            db,
            "SELECT drive, node, path, capacity, state, registered, coalesce(counter, 0)
             FROM drives LEFT JOIN drive_labels USING (drive)",
            |row| {
                let drive = DriveId::from_bytes(row.get(0)?);
                let record = DriveRecord {
                    drive,
                    node: NodeId::new(unsigned(row, 1)?),
                    path: row.get(2)?,
                    capacity: ByteCount::new(unsigned(row, 3)?),
                    state: from_word(row, 4)?,
                    registered: UnixMillis::new(unsigned(row, 5)?),
                    label_counter: unsigned(row, 6)?,
                };
                Ok((drive, record))
            },
        )?
        .into_iter()
        .collect(),
        tenants: rows(
            db,
            "SELECT t.tenant, name, database_id, wrapped_key, level, state, created, requests_per_second,
             requests_at_once, in_bytes_per_second, out_bytes_per_second, address
             FROM tenants t LEFT JOIN tenant_limits l ON l.tenant = t.tenant
             LEFT JOIN journal_addresses j ON j.tenant = t.tenant",
            |row| {
                let tenant = TenantId::from_bytes(row.get(0)?);
                let level: Option<String> = row.get(4)?;
                let record = TenantRecord {
                    tenant,
                    name: row.get(1)?,
                    database_id: DatabaseId::from_bytes(row.get(2)?),
                    wrapped_key: row.get(3)?,
                    level: level.map(|text| text.parse().map_err(|e| malformed(4, e))).transpose()?,
                    state: from_word(row, 5)?,
                    created: UnixMillis::new(unsigned(row, 6)?),
                    partitions: partitions.get(&tenant).cloned().unwrap_or_default().0,
                    split_from: partitions.get(&tenant).cloned().unwrap_or_default().1,
                    limits: TenantLimits {
                        requests_per_second: row.get(7)?,
                        requests_at_once: row.get(8)?,
                        in_bytes_per_second: row.get::<_, Option<i64>>(9)?.map(i64::cast_unsigned),
                        out_bytes_per_second: row.get::<_, Option<i64>>(10)?.map(i64::cast_unsigned),
                    },
                    journal_address: row.get(11)?,
                };
                Ok((tenant, record))
            },
        )?
        .into_iter()
        .collect(),
        accounts: rows(
            db,
            "SELECT account, tenant, canonical, name, email, first, created FROM accounts",
            |row| {
                let record = AccountRecord {
                    tenant: TenantId::from_bytes(row.get(1)?),
                    canonical: row.get(2)?,
                    name: row.get(3)?,
                    email: row.get(4)?,
                    first: row.get(5)?,
                    created: UnixMillis::new(unsigned(row, 6)?),
                };
                Ok((unsigned(row, 0)?, record))
            },
        )?
        .into_iter()
        .collect(),
        identities: rows(db, "SELECT account, kind, name, version, body FROM identities", |row| {
            let record = IdentityRecord { version: unsigned(row, 3)?, body: row.get(4)? };
            Ok(((unsigned(row, 0)?, row.get(1)?, row.get(2)?), record))
        })?
        .into_iter()
        .collect(),
        access_keys: rows(
            db,
            "SELECT access_key, tenant, sealed_secret, created, account, user, active, expires, policy
             FROM access_keys",
            |row| {
                let record = AccessKeyRecord {
                    tenant: TenantId::from_bytes(row.get(1)?),
                    sealed_secret: row.get(2)?,
                    created: UnixMillis::new(unsigned(row, 3)?),
                    account: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                    user: row.get(5)?,
                    active: row.get(6)?,
                    bounds: KeyBounds {
                        expires: row.get::<_, Option<i64>>(7)?.map(|at| UnixMillis::new(at.cast_unsigned())),
                        policy: row.get(8)?,
                    },
                };
                Ok((row.get(0)?, record))
            },
        )?
        .into_iter()
        .collect(),
        operators: rows(db, "SELECT name, password_hash, role FROM operators", |row| {
            let name: String = row.get(0)?;
            Ok((name.clone(), OperatorRecord { name, password_hash: row.get(1)?, role: row.get(2)? }))
        })?
        .into_iter()
        .collect(),
        join_tokens: rows(
            db,
            "SELECT hash, expires, used_by, replaces FROM join_tokens ORDER BY expires, hash",
            |row| {
                Ok(JoinTokenRecord {
                    hash: row.get(0)?,
                    expires: UnixMillis::new(unsigned(row, 1)?),
                    used_by: row.get::<_, Option<i64>>(2)?.map(|node| NodeId::new(node.cast_unsigned())),
                    replaces: row.get::<_, Option<i64>>(3)?.map(|node| NodeId::new(node.cast_unsigned())),
                })
            },
        )?,
        secrets: rows(db, "SELECT name, sealed FROM secrets", |row| Ok((row.get(0)?, row.get(1)?)))?
            .into_iter()
            .collect(),
        keys: read_keys(db)?,
        shreds: rows(db, "SELECT tenant, body FROM shreds", |row| {
            let body = row.get::<_, String>(1)?;
            let record = serde_json::from_str(&body).map_err(|e| malformed(1, e))?;
            Ok((TenantId::from_bytes(row.get(0)?), record))
        })?
        .into_iter()
        .collect(),
    })
}

fn read_keys(db: &Connection) -> rusqlite::Result<KeysView> {
    let (cluster_key, threshold) = db
        .query_row("SELECT cluster_key, threshold_wanted FROM keys", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .unwrap_or_default();
    let roots = "SELECT epoch, key_id, split, threshold, holders, since FROM roots ORDER BY epoch";
    let recovery = "SELECT at, set_tag, epoch, threshold, count FROM recovery_sets ORDER BY at, set_tag";
    Ok(KeysView {
        roots: rows(db, roots, |row| {
            let holders = row.get::<_, String>(4)?;
            Ok(RootRecord {
                epoch: RootEpoch::new(row.get(0)?),
                root: KeyId::from_bytes(row.get(1)?),
                splitting: Splitting {
                    split: SplitId::from_bytes(row.get(2)?),
                    threshold: row.get(3)?,
                    holders: serde_json::from_str(&holders).map_err(|e| malformed(4, e))?,
                },
                since: UnixMillis::new(unsigned(row, 5)?),
            })
        })?,
        cluster_key,
        threshold,
        recovery: rows(db, recovery, |row| {
            Ok(RecoveryRecord {
                at: UnixMillis::new(unsigned(row, 0)?),
                set: row.get(1)?,
                epoch: RootEpoch::new(row.get(2)?),
                threshold: row.get(3)?,
                count: row.get(4)?,
            })
        })?,
    })
}

fn rows<T>(
    db: &Connection,
    sql: &str,
    row: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare_cached(sql)?.query_map([], |r| row(r))?.collect()
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

fn parsed<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    row.get::<_, String>(column)?.parse().map_err(|e| malformed(column, e))
}

fn from_word<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_value(serde_json::Value::String(row.get(column)?)).map_err(|e| malformed(column, e))
}

fn malformed(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
