//! What speaks the transit protocol of HashiCorp Vault (OpenBao speaks it too).
//!
//! | request                                  | body                                           | answer                         |
//! |------------------------------------------|------------------------------------------------|--------------------------------|
//! | `POST /v1/{mount}/encrypt/{key}`         | `plaintext`, `associated_data` (base64)        | `data.ciphertext`              |
//! | `POST /v1/{mount}/decrypt/{key}`         | `ciphertext`, `associated_data`                | `data.plaintext` (base64)      |
//! | `POST /v1/auth/{mount}/login`            | `role_id`, `secret_id`                         | `auth.client_token`, `.lease_duration` in seconds |
//! | `POST /v1/auth/token/renew-self`         | empty                                          | `auth.lease_duration`          |
//! | `GET /v1/sys/health`                     |                                                | 200; 429 and 473 standby; 501, 503 not able |
//!
//! Sources: Vault's HTTP API documentation, pages "Transit secrets engine", "AppRole auth method", "Token auth method",
//! "/sys/health" and "HTTP API: status codes". A policy that allows the first two paths is enough (`update` on each).
//!
//! 400, 403 and 404 are refusals: Vault answers 400 for a key that is gone (`encryption key not found`), for versions
//! below `min_decryption_version` and for a secret id that is not good; 403 for tokens and policies; 404 for mounts that
//! are gone. Everything else (5xx, 412, 429, 472, 473, no answer) is not: it is tried again, and then reported as
//! no answer.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use holdfast_crypt::{EXTERNAL_CIPHERTEXT_SIZE_MAX, ExternalKek};
use holdfast_object::events::Network;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    ExternalKeyService, ServiceError,
    http_client::{Answer, HttpClient},
    settings::{SettingsError, VaultAuth, VaultSettings},
};

/// How often one thing is asked when there is no answer, in all.
pub const ATTEMPTS_MAX: u32 = 3;

/// How long is waited before the second attempt; twice as long before each one after it.
const BACKOFF: Duration = Duration::from_millis(200);

/// Shortest time between two renewals of a token, or two logins that the time asks for.
const RENEWAL_MIN: Duration = Duration::from_secs(10);

/// When a token that could not be renewed, or has no end, is looked at again.
const RENEWAL_RETRY: Duration = Duration::from_secs(3600);

/// Longest piece of a service's own words in an error, in characters.
const SAID_MAX: usize = 200;

/// A key of a transit engine.
#[derive(Debug)]
pub struct VaultTransit {
    settings: VaultSettings,
    http: HttpClient,
    session: Mutex<Option<Session>>,
}

