//! Who gets in and who is believed: every kind of certificate, from both sides.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use holdfast_model::{ClusterId, NodeId};
use holdfast_peer::{
    ConnectError, Method, PeerClient, PeerError, PeerServer,
    pki::{BACKDATE, Ca, Certificate, NodeKey, PEER_VALIDITY, PeerIdentity, PkiError, PrivateKey},
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    pki_types::CertificateDer,
    version::{TLS12, TLS13},
};
use support::{raw::*, *};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn uri(cluster: ClusterId, node: u64) -> SanType {
    SanType::URI(format!("holdfast://{cluster}/node/{node}").try_into().unwrap())
}

/// What a good peer certificate holds; each test case spoils one thing.
fn good() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = SystemTime::now().into();
    params.not_after = (SystemTime::now() + DAY).into();
    params.subject_alt_names = vec![uri(CLUSTER, 2)];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn shown(identity: &PeerIdentity) -> Shown {
    let chain = vec![CertificateDer::from(identity.certificate().der().to_vec())];
    (chain, key_of(identity.key().der().to_vec()))
}

fn service_certificate(ca: &Ca) -> (Certificate, PrivateKey) {
    let key = NodeKey::generate().unwrap();
    let names = ["node.example".to_owned(), "127.0.0.1".to_owned()];
    let certificate = ca.issue_service(key.request(), &names, SystemTime::now()).unwrap();
    (certificate, key.private_key().clone())
}

