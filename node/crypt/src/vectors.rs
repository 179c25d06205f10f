//! Golden vectors: one of everything that is sealed, from fixed keys and salts. The file is read by the
//! second implementation too (`tests/blackbox/clients/seal.py`).

use holdfast_model::{BucketId, ClusterId, RootEpoch, StripeId, TenantId, VersionId, limits::CELL_TAG_SIZE};
use serde::{Deserialize, Serialize};

use crate::{
    BodyContext, BodyKey, BodySealer, CellAddress, ClusterKey, ExternalKek, ExternallySealed, Root, RootKey,
    SealedBodyKey, Share, TenantKey, WrappedTenant, combine, envelope, labels, shamir,
};

const CLUSTER: ClusterId = ClusterId::from_bytes([0x11; 16]);
const TENANT: TenantId = TenantId::from_bytes([0x22; 16]);
const BUCKET: BucketId = BucketId::from_bytes([0x33; 16]);
const CONTENT: VersionId = VersionId::from_bytes([0x44; 16]);
const STRIPE: StripeId = StripeId::from_bytes([0x55; 16]);
const NAME: &str = "mail/2026/\u{fc}ber uns.eml";
const SECRET_NAME: &str = "ca key";
const EPOCH: RootEpoch = RootEpoch::new(7);
const SALT: [u8; envelope::SALT_SIZE] = [0x66; envelope::SALT_SIZE];

