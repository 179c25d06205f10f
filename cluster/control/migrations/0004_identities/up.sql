-- Accounts of tenants. The first of each owns what the tenant had before accounts were.
CREATE TABLE accounts (
    account INTEGER PRIMARY KEY,
    tenant BLOB NOT NULL,
    canonical BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    email TEXT NOT NULL,
    first INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX accounts_by_email ON accounts (tenant, email);
CREATE UNIQUE INDEX accounts_by_name ON accounts (tenant, name);

-- Users, groups, roles and policies of accounts; what a body means belongs to the gateway.
CREATE TABLE identities (
    account INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (account, kind, name)
) STRICT, WITHOUT ROWID;

-- NULL: the root user of the tenant's first account, or of the account.
ALTER TABLE access_keys ADD COLUMN account INTEGER;
ALTER TABLE access_keys ADD COLUMN user TEXT;
ALTER TABLE access_keys ADD COLUMN active INTEGER NOT NULL DEFAULT 1;
