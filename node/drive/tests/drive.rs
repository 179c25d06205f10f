//! A drive on a real file, through io_uring.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{os::unix::fs::FileExt, path::Path, time::Duration};

use holdfast_drive::*;
use holdfast_format::{CATALOG_OWNER, CatalogRecordHeader, CatalogRecordKind};
use holdfast_model::{
    ByteCount, ClusterId, DriveId, Generation, GroupId, NodeId, ShardId, ShardIndex, StripeId, TenantId,
    UnixMillis,
    limits::{RECORD_PAYLOAD_MAX, SHARD_SIZE_MAX},
};
use holdfast_ring::BufferPool;

const DEADLINE: Duration = Duration::from_secs(30);
const CLUSTER: ClusterId = ClusterId::from_bytes([0xC1; 16]);

struct Fixture {
    file: tempfile::NamedTempFile,
    pool: BufferPool,
}

impl Fixture {
    fn new(mib: u64) -> Self {
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        file.as_file().set_len(mib << 20).unwrap();
        let params =
            FormatParams { cluster: CLUSTER, drive: DriveId::from_bytes([0xD1; 16]), node: NodeId::new(1) };
        format(file.path(), &params).unwrap();
        Self { file, pool: BufferPool::new(ByteCount::mib(32)).unwrap() }
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn open(&self) -> (Drive, MountReport) {
        Drive::open(self.path(), CLUSTER, DriveOptions::new(self.pool.clone())).unwrap()
    }

    async fn write(&self, id: ShardId, generation: u32, bytes: &[u8]) -> ShardWrite {
        let mut payload = self.pool.acquire(bytes.len()).await;
        payload.copy_from_slice(bytes);
        ShardWrite {
            id,
            generation: Generation::new(generation),
            tenant: TenantId::from_bytes([7; 16]),
            data: 4,
            parity: 2,
            manifest: vec![1, 2, 3],
            payload,
        }
    }
}

fn shard(n: u32) -> ShardId {
    let mut stripe = [0; 16];
    stripe[..4].copy_from_slice(&n.to_be_bytes());
    ShardId { stripe: StripeId::from_bytes(stripe), index: ShardIndex::new(2) }
}

fn bytes(n: u32, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(n).to_le_bytes()[3]).collect()
}

