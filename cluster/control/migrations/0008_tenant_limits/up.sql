-- What a tenant's clients may ask of the whole cluster; a tenant without a row, or a null, has no limit of its own.
CREATE TABLE tenant_limits (
    tenant BLOB PRIMARY KEY,
    requests_per_second INTEGER,
    requests_at_once INTEGER,
    in_bytes_per_second INTEGER,
    out_bytes_per_second INTEGER
) STRICT, WITHOUT ROWID;