fn keys() -> (RootKey, ClusterKey, TenantKey, [u8; 32]) {
    let filled = |first: u8| -> [u8; 32] { std::array::from_fn(|i| first.wrapping_add(i as u8)) };
    let tenant = [&[0, 0, 0, 1], &filled(0xc0)[..], &[0, 0, 0, 3], &filled(0xe0)].concat();
    (
        RootKey::from_bytes(filled(0xa0)),
        ClusterKey::from_bytes(filled(0xb0)),
        TenantKey::from_bytes(&tenant).unwrap(),
        filled(0xd0),
    )
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cell {
    stripe: u32,
    cell: u32,
    last: bool,
    plain: String,
    sealed: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vectors {
    cluster: String,
    tenant: String,
    bucket: String,
    stripe: String,
    name: String,
    secret_name: String,
    root_epoch: u32,
    root_key: String,
    root_key_id: String,
    cluster_key: String,
    cluster_key_id: String,
    tenant_key: String,
    tenant_key_ids: Vec<(u32, String)>,
    wrapped_tenant_key: String,
    wrapped_cluster_key: String,
    root_record: String,
    cluster_secret: String,
    manifest: String,
    sealed_body_key: String,
    cells: Vec<Cell>,
    threshold: u8,
    shares: Vec<(u8, String)>,
}

fn made() -> Vectors {
    let (root, cluster_key, tenant_key, body_key) = keys();
    let context = BodyContext { cluster: CLUSTER, tenant: TENANT, bucket: BUCKET, content: CONTENT };
    let body = BodySealer::with_key(body_key, context);
    let bound = |name: &[u8]| [CLUSTER.as_bytes().as_slice(), &EPOCH.get().to_be_bytes(), name].concat();
    let under_root = |purpose, name: &[u8], plain: &[u8]| {
        let sealed = envelope::seal_salted(root.expose(), purpose, &bound(name), plain, SALT);
        hex::encode([EPOCH.get().to_be_bytes().as_slice(), &sealed].concat())
    };
    let mut cells = Vec::new();
    for (stripe, sizes) in [(0, [5, 0]), (1, [1000, 3])] {
        let mut sealer = body.stripe().unwrap();
        for (cell, size) in (0..).zip(sizes) {
            let plain: Vec<u8> = (0..size).map(|i| (i * 7 + stripe) as u8).collect();
            let mut sealed = plain.clone();
            sealed.resize(size as usize + CELL_TAG_SIZE, 0);
            let last = stripe == 1 && cell == 1;
            sealer.seal_next(last, &mut sealed);
            cells.push(Cell { stripe, cell, last, plain: hex::encode(plain), sealed: hex::encode(sealed) });
        }
    }
    let coefficients = [[0x01; 32], [0xfe; 32]];
    let shares = shamir::split_with(root.expose(), &coefficients, 5);
    Vectors {
        cluster: CLUSTER.to_string(),
        tenant: TENANT.to_string(),
        bucket: BUCKET.to_string(),
        stripe: STRIPE.to_string(),
        name: NAME.to_owned(),
        secret_name: SECRET_NAME.to_owned(),
        root_epoch: EPOCH.get(),
        root_key: hex::encode(root.expose()),
        root_key_id: root.id().to_string(),
        cluster_key: hex::encode(cluster_key.expose()),
        cluster_key_id: cluster_key.id().to_string(),
        tenant_key: hex::encode(tenant_key.to_bytes()),
        tenant_key_ids: tenant_key.ids().iter().map(|(version, id)| (*version, id.to_string())).collect(),
        wrapped_tenant_key: under_root(labels::TENANT_KEY, TENANT.as_bytes(), &tenant_key.to_bytes()),
        wrapped_cluster_key: under_root(labels::CLUSTER_KEY, b"", cluster_key.expose()),
        root_record: under_root(labels::ROOT_RECORD, SECRET_NAME.as_bytes(), b"a record"),
        cluster_secret: hex::encode(envelope::seal_salted(
            cluster_key.expose(),
            labels::CLUSTER_SECRET,
            &[CLUSTER.as_bytes().as_slice(), SECRET_NAME.as_bytes()].concat(),
            b"a secret",
            SALT,
        )),
        manifest: hex::encode(tenant_key.seal_manifest_salted(&STRIPE, b"a manifest", SALT)),
        sealed_body_key: hex::encode(body.wrap_salted(&tenant_key, NAME, SALT).as_bytes()),
        cells,
        threshold: 3,
        shares: shares.iter().map(|share| (share.x(), hex::encode(share.expose()))).collect(),
    }
}

fn golden() -> Vectors {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/seals_v1.json");
    if std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&made()).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

#[test]
fn what_is_sealed_has_not_changed() {
    assert_eq!(made(), golden(), "a published layout stays as it is: a change is a new version beside it");
}

#[test]
fn what_was_sealed_opens() {
    let golden = golden();
    let unhex = |text: &str| hex::decode(text).unwrap();
    let (root_key, cluster_key, tenant_key, _) = keys();
    let root = Root::new(CLUSTER, EPOCH, root_key);
    let tenant = root.unwrap_tenant(TENANT, &unhex(&golden.wrapped_tenant_key)).unwrap();
    assert_eq!(tenant.to_bytes(), tenant_key.to_bytes());
    let cluster = root.unwrap_cluster_key(&unhex(&golden.wrapped_cluster_key)).unwrap();
    assert_eq!(cluster.expose(), cluster_key.expose());
    let record = root.open_record(SECRET_NAME, &unhex(&golden.root_record)).unwrap();
    assert_eq!(record.as_slice(), b"a record");
    let secret = cluster.open_secret(CLUSTER, SECRET_NAME, &unhex(&golden.cluster_secret)).unwrap();
    assert_eq!(secret.as_slice(), b"a secret");
    assert_eq!(tenant.open_manifest(&STRIPE, &unhex(&golden.manifest)).unwrap().as_slice(), b"a manifest");
    let sealed_key = SealedBodyKey::from_bytes(unhex(&golden.sealed_body_key));
    let key = BodyKey::unwrap(&sealed_key, &tenant, (CLUSTER, TENANT, BUCKET), NAME, None).unwrap();
    for cell in &golden.cells {
        let at = CellAddress { stripe: cell.stripe, cell: cell.cell, last: cell.last };
        assert_eq!(key.open_cell(at, &mut unhex(&cell.sealed)).unwrap(), unhex(&cell.plain));
    }
    let shares: Vec<Share> =
        golden.shares.iter().map(|(x, y)| Share::new(*x, unhex(y).try_into().unwrap()).unwrap()).collect();
    assert_eq!(hex::encode(*combine(&shares[2..]).unwrap()), golden.root_key);
}

/// A tenant's key under an external key: a file of its own, for the form came later.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExternalVector {
    cluster: String,
    tenant: String,
    root_epoch: u32,
    root_key: String,
    external_key: String,
    service: String,
    description: String,
    ciphertext: String,
    tenant_key: String,
    wrapped_tenant_key: String,
}

const SERVICE: [u8; 16] = [0x77; 16];
const DESCRIPTION: &str = "transit key transit/k\u{fc}rzel at https://vault.example:8200";
const CIPHERTEXT: &str = "vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9vyf7w==";

fn external_made() -> ExternalVector {
    let (root, _, tenant_key, _) = keys();
    let kek = ExternalKek::from_bytes(std::array::from_fn(|i| 0x40 + i as u8));
    let texts = (SERVICE, DESCRIPTION, CIPHERTEXT);
    let sealed = ExternallySealed::seal_salted((CLUSTER, TENANT), &tenant_key, &kek, texts, SALT).unwrap();
    let bound = [CLUSTER.as_bytes().as_slice(), &EPOCH.get().to_be_bytes(), TENANT.as_bytes()].concat();
    let salt = [0x88; envelope::SALT_SIZE];
    let outer = envelope::seal_salted(root.expose(), labels::TENANT_KEY, &bound, &sealed.encode(), salt);
    ExternalVector {
        cluster: CLUSTER.to_string(),
        tenant: TENANT.to_string(),
        root_epoch: EPOCH.get(),
        root_key: hex::encode(root.expose()),
        external_key: hex::encode(kek.expose()),
        service: hex::encode(SERVICE),
        description: DESCRIPTION.to_owned(),
        ciphertext: CIPHERTEXT.to_owned(),
        tenant_key: hex::encode(tenant_key.to_bytes()),
        wrapped_tenant_key: hex::encode([EPOCH.get().to_be_bytes().as_slice(), &outer].concat()),
    }
}

#[test]
fn a_key_under_an_external_key_is_sealed_as_it_was_and_opens() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/external_v1.json");
    if std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&external_made()).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let golden: ExternalVector = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(external_made(), golden, "a published layout stays as it is");
    let root = Root::new(CLUSTER, EPOCH, keys().0);
    let wrapped = hex::decode(&golden.wrapped_tenant_key).unwrap();
    let WrappedTenant::External(sealed) = root.open_tenant(TENANT, &wrapped).unwrap() else {
        panic!("it is sealed");
    };
    assert_eq!((sealed.service, sealed.description.as_str()), (SERVICE, DESCRIPTION));
    let kek = ExternalKek::from_bytes(hex::decode(&golden.external_key).unwrap().try_into().unwrap());
    let key = sealed.open((CLUSTER, TENANT), &kek).unwrap();
    assert_eq!(hex::encode(key.to_bytes()), golden.tenant_key);
}
