//! The formats of `docs/keys.md` against a second implementation, `clients/seal.py`: it opens what we seal
//! and we open what it seals.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::{path::PathBuf, process::Command};

use holdfast_blackbox::paths;
use holdfast_crypt::{
    BodyKey, CellAddress, ExternalKek, Root, RootKey, SealedBodyKey, Share, WrappedTenant, combine,
};
use holdfast_model::{BucketId, ClusterId, RootEpoch, StripeId, TenantId};
use serde_json::Value;

fn script(action: &str) -> Vec<u8> {
    script_on(action, "seals_v1.json")
}

fn script_on(action: &str, vectors: &str) -> Vec<u8> {
    let golden: PathBuf = paths::workspace().join("node/crypt/golden").join(vectors);
    let output = Command::new(paths::python())
        .arg(paths::workspace().join("tests/blackbox/clients/seal.py"))
        .arg(action)
        .arg(golden)
        .output()
        .expect("the interpreter that `cargo xtask setup` installs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn text<'v>(vectors: &'v Value, field: &str) -> &'v str {
    vectors[field].as_str().unwrap_or_else(|| panic!("{field} in {vectors}"))
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

#[test]
fn the_second_implementation_opens_what_we_seal() {
    let said = String::from_utf8(script("open")).unwrap();
    assert_eq!(said.trim(), "opened 12");
}

#[test]
fn we_open_what_the_second_implementation_seals() {
    let vectors: Value = serde_json::from_slice(&script("seal")).unwrap();
    let cluster: ClusterId = text(&vectors, "cluster").parse().unwrap();
    let tenant: TenantId = text(&vectors, "tenant").parse().unwrap();
    let bucket: BucketId = text(&vectors, "bucket").parse().unwrap();
    let stripe: StripeId = text(&vectors, "stripe").parse().unwrap();
    let epoch = RootEpoch::new(vectors["root_epoch"].as_u64().unwrap().try_into().unwrap());

    let shares: Vec<Share> = vectors["shares"].as_array().unwrap()[1..]
        .iter()
        .take(vectors["threshold"].as_u64().unwrap().try_into().unwrap())
        .map(|share| {
            let y = bytes(share[1].as_str().unwrap()).try_into().unwrap();
            Share::new(share[0].as_u64().unwrap().try_into().unwrap(), y).unwrap()
        })
        .collect();
    let root = Root::new(cluster, epoch, RootKey::from_bytes(*combine(&shares).unwrap()));
    assert_eq!(root.id().to_string(), text(&vectors, "root_key_id"));

    let key = root.unwrap_tenant(tenant, &bytes(text(&vectors, "wrapped_tenant_key"))).unwrap();
    assert_eq!(hex::encode(key.to_bytes()), text(&vectors, "tenant_key"));
    let cluster_key = root.unwrap_cluster_key(&bytes(text(&vectors, "wrapped_cluster_key"))).unwrap();
    let name = text(&vectors, "secret_name");
    assert_eq!(
        root.open_record(name, &bytes(text(&vectors, "root_record"))).unwrap().as_slice(),
        b"a record"
    );
    let secret = cluster_key.open_secret(cluster, name, &bytes(text(&vectors, "cluster_secret"))).unwrap();
    assert_eq!(secret.as_slice(), b"a secret");
    let manifest = key.open_manifest(&stripe, &bytes(text(&vectors, "manifest"))).unwrap();
    assert_eq!(manifest.as_slice(), b"a manifest");

    let sealed_key = SealedBodyKey::from_bytes(bytes(text(&vectors, "sealed_body_key")));
    let body =
        BodyKey::unwrap(&sealed_key, &key, (cluster, tenant, bucket), text(&vectors, "name"), None).unwrap();
    let cells = vectors["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 4);
    for cell in cells {
        let number = |field: &str| u32::try_from(cell[field].as_u64().unwrap()).unwrap();
        let at = CellAddress {
            stripe: number("stripe"),
            cell: number("cell"),
            last: cell["last"].as_bool().unwrap(),
        };
        let mut sealed = bytes(text(cell, "sealed"));
        assert_eq!(hex::encode(body.open_cell(at, &mut sealed).unwrap()), text(cell, "plain"));
    }
}

#[test]
fn a_key_under_an_external_key_is_opened_by_both() {
    let said = String::from_utf8(script_on("open-external", "external_v1.json")).unwrap();
    assert_eq!(said.trim(), "opened 2");
    let vectors: Value = serde_json::from_slice(&script_on("seal-external", "external_v1.json")).unwrap();
    let cluster: ClusterId = text(&vectors, "cluster").parse().unwrap();
    let tenant: TenantId = text(&vectors, "tenant").parse().unwrap();
    let epoch = RootEpoch::new(vectors["root_epoch"].as_u64().unwrap().try_into().unwrap());
    let key = |field| bytes(text(&vectors, field)).try_into().unwrap();
    let root = Root::new(cluster, epoch, RootKey::from_bytes(key("root_key")));
    let wrapped = bytes(text(&vectors, "wrapped_tenant_key"));
    let WrappedTenant::External(sealed) = root.open_tenant(tenant, &wrapped).unwrap() else {
        panic!("it is sealed");
    };
    assert_eq!(sealed.ciphertext, text(&vectors, "ciphertext"));
    let opened = sealed.open((cluster, tenant), &ExternalKek::from_bytes(key("external_key"))).unwrap();
    assert_eq!(hex::encode(opened.to_bytes()), text(&vectors, "tenant_key"));
    assert_eq!(sealed.metadata.ids(), opened.ids());
}
