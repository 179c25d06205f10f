//! Rotation and new splittings cut off between any two steps, on three nodes' real share files and a real
//! control state: afterwards any two nodes open every tenant, and the same change goes through.

mod destruction;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use holdfast_consensus::{Applied, StateMachine};
use holdfast_control::{
    Command, ControlMachine, ControlReader, ControlView, KeyCommand, NewTenant, Outcome, RegisterNode,
    Rewrapped, ServiceAddresses, Splitting, decode_outcome,
};
use holdfast_crypt::{ClusterKey, ExternalKek, ExternallySealed, Root, TenantKey, random_array};
use holdfast_keyring::{Gathering, HeldShare, KEYS_DIR, ShareStore, deal};
use holdfast_keyservice::{Client, KeyError, Opening, Protect};
use holdfast_model::{ClusterId, DatabaseId, KeyId, NodeId, RootEpoch, SplitId, TenantId, UnixMillis};

use super::{
    Holder,
    roll::command_for,
    unlock::{let_go, named_roots},
};
use crate::tenants::learn;

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const NODES: u8 = 3;
const THRESHOLD: u8 = 2;
const TENANTS: u8 = 4;
/// The tenant whose key is sealed under an external key. Nobody has that but at the end of each check.
const EXTERNAL: TenantId = TenantId::from_bytes([3; 16]);
const CIPHERTEXT: &str = "vault:v1:of-the-test";

/// Three nodes' disks and the state they agree on.
struct World {
    _dir: tempfile::TempDir,
    state: std::path::PathBuf,
    machine: ControlMachine,
    reader: ControlReader,
    index: u64,
    /// Public names of all versions of each tenant's key.
    keys: BTreeMap<TenantId, Vec<(u32, KeyId)>>,
    /// What gives back the key of [`EXTERNAL`].
    kek: ExternalKek,
}

