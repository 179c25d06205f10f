-- One tenant partition. Keys are BLOBs so that they sort as bytes, which is the order S3 lists in.

-- Who this file is and how far the log has been applied to it. One row.
CREATE TABLE meta (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    partition      INTEGER NOT NULL,
    tenant         BLOB    NOT NULL,
    database_id    BLOB    NOT NULL,
    next_index     INTEGER NOT NULL,           -- log entries below this index are applied to this file
    clock          INTEGER NOT NULL,           -- greatest time of any command; never goes back
    next_bucket    INTEGER NOT NULL,
    next_content   INTEGER NOT NULL,
    next_stale     INTEGER NOT NULL,
    versions       INTEGER NOT NULL,           -- of all buckets together, current or not
    bytes          INTEGER NOT NULL,           -- of these and of parts of uploads
    quota_versions INTEGER,                    -- NULL: none, as every quota here
    quota_bytes    INTEGER
) STRICT;

CREATE TABLE buckets (
    no             INTEGER PRIMARY KEY,
    id             BLOB    NOT NULL UNIQUE,
    name           TEXT    NOT NULL UNIQUE,
    created        INTEGER NOT NULL,           -- Unix milliseconds, as every time here
    objects        INTEGER NOT NULL,           -- exact counters: current versions
    bytes          INTEGER NOT NULL,
    old_versions   INTEGER NOT NULL,           -- noncurrent versions and delete markers
    old_bytes      INTEGER NOT NULL,
    uploads        INTEGER NOT NULL,
    upload_bytes   INTEGER NOT NULL,           -- bytes of parts of uploads that are not completed
    versioning     INTEGER NOT NULL,           -- 0 off, 1 enabled, 2 suspended
    object_lock    INTEGER NOT NULL,           -- 1: objects can be locked
    retention      BLOB,                       -- default retention, encoded
    quota_versions INTEGER,
    quota_bytes    INTEGER
) STRICT;

-- Policy, lifecycle, CORS and so on.
CREATE TABLE documents (
    bucket         INTEGER NOT NULL,
    kind           INTEGER NOT NULL,
    id             TEXT    NOT NULL,
    changed        INTEGER NOT NULL,
    body           BLOB    NOT NULL,
    PRIMARY KEY (bucket, kind, id)
) STRICT, WITHOUT ROWID;

-- The newest version of each key, unless that is a delete marker. Bodies live elsewhere, so that listing
-- pages stay dense; what listings do not show comes last, so that they do not touch its overflow pages.
CREATE TABLE objects (
    bucket         INTEGER NOT NULL,
    key            BLOB    NOT NULL,
    version        BLOB    NOT NULL,
    size           INTEGER NOT NULL,
    modified       INTEGER NOT NULL,
    content        INTEGER NOT NULL,           -- contents.no, or 0: the rows of object_parts
    flags          INTEGER NOT NULL,           -- 1 null version, 4 legal hold, 8 governance, 16 compliance
    etag           TEXT    NOT NULL,
    retain_until   INTEGER,
    upload         BLOB,                       -- the multipart upload that made it
    tags           BLOB,
    acl            BLOB,
    attributes     BLOB    NOT NULL,
    PRIMARY KEY (bucket, key)
) STRICT, WITHOUT ROWID;

