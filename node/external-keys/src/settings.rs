//! How a service is reached, as it is kept: sealed as a secret of the cluster. Checked when it is set. Pure.

use http::{Uri, uri::Scheme};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::{Deserialize, Serialize};

/// Longest address, in bytes.
const URL_SIZE_MAX: usize = 512;

/// Longest path of a mount or namespace, name of a key, or id of a role, in bytes.
const NAME_SIZE_MAX: usize = 128;

/// Longest token or secret id, in bytes.
const SECRET_SIZE_MAX: usize = 4096;

/// Certificates of authorities at most, in bytes of PEM.
const CA_SIZE_MAX: usize = 64 * 1024;

/// Why settings cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not an address of HTTPS.
    #[error("the URL is https://HOST or https://HOST:PORT, without user, path or query")]
    Url,
    /// A name that would not stay one segment, or one path, of the request.
    #[error("{0} has 1 to {NAME_SIZE_MAX} letters, digits, hyphens, underscores and dots, no dot in front")]
    Name(&'static str),
    /// Not fit for a header.
    #[error("{0} has 1 to {SECRET_SIZE_MAX} visible ASCII characters")]
    Secret(&'static str),
    /// Nothing to know the service by.
    #[error(
        "ca_pem holds PEM certificates of the authorities that vouch for the service, at most {CA_SIZE_MAX} bytes"
    )]
    Ca,
}

/// How a service that speaks Vault's transit is reached.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultSettings {
    /// `https://HOST:PORT`.
    pub url: String,
    /// Certificates of the authorities that vouch for it, as PEM; no others are trusted.
    pub ca_pem: String,
    /// Namespace (`X-Vault-Namespace`), if there is one.
    pub namespace: Option<String>,
    /// Where the transit engine is mounted.
    pub mount: String,
    /// Name of the key: one with associated data (`aes256-gcm96`, `chacha20-poly1305`), not derived.
    pub key: String,
    /// How this cluster shows who it is.
    pub auth: VaultAuth,
}

/// How the cluster shows a service who it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultAuth {
    /// A token, which is renewed as long as it can be.
    Token(String),
    /// An AppRole: logs in, and again before the token ends.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// Id of the role.
        role_id: String,
        /// Its secret.
        secret_id: String,
    },
}

impl std::fmt::Debug for VaultAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::AppRole { .. } => "AppRole(..)",
        })
    }
}

impl std::fmt::Debug for VaultSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VaultSettings")
            .field("url", &self.url)
            .field("mount", &self.mount)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Where to connect, taken from an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub host: String,
    pub port: u16,
    pub authority: String,
}

impl VaultSettings {
    /// Checks everything that can be checked without asking the service.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn check(&self) -> Result<(), SettingsError> {
        self.place()?;
        self.roots()?;
        path("mount", &self.mount)?;
        name("key", &self.key)?;
        if let Some(namespace) = &self.namespace {
            path("namespace", namespace)?;
        }
        match &self.auth {
            VaultAuth::Token(token) => secret("token", token),
            VaultAuth::AppRole { mount, role_id, secret_id } => {
                path("approle_mount", mount)?;
                secret("role_id", role_id)?;
                secret("secret_id", secret_id)
            }
        }
    }

    pub(crate) fn place(&self) -> Result<Place, SettingsError> {
        let uri: Uri = self.url.parse().map_err(|_| SettingsError::Url)?;
        let authority = uri.authority().ok_or(SettingsError::Url)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let fits = self.url.len() <= URL_SIZE_MAX
            && uri.scheme() == Some(&Scheme::HTTPS)
            && uri.path_and_query().is_none_or(|path| path.as_str() == "/")
            && !self.url.contains(['#', '@', '?'])
            && !host.is_empty();
        if !fits {
            return Err(SettingsError::Url);
        }
        let port = authority.port_u16().unwrap_or(443);
        Ok(Place { host, port, authority: authority.as_str().to_owned() })
    }

    pub(crate) fn roots(&self) -> Result<RootCertStore, SettingsError> {
        if self.ca_pem.len() > CA_SIZE_MAX {
            return Err(SettingsError::Ca);
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()) {
            roots.add(certificate.map_err(|_| SettingsError::Ca)?).map_err(|_| SettingsError::Ca)?;
        }
        if roots.is_empty() { Err(SettingsError::Ca) } else { Ok(roots) }
    }
}

/// One segment of a path.
fn name(what: &'static str, text: &str) -> Result<(), SettingsError> {
    let fits = (1..=NAME_SIZE_MAX).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits { Ok(()) } else { Err(SettingsError::Name(what)) }
}

/// Segments, with slashes between them.
fn path(what: &'static str, text: &str) -> Result<(), SettingsError> {
    if text.len() > NAME_SIZE_MAX {
        return Err(SettingsError::Name(what));
    }
    text.split('/').try_for_each(|segment| name(what, segment))
}

fn secret(what: &'static str, text: &str) -> Result<(), SettingsError> {
    let fits = (1..=SECRET_SIZE_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(()) } else { Err(SettingsError::Secret(what)) }
}

#[cfg(test)]
mod tests {
    use holdfast_blackbox::transit::TransitServer;

    use super::*;

    fn settings() -> VaultSettings {
        VaultSettings {
            url: "https://vault.example:8200".into(),
            ca_pem: TransitServer::certificate_of_nobody(),
            namespace: Some("team/a".into()),
            mount: "transit".into(),
            key: "holdfast-demo".into(),
            auth: VaultAuth::Token("hvs.abc".into()),
        }
    }

    #[test]
    fn settings_are_taken_apart() {
        let settings = settings();
        settings.check().unwrap();
        let place = settings.place().unwrap();
        assert_eq!((place.host.as_str(), place.port), ("vault.example", 8200));
        let six = VaultSettings { url: "https://[::1]/".into(), ..settings };
        assert_eq!((six.place().unwrap().host.as_str(), six.place().unwrap().port), ("::1", 443));
    }

    #[test]
    fn what_would_change_the_request_is_refused() {
        let ok = settings();
        for url in
            ["", "http://h", "https://", "https://h/v1", "https://u:p@h", "https://h?x", "https://h/#f", "h"]
        {
            assert_eq!(
                VaultSettings { url: url.into(), ..ok.clone() }.check(),
                Err(SettingsError::Url),
                "{url}"
            );
        }
        for bad in ["", "a/b", "..", ".hidden", "a?b", "a b", "a%2fb", "ä"] {
            let key = VaultSettings { key: bad.into(), ..ok.clone() };
            assert_eq!(key.check(), Err(SettingsError::Name("key")), "{bad}");
        }
        for bad in ["", "/a", "a/", "a//b", "a/../b"] {
            let mount = VaultSettings { mount: bad.into(), ..ok.clone() };
            assert_eq!(mount.check(), Err(SettingsError::Name("mount")), "{bad}");
        }
        for bad in ["", "a b", "a\r\nX-Evil: 1"] {
            let auth = VaultSettings { auth: VaultAuth::Token(bad.into()), ..ok.clone() };
            assert_eq!(auth.check(), Err(SettingsError::Secret("token")), "{bad}");
        }
        assert_eq!(VaultSettings { ca_pem: String::new(), ..ok.clone() }.check(), Err(SettingsError::Ca));
        assert!(!format!("{ok:?}").contains("hvs"), "credentials are not printed");
    }
}
