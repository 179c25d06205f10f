-- Roots in force: the newest wraps; older ones are being replaced by it and open what they wrapped.
CREATE TABLE roots (
    epoch INTEGER PRIMARY KEY,
    key_id BLOB NOT NULL,
    split BLOB NOT NULL,
    threshold INTEGER NOT NULL,
    holders TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;

-- One row once the cluster has keys.
CREATE TABLE keys (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    cluster_key BLOB NOT NULL,
    threshold_wanted INTEGER
) STRICT;

-- Operators' recovery shares that were given out, newest last. Never the shares.
CREATE TABLE recovery_sets (
    at INTEGER NOT NULL,
    set_tag BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    threshold INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (at, set_tag)
) STRICT, WITHOUT ROWID;
