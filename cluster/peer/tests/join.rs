//! How a node becomes a member, and everything that must not make it one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use holdfast_model::NodeId;
use holdfast_peer::{
    ConnectError, Method, PeerClient, PeerServer, Refusal,
    join::{
        Applicant, AttemptError, JoinAuthority, JoinError, JoinGrant, JoinRequest, JoinToken,
        ServiceAddresses, code, join,
    },
    pki::{Ca, PkiError},
};
use parking_lot::Mutex;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use support::{
    raw::{impostor, leaf},
    *,
};

const PATIENCE: Duration = Duration::from_secs(30);
const NEW: NodeId = NodeId::new(4);

/// One token, used once; the same request again gets the same answer.
struct Authority {
    ca: Ca,
    member: SocketAddr,
    tokens: Mutex<HashMap<[u8; 32], Option<(Vec<u8>, JoinGrant)>>>,
    not_ready: AtomicUsize,
    asked: AtomicUsize,
}

#[async_trait::async_trait]
impl JoinAuthority for Authority {
    async fn admit(&self, request: JoinRequest) -> Result<JoinGrant, Refusal> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.not_ready.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(Refusal::new(code::NOT_READY, "no leader"));
        }
        let mut tokens = self.tokens.lock();
        let used = tokens
            .get_mut(&request.secret_hash())
            .ok_or_else(|| Refusal::new(code::TOKEN, "the token is not known"))?;
        if let Some((by, grant)) = used {
            return if *by == request.certificate_request {
                Ok(grant.clone())
            } else {
                Err(Refusal::new(code::TOKEN, "the token was used"))
            };
        }
        let certificate = self
            .ca
            .issue_peer(&request.certificate_request, NEW, SystemTime::now())
            .map_err(|e| Refusal::new(code::BAD_REQUEST, e.to_string()))?;
        let grant = JoinGrant {
            cluster: CLUSTER,
            node: NEW,
            ca: self.ca.certificate().clone(),
            certificate,
            members: vec![(SERVER, self.member), (NEW, request.advertise_peer)],
            extras: b"root key".to_vec(),
        };
        *used = Some((request.certificate_request, grant.clone()));
        Ok(grant)
    }
}

struct Member {
    server: PeerServer,
    authority: Arc<Authority>,
    token: JoinToken,
}

async fn member() -> Member {
    let ca = ca();
    let server =
        PeerServer::bind(any_port(), &identity(&ca, SERVER), Arc::new(TestService::default()), pool())
            .await
            .unwrap();
    let token = JoinToken::generate(ca.fingerprint()).unwrap();
    let authority = Arc::new(Authority {
        ca,
        member: server.local_addr(),
        tokens: Mutex::new(HashMap::from([(token.secret_hash(), None)])),
        not_ready: AtomicUsize::new(0),
        asked: AtomicUsize::new(0),
    });
    server.set_join_authority(authority.clone());
    Member { server, authority, token }
}

fn applicant() -> Applicant {
    let at = |port| SocketAddr::from(([10, 0, 0, 4], port));
    Applicant {
        name: "n4".to_owned(),
        advertise_peer: at(7000),
        services: ServiceAddresses { s3: at(443), admin: at(8443), metrics: at(9100) },
    }
}

