//! A server that answers as the documentation of HashiCorp Vault's HTTP API says that its transit engine does.
//!
//! It is **not Vault**, and nothing that passes against it has been tried against one: neither Vault nor OpenBao was
//! to be had from package registries. What it answers is written from the pages "Transit secrets engine", "AppRole auth
//! method", "Token auth method", "/sys/health" and "HTTP API" (status codes, `errors`): encrypt and decrypt with
//! associated data, rotation and `min_decryption_version`, login, `renew-self`, health, and the refusals 400, 403, 404
//! and 503.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// Longest request, in bytes.
const REQUEST_SIZE_MAX: usize = 64 * 1024;

/// The token that is good from the start.
pub const TOKEN: &str = "hvs.recorded-token";

/// Role and secret that log in.
pub const ROLE: (&str, &str) = ("role-of-holdfast", "secret-of-holdfast");

/// The key that is there.
pub const KEY: &str = "holdfast";

#[derive(Default)]
struct State {
    /// Versions of each key, the first one is version 1.
    keys: BTreeMap<String, Vec<[u8; 32]>>,
    min_decryption_version: usize,
    tokens: BTreeSet<String>,
    logins: u64,
    /// Answers 503 to everything: the barrier is sealed.
    sealed: bool,
    /// Answers 403 to every use of a key: the policy was taken away.
    forbids: bool,
    /// Answers 307 to every use of a key.
    redirects: bool,
    /// Answers more than anybody reads.
    floods: bool,
    /// Seconds that a token of a login lives, as it is told.
    lease_seconds: u64,
    namespace: Option<String>,
    asked: Vec<String>,
}

/// The server and what it is told to do.
pub struct TransitServer {
    state: Arc<Mutex<State>>,
    acceptor: TlsAcceptor,
    ca_pem: String,
    address: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for TransitServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransitServer").field("address", &self.address).finish_non_exhaustive()
    }
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel has randomness");
    bytes
}

impl TransitServer {
    /// A server with one key, on a free port of this machine.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)?;
        let state = State {
            keys: BTreeMap::from([(KEY.to_owned(), vec![random()])]),
            min_decryption_version: 1,
            tokens: BTreeSet::from([TOKEN.to_owned()]),
            lease_seconds: 3600,
            ..State::default()
        };
        let mut server = Self {
            state: Arc::new(Mutex::new(state)),
            acceptor: Arc::new(config).into(),
            ca_pem: made.cert.pem(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            task: None,
        };
        server.resume().await?;
        Ok(server)
    }

    /// A certificate of a server that nobody runs.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn certificate_of_nobody() -> String {
        let made = rcgen::generate_simple_self_signed(vec!["nobody.example".to_owned()]);
        made.expect("a certificate").cert.pem()
    }

    /// Listens again after [`TransitServer::stop`], with the same address and keys.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn resume(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await.context("listening")?;
        self.address = listener.local_addr()?;
        let (state, acceptor) = (Arc::clone(&self.state), self.acceptor.clone());
        self.task = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, acceptor) = (Arc::clone(&state), acceptor.clone());
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    let request = read(&mut stream).await?;
                    let (status, body, floods) = {
                        let mut state = state.lock();
                        let (status, body) = state.answer(&request);
                        (status, body, state.floods)
                    };
                    let body = if floods { "x".repeat(1 << 20) } else { body.to_string() };
                    let moved = if status == 307 { "location: https://127.0.0.1:1/\r\n" } else { "" };
                    let head = format!(
                        "HTTP/1.1 {status} Recorded\r\ncontent-type: application/json\r\n{moved}content-length: {}\r\n\r\n",
                        body.len()
                    );
                    stream.write_all(head.as_bytes()).await?;
                    stream.write_all(body.as_bytes()).await?;
                    stream.shutdown().await?;
                    anyhow::Ok(())
                });
            }
        }));
        Ok(())
    }

    /// Stops listening.
    pub async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // It was cut off.
            let _ = task.await;
        }
    }

    /// `https://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate it shows.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Answers 503 to everything, or no more.
    pub fn seal(&self, sealed: bool) {
        self.state.lock().sealed = sealed;
    }

    /// Answers 403 to every use of a key, or no more.
    pub fn forbid(&self, forbids: bool) {
        self.state.lock().forbids = forbids;
    }

    /// Answers 307, or no more.
    pub fn redirect(&self, redirects: bool) {
        self.state.lock().redirects = redirects;
    }

    /// Answers a mebibyte of nothing, or no more.
    pub fn flood(&self, floods: bool) {
        self.state.lock().floods = floods;
    }

    /// Adds a version to the key; returns its number.
    pub fn rotate(&self) -> usize {
        let mut state = self.state.lock();
        let versions = state.keys.entry(KEY.to_owned()).or_default();
        versions.push(random());
        versions.len()
    }

    /// Lets older versions of the key decrypt nothing any more.
    pub fn require_version(&self, version: usize) {
        self.state.lock().min_decryption_version = version;
    }

    /// Deletes the key.
    pub fn delete_key(&self) {
        self.state.lock().keys.clear();
    }

    /// Ends every token.
    pub fn revoke_tokens(&self) {
        self.state.lock().tokens.clear();
    }

    /// Lets tokens of logins live so long, as they are told.
    pub fn lease(&self, seconds: u64) {
        self.state.lock().lease_seconds = seconds;
    }

    /// Knows the key in this namespace only.
    pub fn namespace(&self, namespace: &str) {
        self.state.lock().namespace = Some(namespace.to_owned());
    }

    /// Logins so far.
    #[must_use]
    pub fn logins(&self) -> u64 {
        self.state.lock().logins
    }

    /// Methods and paths that were asked for, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().asked.clone()
    }
}

