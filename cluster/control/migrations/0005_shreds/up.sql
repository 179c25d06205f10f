-- Tenants that are being destroyed or were, each with what is known of it as JSON: certificates stay.
CREATE TABLE shreds (
    tenant BLOB PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