impl World {
    fn founded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().to_path_buf();
        let (machine, reader) = ControlMachine::open(&state.join("control"), [7; 16]).unwrap();
        let mut world = Self {
            _dir: dir,
            state,
            machine,
            reader,
            index: 0,
            keys: BTreeMap::new(),
            kek: ExternalKek::generate(),
        };
        world.decide(&Command::InitCluster {
            cluster: CLUSTER,
            name: "test".into(),
            region: "us-east-1".into(),
            level: "+2d:1n".parse().unwrap(),
            catalog_groups: 1,
            first: RegisterNode {
                request: [1; 16],
                name: "n1".into(),
                peer: "127.0.0.1:1".parse().unwrap(),
                services: ServiceAddresses::default(),
                token_hash: [0; 32],
                at: UnixMillis::new(1),
            },
        });
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        let (splitting, shares) = dealt(&root, None);
        for (node, share) in (0..NODES).zip(shares) {
            world.store(node).add(share).unwrap();
        }
        world.decide(&Command::Keys(KeyCommand::Found {
            epoch: root.epoch(),
            root: root.id(),
            splitting,
            cluster_key: root.wrap_cluster_key(&ClusterKey::generate()),
            at: UnixMillis::new(1),
        }));
        for seed in 1..=TENANTS {
            let (tenant, key) = (TenantId::from_bytes([seed; 16]), TenantKey::generate());
            world.decide(&Command::CreateTenant(NewTenant {
                tenant,
                name: format!("tenant-{seed}"),
                database_id: DatabaseId::from_bytes([seed; 16]),
                wrapped_key: world.wrapped(&root, tenant, &key),
                level: None,
                access_key: format!("KEY{seed}"),
                sealed_secret: vec![seed],
                at: UnixMillis::new(1),
            }));
            world.keys.insert(tenant, key.ids());
        }
        world
    }

    fn wrapped(&self, root: &Root, tenant: TenantId, key: &TenantKey) -> Vec<u8> {
        if tenant != EXTERNAL {
            return root.wrap_tenant(tenant, key);
        }
        let texts = ("a test's key", CIPHERTEXT);
        let place = (CLUSTER, tenant);
        let sealed = ExternallySealed::seal(place, key, &self.kek, [9; 16], texts.0, texts.1).unwrap();
        root.wrap_external(tenant, &sealed)
    }

    fn decide(&mut self, command: &Command) {
        self.index += 1;
        let commands: [Bytes; 1] = [command.encode()];
        let answers = self.machine.apply(&[Applied { index: self.index, commands: &commands }]).unwrap();
        let outcome: Outcome = decode_outcome(&answers[0][0]).unwrap();
        outcome.unwrap();
    }

    fn view(&self) -> ControlView {
        self.reader.view().unwrap()
    }

    /// A node's shares as they are on its disk.
    fn store(&self, node: u8) -> ShareStore {
        ShareStore::open(&self.state.join(format!("n{node}")), CLUSTER, None).unwrap()
    }

    /// A node as it starts: its own shares and those of `others`.
    fn started(&self, node: u8, others: &[u8]) -> Holder {
        let dir = self.state.join(format!("n{node}")).join(KEYS_DIR);
        let opening = Opening { cluster: CLUSTER, dir: dir.clone(), protect: Protect::File };
        let (keyring, view) = (Arc::new(Client::here(&opening, &dir).unwrap()), self.view());
        let mut shares = Vec::new();
        for member in others {
            shares.extend_from_slice(self.store(*member).shares().unwrap().shares());
        }
        keyring.gather(shares, named_roots(&view)).unwrap();
        learn(&view, &keyring);
        Holder { keyring }
    }

    /// Any two nodes open everything; one alone opens nothing.
    fn check(&self, moment: &str) {
        for node in 0..NODES {
            assert!(self.started(node, &[]).keyring.is_locked(), "{moment}: n{node} alone");
            for other in (0..NODES).filter(|other| *other != node) {
                let holder = self.started(node, &[other]);
                assert!(holder.keyring.has_cluster_key(), "{moment}: n{node} with n{other}");
                if let Some(record) = self.view().tenants.get(&EXTERNAL) {
                    let opened = holder.keyring.check_open(EXTERNAL, &record.wrapped_key);
                    assert!(matches!(opened, Err(KeyError::WaitsForExternal { .. })), "{moment}: {opened:?}");
                    let metadata = holder.keyring.tenant_metadata(EXTERNAL, &record.wrapped_key).unwrap();
                    assert_eq!(metadata.ids(), self.keys[&EXTERNAL], "{moment}");
                    holder.keyring.offer_external(EXTERNAL, CIPHERTEXT, &self.kek);
                }
                for record in self.view().tenants.values() {
                    let opened = holder.keyring.tenant_key_names(record.tenant, &record.wrapped_key);
                    let opened = opened.unwrap_or_else(|e| panic!("{moment}: n{node} with n{other}: {e}"));
                    assert_eq!(opened, self.keys[&record.tenant]);
                    holder.keyring.check_open(record.tenant, &record.wrapped_key).unwrap();
                }
            }
        }
    }
}

fn dealt(root: &Root, replaces: Option<SplitId>) -> (Splitting, Vec<HeldShare>) {
    let split = SplitId::from_bytes(random_array());
    let shares = deal(root, split, replaces, THRESHOLD, NODES).unwrap();
    (splitting(split, &shares), shares)
}

fn dealt_by(leader: &Holder, epoch: RootEpoch, replaces: SplitId) -> (Splitting, Vec<HeldShare>) {
    let split = SplitId::from_bytes(random_array());
    let shares = leader.keyring.deal(epoch, split, Some(replaces), THRESHOLD, NODES).unwrap();
    (splitting(split, &shares), shares)
}

fn splitting(split: SplitId, shares: &[HeldShare]) -> Splitting {
    let holders = (0..NODES).zip(shares).map(|(n, share)| (NodeId::new(u64::from(n) + 1), share.x()));
    Splitting { split, threshold: THRESHOLD, holders: holders.collect() }
}

/// Says before each step whether it is taken: the first `steps` are.
fn cut_after(steps: usize) -> impl FnMut() -> bool {
    let mut step = 0;
    move || {
        step += 1;
        step <= steps
    }
}

/// Rotates the root, or goes on with that, as far as `goes_on` says; whether it came to its end.
fn rotate(world: &mut World, goes_on: &mut dyn FnMut() -> bool) -> bool {
    (world.view().keys.roots.len() > 1 || roll(world, goes_on)) && settle(world, goes_on)
}

