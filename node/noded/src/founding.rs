//! How a node comes to belong to a cluster: it founds one or joins one.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use holdfast_consensus::Consensus;
use holdfast_control::{Command, KeyCommand, RegisterNode, Response, Splitting};
use holdfast_crypt::random_array;
use holdfast_keyring::{KEYS_DIR, Protector, ShareStore};
use holdfast_keyservice::{Client, Opening, Protect, protocol::Hidden};
use holdfast_model::{
    ClusterId, GroupId, NodeId,
    config::{NodeConfig, Unlock},
};
use holdfast_peer::{
    join::{Applicant, JoinToken, join},
    pki::{Ca, NodeKey},
};
use holdfast_tpm::Tpm;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::GrantExtras,
    control::{Control, now},
    identity::{Credentials, Identity, write_durably},
    keys::{Holder, passphrase_of},
    node::services,
    tenants,
};

/// Region that S3 signatures name.
pub(crate) const REGION: &str = "us-east-1";

/// Name under which the CA's key is sealed in the control state.
pub(crate) const CA_KEY: &str = "ca key";

/// Name under which the session key is sealed in the control state.
pub(crate) const SESSION_KEY: &str = "session key";

/// The node that founds a cluster.
pub(crate) const FIRST_NODE: NodeId = NodeId::new(1);

/// How long a node asks to be admitted before it gives up and is started anew.
pub(crate) const JOIN_PATIENCE: Duration = Duration::from_secs(300);

/// What a node starts from.
pub(crate) struct Founding {
    pub(crate) credentials: Credentials,
    /// Present when it was just started, to make the first root.
    pub(crate) keys: Option<Client>,
    /// Members a joiner was told of: it must be able to answer them before it has their state.
    pub(crate) members: Vec<(NodeId, SocketAddr)>,
}

/// A node without identity bootstraps or joins, as its configuration says.
pub(crate) async fn found_or_join(config: &NodeConfig, stop: &CancellationToken) -> Result<Founding> {
    if let Some(bootstrap) = &config.bootstrap {
        return bootstrap_identity(config, bootstrap.catalog_groups, &bootstrap.cluster_name);
    }
    let Some(wanted) = &config.join else {
        bail!(
            "this node belongs to no cluster and its configuration has neither `bootstrap` (found one) nor `join` (join one)"
        );
    };
    let token: JoinToken = wanted.token.parse().context("the join token in the configuration")?;
    let founding = join_with(config, &wanted.peers, &token, stop).await?;
    founding.credentials.store(&config.state_dir)?;
    Ok(founding)
}

/// Joins by `peers`; what was granted is not stored yet.
pub(crate) async fn join_with(
    config: &NodeConfig,
    peers: &[SocketAddr],
    token: &JoinToken,
    stop: &CancellationToken,
) -> Result<Founding> {
    let applicant = Applicant {
        name: config.name.clone(),
        advertise_peer: config.advertise_peer,
        services: holdfast_peer::join::ServiceAddresses {
            s3: config.listen.s3,
            admin: config.listen.admin,
            metrics: config.listen.metrics,
        },
    };
    let (grant, proven) = tokio::select! {
        () = stop.cancelled() => bail!("stopped while joining"),
        granted = join(peers, token, applicant, JOIN_PATIENCE) => granted.context("joining")?,
    };
    let GrantExtras { catalog_groups } = GrantExtras::parse(&grant.extras)?;
    let identity =
        Identity { cluster: grant.cluster, node: grant.node, name: config.name.clone(), catalog_groups };
    let credentials =
        Credentials { identity, ca: grant.ca, certificate: grant.certificate, key: proven.key().clone() };
    tracing::info!(cluster = %grant.cluster, node = %grant.node, "admitted");
    Ok(Founding { credentials, keys: None, members: grant.members })
}

/// The first node makes the cluster's id, CA and root key.
fn bootstrap_identity(config: &NodeConfig, catalog_groups: u32, cluster_name: &str) -> Result<Founding> {
    let cluster = ClusterId::from_bytes(random_array());
    let now = SystemTime::now();
    let ca = Ca::generate(cluster, now).context("making the cluster's CA")?;
    let key = NodeKey::generate().context("making a peer key")?;
    let certificate =
        ca.issue_peer(key.request(), FIRST_NODE, now).context("signing the peer certificate")?;
    // Until others join the only share is the root itself; what protects it, the configuration says.
    let keys = start_keys(config, cluster, true)?;
    keys.found().context("making the first root")?;
    // The CA's key must outlive a crash before the control group has it.
    let sealed_ca = keys.seal_record(CA_KEY, ca.key().der()).context("sealing the CA's key")?;
    write_durably(&sealed_ca_path(&config.state_dir), &sealed_ca, 0o600)?;
    let identity = Identity { cluster, node: FIRST_NODE, name: config.name.clone(), catalog_groups };
    let credentials =
        Credentials { identity, ca: ca.certificate().clone(), certificate, key: key.private_key().clone() };
    credentials.store(&config.state_dir)?;
    tracing::info!(%cluster, name = cluster_name, "founding a cluster");
    Ok(Founding { credentials, keys: Some(keys), members: Vec::new() })
}

