-- Milliseconds since 1970 from which a key lets nobody in; NULL: never.
ALTER TABLE access_keys ADD COLUMN expires INTEGER;
-- What a key may be used for at most, whatever its owner may do: a policy document, sealed; NULL: all
-- of that.
ALTER TABLE access_keys ADD COLUMN policy BLOB;

-- Where a tenant's journals are to be sent. Each is drawn by chance and never another tenant's.
CREATE TABLE journal_addresses (
    tenant BLOB PRIMARY KEY,
    address TEXT NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;
