-- Event notifications: what happened to objects of buckets that ask to be told, until it has been told.
ALTER TABLE meta ADD COLUMN next_event     INTEGER NOT NULL DEFAULT 1;
ALTER TABLE meta ADD COLUMN events         INTEGER NOT NULL DEFAULT 0;  -- rows of `events`
ALTER TABLE meta ADD COLUMN events_dropped INTEGER NOT NULL DEFAULT 0;  -- given up: too many, too old, or no target

CREATE TABLE events (
    no             INTEGER PRIMARY KEY,        -- counts up; never used twice: the sequencer
    bucket         INTEGER NOT NULL,
    target         TEXT    NOT NULL,
    at             INTEGER NOT NULL,
    due            INTEGER NOT NULL,           -- not to be sent before
    attempts       INTEGER NOT NULL,           -- that failed
    body           BLOB    NOT NULL            -- encoded
) STRICT;
CREATE INDEX events_by_target ON events (target, no);

-- How many of them there are.
CREATE TABLE event_queues (
    bucket         INTEGER NOT NULL,
    target         TEXT    NOT NULL,
    queued         INTEGER NOT NULL,
    PRIMARY KEY (bucket, target)
) STRICT, WITHOUT ROWID;
