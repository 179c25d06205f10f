-- One row: which database this is and the first log entry that is not applied to it.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    database_id BLOB NOT NULL,
    next_index INTEGER NOT NULL
) STRICT;

-- One row once the cluster is founded.
CREATE TABLE cluster (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    region TEXT NOT NULL,
    level TEXT NOT NULL,
    catalog_groups INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    next_node INTEGER NOT NULL,
    next_partition INTEGER NOT NULL,
    founded INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
    node INTEGER PRIMARY KEY,
    request BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    peer TEXT NOT NULL,
    s3 TEXT NOT NULL,
    admin TEXT NOT NULL,
    metrics TEXT NOT NULL,
    state TEXT NOT NULL,
    joined INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX nodes_by_name ON nodes (name) WHERE state <> 'removed';

CREATE TABLE groups (
    group_no INTEGER PRIMARY KEY,
    voters TEXT NOT NULL
) STRICT;

CREATE TABLE drives (
    drive BLOB PRIMARY KEY,
    node INTEGER NOT NULL,
    path TEXT NOT NULL,
    capacity INTEGER NOT NULL,
    state TEXT NOT NULL,
    registered INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    tenant BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    database_id BLOB NOT NULL,
    wrapped_key BLOB NOT NULL,
    level TEXT,
    state TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE partitions (
    partition_no INTEGER PRIMARY KEY,
    tenant BLOB NOT NULL,
    group_no INTEGER NOT NULL
) STRICT;

CREATE TABLE access_keys (
    access_key TEXT PRIMARY KEY,
    tenant BLOB NOT NULL,
    sealed_secret BLOB NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE operators (
    name TEXT PRIMARY KEY,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE join_tokens (
    hash BLOB PRIMARY KEY,
    expires INTEGER NOT NULL,
    used_by INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
