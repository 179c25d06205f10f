//! A target, checked: an address that can be posted to, certificates that can be read. Pure.

use std::sync::Arc;

use holdfast_object::events::{WEBHOOK_BEARER_SIZE_MAX, WEBHOOK_CA_SIZE_MAX, WEBHOOK_URL_SIZE_MAX, Webhook};
use http::{HeaderValue, Uri, uri::Scheme};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

/// Why a target cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not an address of HTTP.
    #[error(
        "the URL is http:// or https://, with a host, without a user or a fragment, at most {WEBHOOK_URL_SIZE_MAX} bytes"
    )]
    Url,
    /// Not fit for a header.
    #[error("the secret has 1 to {WEBHOOK_BEARER_SIZE_MAX} visible ASCII characters")]
    Bearer,
    /// Nothing to trust an https target by.
    #[error("an https:// target needs the certificates of the authorities that vouch for it (ca_pem)")]
    NoCa,
    /// Not certificates.
    #[error("ca_pem holds PEM certificates of authorities, at most {WEBHOOK_CA_SIZE_MAX} bytes")]
    Ca,
    /// Nothing to be encrypted with.
    #[error(
        "certificates and a secret are for https:// targets: over http:// the secret would be read by anyone"
    )]
    Plain,
}

/// A target, ready to be connected to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Host to be resolved, or an IP address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Value of `Host`.
    pub(crate) authority: HeaderValue,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) authorization: Option<HeaderValue>,
    /// For `https://`.
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Target {
    /// Checks a target.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn parse(webhook: &Webhook) -> Result<Self, TargetError> {
        if webhook.url.len() > WEBHOOK_URL_SIZE_MAX || webhook.url.contains('#') {
            return Err(TargetError::Url);
        }
        let uri: Uri = webhook.url.parse().map_err(|_| TargetError::Url)?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(TargetError::Url),
        };
        let authority = uri.authority().ok_or(TargetError::Url)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(TargetError::Url);
        }
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let authorization = webhook.bearer.as_deref().map(bearer).transpose()?;
        let tls = match (is_https, webhook.ca_pem.as_deref()) {
            (true, None) => return Err(TargetError::NoCa),
            (true, Some(pem)) => {
                let name = ServerName::try_from(host.clone()).map_err(|_| TargetError::Url)?;
                Some((Arc::new(config(pem)?), name))
            }
            (false, None) if authorization.is_none() => None,
            (false, _) => return Err(TargetError::Plain),
        };
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| TargetError::Url)?;
        Ok(Self { host, port, authority, path, authorization, tls })
    }
}

fn bearer(secret: &str) -> Result<HeaderValue, TargetError> {
    let fits =
        (1..=WEBHOOK_BEARER_SIZE_MAX).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
    if !fits {
        return Err(TargetError::Bearer);
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {secret}")).map_err(|_| TargetError::Bearer)?;
    value.set_sensitive(true);
    Ok(value)
}

fn config(pem: &str) -> Result<ClientConfig, TargetError> {
    if pem.len() > WEBHOOK_CA_SIZE_MAX {
        return Err(TargetError::Ca);
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| TargetError::Ca)?;
        roots.add(certificate).map_err(|_| TargetError::Ca)?;
    }
    if roots.is_empty() {
        return Err(TargetError::Ca);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| TargetError::Ca)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(url: &str, bearer: Option<&str>, ca_pem: Option<&str>) -> Webhook {
        Webhook { url: url.into(), bearer: bearer.map(Into::into), ca_pem: ca_pem.map(Into::into) }
    }

    fn ca() -> String {
        rcgen::generate_simple_self_signed(vec!["example.net".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn a_target_is_taken_apart() {
        let target = Target::parse(&webhook("http://[::1]:8080/a?b=c", None, None)).unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("::1", 8080, "/a?b=c"));
        let target = Target::parse(&webhook("https://example.net", Some("x"), Some(&ca()))).unwrap();
        assert_eq!((target.port, target.path.as_str(), target.tls.is_some()), (443, "/", true));
        assert!(target.authorization.unwrap().is_sensitive());
    }

    #[test]
    fn what_cannot_be_a_target_is_refused() {
        let refused = |url, bearer, ca: Option<&str>| Target::parse(&webhook(url, bearer, ca)).unwrap_err();
        for url in ["", "ftp://h/", "/x", "http://", "http://u:p@h/", "http://h/#f", "https://a b/"] {
            assert_eq!(refused(url, None, None), TargetError::Url, "{url}");
        }
        assert_eq!(refused("https://h/", None, None), TargetError::NoCa);
        assert_eq!(refused("https://h/", None, Some("junk")), TargetError::Ca);
        assert_eq!(refused("http://h/", Some("secret"), None), TargetError::Plain);
        for bearer in ["", "a b", "a\n"] {
            assert_eq!(refused("https://h/", Some(bearer), Some(&ca())), TargetError::Bearer);
        }
    }
}