const G1: Generation = Generation::new(1);
const G2: Generation = Generation::new(2);

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_written_read_in_part_and_deleted_and_outlive_restarts() {
    let fixture = Fixture::new(64);
    let (drive, report) = fixture.open();
    assert!(report.is_clean() && report.mount_epoch == 1);
    let lengths = [1, 4096, 5000, 65_536, 65_537, 200_000, SHARD_SIZE_MAX, RECORD_PAYLOAD_MAX];
    for (n, length) in (0u32..).zip(lengths) {
        let durable = drive.put(fixture.write(shard(n), 1, &bytes(n, length)).await).await.unwrap();
        assert_eq!((durable.drive(), durable.id(), durable.generation()), (drive.id(), shard(n), G1));
    }
    for round in 0..3 {
        let drive = if round == 0 { drive.clone() } else { fixture.open().0 };
        for (n, length) in (0u32..).zip(lengths) {
            let whole = bytes(n, length);
            let (third, end) = (length / 3, length);
            for range in [0..length, third..end, third..end.min(third + 10), length - 1..length, 0..1] {
                if range.is_empty() {
                    continue;
                }
                let got =
                    drive.get(shard(n), G1, range.start as u32..range.end as u32, DEADLINE).await.unwrap();
                assert_eq!(&got[..], &whole[range]);
            }
        }
        assert_eq!(drive.list(None, 100).len(), lengths.len());
        assert_eq!(
            drive.list(Some(shard(2)), 2).iter().map(|s| s.id).collect::<Vec<_>>(),
            [shard(3), shard(4)]
        );
        drive.close().await;
    }
    let (drive, report) = fixture.open();
    assert_eq!((report.mount_epoch, report.shards, report.torn.len()), (4, 8, 0));
    assert!(drive.delete(shard(3), G1).await.unwrap());
    assert!(!drive.delete(shard(3), G1).await.unwrap());
    assert!(!drive.delete(shard(99), G1).await.unwrap());
    assert!(matches!(drive.get(shard(3), G1, 0..1, DEADLINE).await, Err(GetError::NotFound { .. })));
    drive.close().await;
    let (drive, report) = fixture.open();
    assert_eq!(report.shards, 7);
    assert!(matches!(drive.get(shard(3), G1, 0..1, DEADLINE).await, Err(GetError::NotFound { .. })));
    drive.close().await;
    let inspection = inspect::inspect(fixture.path()).unwrap();
    assert!(inspection.is_sound(), "{inspection}");
    assert_eq!((inspection.live.len(), inspection.good_labels), (7, 4));
    assert_eq!(fixture.pool.available(), fixture.pool.budget());
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_replace_older_ones_and_never_newer_ones() {
    let fixture = Fixture::new(64);
    let (drive, _) = fixture.open();
    drive.put(fixture.write(shard(1), 1, b"old").await).await.unwrap();
    drive.put(fixture.write(shard(1), 1, b"old").await).await.unwrap();
    let other = drive.put(fixture.write(shard(1), 1, b"other length").await).await;
    assert!(matches!(other, Err(PutError::Conflict { .. })));
    drive.put(fixture.write(shard(1), 2, b"newer").await).await.unwrap();
    let stale = drive.put(fixture.write(shard(1), 1, b"old").await).await;
    assert!(matches!(stale, Err(PutError::Stale { stored: G2, .. })));
    assert!(!drive.delete(shard(1), G1).await.unwrap(), "an old delete does not hit a newer shard");
    for _ in 0..2 {
        let (drive, _) = {
            drive.close().await;
            fixture.open()
        };
        assert_eq!(&drive.get(shard(1), G2, 0..5, DEADLINE).await.unwrap()[..], b"newer");
        let old = drive.get(shard(1), G1, 0..3, DEADLINE).await;
        assert!(matches!(old, Err(GetError::OtherGeneration { stored: G2, .. })));
        assert!(matches!(drive.get(shard(1), G2, 0..6, DEADLINE).await, Err(GetError::OutOfRange { .. })));
        drive.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_with_the_smallest_segments_refuses_what_no_segment_could_hold() {
    let fixture = Fixture::new(16);
    let (drive, _) = fixture.open();
    drive.put(fixture.write(shard(1), 1, &bytes(1, SHARD_SIZE_MAX)).await).await.unwrap();
    let refused = drive.put(fixture.write(shard(2), 1, &bytes(2, SHARD_SIZE_MAX + 1)).await).await;
    assert!(matches!(refused, Err(PutError::TooLarge { most: SHARD_SIZE_MAX, .. })), "{refused:?}");
    drive.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_wait_together_share_a_flush() {
    let fixture = Fixture::new(128);
    let (drive, _) = fixture.open();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64u32 {
        let (drive, pool) = (drive.clone(), fixture.pool.clone());
        tasks.spawn(async move {
            for i in 0..20u32 {
                let mut payload = pool.acquire(4096).await;
                payload.fill(n as u8);
                let write = ShardWrite {
                    id: shard(n * 1000 + i),
                    generation: G1,
                    tenant: TenantId::from_bytes([7; 16]),
                    data: 1,
                    parity: 2,
                    manifest: Vec::new(),
                    payload,
                };
                drive
                    .put(ShardWrite { id: ShardId { index: ShardIndex::new(0), ..write.id }, ..write })
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let status = drive.status();
    assert_eq!((status.state, status.shards), (DriveState::Live, 1280));
    assert_eq!(status.counters.records_acknowledged, 1280);
    let share = status.counters.records_acknowledged as f64 / status.counters.flushes as f64;
    println!("{share:.1} records a flush, {:?}", status.counters);
    assert!(share > 4.0, "only {share} records a flush");
    drive.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_restores_data_does_not_keep_to_the_pace_of_scrubs() {
    const SHARDS: u32 = 8;
    let fixture = Fixture::new(64);
    let slow = DriveOptions { background_rate: ByteCount::new(1), ..DriveOptions::new(fixture.pool.clone()) };
    let (drive, _) = Drive::open(fixture.path(), CLUSTER, slow).unwrap();
    for n in 0..SHARDS {
        drive.put(fixture.write(shard(n), 1, &bytes(n, SHARD_SIZE_MAX)).await).await.unwrap();
    }
    // The second of these waits for its pace, for days.
    let scrub = tokio::spawn({
        let drive = drive.clone();
        async move { drive.scrub(None, SHARDS as usize).await }
    });
    for n in 0..SHARDS {
        let (got, manifest) = drive.get_whole(shard(n), G1, DEADLINE).await.unwrap();
        assert_eq!((&got[..], &manifest[..]), (&bytes(n, SHARD_SIZE_MAX)[..], &[1, 2, 3][..]));
    }
    assert!(!scrub.is_finished());
    scrub.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_drive_reads_deletes_and_takes_shards_again() {
    let fixture = Fixture::new(16);
    let (drive, _) = fixture.open();
    let payload = bytes(5, 100_000);
    let mut written = Vec::new();
    for n in 0.. {
        match drive.put(fixture.write(shard(n), 1, &payload).await).await {
            Ok(_) => written.push(n),
            Err(PutError::Full { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(written.len() > 50, "{} shards of 100 kB on 16 MiB", written.len());
    for n in &written {
        assert_eq!(&drive.get(shard(*n), G1, 0..100_000, DEADLINE).await.unwrap()[..], &payload[..]);
    }
    // Every other one: no segment becomes empty by itself.
    for n in written.iter().step_by(2) {
        assert!(drive.delete(shard(*n), G1).await.unwrap());
    }
    let mut again = 0;
    for n in 1000.. {
        let mut attempt = drive.put(fixture.write(shard(n), 1, &payload).await).await;
        for _ in 0..500 {
            if attempt.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            attempt = drive.put(fixture.write(shard(n), 1, &payload).await).await;
        }
        attempt.unwrap();
        again += 1;
        if again * 3 > written.len() {
            break;
        }
    }
    let status = drive.status();
    assert!(status.counters.records_moved > 0 && status.counters.segments_reclaimed > 0, "{status:?}");
    for n in written.iter().skip(1).step_by(2) {
        assert_eq!(&drive.get(shard(*n), G1, 0..100_000, DEADLINE).await.unwrap()[..], &payload[..]);
    }
    drive.close().await;
    let (drive, report) = fixture.open();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.shards as usize, written.len() / 2 + again);
    drive.close().await;
    let inspection = inspect::inspect(fixture.path()).unwrap();
    assert!(inspection.is_sound(), "{inspection}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_drive_takes_no_shards_and_does_everything_else() {
    let fixture = Fixture::new(64);
    let (drive, _) = fixture.open();
    for n in 0..3 {
        drive.put(fixture.write(shard(n), 1, &bytes(n, 5000)).await).await.unwrap();
    }
    drive.set_draining(true);
    assert_eq!(drive.status().state, DriveState::Draining);
    let refused = drive.put(fixture.write(shard(9), 1, b"new").await).await;
    assert!(matches!(refused, Err(PutError::Draining { .. })), "{refused:?}");
    assert_eq!(&drive.get(shard(1), G1, 0..5000, DEADLINE).await.unwrap()[..], &bytes(1, 5000)[..]);
    assert!(drive.delete(shard(0), G1).await.unwrap());
    assert!(drive.scrub(None, 10).await.finished);
    drive.set_draining(false);
    drive.put(fixture.write(shard(9), 1, b"new").await).await.unwrap();
    assert_eq!(drive.status().state, DriveState::Live);
    drive.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_block_is_refused_and_found_by_the_inspector() {
    let fixture = Fixture::new(64);
    let (drive, _) = fixture.open();
    drive.put(fixture.write(shard(1), 1, &bytes(1, 200_000)).await).await.unwrap();
    drive.close().await;
    let mut found = Vec::new();
    inspect::inspect_each(fixture.path(), |record| found.push(record.clone())).unwrap();
    let record = &found[0];
    assert_eq!(
        (record.shard, record.payload_len, record.geometry, record.manifest_len),
        (shard(1), 200_000, (4, 2), 3)
    );
    // One bit in the second block.
    let inspection = inspect::inspect(fixture.path()).unwrap();
    let segment_size = inspection.label.layout.segment_size().get();
    let at =
        (1 << 20) + u64::from(record.segment) * segment_size + u64::from(record.sector + 1) * 4096 + 70_000;
    let mut byte = [0];
    fixture.file.as_file().read_exact_at(&mut byte, at).unwrap();
    fixture.file.as_file().write_all_at(&[byte[0] ^ 4], at).unwrap();
    fixture.file.as_file().sync_all().unwrap();
    let (drive, _) = fixture.open();
    assert_eq!(
        &drive.get(shard(1), G1, 0..65_536, DEADLINE).await.unwrap()[..],
        &bytes(1, 200_000)[..65_536]
    );
    for range in [65_536..65_537, 0..200_000, 70_000..140_000] {
        let damaged = drive.get(shard(1), G1, range, DEADLINE).await;
        assert!(matches!(damaged, Err(GetError::Damaged { .. })), "{damaged:?}");
    }
    assert_eq!(drive.status().counters.checksum_errors, 3);
    drive.close().await;
    let inspection = inspect::inspect(fixture.path()).unwrap();
    assert!(!inspection.is_sound() && inspection.problems.len() == 1, "{inspection}");
    let (drive, _) = fixture.open();
    let scrubbed = drive.scrub(None, 10).await;
    assert!(scrubbed.finished && scrubbed.records == 1 && scrubbed.next == Some(shard(1)));
    assert!(matches!(scrubbed.findings[0].error, GetError::Damaged { .. }));
    // Repair is a write of the next generation.
    drive.put(fixture.write(shard(1), 2, &bytes(1, 200_000)).await).await.unwrap();
    assert_eq!(&drive.get(shard(1), G2, 0..200_000, DEADLINE).await.unwrap()[..], &bytes(1, 200_000)[..]);
    drive.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_blank_devices_are_formatted_and_only_ours_are_opened() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    let params =
        FormatParams { cluster: CLUSTER, drive: DriveId::from_bytes([0xD1; 16]), node: NodeId::new(1) };
    let options = || DriveOptions::new(BufferPool::new(ByteCount::mib(4)).unwrap());
    assert_eq!(probe(file.path()).unwrap(), Probe::Blank);
    let blank = Drive::open(file.path(), CLUSTER, options());
    assert!(matches!(blank, Err(OpenError::NoLabel { .. })));
    file.as_file().write_all_at(b"EFI PART", 512).unwrap();
    assert!(matches!(probe(file.path()).unwrap(), Probe::Foreign { .. }));
    assert!(matches!(format(file.path(), &params), Err(FormatDriveError::NotBlank { .. })));
    file.as_file().write_all_at(&[0; 8], 512).unwrap();
    file.as_file().write_all_at(b"x", (64 << 20) - 1).unwrap();
    assert!(matches!(probe(file.path()).unwrap(), Probe::Foreign { .. }), "the end of the device counts too");
    file.as_file().write_all_at(&[0], (64 << 20) - 1).unwrap();
    assert_eq!(format(file.path(), &params).unwrap(), params.drive);
    assert!(matches!(format(file.path(), &params), Err(FormatDriveError::NotBlank { .. })));
    let Probe::Ours(identity) = probe(file.path()).unwrap() else { panic!("it was formatted") };
    assert_eq!((identity.cluster, identity.drive, identity.fenced), (CLUSTER, params.drive, false));
    let other = Drive::open(file.path(), ClusterId::from_bytes([9; 16]), options());
    assert!(matches!(other, Err(OpenError::OtherCluster { .. })));
    let (drive, _) = Drive::open(file.path(), CLUSTER, options()).unwrap();
    let twice = Drive::open(file.path(), CLUSTER, options());
    assert!(matches!(twice, Err(OpenError::Device(_))), "one drive, one engine");
    drive.close().await;
    assert!(matches!(drive.delete(shard(1), G1).await, Err(DeleteError::Closed { .. })));
    file.as_file().set_len(32 << 20).unwrap();
    assert!(matches!(Drive::open(file.path(), CLUSTER, options()), Err(OpenError::Shrunk { .. })));
}

/// A drive of a million records, written as footers only: what a mount reads of a drive that was closed.
#[test]
fn a_million_records_mount_from_their_footers() {
    use holdfast_format::{
        Footer, FooterRecord, Layout, SegmentHeader, SegmentSequence, SegmentState, Sequence,
    };
    let fixture = Fixture::new(16 << 10);
    let layout = Layout::for_capacity(ByteCount::mib(16 << 10)).unwrap();
    let records_a_segment = layout.segment_sectors() / 2 - 600;
    let mut sequence = 1;
    for segment in 0..1_000_000 / records_a_segment + 1 {
        let life = SegmentSequence::new(u64::from(segment) + 1);
        let first = Sequence::new(sequence);
        let record = |i: u32| FooterRecord {
            shard: shard(segment * 100_000 + i),
            generation: G1,
            tenant: TenantId::from_bytes([i as u8 % 10; 16]),
            sequence: Sequence::new(first.get() + u64::from(i)),
            written: holdfast_model::UnixMillis::new(1_800_000_000_000),
            payload_len: 4096,
            sector: 2 + 2 * i,
            damaged: false,
        };
        let count = records_a_segment.min(1_000_000 - segment * records_a_segment);
        sequence += u64::from(count);
        let (cluster, drive, sectors) = (CLUSTER, DriveId::from_bytes([0xD1; 16]), layout.segment_sectors());
        let durable = Sequence::NONE;
        let (state, mount_epoch, written) = (SegmentState::Used, 0, holdfast_model::UnixMillis::new(0));
        let header = SegmentHeader {
            cluster,
            drive,
            segment,
            sectors,
            state,
            life,
            first,
            durable,
            mount_epoch,
            written,
        };
        let mut sector = [0; 4096];
        header.encode(&mut sector);
        for copy in 0..2 {
            fixture.file.as_file().write_all_at(&sector, layout.offset(segment, copy)).unwrap();
        }
        let last = Sequence::new(sequence - 1);
        let records = (0..count).map(record).collect();
        let footer = Footer {
            cluster,
            drive,
            segment,
            sectors,
            life,
            first,
            last,
            lost: 0,
            records,
            tombstones: Vec::new(),
        };
        let bytes = footer.encode();
        let at = layout.offset(segment, sectors - (bytes.len() / 4096) as u32);
        fixture.file.as_file().write_all_at(&bytes, at).unwrap();
    }
    fixture.file.as_file().sync_all().unwrap();
    let (drive, report) = fixture.open();
    assert_eq!((report.shards, report.segments_scanned, report.is_clean()), (1_000_000, 0, true));
    let memory = drive.status().index_memory.get() as f64 / 1e6;
    println!("mount of 1,000,000 records: {:?}, {memory:.1} bytes of index a record", report.took);
    assert!(memory <= 48.0, "{memory} bytes of index a record");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_from_before_a_drive_was_closed_has_a_label_that_is_behind() {
    let fixture = Fixture::new(64);
    let (drive, _) = fixture.open();
    let image = std::fs::read(fixture.path()).unwrap();
    assert_eq!(drive.status().label_counter, drive.identity().label_counter);
    drive.put(fixture.write(shard(1), 1, &bytes(1, 5000)).await).await.unwrap();
    drive.close().await;
    let counter = drive.status().label_counter;
    let label = || match probe(fixture.path()).unwrap() {
        Probe::Ours(identity) => identity.label_counter,
        other => panic!("{other:?}"),
    };
    assert_eq!(label(), counter);
    fixture.file.as_file().write_all_at(&image, 0).unwrap();
    assert!(label() < counter);
}

#[test]
fn an_erased_drive_is_blank_and_one_that_is_open_is_not_erased() {
    let fixture = Fixture::new(64);
    let (drive, _) = fixture.open();
    assert!(erase(fixture.path()).is_err(), "it is open");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(drive.close());
    drop(drive);
    erase(fixture.path()).unwrap();
    assert_eq!(probe(fixture.path()).unwrap(), Probe::Blank);
    let params =
        FormatParams { cluster: CLUSTER, drive: DriveId::from_bytes([0xD2; 16]), node: NodeId::new(1) };
    format(fixture.path(), &params).unwrap();
    let (drive, report) = fixture.open();
    assert_eq!((report.shards, drive.id()), (0, params.drive));
    runtime.block_on(drive.close());
}

/// A record of the catalog's second copy, as it is written to a drive.
async fn catalog_record(fixture: &Fixture, n: u32, kind: CatalogRecordKind) -> ShardWrite {
    let body = bytes(n, 4000);
    let header = CatalogRecordHeader {
        kind,
        group: GroupId::new(1),
        cluster: CLUSTER,
        node: NodeId::new(1),
        first: u64::from(n),
        last: u64::from(n),
        begun: UnixMillis::new(1),
        part: 0,
        parts: 1,
        length: 4000,
    };
    let payload = [&header.encode(), &body[..]].concat();
    let write = fixture.write(shard(n), 1, &payload).await;
    ShardWrite { tenant: CATALOG_OWNER, data: 1, parity: 2, manifest: Vec::new(), ..write }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_full_of_journal_takes_the_base_that_replaces_it() {
    const BASE: std::ops::Range<u32> = 100_000..100_040;
    let fixture = Fixture::new(16);
    let (drive, _) = fixture.open();
    let mut journal = Vec::new();
    for n in 0..BASE.start {
        match drive.put(catalog_record(&fixture, n, CatalogRecordKind::Journal).await).await {
            Ok(_) => journal.push(n),
            Err(PutError::Full { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(journal.len() > 500, "{} records of 8 KiB on 16 MiB", journal.len());
    for n in BASE {
        let kind = if n + 1 < BASE.end { CatalogRecordKind::BasePiece } else { CatalogRecordKind::BaseRoot };
        drive.put(catalog_record(&fixture, n, kind).await).await.unwrap();
    }
    let shut = drive.put(catalog_record(&fixture, BASE.end, CatalogRecordKind::Journal).await).await;
    assert!(matches!(shut, Err(PutError::Full { .. })), "{shut:?}");

    for n in &journal {
        assert!(drive.delete(shard(*n), G1).await.unwrap());
    }
    // What was replaced is reclaimed in its time.
    for n in BASE.end + 1.. {
        assert!(n < BASE.end + 500, "the drive stays full");
        if drive.put(catalog_record(&fixture, n, CatalogRecordKind::Journal).await).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for n in BASE {
        let (got, _) = drive.get_whole(shard(n), G1, DEADLINE).await.unwrap();
        assert_eq!(&got[CatalogRecordHeader::SIZE..], &bytes(n, 4000)[..]);
    }
    drive.close().await;
    assert!(inspect::inspect(fixture.path()).unwrap().is_sound());
}