-- All other versions, newest first: rank is the version id with every bit inverted. A key whose newest
-- version is a delete marker (flags 2) has that one here first.
CREATE TABLE versions (
    bucket         INTEGER NOT NULL,
    key            BLOB    NOT NULL,
    rank           BLOB    NOT NULL,
    version        BLOB    NOT NULL,
    size           INTEGER NOT NULL,
    modified       INTEGER NOT NULL,
    content        INTEGER NOT NULL,           -- -1: a delete marker
    flags          INTEGER NOT NULL,
    etag           TEXT    NOT NULL,
    retain_until   INTEGER,
    since          INTEGER NOT NULL,           -- when a newer version came
    upload         BLOB,
    tags           BLOB,
    acl            BLOB,
    attributes     BLOB    NOT NULL,
    PRIMARY KEY (bucket, key, rank)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX versions_null ON versions (bucket, key) WHERE flags & 1;

-- Requests done lately, with their answers, so that a repeated one is done once.
CREATE TABLE requests (
    at             INTEGER NOT NULL,
    id             BLOB    NOT NULL,
    answer         BLOB    NOT NULL,
    PRIMARY KEY (at, id)
) STRICT, WITHOUT ROWID;

-- The parts of objects made by multipart uploads.
CREATE TABLE object_parts (
    version        BLOB    NOT NULL,
    start          INTEGER NOT NULL,           -- offset in the object, in bytes
    number         INTEGER NOT NULL,
    size           INTEGER NOT NULL,
    content        INTEGER NOT NULL,
    checksums      BLOB    NOT NULL,
    PRIMARY KEY (version, start)
) STRICT, WITHOUT ROWID;

-- A run of bytes under one wrapped key: the body of an object or of one part.
CREATE TABLE contents (
    no             INTEGER PRIMARY KEY,        -- counts up: B-tree appends
    size           INTEGER NOT NULL,
    died           INTEGER,                    -- log index since when nothing refers to it; its stripes are garbage
    wrapped_key    BLOB    NOT NULL,
    inline         BLOB                        -- sealed body, or NULL: the rows of stripes
) STRICT;

CREATE TABLE stripes (
    content        INTEGER NOT NULL,
    start          INTEGER NOT NULL,           -- offset in the content, in bytes
    id             BLOB    NOT NULL,
    number         INTEGER NOT NULL,           -- what its cells are sealed with: unique in the content, with gaps
    plain_len      INTEGER NOT NULL,
    data           INTEGER NOT NULL,
    parity         INTEGER NOT NULL,
    generation     INTEGER NOT NULL,
    places         BLOB    NOT NULL,           -- node (8 bytes, big-endian) and drive (16 bytes) of each shard
    PRIMARY KEY (content, start)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX stripes_by_id ON stripes (id);

-- What each drive holds. Drives get a small number each, per partition.
CREATE TABLE drives (
    no             INTEGER PRIMARY KEY,
    id             BLOB    NOT NULL UNIQUE
) STRICT;
CREATE TABLE places (
    drive          INTEGER NOT NULL,
    stripe         BLOB    NOT NULL,
    shard          INTEGER NOT NULL,
    PRIMARY KEY (drive, stripe)
) STRICT, WITHOUT ROWID;

CREATE TABLE uploads (
    bucket         INTEGER NOT NULL,
    key            BLOB    NOT NULL,
    id             BLOB    NOT NULL,
    initiated      INTEGER NOT NULL,
    attributes     BLOB    NOT NULL,
    extras         BLOB    NOT NULL,           -- tags, access control list, retention, legal hold; encoded
    PRIMARY KEY (bucket, key, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX uploads_by_id ON uploads (id);

CREATE TABLE upload_parts (
    upload         BLOB    NOT NULL,
    number         INTEGER NOT NULL,
    size           INTEGER NOT NULL,
    modified       INTEGER NOT NULL,
    content        INTEGER NOT NULL,
    etag           TEXT    NOT NULL,
    checksums      BLOB    NOT NULL,
    PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;

-- Contents whose stripes wait for the sweeper, oldest first. A delete costs one row here, however
-- many stripes the content has.
CREATE TABLE dead_contents (
    since_index    INTEGER NOT NULL,
    content        INTEGER NOT NULL,
    since          INTEGER NOT NULL,
    PRIMARY KEY (since_index, content)
) STRICT, WITHOUT ROWID;

-- Shards that wait for the sweeper although their stripe lives on elsewhere (moved), or was never
-- part of the catalog (condemned).
CREATE TABLE stale_shards (
    no             INTEGER PRIMARY KEY,
    stripe         BLOB    NOT NULL,
    generation     INTEGER NOT NULL,           -- shards of this generation or an older one
    shards         BLOB    NOT NULL,           -- shard index (1 byte), node, drive of each
    since_index    INTEGER NOT NULL,
    since          INTEGER NOT NULL
) STRICT;
CREATE INDEX stale_shards_by_stripe ON stale_shards (stripe);

-- Stripes that were found on drives without being known here, and may never become known any more.
CREATE TABLE condemned (
    stripe         BLOB    PRIMARY KEY,
    since          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