/// Deals a new root's shares and puts it in force.
fn roll(world: &mut World, goes_on: &mut dyn FnMut() -> bool) -> bool {
    let leader = world.started(0, &[1]);
    let view = world.view();
    let current = view.keys.current().unwrap();
    let epoch = RootEpoch::new(current.epoch.get() + 1);
    leader.keyring.begin_root(epoch).unwrap();
    let (splitting, shares) = dealt_by(&leader, epoch, current.splitting.split);
    for (node, share) in (0..NODES).zip(shares) {
        if !goes_on() {
            return false;
        }
        world.store(node).add(share).unwrap();
    }
    let command = command_for(&view, &leader.keyring, epoch, splitting).unwrap();
    if !goes_on() {
        return false;
    }
    world.decide(&Command::Keys(command));
    true
}

/// Each node hears of the root in force and lets go, before and after the old root is retired.
fn settle(world: &mut World, goes_on: &mut dyn FnMut() -> bool) -> bool {
    for retired in [false, true] {
        if retired && world.view().keys.roots.len() > 1 {
            if !goes_on() {
                return false;
            }
            let epoch = world.view().keys.current().unwrap().epoch;
            world.decide(&Command::Keys(KeyCommand::Retire { epoch }));
        }
        for node in 0..NODES {
            if !goes_on() {
                return false;
            }
            let holder = world.started(node, &[(node + 1) % NODES]);
            let_go(&holder, &world.view()).unwrap();
        }
    }
    true
}

#[test]
fn a_rotation_cut_off_between_any_two_steps_strands_nothing_and_goes_through_afterwards() {
    let mut cuts = 0;
    loop {
        let mut world = World::founded();
        let complete = rotate(&mut world, &mut cut_after(cuts));
        world.check(&format!("cut before step {}", cuts + 1));
        assert!(rotate(&mut world, &mut cut_after(usize::MAX)));
        world.check(&format!("again after a cut before step {}", cuts + 1));
        let view = world.view();
        assert_eq!(view.keys.roots.len(), 1, "the old root is gone");
        for node in 0..NODES {
            let held = world.store(node).shares().unwrap();
            assert_eq!(held.shares().len(), 1, "old shares are gone from n{node}: {held:?}");
        }
        if complete {
            break;
        }
        cuts += 1;
    }
    assert_eq!(cuts, 11, "three deals, the command, three nodes, the retirement, three nodes");
}

#[test]
fn a_new_splitting_cut_off_between_any_two_steps_leaves_one_that_opens() {
    for cut in 0..=7 {
        let mut world = World::founded();
        let leader = world.started(0, &[1]);
        let view = world.view();
        let current = view.keys.current().unwrap();
        let (splitting, shares) = dealt_by(&leader, current.epoch, current.splitting.split);
        let command =
            KeyCommand::Split { epoch: current.epoch, replaces: current.splitting.split, splitting };
        for (node, share) in (0..NODES).zip(shares).take(cut) {
            world.store(node).add(share).unwrap();
        }
        if cut > 3 {
            world.decide(&Command::Keys(command));
        }
        for node in 0..u8::try_from(cut.saturating_sub(4)).unwrap() {
            let_go(&world.started(node, &[(node + 1) % NODES]), &world.view()).unwrap();
        }
        world.check(&format!("cut after step {cut}"));
    }
}

#[test]
fn a_version_of_an_externally_sealed_key_is_added_whole_or_not_at_all() {
    for taken in [false, true] {
        let mut world = World::founded();
        let node = world.started(0, &[1]);
        let was = world.view().tenants[&EXTERNAL].wrapped_key.clone();
        assert!(node.keyring.rotate_tenant_key(EXTERNAL, &was).is_err(), "not without the external key");
        node.keyring.offer_external(EXTERNAL, CIPHERTEXT, &world.kek);
        let (now, version) = node.keyring.rotate_tenant_key(EXTERNAL, &was).unwrap();
        let next = node.keyring.tenant_key_names(EXTERNAL, &now).unwrap();
        assert_eq!((version, next.len(), &next[..1]), (2, 2, &world.keys[&EXTERNAL][..]));
        if taken {
            let key = Rewrapped { was, now };
            world.decide(&Command::Keys(KeyCommand::SetTenantKey { tenant: EXTERNAL, key }));
            world.keys.insert(EXTERNAL, next);
        }
        world.check(if taken { "after one more version" } else { "before one more version" });
        assert!(rotate(&mut world, &mut cut_after(usize::MAX)));
        world.check("under the next root");
    }
}