/// Certificates that must not pass, by what is wrong with them. All but the first two are signed by the CA.
fn bad(ca: &Ca) -> Vec<(&'static str, Shown)> {
    let foreign = Ca::generate(CLUSTER, SystemTime::now()).unwrap();
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = good();
        change(&mut params);
        leaf(ca, params)
    };
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        let certificate = good().self_signed(&key).unwrap();
        (vec![certificate.der().clone()], key_of(key.serialize_der()))
    };
    // A node that signs for others: its certificate may not.
    let by_a_node = {
        let node = identity(ca, NodeId::new(5));
        let issuer_key = KeyPair::try_from(node.key().der()).unwrap();
        let node_der = CertificateDer::from(node.certificate().der().to_vec());
        let issuer = Issuer::from_ca_cert_der(&node_der, issuer_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = good().signed_by(&key, &issuer).unwrap();
        (vec![certificate.der().clone(), node_der], key_of(key.serialize_der()))
    };
    let (service, service_key) = service_certificate(ca);
    let service = (vec![CertificateDer::from(service.der().to_vec())], key_of(service_key.der().to_vec()));
    let the_ca =
        (vec![CertificateDer::from(ca.certificate().der().to_vec())], key_of(ca.key().der().to_vec()));
    vec![
        ("foreign CA", shown(&identity(&foreign, CLIENT))),
        ("self-signed", self_signed),
        ("signed by a node", by_a_node),
        ("service certificate", service),
        ("the CA itself", the_ca),
        ("other cluster", with(&|p| p.subject_alt_names = vec![uri(ClusterId::from_bytes([8; 16]), 2)])),
        ("no name", with(&|p| p.subject_alt_names.clear())),
        ("two names", with(&|p| p.subject_alt_names.push(uri(CLUSTER, 3)))),
        (
            "a DNS name beside it",
            with(&|p| {
                p.subject_alt_names.push(SanType::DnsName("n2.example".try_into().unwrap()));
            }),
        ),
        (
            "another spelling",
            with(&|p| {
                let spelling = format!("holdfast://{CLUSTER}/node/02");
                p.subject_alt_names = vec![SanType::URI(spelling.try_into().unwrap())];
            }),
        ),
        (
            "expired",
            with(&|p| {
                p.not_before = (SystemTime::now() - 3 * DAY).into();
                p.not_after = (SystemTime::now() - DAY).into();
            }),
        ),
        ("not yet valid", with(&|p| p.not_before = (SystemTime::now() + DAY / 2).into())),
        ("a CA certificate by extension", with(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("for signing code", with(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning])),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_lets_in_only_nodes_of_its_cluster() {
    let pair = pair().await;
    let address = pair.server.local_addr();
    for (what, shown) in bad(&pair.ca) {
        assert!(knock(address, Some(shown), PEER).await.is_err(), "{what} was let in");
    }
    let mut server_only = good();
    server_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert!(knock(address, Some(leaf(&pair.ca, server_only)), PEER).await.is_err());

    // Certificate and protocol must agree.
    assert!(knock(address, None, PEER).await.is_err());
    assert!(knock(address, Some(leaf(&pair.ca, good())), JOIN).await.is_err());
    assert!(knock(address, Some(leaf(&pair.ca, good())), b"http/1.1").await.is_err());
    assert!(connect(address, Some(leaf(&pair.ca, good())), Some(PEER), &TLS12).await.is_err());
    if let Ok(mut stream) = connect(address, Some(leaf(&pair.ca, good())), None, &TLS13).await {
        assert!(read_to_end(&mut stream).await.is_empty(), "no protocol, no service");
    }

    knock(address, Some(leaf(&pair.ca, good())), PEER).await.expect("a good certificate gets in");
    knock(address, Some(shown(&identity(&pair.ca, CLIENT))), PEER).await.expect("and one of the CA's own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_believes_only_the_node_it_dialled() {
    let ca = ca();
    let client = PeerClient::new(identity(&ca, NodeId::new(9)), pool());
    let dial = async |node: NodeId, address| {
        client.set_address(node, address);
        let result = client.call(node, Method::NodeStatus, Bytes::new(), None, TIMEOUT).await;
        client.remove(node);
        result.expect_err("an impostor never answers")
    };
    for (what, shown) in bad(&ca) {
        let error = dial(CLIENT, impostor(shown, PEER).await).await;
        let refused = matches!(error, PeerError::Unreachable { source: ConnectError::Identity { .. }, .. });
        assert!(refused, "{what}: {error}");
    }
    let mut client_only = good();
    client_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let error = dial(CLIENT, impostor(leaf(&ca, client_only), PEER).await).await;
    assert!(matches!(error, PeerError::Unreachable { source: ConnectError::Identity { .. }, .. }), "{error}");

    // The right cluster, another node.
    let error = dial(NodeId::new(3), impostor(leaf(&ca, good()), PEER).await).await;
    let PeerError::Unreachable { source: ConnectError::Identity { source, .. }, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(source, PkiError::OtherNode { .. }), "{source}");

    // Another protocol.
    let error = dial(CLIENT, impostor(leaf(&ca, good()), b"http/1.1").await).await;
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");

    // A good one, to show that the others failed for what is wrong with them: it connects and is silent.
    client.set_address(CLIENT, impostor(leaf(&ca, good()), PEER).await);
    let error = client.call(CLIENT, Method::NodeStatus, Bytes::new(), None, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, PeerError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_refuses_this_node_is_told_from_one_that_is_down() {
    let ca = ca();
    let server = PeerServer::bind(
        any_port(),
        &identity(&ca, SERVER),
        std::sync::Arc::new(TestService::default()),
        pool(),
    )
    .await
    .unwrap();
    // The client's certificate ended; its key and name are right.
    let late = identity_at(&ca, CLIENT, SystemTime::now() - PEER_VALIDITY - 2 * DAY);
    let client = PeerClient::new(late, pool());
    client.set_address(SERVER, server.local_addr());
    let error = client.call(SERVER, Method::NodeStatus, Bytes::new(), None, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { source: ConnectError::Rejected { .. }, .. }), "{error}");

    // Renewed while running: the next attempt gets in.
    client.set_identity(identity(&ca, CLIENT));
    let mut tries = 0;
    while let Err(error) = client.call(SERVER, Method::NodeStatus, Bytes::new(), None, TIMEOUT).await {
        tries += 1;
        assert!(tries < 600, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn certificates_hold_what_they_should_and_nothing_the_request_asks_for() {
    let ca = ca();
    let now = SystemTime::now();
    // The request asks to be a CA for every name.
    let greedy = {
        let mut params = CertificateParams::new(vec!["*.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap()
    };
    let certificate = ca.issue_peer(greedy.der(), CLIENT, now).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate.der()).unwrap();
    assert!(!parsed.is_ca());
    let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names.len(), 1, "{names:?}");
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap();
    let begin = parsed.validity().not_before.timestamp();
    let end = parsed.validity().not_after.timestamp();
    assert!((end - begin - seconds(PEER_VALIDITY + BACKDATE)).abs() <= 1);

    let (service, _) = service_certificate(&ca);
    let (_, parsed) = x509_parser::parse_x509_certificate(service.der()).unwrap();
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any);
    assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
}

#[test]
fn requests_that_are_damaged_or_signed_by_another_key_are_refused() {
    let ca = ca();
    let key = NodeKey::generate().unwrap();
    let public_key = |certificate: &Certificate| {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate.der()).unwrap();
        parsed.public_key().subject_public_key.data.to_vec()
    };
    let expected = public_key(&ca.issue_peer(key.request(), CLIENT, SystemTime::now()).unwrap());
    let mut refused = 0;
    for at in 0..key.request().len() {
        let mut changed = key.request().to_vec();
        changed[at] ^= 0x01;
        match ca.issue_peer(&changed, CLIENT, SystemTime::now()) {
            Err(_) => refused += 1,
            // A tag outside the signed part that the parser does not look at.
            Ok(certificate) => assert_eq!(public_key(&certificate), expected, "byte {at}"),
        }
    }
    assert!(refused + 2 >= key.request().len(), "{refused} of {}", key.request().len());
    assert!(ca.issue_peer(&vec![0x30; 1 << 20], CLIENT, SystemTime::now()).is_err());
}

#[test]
fn service_names_are_checked() {
    let ca = ca();
    let key = NodeKey::generate().unwrap();
    let issue = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        ca.issue_service(key.request(), &names, SystemTime::now())
    };
    assert!(issue(&["s3.example", "*.s3.example", "10.0.0.1", "::1", "localhost"]).is_ok());
    for wrong in ["", "a b", "-a.example", "a..b", "holdfast://x/node/1", "*", "a.*.b", &"x".repeat(64)] {
        assert!(matches!(issue(&[wrong]), Err(PkiError::BadName(_))), "{wrong:?}");
    }
    assert!(matches!(issue(&[]), Err(PkiError::NameCount(0))));
    assert!(matches!(issue(&["a"; 101]), Err(PkiError::NameCount(101))));
}

#[test]
fn an_identity_is_made_only_of_parts_that_belong_together() {
    let (ca, other) = (ca(), ca());
    let good = identity(&ca, CLIENT);
    let stranger = identity(&other, CLIENT);
    let make = |ca: &Certificate, certificate: &Certificate, key: &PrivateKey| {
        PeerIdentity::new(ca.clone(), certificate.clone(), key.clone())
    };
    assert!(make(good.ca(), good.certificate(), good.key()).is_ok());
    assert!(matches!(make(good.ca(), good.certificate(), stranger.key()), Err(PkiError::KeyMismatch(_))));
    assert!(matches!(make(stranger.ca(), good.certificate(), good.key()), Err(PkiError::Untrusted(_))));
    assert!(matches!(make(good.certificate(), good.certificate(), good.key()), Err(PkiError::NotACa(_))));
    let (service, key) = service_certificate(&ca);
    assert!(matches!(make(ca.certificate(), &service, &key), Err(PkiError::NotAPeer(_))));
    let elsewhere = Ca::generate(ClusterId::from_bytes([9; 16]), SystemTime::now()).unwrap();
    assert!(matches!(
        make(elsewhere.certificate(), good.certificate(), good.key()),
        Err(PkiError::OtherCluster { .. })
    ));
}

#[test]
fn a_ca_survives_storage_and_refuses_a_foreign_key() {
    let (ca, other) = (ca(), ca());
    let again = Ca::from_der(ca.certificate().clone(), ca.key().clone()).unwrap();
    assert_eq!((again.cluster(), again.fingerprint()), (CLUSTER, ca.fingerprint()));
    assert_eq!(Certificate::from_pem(&ca.certificate().pem()).unwrap(), *ca.certificate());
    // What the stored one issues is believed by those who know the first.
    let late = identity(&again, CLIENT);
    PeerIdentity::new(ca.certificate().clone(), late.certificate().clone(), late.key().clone()).unwrap();
    assert!(matches!(
        Ca::from_der(ca.certificate().clone(), other.key().clone()),
        Err(PkiError::KeyMismatch(_))
    ));
}
