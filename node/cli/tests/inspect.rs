//! `holdfast drive inspect` as a person runs it.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{os::unix::fs::FileExt, path::Path, process::Command};

use holdfast_drive::{Drive, DriveOptions, FormatParams, ShardWrite, format};
use holdfast_model::{
    ByteCount, ClusterId, DriveId, Generation, NodeId, ShardId, ShardIndex, StripeId, TenantId,
};
use holdfast_ring::BufferPool;

const CLUSTER: ClusterId = ClusterId::from_bytes([0xC1; 16]);

/// Exit code, and everything that was printed.
fn inspect(arguments: &[&str], device: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let output = command.args(["drive", "inspect"]).args(arguments).arg(device).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_drive_a_damaged_one_and_something_else_are_told_apart() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.as_file().set_len(32 << 20).unwrap();
    let (code, text) = inspect(&[], file.path());
    assert!(code == 1 && text.contains("no drive of Holdfast"), "{code}: {text}");

    let params =
        FormatParams { cluster: CLUSTER, drive: DriveId::from_bytes([0xD1; 16]), node: NodeId::new(1) };
    format(file.path(), &params).unwrap();
    let pool = BufferPool::new(ByteCount::mib(8)).unwrap();
    let (drive, _) = Drive::open(file.path(), CLUSTER, DriveOptions::new(pool.clone())).unwrap();
    let mut payload = pool.acquire(10_000).await;
    payload.fill(0x5A);
    let id = ShardId { stripe: StripeId::from_bytes([3; 16]), index: ShardIndex::new(0) };
    let (generation, tenant) = (Generation::new(1), TenantId::from_bytes([7; 16]));
    drive
        .put(ShardWrite { id, generation, tenant, data: 1, parity: 0, manifest: Vec::new(), payload })
        .await
        .unwrap();
    drive.close().await;
    let (code, text) = inspect(&["--records"], file.path());
    assert!(code == 0 && text.contains(&params.drive.to_string()), "{code}: {text}");
    assert!(text.contains(&format!("shard {id}")) && text.contains("sound"), "{text}");

    // One byte of the record's payload.
    let mut all = vec![0; 32 << 20];
    file.as_file().read_exact_at(&mut all, 0).unwrap();
    let at = all.windows(64).position(|bytes| bytes == [0x5A; 64]).unwrap() as u64;
    file.as_file().write_all_at(&[0x5B], at).unwrap();
    file.as_file().sync_all().unwrap();
    let (code, text) = inspect(&[], file.path());
    assert!(code == 2 && text.contains("segment"), "{code}: {text}");
}
