//! A tenant's destruction cut off before each of its recorded steps, and gone on with: the other tenants open at
//! every moment, it is never called finished too early, and at the end no share of any node gives a root that opens
//! the key. What nodes purge from logs and drives is not part of this: the black box cuts power there.

use holdfast_control::{ShredCommand, ShredOrder, TenantState};

use super::*;
use crate::keys::shred::{keeps_key, waits_for};

const VICTIM: TenantId = TenantId::from_bytes([1; 16]);
const AT: UnixMillis = UnixMillis::new(2);

/// Destroys the tenant, or goes on with that where the record stands; whether it came to its end.
fn destroy(world: &mut World, goes_on: &mut dyn FnMut() -> bool) -> bool {
    let decide = |world: &mut World, command: &Command, goes_on: &mut dyn FnMut() -> bool| {
        let taken = goes_on();
        if taken {
            world.decide(command);
        }
        taken
    };
    if let Some(row) = world.view().tenants.get(&VICTIM) {
        let suspend = Command::SetTenantState { tenant: VICTIM, state: TenantState::Suspended };
        let order = ShredCommand::Begin(ShredOrder {
            tenant: VICTIM,
            was: row.wrapped_key.clone(),
            keys: world.keys[&VICTIM].clone(),
            secrets: Vec::new(),
            by: "operator".into(),
            overridden: None,
            at: AT,
        });
        let gone = ShredCommand::Destroy { tenant: VICTIM, through: BTreeMap::new(), at: AT };
        let begun = world.view().shreds.contains_key(&VICTIM)
            || decide(world, &suspend, goes_on) && decide(world, &Command::Shred(order), goes_on);
        if !begun {
            return false;
        }
        if !decide(world, &Command::Shred(gone), goes_on) {
            return false;
        }
    }
    let destroyed = world.view().shreds[&VICTIM].destroyed.clone().unwrap();
    let current = world.view().keys.current().unwrap().epoch;
    if current <= destroyed.epoch && !roll(world, goes_on) || !settle(world, goes_on) {
        return false;
    }
    for node in 0..NODES {
        let holder = world.started(node, &[(node + 1) % NODES]);
        assert_eq!(keeps_key(&world.view(), VICTIM, &destroyed, &holder).unwrap(), None);
        let confirm =
            ShredCommand::Confirm { tenant: VICTIM, node: NodeId::new(u64::from(node) + 1), at: AT };
        if !decide(world, &Command::Shred(confirm), goes_on) {
            return false;
        }
    }
    let finish = ShredCommand::Finish { tenant: VICTIM, certificate: "signed".into(), at: AT };
    decide(world, &Command::Shred(finish), goes_on)
}

/// Whether any root that the shares of all nodes give opens the key.
fn opens(world: &World, wrapped: &[u8]) -> bool {
    let mut gathering = Gathering::default();
    for node in 0..NODES {
        for share in world.store(node).shares().unwrap().shares() {
            gathering.add(share.clone());
        }
    }
    gathering.roots(CLUSTER).iter().any(|root| root.unwrap_tenant(VICTIM, wrapped).is_ok())
}

#[test]
fn a_destruction_cut_off_between_any_two_steps_goes_on_to_its_end_and_harms_nobody_else() {
    let mut cuts = 0;
    loop {
        let mut world = World::founded();
        let wrapped = world.view().tenants[&VICTIM].wrapped_key.clone();
        assert!(opens(&world, &wrapped), "the method opens it while it may be opened");
        let complete = destroy(&mut world, &mut cut_after(cuts));
        let moment = format!("cut before step {}", cuts + 1);
        world.check(&moment);
        let view = world.view();
        if let Some(record) = view.shreds.get(&VICTIM) {
            assert_eq!(waits_for(&view, record).is_none(), complete, "{moment}: called finished");
            assert_eq!(view.tenants.contains_key(&VICTIM), record.destroyed.is_none(), "{moment}");
        }
        assert!(destroy(&mut world, &mut cut_after(usize::MAX)), "{moment}: goes on to its end");
        world.check(&format!("again after a {moment}"));
        let view = world.view();
        assert_eq!(view.tenants.len(), usize::from(TENANTS) - 1);
        assert_eq!(waits_for(&view, &view.shreds[&VICTIM]), None, "{moment}");
        assert!(!opens(&world, &wrapped), "{moment}: a share that is left gives a root that opens it");
        if complete {
            break;
        }
        cuts += 1;
    }
    assert_eq!(cuts, 18, "three decisions, the root's eleven steps, three confirmations, the end");
}