impl Drop for TransitServer {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await?;
        ensure!(read > 0 && bytes.len() < REQUEST_SIZE_MAX, "a request that does not end");
        bytes.extend_from_slice(&buffer[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&bytes[..end])?;
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(path)) = (first.next(), first.next()) else { bail!("no request") };
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers.get("content-length").map_or(Ok(0), |length| length.parse())?;
        let body = &bytes[end + 4..];
        if body.len() < length {
            continue;
        }
        let body = if length == 0 { Value::Null } else { serde_json::from_slice(&body[..length])? };
        return Ok(Request { method: method.to_owned(), path: path.to_owned(), headers, body });
    }
}

fn errors(status: u16, what: &str) -> (u16, Value) {
    (status, json!({ "errors": [what] }))
}

impl State {
    fn answer(&mut self, request: &Request) -> (u16, Value) {
        self.asked.push(format!("{} {}", request.method, request.path));
        let segments: Vec<&str> = request.path.trim_start_matches("/v1/").split('/').collect();
        if request.path.starts_with("/v1/sys/health") {
            let status = if self.sealed { 503 } else { 200 };
            return (status, json!({ "initialized": true, "sealed": self.sealed, "standby": false }));
        }
        if self.sealed {
            return errors(503, "Vault is sealed");
        }
        if request.method != "POST" {
            return errors(405, "unsupported operation");
        }
        if segments == ["auth", "approle", "login"] {
            return self.login(&request.body);
        }
        let token = request.headers.get("x-vault-token");
        if !token.is_some_and(|token| self.tokens.contains(token)) {
            return errors(403, "permission denied");
        }
        if segments == ["auth", "token", "renew-self"] {
            let auth =
                json!({ "client_token": token, "lease_duration": self.lease_seconds, "renewable": true });
            return (200, json!({ "auth": auth }));
        }
        if self.namespace.as_ref() != request.headers.get("x-vault-namespace") && self.namespace.is_some() {
            return errors(404, "no handler for route. route entry not found.");
        }
        let (operation, name) = match segments.as_slice() {
            ["transit", operation, name] => (*operation, *name),
            _ => return errors(404, "no handler for route. route entry not found."),
        };
        if self.redirects {
            return (307, Value::Null);
        }
        if self.forbids {
            return errors(403, "1 error occurred:\n\t* permission denied\n\n");
        }
        let Some(versions) = self.keys.get(name) else { return errors(400, "encryption key not found") };
        let bytes = |field: &str| {
            let text = request.body[field].as_str().unwrap_or_default();
            BASE64.decode(text).ok()
        };
        let Some(associated) = bytes("associated_data") else {
            return errors(400, "failed to base64-decode associated data");
        };
        match operation {
            "encrypt" => match bytes("plaintext") {
                Some(plain) => (200, encrypt(versions, plain, &associated)),
                None => errors(400, "failed to base64-decode plaintext"),
            },
            "decrypt" => {
                let ciphertext = request.body["ciphertext"].as_str().unwrap_or_default();
                match decrypt(versions, self.min_decryption_version, ciphertext, &associated) {
                    Ok(plain) => (200, json!({ "data": { "plaintext": BASE64.encode(plain) } })),
                    Err(what) => errors(400, what),
                }
            }
            _ => errors(404, "no handler for route. route entry not found."),
        }
    }

    fn login(&mut self, body: &Value) -> (u16, Value) {
        if (body["role_id"].as_str(), body["secret_id"].as_str()) != (Some(ROLE.0), Some(ROLE.1)) {
            return errors(400, "invalid role or secret ID");
        }
        self.logins += 1;
        let token = format!("hvs.login-{}", self.logins);
        self.tokens.insert(token.clone());
        let auth = json!({ "client_token": token, "lease_duration": self.lease_seconds, "renewable": true });
        (200, json!({ "auth": auth }))
    }
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes"))
}

fn encrypt(versions: &[[u8; 32]], mut plain: Vec<u8>, associated: &[u8]) -> Value {
    let newest = versions.last().expect("a key has a version");
    let nonce: [u8; NONCE_LEN] = random()[..NONCE_LEN].try_into().expect("as long");
    cipher(newest)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated), &mut plain)
        .expect("sealing");
    let ciphertext = format!("vault:v{}:{}", versions.len(), BASE64.encode([&nonce[..], &plain].concat()));
    json!({ "data": { "ciphertext": ciphertext, "key_version": versions.len() } })
}

fn decrypt(
    versions: &[[u8; 32]],
    version_min: usize,
    ciphertext: &str,
    associated: &[u8],
) -> Result<Vec<u8>, &'static str> {
    let rest = ciphertext.strip_prefix("vault:v").ok_or("invalid ciphertext: no prefix")?;
    let (version, sealed) = rest.split_once(':').ok_or("invalid ciphertext: wrong number of fields")?;
    let version: usize =
        version.parse().map_err(|_| "invalid ciphertext: version number could not be decoded")?;
    if version < version_min {
        return Err("ciphertext or signature version is disallowed by policy (too old)");
    }
    let key = version.checked_sub(1).and_then(|index| versions.get(index));
    let key = key.ok_or("invalid ciphertext: version is too new")?;
    let mut sealed = BASE64.decode(sealed).map_err(|_| "invalid ciphertext: could not decode base64")?;
    let (nonce, sealed) = sealed.split_first_chunk_mut::<NONCE_LEN>().ok_or("invalid ciphertext")?;
    let plain =
        cipher(key).open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(associated), sealed);
    plain.map(|plain| plain.to_vec()).map_err(|_| "cipher: message authentication failed")
}
