-- The partition that this one was split off from; NULL for the one that a tenant began with.
ALTER TABLE partitions ADD COLUMN split_from INTEGER;

-- Feature levels: the one in force, and what each node's program can do. 1 is what every release can.
ALTER TABLE cluster ADD COLUMN feature_level INTEGER NOT NULL DEFAULT 1;
ALTER TABLE nodes ADD COLUMN feature_level INTEGER NOT NULL DEFAULT 1;