async fn closed_port() -> SocketAddr {
    tokio::net::TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_makes_a_member_that_others_talk_to() {
    let member = member().await;
    // The token goes through its text form; the first peer to ask is down.
    let token: JoinToken = member.token.reveal().parse().unwrap();
    let peers = [closed_port().await, member.server.local_addr()];
    let (grant, identity) = join(&peers, &token, applicant(), PATIENCE).await.unwrap();
    assert_eq!((grant.cluster, grant.node, identity.node()), (CLUSTER, NEW, NEW));
    assert_eq!(grant.extras, b"root key");
    assert_eq!(grant.members[1], (NEW, applicant().advertise_peer));

    let client = PeerClient::new(identity, pool());
    client.set_address(SERVER, grant.members[0].1);
    let answer = client.call(SERVER, Method::NodeStatus, Bytes::new(), None, TIMEOUT).await.unwrap();
    assert_eq!(answer.body, NEW.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_works_once() {
    let member = member().await;
    let peers = [member.server.local_addr()];
    join(&peers, &member.token, applicant(), PATIENCE).await.unwrap();
    let again = join(&peers, &member.token, applicant(), PATIENCE).await.unwrap_err();
    assert!(matches!(&again, JoinError::Refused { refusal, .. } if refusal.code == code::TOKEN), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_the_cluster_never_made_is_refused_at_once() {
    let member = member().await;
    let guessed = JoinToken::generate(member.token.ca()).unwrap();
    let error = join(&[member.server.local_addr()], &guessed, applicant(), PATIENCE).await.unwrap_err();
    assert!(matches!(&error, JoinError::Refused { refusal, .. } if refusal.code == code::TOKEN), "{error}");
    assert_eq!(member.authority.asked.load(Ordering::SeqCst), 1, "a final no is not asked for twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_is_not_sent_to_a_cluster_the_token_does_not_name() {
    let member = member().await;
    let other = Ca::generate(CLUSTER, SystemTime::now()).unwrap();
    let token = JoinToken::generate(other.fingerprint()).unwrap();
    let error = join(&[member.server.local_addr()], &token, applicant(), PATIENCE).await.unwrap_err();
    let JoinError::NotAdmitted(attempts) = &error else { panic!("{error}") };
    assert!(
        matches!(
            attempts[..],
            [(
                _,
                AttemptError::Connect(ConnectError::Identity {
                    source: PkiError::OtherFingerprint { .. },
                    ..
                })
            )]
        ),
        "{error}"
    );
    assert_eq!(member.authority.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn showing_the_right_ca_without_its_signature_deceives_nobody() {
    let (real, fake) = (ca(), ca());
    let named = |uri: String| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
    };
    let token = JoinToken::generate(real.fingerprint()).unwrap();
    // A leaf of the impostor's own CA, beside the real CA's certificate, which is public.
    let (mut chain, key) = leaf(&fake, named(format!("holdfast://{CLUSTER}/node/1")));
    chain[1] = CertificateDer::from(real.certificate().der().to_vec());
    let forged = impostor((chain, key), b"holdfast-join/1").await;
    // A certificate of the real CA that is not a node's.
    let web = leaf(&real, named("https://node.example/".to_owned()));
    let web = impostor(web, b"holdfast-join/1").await;
    for address in [forged, web] {
        let error = join(&[address], &token, applicant(), PATIENCE).await.unwrap_err();
        let JoinError::NotAdmitted(attempts) = &error else { panic!("{error}") };
        let refused = matches!(attempts[0].1, AttemptError::Connect(ConnectError::Identity { .. }));
        assert!(refused, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_not_ready_is_asked_again_with_the_same_key() {
    let member = member().await;
    member.authority.not_ready.store(1, Ordering::SeqCst);
    let (_, identity) =
        join(&[member.server.local_addr()], &member.token, applicant(), PATIENCE).await.unwrap();
    assert_eq!(identity.node(), NEW);
    assert_eq!(member.authority.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_ends_with_every_peers_reason() {
    let ca = ca();
    // No authority was set: this member cannot admit.
    let server =
        PeerServer::bind(any_port(), &identity(&ca, SERVER), Arc::new(TestService::default()), pool())
            .await
            .unwrap();
    let token = JoinToken::generate(ca.fingerprint()).unwrap();
    let peers = [closed_port().await, server.local_addr()];
    let error = join(&peers, &token, applicant(), Duration::ZERO).await.unwrap_err();
    let JoinError::NotAdmitted(attempts) = &error else { panic!("{error}") };
    assert!(matches!(attempts[0].1, AttemptError::Connect(ConnectError::Network { .. })));
    assert!(matches!(attempts[1].1, AttemptError::NotNow(_)));
    assert!(error.to_string().contains(&peers[0].to_string()) && error.to_string().contains("cannot admit"));
    assert!(matches!(join(&[], &token, applicant(), PATIENCE).await, Err(JoinError::NoPeers)));
}
