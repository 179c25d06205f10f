//! Feature levels, and the splits of partitions that need one.

use holdfast_control::{
    Command, FEATURE_LEVEL_EVENTS, FEATURE_LEVEL_SPLITS, FeatureCommand, Refusal, Response,
};
use holdfast_model::{GroupId, PartitionId};

use crate::common::*;

fn report(n: u64, level: u32) -> Command {
    Command::Features(FeatureCommand::Report { node: node(n), level })
}

fn raise(level: u32) -> Command {
    Command::Features(FeatureCommand::Raise { level })
}

/// A cluster of nodes 1 and 2 with a tenant.
fn two_nodes(dir: &std::path::Path) -> Replica {
    let mut replica = Replica::open(dir);
    replica.done(&init());
    replica.done(&token(5, LATER));
    replica.done(&ask(2, "n2", 5));
    replica.done(&tenant(1, "demo"));
    replica
}

#[test]
fn a_level_is_raised_when_every_node_can_and_keeps_older_programs_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = two_nodes(dir.path());
    let level = |replica: &Replica| replica.reader.view().unwrap().cluster.unwrap().feature_level;
    assert_eq!(level(&replica), 1);
    replica.done(&report(1, 3));
    assert_eq!(replica.run(&raise(3)), Err(Refusal::FeatureLevel { needs: 3, has: 1 }));
    replica.done(&report(2, 2));
    assert_eq!(replica.run(&raise(3)), Err(Refusal::FeatureLevel { needs: 3, has: 2 }));
    replica.done(&raise(2));
    // It never falls, and a program below it is told so.
    replica.done(&raise(1));
    assert_eq!(level(&replica), 2);
    assert_eq!(replica.run(&report(2, 1)), Err(Refusal::FeatureLevel { needs: 2, has: 1 }));
    assert!(matches!(replica.run(&report(9, 2)), Err(Refusal::NotFound { .. })));
    let view = replica.reader.view().unwrap();
    assert_eq!((view.nodes[&node(1)].feature_level, view.nodes[&node(2)].feature_level), (3, 2));
    // Who was removed holds nobody back.
    replica.done(&Command::RemoveNode(node(2)));
    replica.done(&raise(3));
    assert_eq!(level(&replica), 3);
}

#[test]
fn partitions_are_split_off_once_every_node_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = two_nodes(dir.path());
    let first = PartitionId::new(1);
    let split = |partition, of| Command::SplitPartition { partition, of };
    let needs = Refusal::FeatureLevel { needs: FEATURE_LEVEL_SPLITS, has: 1 };
    assert_eq!(replica.run(&split(first, 1)), Err(needs));
    for n in [1, 2] {
        replica.done(&report(n, FEATURE_LEVEL_SPLITS));
    }
    replica.done(&raise(FEATURE_LEVEL_SPLITS));
    let group = replica.reader.view().unwrap().tenants[&tenant_id(1)].partitions[0].1;
    let second = PartitionId::new(2);
    assert_eq!(replica.run(&split(first, 1)), Ok(Response::PartitionAdded(second, group)));
    // Asked for twice at once, one of them is too late.
    assert!(matches!(replica.run(&split(first, 1)), Err(Refusal::Changed(_))));
    assert!(matches!(replica.run(&split(PartitionId::new(9), 2)), Err(Refusal::NotFound { .. })));
    assert_eq!(replica.run(&split(second, 2)), Ok(Response::PartitionAdded(PartitionId::new(3), group)));
    let record = replica.reader.view().unwrap().tenants[&tenant_id(1)].clone();
    assert_eq!(record.partitions.len(), 3);
    assert!(record.partitions.iter().all(|(_, of)| *of == group && *of != GroupId::CONTROL));
    assert_eq!(
        record.split_from.into_iter().collect::<Vec<_>>(),
        [(second, first), (PartitionId::new(3), second)]
    );
}

#[test]
fn each_partition_is_a_database_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = two_nodes(dir.path());
    for n in [1, 2] {
        replica.done(&report(n, FEATURE_LEVEL_SPLITS));
    }
    replica.done(&raise(FEATURE_LEVEL_SPLITS));
    replica.done(&Command::SplitPartition { partition: PartitionId::new(1), of: 1 });
    let record = replica.reader.view().unwrap().tenants[&tenant_id(1)].clone();
    assert_eq!(record.database_of(PartitionId::new(1)), record.database_id);
    let second = record.database_of(PartitionId::new(2));
    assert_ne!(second, record.database_id);
    // A promise to catalogs already written.
    assert_eq!(second.to_string(), "ef3a8e805ff595167004fa71854f484c");
}

#[test]
fn secrets_are_removed_once_every_node_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = two_nodes(dir.path());
    replica.done(&Command::PutSecret { name: "hook".into(), sealed: vec![1] });
    let remove = Command::RemoveSecret { name: "hook".into() };
    let needs = Refusal::FeatureLevel { needs: FEATURE_LEVEL_EVENTS, has: 1 };
    assert_eq!(replica.run(&remove), Err(needs));
    let known = |replica: &Replica| replica.reader.view().unwrap().secrets.contains_key("hook");
    assert!(known(&replica));
    for n in [1, 2] {
        replica.done(&report(n, FEATURE_LEVEL_EVENTS));
    }
    replica.done(&raise(FEATURE_LEVEL_EVENTS));
    replica.done(&remove);
    assert!(!known(&replica));
    // Once more: it is gone already.
    replica.done(&remove);
}
