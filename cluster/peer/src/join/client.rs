//! The joiner's side: asks members in order until one admits it, one refuses for good, or patience ends.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustls::ClientConfig;
use tokio::{io::split, time::timeout};

use super::{ADMISSION_TIMEOUT, JoinGrant, JoinRequest, JoinToken, ServiceAddresses, code};
use crate::{
    CONNECT_TIMEOUT, ConnectError, Method, Refusal,
    client::handshake,
    frame::{Header, JOIN_BODY_SIZE_MAX, Kind, check_size},
    pki::{NodeKey, PeerIdentity, PinnedCa, PkiError},
    stream::{FrameReader, FrameWriter, LinkError, Outgoing},
};

/// Pause after all members were asked in vain.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the answer is waited for: the member's time to decide, and the way.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(ADMISSION_TIMEOUT.as_secs() + 10);

/// The node that wants to join, as it describes itself.
#[derive(Debug, Clone)]
pub struct Applicant {
    /// Its name.
    pub name: String,
    /// Where peers reach it.
    pub advertise_peer: SocketAddr,
    /// Where its services listen.
    pub services: ServiceAddresses,
}

/// Why one member did not admit.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttemptError {
    /// No trusted connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The member said: not now.
    #[error("{0}")]
    NotNow(Refusal),
    /// The connection ended or the answer makes no sense.
    #[error("{0}")]
    Broken(String),
}

impl AttemptError {
    /// Whether asking the same member again may help.
    fn passes(&self) -> bool {
        !matches!(self, Self::Connect(ConnectError::Identity { .. } | ConnectError::Protocol { .. }))
    }
}

/// Why the node is not a member now.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The configuration names nobody to ask.
    #[error("no peers are configured to join by")]
    NoPeers,
    /// No key could be made.
    #[error(transparent)]
    Key(PkiError),
    /// A member refused for good.
    #[error("{address} refused: {refusal}")]
    Refused {
        /// The member.
        address: SocketAddr,
        /// Why.
        refusal: Refusal,
    },
    /// A member admitted, with parts that do not belong together. The token may be used up.
    #[error("the grant of {address} cannot be used: {source}")]
    BadGrant {
        /// The member.
        address: SocketAddr,
        /// What is wrong.
        source: PkiError,
    },
    /// Nobody admitted within the caller's patience.
    #[error("no member admitted this node: {}", List(.0))]
    NotAdmitted(Vec<(SocketAddr, AttemptError)>),
}

struct List<'a>(&'a [(SocketAddr, AttemptError)]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (address, error)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}

/// Makes a key, and asks `peers` in order, again and again for `patience`, to be admitted with `token`.
///
/// The secret is sent only to who shows a chain to the CA that the token names. The identity that comes
/// back is checked: this CA, this cluster, this key.
///
/// # Errors
/// [`JoinError`].
pub async fn join(
    peers: &[SocketAddr],
    token: &JoinToken,
    applicant: Applicant,
    patience: Duration,
) -> Result<(JoinGrant, PeerIdentity), JoinError> {
    if peers.is_empty() {
        return Err(JoinError::NoPeers);
    }
    // One key for all attempts: a member that lost the answer to the first recognises the second.
    let key = NodeKey::generate().map_err(JoinError::Key)?;
    let config = PinnedCa(token.ca()).config().map_err(JoinError::Key)?;
    let request = JoinRequest {
        secret: token.secret(),
        name: applicant.name,
        certificate_request: key.request().to_vec(),
        advertise_peer: applicant.advertise_peer,
        services: applicant.services,
    };
    let body = postcard::to_stdvec(&request).map_err(|e| {
        JoinError::Key(PkiError::Crypto { what: "encoding the request", cause: e.to_string() })
    })?;
    let body = Bytes::from(body);
    let until = Instant::now() + patience;
    loop {
        let mut attempts = Vec::with_capacity(peers.len());
        for &address in peers {
            match ask(address, Arc::clone(&config), body.clone()).await {
                Ok(Ok(grant)) => {
                    let identity = accept(&grant, token, &key)
                        .map_err(|source| JoinError::BadGrant { address, source })?;
                    return Ok((grant, identity));
                }
                Ok(Err(refusal)) if refusal.code == code::NOT_READY => {
                    attempts.push((address, AttemptError::NotNow(refusal)));
                }
                Ok(Err(refusal)) => return Err(JoinError::Refused { address, refusal }),
                Err(error) => attempts.push((address, error)),
            }
        }
        let hopeless = !attempts.iter().any(|(_, error)| error.passes());
        if hopeless || Instant::now() + PAUSE > until {
            return Err(JoinError::NotAdmitted(attempts));
        }
        tracing::info!(reason = %List(&attempts), "not admitted yet, trying again");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks one member. The inner result is its word, the outer one whether it came.
async fn ask(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    body: Bytes,
) -> Result<Result<JoinGrant, Refusal>, AttemptError> {
    let broken = |error: LinkError| AttemptError::Broken(error.to_string());
    let stream = timeout(CONNECT_TIMEOUT, handshake(address, config))
        .await
        .map_err(|_| ConnectError::TimedOut { address, after: CONNECT_TIMEOUT })??;
    let (reader, writer) = split(stream);
    let mut reader = FrameReader::new(reader, ANSWER_TIMEOUT, Arc::default());
    let mut writer = FrameWriter::new(writer, Arc::default());
    let header = Header {
        kind: Kind::Request,
        method: Method::Join.code(),
        id: 1,
        status: 0,
        deadline_ms: 0,
        body_len: 0,
        payload_len: 0,
    };
    let expires = Some(tokio::time::Instant::now() + ANSWER_TIMEOUT);
    let frame = Outgoing { header, body, payload: None, expires, permit: None };
    writer.frame(&frame).await.map_err(broken)?;
    writer.flush().await.map_err(broken)?;
    let answer = async {
        let header = reader.header().await?;
        check_size("answer", header.body_len as usize, JOIN_BODY_SIZE_MAX)?;
        let body = reader.body(header.body_len as usize).await?;
        Ok::<_, LinkError>((header, body))
    };
    let (header, body) = timeout(ANSWER_TIMEOUT, answer)
        .await
        .map_err(|_| ConnectError::TimedOut { address, after: ANSWER_TIMEOUT })?
        .map_err(broken)?;
    writer.close().await;
    match header.kind {
        Kind::Reply => postcard::from_bytes(&body)
            .map(Ok)
            .map_err(|e| AttemptError::Broken(format!("its grant does not parse: {e}"))),
        Kind::Refusal => {
            let message = String::from_utf8_lossy(&body).into_owned();
            Ok(Err(Refusal { code: header.status, message }))
        }
        other => Err(AttemptError::Broken(format!("a {other:?} frame came as answer"))),
    }
}

/// Checks that what was granted belongs together and to the token.
fn accept(grant: &JoinGrant, token: &JoinToken, key: &NodeKey) -> Result<PeerIdentity, PkiError> {
    if grant.ca.fingerprint() != token.ca() {
        return Err(PkiError::OtherFingerprint { expected: token.ca() });
    }
    let identity = PeerIdentity::new(grant.ca.clone(), grant.certificate.clone(), key.private_key().clone())?;
    if identity.cluster() != grant.cluster || identity.node() != grant.node {
        return Err(PkiError::NotAPeer(format!(
            "it is for node {} of cluster {}, the grant for {} of {}",
            identity.node(),
            identity.cluster(),
            grant.node,
            grant.cluster
        )));
    }
    Ok(identity)
}