/// Starts this node's key service. `begins`: it founds or joins now, so what is to protect its shares must be at hand.
pub(crate) fn start_keys(config: &NodeConfig, cluster: ClusterId, begins: bool) -> Result<Client> {
    let config = config.clone();
    let opening = move || opening(&config, cluster, begins).map_err(|error| format!("{error:#}"));
    Client::start(cluster, Box::new(opening)).context("this node's key service, with its shares of the root")
}

fn opening(config: &NodeConfig, cluster: ClusterId, begins: bool) -> Result<Opening> {
    let passphrase = passphrase_of(&config.unlock)?;
    let is_new = begins && !ShareStore::exists(&config.state_dir);
    if is_new && passphrase.is_none() && matches!(config.unlock, Unlock::Passphrase { .. }) {
        bail!(
            "this node's share of the root is to be sealed under a passphrase, and the file that the \
             configuration names for it is not there: it is needed once, when the node founds or joins"
        );
    }
    let protect = match protector(config, passphrase.as_ref().map(|passphrase| passphrase.as_slice())) {
        Some(Protector::Tpm(_)) => Protect::Tpm(config.tpm_device.clone()),
        Some(Protector::Passphrase(passphrase)) => Protect::Passphrase(Some(Hidden::of(passphrase))),
        None if matches!(config.unlock, Unlock::Passphrase { .. }) => Protect::Passphrase(None),
        None => Protect::File,
    };
    let dir = config.state_dir.join(KEYS_DIR);
    let dir = std::path::absolute(&dir).with_context(|| format!("the place of {}", dir.display()))?;
    Ok(Opening { cluster, dir, protect })
}

/// What protects this node's shares, as far as it is at hand.
pub(crate) fn protector<'a>(config: &NodeConfig, passphrase: Option<&'a [u8]>) -> Option<Protector<'a>> {
    let tpm = || Tpm::at(&config.tpm_device);
    match config.unlock {
        Unlock::File => None,
        Unlock::Passphrase { .. } => passphrase.map(Protector::Passphrase),
        Unlock::Tpm => Some(Protector::Tpm(tpm())),
        // With shares that are sealed already, a TPM that is gone is to be said, not passed over.
        Unlock::TpmIfPresent => {
            let wanted = tpm().is_there() || ShareStore::exists(&config.state_dir);
            wanted.then(|| Protector::Tpm(tpm()))
        }
    }
}

fn sealed_ca_path(state_dir: &Path) -> PathBuf {
    state_dir.join("keys").join("ca.sealed")
}

/// Founds the cluster in the control group. Every step may be repeated after a crash.
pub(crate) async fn found(
    config: &NodeConfig,
    identity: &Identity,
    consensus: &Consensus,
    control: &Control,
    holder: &Holder,
) -> Result<()> {
    let keyring = &holder.keyring;
    let Some(bootstrap) = &config.bootstrap else { return Ok(()) };
    let done = control.view().await?.secrets.contains_key(SESSION_KEY);
    if done {
        return Ok(());
    }
    let own: BTreeSet<NodeId> = [FIRST_NODE].into();
    for group in 0..=identity.catalog_groups {
        consensus.initialize(GroupId::new(group), own.clone()).await.context("starting a group")?;
    }
    let sealed_ca = std::fs::read(sealed_ca_path(&config.state_dir)).context("reading the sealed CA key")?;
    let ca_key = keyring.open_record(CA_KEY, &sealed_ca).context("the CA's key")?;
    let init = Command::InitCluster {
        cluster: identity.cluster,
        name: bootstrap.cluster_name.clone(),
        region: REGION.to_owned(),
        level: bootstrap.level,
        catalog_groups: identity.catalog_groups,
        first: RegisterNode {
            request: *identity.cluster.as_bytes(),
            name: config.name.clone(),
            peer: config.advertise_peer,
            services: services(config),
            token_hash: [0; 32],
            at: now(),
        },
    };
    let operator = Command::SetOperator {
        name: bootstrap.operator.clone(),
        password_hash: bootstrap.operator_password_hash.clone(),
        role: "operator".to_owned(),
    };
    let shares = keyring.state().shares.context("the first share of the root is sealed")?;
    let (split, _) = *shares.first().context("the first share of the root is not there")?;
    let ((epoch, root), cluster_key) = keyring.make_cluster_key().context("making the cluster key")?;
    let keys = Command::Keys(KeyCommand::Found {
        epoch,
        root,
        splitting: Splitting { split, threshold: 1, holders: [(FIRST_NODE, 1)].into() },
        cluster_key,
        at: now(),
    });
    decide(control, &[init, operator, keys]).await?;
    // The cluster key that was decided on: this may not be the first attempt.
    tenants::learn(&control.view().await?, keyring);
    let session: [u8; 32] = random_array();
    let secret = |name: &str, bytes: &[u8]| -> Result<Command> {
        let sealed = keyring.seal_secret(name, bytes).with_context(|| format!("sealing the {name}"))?;
        Ok(Command::PutSecret { name: name.to_owned(), sealed })
    };
    decide(control, &[secret(CA_KEY, &ca_key)?, secret(SESSION_KEY, &session)?]).await
}

async fn decide(control: &Control, commands: &[Command]) -> Result<()> {
    for command in commands {
        match control.propose(command).await? {
            Ok(Response::Done | Response::Registered(_)) => {}
            other => bail!("the control group answered {other:?}"),
        }
    }
    Ok(())
}
