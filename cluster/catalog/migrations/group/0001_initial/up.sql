-- What the last checkpoint made durable. The position is opaque here: it belongs to the log.
CREATE TABLE position (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    position       BLOB    NOT NULL
) STRICT;

CREATE TABLE files (
    name           TEXT    PRIMARY KEY,
    database_id    BLOB    NOT NULL,
    next_index     INTEGER NOT NULL            -- log entries below this index are applied to the file
) STRICT, WITHOUT ROWID;
