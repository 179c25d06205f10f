//! Machines booted directly (PVH): the node role, its disks, and the faults the harness injects.

mod common;

use std::fs;

use common::{PORT, TinyCluster, until};
use holdfast_qemu::{
    Boot, Cluster, Command, GuestState, LinkFault, Reply, running_supervisor, send_to_cluster, supervise,
};

#[test]
fn pvh_boot_reaches_node_role() {
    let mut tiny = TinyCluster::new(Boot::Pvh, 1, 2);
    tiny.spec.nodes[0].volatile = Some(2026);
    tiny.spec.nodes[0].tpm = true;
    let mut cluster = Cluster::start(&tiny.spec).unwrap();
    let status = tiny.await_answer(0, "status", |_| true);
    assert_eq!(status, "n1 starts 1 drives /dev/vdb /dev/vdc");

    // A role that dies comes back; PID 1 stays.
    assert_eq!(tiny.ask(0, "die"), None);
    tiny.await_answer(0, "status", |status| status.starts_with("n1 starts 2 "));

    // A pulled drive is gone for the guest, and comes back under the same serial number.
    let guest = cluster.guest("n1").unwrap();
    guest.unplug("d1").unwrap();
    tiny.await_answer(0, "status", |status| status.ends_with("drives /dev/vdc"));
    assert_ne!(tiny.ask(0, "read /dev/vdb").as_deref(), Some("read 512"));
    guest.plug("n1d1").unwrap();
    tiny.await_answer(0, "status", |status| {
        status.split("drives ").nth(1).is_some_and(|d| d.split(' ').count() == 2)
    });

    // What the guest flushed survives a power cut; of the rest, the drive keeps what chance says.
    guest.fault_disk("d2").unwrap();
    for request in
        ["write /dev/vdc 0 64 7", "flush /dev/vdc", "write /dev/vdc 64 64 8", "write /dev/vdc 0 8 9"]
    {
        assert_eq!(tiny.ask(0, request).as_deref(), Some("ok"), "{request}");
    }
    assert_eq!(tiny.ask(0, "holds /dev/vdc 64 64 8").as_deref(), Some("64"), "the cache answers");

    // A power cut keeps STATE; the configuration is the kept one, whatever the seed says now.
    guest.kill();
    assert_eq!(guest.state(), GuestState::Off);
    let seed = fs::read_to_string(&tiny.spec.nodes[0].seed).unwrap();
    fs::write(&tiny.spec.nodes[0].seed, seed.replace("\"n1\"", "\"other\"")).unwrap();
    guest.start().unwrap();
    tiny.await_answer(0, "status", |status| status == "n1 starts 3 drives /dev/vdb /dev/vdc");

    assert_eq!(tiny.ask(0, "holds /dev/vdc 8 56 7").as_deref(), Some("56"), "flushed, and not written since");
    let held = |request| tiny.ask(0, request).unwrap_or_default().parse::<u64>().unwrap_or_default();
    let (old, new) = (held("holds /dev/vdc 0 8 7"), held("holds /dev/vdc 0 8 9"));
    assert_eq!(old + new, 8, "each sector is old or new");
    let (kept, lost) = (held("holds /dev/vdc 64 64 8"), held("holds /dev/vdc 64 64 0"));
    println!(
        "power cut: {kept} sectors that were not flushed survived, {lost} did not; {new} of 8 overwritten"
    );
    assert_eq!(kept + lost, 64);
    assert!(kept > 0 && lost > 0, "the whole cache was kept or lost");

    // The power button ends it in order.
    assert!(guest.stop(common::PATIENCE).unwrap(), "the power button was not obeyed");
    let console = tiny.console("n1");
    for line in [
        "holdfast: Holdfast",
        "configuration taken from the seed, now kept",
        "configuration kept on STATE",
        "the node role ended: exit status: 3",
        "tiny node n1 is ready",
        "the power button was pressed",
        "the machine is switched off",
    ] {
        assert!(console.contains(line), "{line:?} is not on the console:\n{console}");
    }
    for complaint in ["cannot", "kernel module"] {
        let lines = console.lines().filter(|line| line.starts_with("holdfast: ") && line.contains(complaint));
        let unexpected: Vec<&str> = lines.filter(|line| !line.contains("kernel modules loaded")).collect();
        assert!(unexpected.is_empty(), "PID 1 complains: {unexpected:#?}");
    }
}

#[test]
fn a_machine_without_a_seed_says_so_and_obeys_the_power_button() {
    let tiny = TinyCluster::new(Boot::Pvh, 1, 0);
    fs::write(&tiny.spec.nodes[0].seed, "{}").unwrap();
    let mut cluster = Cluster::start(&tiny.spec).unwrap();
    let complaint = "configuration: the configuration at /sys/firmware/qemu_fw_cfg";
    until(|| tiny.console("n1").contains(complaint).then_some(()))
        .unwrap_or_else(|| panic!("no complaint on the console:\n{}", tiny.console("n1")));
    assert!(cluster.guest("n1").unwrap().stop(common::PATIENCE).unwrap());
    assert!(!tiny.console("n1").contains("the node role runs"));
}

