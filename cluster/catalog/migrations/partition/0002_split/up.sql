-- Partitions that hold the keys of a range of hashes. One that was never split holds all.
ALTER TABLE meta ADD COLUMN hash_from    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN hash_until   INTEGER NOT NULL DEFAULT 65536;  -- exclusive
-- Rows of the other half, which a split left behind: what is being cleared, and where that has got to.
ALTER TABLE meta ADD COLUMN clearing     INTEGER NOT NULL DEFAULT 0;      -- 0 nothing, else see apply/clearing.rs
ALTER TABLE meta ADD COLUMN clear_bucket INTEGER NOT NULL DEFAULT -1;
ALTER TABLE meta ADD COLUMN clear_key    BLOB    NOT NULL DEFAULT x'';
ALTER TABLE meta ADD COLUMN clear_rank   BLOB    NOT NULL DEFAULT x'';
ALTER TABLE meta ADD COLUMN split_at     INTEGER NOT NULL DEFAULT 0;
-- A split that is decided and not carried out: the new partition and its database.
ALTER TABLE meta ADD COLUMN split_into   INTEGER;
ALTER TABLE meta ADD COLUMN split_base   BLOB;

-- Partitions that were split off this one, so that each is once.
CREATE TABLE splits (
    partition      INTEGER PRIMARY KEY
) STRICT;
-- Which sharing of the tenant's quota the partition's quota is from.
ALTER TABLE meta ADD COLUMN quota_shares INTEGER NOT NULL DEFAULT 0;

-- Nothing may come into the bucket any more: it is being deleted by who knows this token.
ALTER TABLE buckets ADD COLUMN closed    BLOB;
