//! The client with a service in the same process.

use std::path::Path;

use holdfast_crypt::{BodyContext, BodyKey, BodySealer, BodyUse, CustodyError};
use holdfast_model::{BucketId, ClusterId, RootEpoch, SplitId, TenantId, VersionId};

use super::{Client, RemoteTenant};
use crate::{Opening, Protect, Purpose, Standing, uses};

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const TENANT: TenantId = TenantId::from_bytes([2; 16]);
const BUCKET: BucketId = BucketId::from_bytes([3; 16]);

fn founded(dir: &Path) -> Client {
    let opening = Opening { cluster: CLUSTER, dir: dir.to_path_buf(), protect: Protect::File };
    let client = Client::here(&opening, dir).unwrap();
    if client.state().shares.is_some_and(|shares| shares.is_empty()) {
        client.found().unwrap();
    } else {
        client.gather(Vec::new(), Vec::new()).unwrap();
    }
    client
}

#[test]
fn bodies_are_served_as_the_policy_says_and_every_use_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let client = founded(dir.path());
    let wrapped = client.make_tenant_key(TENANT).unwrap();
    let tenant = client.tenant(TENANT, &wrapped).unwrap();
    let context = BodyContext {
        cluster: CLUSTER,
        tenant: TENANT,
        bucket: BUCKET,
        content: VersionId::from_bytes([4; 16]),
    };
    let sealer = BodySealer::begin(context);
    let place = (CLUSTER, TENANT, BUCKET);
    let unknown = sealer.wrap_by(&*tenant, BodyUse::Write, "k", None);
    assert!(matches!(unknown, Err(CustodyError::Unavailable(_))));
    client.set_standings(vec![(TENANT, Standing::Active)]).unwrap();
    let tenant = client.tenant(TENANT, &wrapped).unwrap();
    let sealed = sealer.wrap_by(&*tenant, BodyUse::Write, "k", None).unwrap();
    let open = |tenant: &RemoteTenant, wanted, name: &str| {
        BodyKey::unwrap_by(&sealed, (tenant, wanted), place, name, None).map(drop)
    };
    open(&tenant, BodyUse::Read, "k").unwrap();
    assert!(matches!(open(&tenant, BodyUse::Read, "other"), Err(CustodyError::Crypt(_))));
    client.set_standings(vec![(TENANT, Standing::Suspended)]).unwrap();
    assert!(matches!(open(&tenant, BodyUse::Read, "k"), Err(CustodyError::Unavailable(_))));
    open(&tenant, BodyUse::Background, "k").unwrap();

    // Another service, over the same shares: it opens the tenant's key when it is asked.
    drop((client, tenant));
    let client = founded(dir.path());
    let tenant = client.tenant(TENANT, &wrapped).unwrap();
    client.set_standings(vec![(TENANT, Standing::Active)]).unwrap();
    open(&tenant, BodyUse::Read, "k").unwrap();
    client.set_standings(vec![(TENANT, Standing::Destroyed)]).unwrap();
    assert!(!client.remembers(TENANT).unwrap());
    assert!(client.tenant(TENANT, &wrapped).is_err());
    assert!(open(&tenant, BodyUse::Background, "k").is_err());

    let mut outcomes = Vec::new();
    let found = uses::verify(dir.path(), |recorded| outcomes.push(recorded.used.outcome)).unwrap();
    use uses::Outcome::{Done, Failed, Refused};
    assert_eq!(outcomes, [Refused, Done, Done, Failed, Refused, Done, Done, Refused]);
    assert_eq!((found.first, found.last), (1, 8));
    let counted = client.fresh_state().uses;
    assert!(counted.contains(&(Purpose::ObjectRead, 1, 0)), "{counted:?}");
}

#[test]
fn a_root_is_begun_dealt_and_rolled_without_leaving_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let client = founded(dir.path());
    let (first, cluster_key) = client.make_cluster_key().unwrap();
    client.learn(first.0, &cluster_key).unwrap();
    let wrapped = client.make_tenant_key(TENANT).unwrap();
    let names = |wrapped: &[u8]| client.tenant_key_names(TENANT, wrapped);
    client.set_standings(vec![(TENANT, Standing::Active)]).unwrap();
    let before = names(&wrapped).unwrap();
    let secret = client.seal_secret("s", b"x").unwrap();
    let next = RootEpoch::new(2);
    assert!(client.roll(next, Vec::new()).is_err(), "it was not begun");
    let begun = client.begin_root(next).unwrap();
    let split = SplitId::from_bytes([5; 16]);
    let shares = client.deal(next, split, None, 2, 3).unwrap();
    assert_eq!(shares.len(), 3);
    let rolled = client.roll(next, vec![(TENANT, wrapped)]).unwrap();
    assert_eq!(rolled.root, begun.1);
    client.learn(next, &rolled.cluster_key).unwrap();
    client.settle(vec![split], vec![next], next).unwrap();
    assert_eq!(client.epochs(), [next]);
    assert_eq!(names(&rolled.tenants[0].1).unwrap(), before);
    assert_eq!(client.open_secret("s", &secret).unwrap(), b"x");
    let (rotated, version) = client.rotate_tenant_key(TENANT, &rolled.tenants[0].1).unwrap();
    assert_eq!((version, names(&rotated).unwrap().len()), (2, 2));
}
