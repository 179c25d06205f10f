//! A machine that boots its disk through UEFI firmware, as a real one does.

mod common;

use common::TinyCluster;
use holdfast_qemu::{Boot, Cluster};

#[test]
fn ovmf_boot_of_the_disk_image_reaches_node_role_twice() {
    let tiny = TinyCluster::new(Boot::Ovmf, 1, 1);
    let mut cluster = Cluster::start(&tiny.spec).unwrap();
    tiny.await_answer(0, "status", |status| status == "n1 starts 1 drives /dev/vdb");
    let guest = cluster.guest("n1").unwrap();
    guest.kill();
    guest.start().unwrap();
    tiny.await_answer(0, "status", |status| status == "n1 starts 2 drives /dev/vdb");
    assert!(guest.stop(common::PATIENCE).unwrap(), "the power button was not obeyed");
}