/// A token, and when it is to be renewed.
#[derive(Clone)]
struct Session {
    token: HeaderValue,
    renew_at: Instant,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct AuthAnswer {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
}

/// After how much of a lease a token is renewed: two thirds of it. One without an end has no lease.
fn renewal(lease_seconds: u64) -> Duration {
    match lease_seconds {
        0 => RENEWAL_RETRY,
        seconds => Duration::from_secs(seconds.saturating_mul(2) / 3).clamp(RENEWAL_MIN, RENEWAL_RETRY * 24),
    }
}

fn token_header(token: &str) -> Result<HeaderValue, ServiceError> {
    let mut value = HeaderValue::from_str(token)
        .map_err(|_| ServiceError::Protocol("a token that fits no header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl VaultTransit {
    /// A key of a service. Asks nothing yet. `networks` are those that are connected to although such addresses are
    /// refused by themselves.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn new(settings: VaultSettings, networks: Vec<Network>) -> Result<Self, SettingsError> {
        settings.check()?;
        let http = HttpClient::new(&settings, networks)?;
        Ok(Self { settings, http, session: Mutex::default() })
    }

    fn headers(&self, token: Option<HeaderValue>) -> Result<HeaderMap, ServiceError> {
        let mut headers = HeaderMap::new();
        // Asked for by `vault agent` and servers that are told to require it; others ignore it.
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = &self.settings.namespace {
            let value = HeaderValue::from_str(namespace)
                .map_err(|_| ServiceError::Protocol("a namespace that fits no header".to_owned()))?;
            headers.insert("x-vault-namespace", value);
        }
        if let Some(token) = token {
            headers.insert("x-vault-token", token);
        }
        Ok(headers)
    }

    /// Asks until there is an answer that is one.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<HeaderValue>,
        body: &Value,
    ) -> Result<Answer, ServiceError> {
        let mut wait = BACKOFF;
        let mut attempt = 1;
        loop {
            let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
            let asked = self.http.ask(method.clone(), path, self.headers(token.clone())?, body).await;
            let judged = asked.and_then(judge);
            match judged {
                Err(error @ ServiceError::Unreachable(_)) if attempt < ATTEMPTS_MAX => {
                    drop(error);
                    tokio::time::sleep(wait).await;
                    (wait, attempt) = (wait * 2, attempt + 1);
                }
                judged => return judged,
            }
        }
    }

    /// The token to be shown, made or renewed where that is due.
    async fn token(&self) -> Result<HeaderValue, ServiceError> {
        let known = self.session.lock().clone();
        if let Some(session) = known.as_ref().filter(|session| session.renew_at > Instant::now()) {
            return Ok(session.token.clone());
        }
        let session = match &self.settings.auth {
            VaultAuth::AppRole { .. } => self.login().await?,
            VaultAuth::Token(token) => self.renewed(token_header(token)?).await,
        };
        let token = session.token.clone();
        *self.session.lock() = Some(session);
        Ok(token)
    }

    async fn login(&self) -> Result<Session, ServiceError> {
        let VaultAuth::AppRole { mount, role_id, secret_id } = &self.settings.auth else {
            return Err(ServiceError::Protocol("no role to log in with".to_owned()));
        };
        let body = json!({ "role_id": role_id, "secret_id": secret_id });
        let answer = self.ask(Method::POST, &format!("/v1/auth/{mount}/login"), None, &body).await?;
        let AuthAnswer { auth } = read(&answer.body)?;
        let client_token = Zeroizing::new(auth.client_token);
        let renew_at = Instant::now() + renewal(auth.lease_duration);
        Ok(Session { token: token_header(&client_token)?, renew_at })
    }

    /// A token that cannot be renewed is used all the same: whether it is good, the next request says.
    async fn renewed(&self, token: HeaderValue) -> Session {
        let path = "/v1/auth/token/renew-self";
        let answer = self.ask(Method::POST, path, Some(token.clone()), &json!({})).await;
        let lease = answer.and_then(|answer| read::<AuthAnswer>(&answer.body));
        let after = lease.map_or(RENEWAL_RETRY, |answer| renewal(answer.auth.lease_duration));
        Session { token, renew_at: Instant::now() + after }
    }

    /// One operation of the key. A token that came from a login may have ended early: then once more with a new one.
    async fn operate(&self, operation: &str, body: &Value) -> Result<Answer, ServiceError> {
        let VaultSettings { mount, key, auth, .. } = &self.settings;
        let path = format!("/v1/{mount}/{operation}/{key}");
        let answer = self.ask(Method::POST, &path, Some(self.token().await?), body).await;
        match (answer, auth) {
            (Err(ServiceError::Refused(_)), VaultAuth::AppRole { .. }) => {
                *self.session.lock() = None;
                self.ask(Method::POST, &path, Some(self.token().await?), body).await
            }
            (answer, _) => answer,
        }
    }
}

/// Sorts an answer by its status.
fn judge(answer: Answer) -> Result<Answer, ServiceError> {
    match answer.status {
        StatusCode::OK | StatusCode::NO_CONTENT => Ok(answer),
        status @ (StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
            Err(ServiceError::Refused(format!("{status}{}", said(&answer.body))))
        }
        status if status.is_redirection() => Err(ServiceError::Unreachable(format!(
            "{status}: redirects are not followed; name the server itself"
        ))),
        status => Err(ServiceError::Unreachable(format!("{status}{}", said(&answer.body)))),
    }
}

/// The service's own words for people: printable characters of them, and not many.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    let Ok(Errors { errors }) = serde_json::from_slice(body) else { return String::new() };
    let words: String = errors.join("; ").chars().filter(|c| !c.is_control()).take(SAID_MAX).collect();
    if words.is_empty() { words } else { format!(" ({})", words.trim()) }
}

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, ServiceError> {
    // Its own error may quote what it read.
    serde_json::from_slice(body)
        .map_err(|_| ServiceError::Protocol("an answer that is not understood".to_owned()))
}

#[async_trait::async_trait]
impl ExternalKeyService for VaultTransit {
    fn describe(&self) -> String {
        let VaultSettings { url, namespace, mount, key, .. } = &self.settings;
        let namespace = namespace.as_ref().map_or_else(String::new, |name| format!(" namespace {name}"));
        format!("transit key {mount}/{key} at {}{namespace}", url.trim_end_matches('/'))
    }

    async fn wrap(&self, kek: &ExternalKek, context: &[u8; 32]) -> Result<String, ServiceError> {
        #[derive(Deserialize)]
        struct Encrypted {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            ciphertext: String,
        }
        let plaintext = BASE64.encode(kek.expose());
        let body = json!({ "plaintext": plaintext, "associated_data": BASE64.encode(context) });
        let answer = self.operate("encrypt", &body).await?;
        let Encrypted { data: Data { ciphertext } } = read(&answer.body)?;
        let fits = (1..=EXTERNAL_CIPHERTEXT_SIZE_MAX).contains(&ciphertext.len())
            && ciphertext.bytes().all(|b| b.is_ascii_graphic());
        if fits {
            Ok(ciphertext)
        } else {
            Err(ServiceError::Protocol("a ciphertext that is none".to_owned()))
        }
    }

    async fn unwrap(&self, ciphertext: &str, context: &[u8; 32]) -> Result<ExternalKek, ServiceError> {
        #[derive(Deserialize)]
        struct Decrypted {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            plaintext: String,
        }
        let body = json!({ "ciphertext": ciphertext, "associated_data": BASE64.encode(context) });
        let answer = self.operate("decrypt", &body).await?;
        let Decrypted { data: Data { plaintext } } = read(&answer.body)?;
        let plaintext = Zeroizing::new(plaintext);
        let none = || ServiceError::Protocol("a plaintext that is not the key that was wrapped".to_owned());
        let bytes = Zeroizing::new(BASE64.decode(plaintext.as_bytes()).map_err(|_| none())?);
        let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| none())?;
        Ok(ExternalKek::from_bytes(*bytes))
    }

    async fn health(&self) -> Result<(), ServiceError> {
        let path = "/v1/sys/health?standbyok=true&perfstandbyok=true";
        self.ask(Method::GET, path, None, &Value::Null).await.map(drop)
    }
}