#[test]
fn a_machine_without_state_says_so_and_obeys_the_power_button() {
    let mut tiny = TinyCluster::new(Boot::Pvh, 1, 1);
    let blank = tiny.spec.dir.join("blank.img");
    fs::write(&blank, vec![0; 1 << 20]).unwrap();
    tiny.spec.image.disk = blank;
    let mut cluster = Cluster::start(&tiny.spec).unwrap();
    let complaint = "STATE: no partition is named holdfast-state";
    until(|| tiny.console("n1").contains(complaint).then_some(()))
        .unwrap_or_else(|| panic!("no complaint on the console:\n{}", tiny.console("n1")));
    assert!(cluster.guest("n1").unwrap().stop(common::PATIENCE).unwrap());
}

#[test]
fn links_between_machines_can_be_cut_and_healed() {
    let tiny = TinyCluster::new(Boot::Pvh, 2, 0);
    let mut cluster = Cluster::start(&tiny.spec).unwrap();
    let second = format!("reach {}:{PORT}", holdfast_qemu::cluster_address(2));
    tiny.await_answer(0, &second, |answer| answer.starts_with("n2 "));

    // The virtual network carries bulk: what arrives is all of it.
    let bulk = tiny.await_answer(0, &format!("{} 64", second.replace("reach", "pull")), |answer| {
        answer.contains("bytes")
    });
    assert!(bulk.starts_with("67108864 bytes in "), "{bulk}");
    println!("64 MiB between two machines: {bulk}");

    cluster.partition("n2").unwrap();
    tiny.await_answer(0, &second, |answer| answer == "unreachable");
    // The host reaches it still, by another way.
    tiny.await_answer(1, "status", |answer| answer.starts_with("n2 "));
    cluster.heal("n2").unwrap();
    tiny.await_answer(0, &second, |answer| answer.starts_with("n2 "));

    // One direction is enough to break TCP; slow and lossy links only slow it down.
    cluster.set_link_fault("n2", "n1", LinkFault { cut: true, ..LinkFault::default() }).unwrap();
    tiny.await_answer(0, &second, |answer| answer == "unreachable");
    let poor = LinkFault { cut: false, loss_per_mille: 50, delay_ms: 20 };
    cluster.set_link_fault("n2", "n1", poor).unwrap();
    tiny.await_answer(0, &second, |answer| answer.starts_with("n2 "));

    // A machine that stands still answers nobody, and goes on afterwards.
    cluster.guest("n2").unwrap().pause().unwrap();
    assert_eq!(cluster.guest("n2").unwrap().state(), GuestState::Paused);
    tiny.await_answer(0, &second, |answer| answer == "unreachable");
    cluster.guest("n2").unwrap().resume().unwrap();
    tiny.await_answer(0, &second, |answer| answer.starts_with("n2 starts 1"));

    // A machine that was off finds the switch again.
    cluster.guest("n2").unwrap().kill();
    cluster.guest("n2").unwrap().start().unwrap();
    tiny.await_answer(0, &second, |answer| answer.starts_with("n2 starts 2"));
}

#[test]
fn a_supervised_cluster_is_driven_over_its_control_socket_and_leaves_nothing_behind() {
    let mut tiny = TinyCluster::new(Boot::Pvh, 1, 1);
    tiny.spec.nodes[0].autostart = false;
    let spec = tiny.spec.clone();
    let supervisor = std::thread::spawn(move || supervise(&spec, |_| {}));
    let dir = &tiny.spec.dir;
    let info = until(|| running_supervisor(dir)).expect("the supervisor listens");
    let node = || "n1".to_owned();
    let status = || match send_to_cluster(dir, &Command::Status).unwrap() {
        Reply::Status(status) => status.guests[0].clone(),
        other => panic!("{other:?} to status"),
    };

    assert_eq!(status().state, GuestState::Off);
    assert_eq!(send_to_cluster(dir, &Command::Start { node: node() }).unwrap(), Reply::Done);
    tiny.await_answer(0, "status", |_| true);
    let pid = status().pid.expect("a running machine has a process");
    let refused = send_to_cluster(dir, &Command::Start { node: node() }).unwrap_err().to_string();
    assert!(refused.contains("n1 is running"), "{refused}");
    let unknown = send_to_cluster(dir, &Command::Kill { node: "n9".to_owned() }).unwrap_err().to_string();
    assert!(unknown.contains("there are n1"), "{unknown}");
    let rot = Command::Corrupt { node: node(), drive: "d1".to_owned(), blocks_max: 8 };
    assert!(matches!(send_to_cluster(dir, &rot).unwrap(), Reply::Corrupted(_)));

    assert_eq!(send_to_cluster(dir, &Command::Shutdown).unwrap(), Reply::Stopped { killed: Vec::new() });
    supervisor.join().unwrap().unwrap();
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "QEMU still runs");
    assert!(!info.control_socket.exists() && running_supervisor(dir).is_none());
}
