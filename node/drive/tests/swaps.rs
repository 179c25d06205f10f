//! No record is taken for another: of shards of two stripes, each in two generations, the records of every pair are
//! exchanged on the device, whole with header and checksums, and none is read as the other.

use std::{os::unix::fs::FileExt, time::Duration};

use holdfast_drive::{inspect::InspectedRecord, *};
use holdfast_format::Layout;
use holdfast_model::{
    ByteCount, ClusterId, DriveId, Generation, NodeId, ShardId, ShardIndex, StripeId, TenantId,
    limits::SECTOR_SIZE,
};
use holdfast_ring::BufferPool;

const DEADLINE: Duration = Duration::from_secs(30);
const CLUSTER: ClusterId = ClusterId::from_bytes([0xC1; 16]);
const CAPACITY: ByteCount = ByteCount::mib(64);
const STRIPES: u8 = 2;
const SHARDS: u8 = 3;
const GENERATIONS: u32 = 2;
const TENANTS: u8 = 2;
/// The same length for all, so that only what a record says tells it apart.
const LENGTH: usize = 3 * SECTOR_SIZE;

fn shard(stripe: u8, index: u8) -> ShardId {
    ShardId { stripe: StripeId::from_bytes([stripe; 16]), index: ShardIndex::new(index) }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_read_in_the_place_of_another() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.as_file().set_len(CAPACITY.get()).unwrap();
    let params =
        FormatParams { cluster: CLUSTER, drive: DriveId::from_bytes([0xD1; 16]), node: NodeId::new(1) };
    format(file.path(), &params).unwrap();
    let pool = BufferPool::new(ByteCount::mib(16)).unwrap();
    let open = || Drive::open(file.path(), CLUSTER, DriveOptions::new(pool.clone())).unwrap().0;
    let drive = open();
    // Stripes of two tenants; every shard is written once more in a newer generation.
    for generation in 1..=GENERATIONS {
        for stripe in 0..STRIPES * TENANTS {
            for index in 0..SHARDS {
                let mut payload = pool.acquire(LENGTH).await;
                payload.fill(stripe << 4 | index);
                let write = ShardWrite {
                    id: shard(stripe, index),
                    generation: Generation::new(generation),
                    tenant: TenantId::from_bytes([stripe % TENANTS; 16]),
                    data: 2,
                    parity: 1,
                    manifest: vec![1, 2, 3],
                    payload,
                };
                drive.put(write).await.unwrap();
            }
        }
    }
    drive.close().await;
    let mut records: Vec<InspectedRecord> = Vec::new();
    inspect::inspect_each(file.path(), |record| records.push(record.clone())).unwrap();
    assert_eq!(records.len(), usize::from(STRIPES * TENANTS * SHARDS) * GENERATIONS as usize);

    let layout = Layout::for_capacity(CAPACITY).unwrap();
    let size = SECTOR_SIZE + LENGTH;
    let bytes = |record: &InspectedRecord| {
        let mut bytes = vec![0; size];
        file.as_file().read_exact_at(&mut bytes, layout.offset(record.segment, record.sector)).unwrap();
        bytes
    };
    let put = |record: &InspectedRecord, bytes: &[u8]| {
        file.as_file().write_all_at(bytes, layout.offset(record.segment, record.sector)).unwrap();
    };
    let newest = Generation::new(GENERATIONS);
    let drive = open();
    let read = async |record: &InspectedRecord, generation| {
        drive.get(record.shard, generation, 0..LENGTH as u32, DEADLINE).await
    };
    let (mut tried, mut older) = (0, 0);
    for here in records.iter().filter(|record| record.generation == newest) {
        let own = bytes(here);
        assert!(read(here, newest).await.is_ok(), "{here} as it was written");
        assert!(read(here, Generation::new(1)).await.is_err(), "{here} by its older generation");
        for there in
            records.iter().filter(|there| (there.segment, there.sector) != (here.segment, here.sector))
        {
            let theirs = bytes(there);
            put(here, &theirs);
            put(there, &own);
            assert!(read(here, newest).await.is_err(), "{here} with the record of {there}");
            put(here, &own);
            put(there, &theirs);
            tried += 1;
            older += u32::from(there.shard == here.shard);
        }
        assert!(read(here, newest).await.is_ok(), "{here} put back");
    }
    println!(
        "{tried} exchanges of records, {older} of them with an older generation of the same shard: none read"
    );
    drive.close().await;
}
