//! The adapter against the recorded protocol, over TLS (`holdfast_blackbox::transit`, which is not Vault).

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use holdfast_blackbox::transit::{KEY, ROLE, TOKEN, TransitServer};
use holdfast_crypt::ExternalKek;
use holdfast_external_keys::{ExternalKeyService as _, ServiceError, VaultAuth, VaultSettings, VaultTransit};

const HERE: [u8; 32] = [1; 32];
const THERE: [u8; 32] = [2; 32];

fn settings(server: &TransitServer) -> VaultSettings {
    VaultSettings {
        url: server.url(),
        ca_pem: server.ca_pem().to_owned(),
        namespace: None,
        mount: "transit".into(),
        key: KEY.into(),
        auth: VaultAuth::Token(TOKEN.into()),
    }
}

fn role() -> VaultAuth {
    let (role_id, secret_id) = (ROLE.0.into(), ROLE.1.into());
    VaultAuth::AppRole { mount: "approle".into(), role_id, secret_id }
}

fn service(settings: VaultSettings) -> VaultTransit {
    VaultTransit::new(settings, vec!["127.0.0.0/8".parse().unwrap()]).unwrap()
}

fn refused<T>(result: Result<T, ServiceError>) -> String {
    match result {
        Err(ServiceError::Refused(what)) => what,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was done"),
    }
}

fn silent<T>(result: Result<T, ServiceError>) -> String {
    match result {
        Err(ServiceError::Unreachable(what)) => what,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was done"),
    }
}

#[tokio::test]
async fn a_key_is_given_back_in_its_place_only() {
    let server = TransitServer::start().await.unwrap();
    let service = service(settings(&server));
    service.health().await.unwrap();
    let kek = ExternalKek::generate();
    let ciphertext = service.wrap(&kek, &HERE).await.unwrap();
    assert!(ciphertext.starts_with("vault:v1:"), "{ciphertext}");
    assert_eq!(service.unwrap(&ciphertext, &HERE).await.unwrap().expose(), kek.expose());
    refused(service.unwrap(&ciphertext, &THERE).await);
    refused(service.unwrap("vault:v1:AAAA", &HERE).await);
    assert_eq!(service.describe(), format!("transit key transit/{KEY} at {}", server.url()));
}

#[tokio::test]
async fn what_the_owner_takes_away_is_a_refusal() {
    let server = TransitServer::start().await.unwrap();
    let service = service(settings(&server));
    let ciphertext = service.wrap(&ExternalKek::generate(), &HERE).await.unwrap();
    server.forbid(true);
    assert!(refused(service.unwrap(&ciphertext, &HERE).await).contains("permission denied"));
    server.forbid(false);
    service.unwrap(&ciphertext, &HERE).await.unwrap();
    assert_eq!(server.rotate(), 2);
    service.unwrap(&ciphertext, &HERE).await.unwrap();
    server.require_version(2);
    assert!(refused(service.unwrap(&ciphertext, &HERE).await).contains("too old"));
    server.delete_key();
    assert!(refused(service.unwrap(&ciphertext, &HERE).await).contains("not found"));
    server.revoke_tokens();
    refused(service.wrap(&ExternalKek::generate(), &HERE).await);
}

#[tokio::test]
async fn what_cannot_be_answered_now_is_no_refusal() {
    let mut server = TransitServer::start().await.unwrap();
    let service = service(settings(&server));
    let ciphertext = service.wrap(&ExternalKek::generate(), &HERE).await.unwrap();
    server.seal(true);
    let before = server.asked().len();
    assert!(silent(service.unwrap(&ciphertext, &HERE).await).contains("sealed"));
    assert_eq!(server.asked().len() - before, 3, "it is tried again, and not for ever");
    assert!(silent(service.health().await).contains("503"));
    server.seal(false);
    server.redirect(true);
    assert!(silent(service.unwrap(&ciphertext, &HERE).await).contains("redirects are not followed"));
    server.redirect(false);
    server.flood(true);
    silent(service.unwrap(&ciphertext, &HERE).await);
    server.flood(false);
    server.stop().await;
    assert!(silent(service.unwrap(&ciphertext, &HERE).await).contains("no connection"));
    server.resume().await.unwrap();
    service.unwrap(&ciphertext, &HERE).await.unwrap();
}

#[tokio::test]
async fn a_role_logs_in_and_again_when_its_token_has_ended() {
    let server = TransitServer::start().await.unwrap();
    let service = service(VaultSettings { auth: role(), ..settings(&server) });
    let ciphertext = service.wrap(&ExternalKek::generate(), &HERE).await.unwrap();
    service.unwrap(&ciphertext, &HERE).await.unwrap();
    assert_eq!(server.logins(), 1, "one token for both");
    server.revoke_tokens();
    service.unwrap(&ciphertext, &HERE).await.unwrap();
    assert_eq!(server.logins(), 2);
    server.forbid(true);
    refused(service.unwrap(&ciphertext, &HERE).await);
    assert_eq!(
        server.logins(),
        3,
        "a refusal is asked for once more with a new token, and no more than that"
    );
    let (role_id, secret_id) = (ROLE.0.into(), "wrong".into());
    let auth = VaultAuth::AppRole { mount: "approle".into(), role_id, secret_id };
    let wrong = self::service(VaultSettings { auth, ..settings(&server) });
    assert!(refused(wrong.unwrap(&ciphertext, &HERE).await).contains("invalid role"));
}

#[tokio::test]
async fn a_token_is_renewed() {
    let server = TransitServer::start().await.unwrap();
    let service = service(settings(&server));
    service.wrap(&ExternalKek::generate(), &HERE).await.unwrap();
    service.wrap(&ExternalKek::generate(), &HERE).await.unwrap();
    let renewals = server.asked().iter().filter(|asked| asked.ends_with("renew-self")).count();
    assert_eq!(renewals, 1, "at first, and then when two thirds of its lease are over");
}

#[tokio::test]
async fn a_namespace_is_named() {
    let server = TransitServer::start().await.unwrap();
    server.namespace("team/a");
    let namespace = Some("team/a".to_owned());
    let named = service(VaultSettings { namespace, ..settings(&server) });
    named.wrap(&ExternalKek::generate(), &HERE).await.unwrap();
    assert!(named.describe().ends_with(" namespace team/a"));
    let unnamed = service(settings(&server));
    assert!(refused(unnamed.wrap(&ExternalKek::generate(), &HERE).await).contains("404"));
}

#[tokio::test]
async fn another_server_and_this_machine_are_not_spoken_to() {
    let server = TransitServer::start().await.unwrap();
    let ca_pem = TransitServer::certificate_of_nobody();
    let stranger = service(VaultSettings { ca_pem, ..settings(&server) });
    assert!(silent(stranger.wrap(&ExternalKek::generate(), &HERE).await).contains("TLS"));
    let near = VaultTransit::new(settings(&server), Vec::new()).unwrap();
    assert!(silent(near.wrap(&ExternalKek::generate(), &HERE).await).contains("do not connect to"));
    assert!(server.asked().is_empty(), "nothing was told to either");
}
