//! Every limit of the data path, with its unit, checked against the others at compile time.

/// Unit of every drive access, in bytes. Records, headers and segments are whole sectors.
pub const SECTOR_SIZE: usize = 4096;

/// Largest sealed cell, in bytes: plaintext plus [`CELL_TAG_SIZE`].
pub const CELL_SIZE_MAX: usize = 64 * 1024;

/// Bytes that sealing adds to a cell: the AES-GCM tag (NIST SP 800-38D, 128 bits).
pub const CELL_TAG_SIZE: usize = 16;

/// Cells of one data shard at most. A shard is at most 512 KiB.
pub const CELLS_PER_SHARD_MAX: usize = 8;

/// Largest shard payload in bytes.
pub const SHARD_SIZE_MAX: usize = CELL_SIZE_MAX * CELLS_PER_SHARD_MAX;

/// Largest payload of one record on a drive, in bytes. A shard is smaller; a drive takes what is this large.
pub const RECORD_PAYLOAD_MAX: usize = 1024 * 1024;

/// Data shards of one stripe at most.
pub const DATA_SHARDS_MAX: usize = 16;

/// Parity shards of one stripe at most; mirrors count their copies here.
pub const PARITY_SHARDS_MAX: usize = 7;

/// Objects up to this many bytes travel sealed inside their catalog command and use no shards.
pub const INLINE_BODY_MAX: usize = 16 * 1024;

/// Largest object in bytes (S3: 5 TiB).
pub const OBJECT_SIZE_MAX: u64 = 5 * 1024 * 1024 * 1024 * 1024;

/// Largest single PUT and largest part in bytes (S3: 5 GiB).
pub const PUT_SIZE_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// Smallest part of a multipart upload but the last, in bytes (S3: 5 MiB).
pub const PART_SIZE_MIN: u64 = 5 * 1024 * 1024;

/// Highest part number of a multipart upload (S3: 10,000).
pub const PART_NUMBER_MAX: u32 = 10_000;

/// Longest object key in bytes of UTF-8 (S3: 1024).
pub const KEY_SIZE_MAX: usize = 1024;

/// User metadata of one object in bytes (S3: 2 KiB).
pub const USER_METADATA_SIZE_MAX: usize = 2048;

/// Keys of one listing page (S3: 1000).
pub const LIST_KEYS_MAX: usize = 1000;

/// Keys of one DeleteObjects request (S3: 1000).
pub const DELETE_KEYS_MAX: usize = 1000;

/// Largest sealed manifest core in a record header, in bytes.
pub const RECORD_MANIFEST_SIZE_MAX: usize = 2048;

/// Nodes of one cluster.
pub const NODES_MAX: usize = 252;

/// Drives of one node.
pub const DRIVES_PER_NODE_MAX: usize = 64;

const _: () = assert!(CELL_SIZE_MAX.is_multiple_of(SECTOR_SIZE));
const _: () = assert!(INLINE_BODY_MAX < CELL_SIZE_MAX - CELL_TAG_SIZE);
const _: () = assert!(RECORD_MANIFEST_SIZE_MAX < SECTOR_SIZE);
const _: () = assert!(SHARD_SIZE_MAX <= RECORD_PAYLOAD_MAX && RECORD_PAYLOAD_MAX.is_multiple_of(SECTOR_SIZE));
const _: () = assert!(DATA_SHARDS_MAX + PARITY_SHARDS_MAX <= u8::MAX as usize);
