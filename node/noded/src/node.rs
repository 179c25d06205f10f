//! A node from its configuration to serving, and back down in order.
//!
//! ```text
//! identity (load, bootstrap or join) -> peer links -> consensus, groups -> drives -> store
//!   -> unlocked -> objects -> certificate -> admin, metrics, S3
//! ```
//!
//! Order matters: links come first so that peers find this node while it starts; whatever needs no key
//! comes before the root is waited for; gateways come last, when what they need answers.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use holdfast_catalog::{CatalogMachine, CatalogReader, MetadataKeys};
use holdfast_consensus::{Consensus, ConsensusError, ConsensusOptions, LogError};
use holdfast_control::{Command, ControlMachine, ServiceAddresses};
use holdfast_crypt::random_array;
use holdfast_drive::DriveOptions;
use holdfast_events::WebhookSender;
use holdfast_gateway_s3::S3Gateway;
use holdfast_keyring::ShareStore;
use holdfast_keyservice::Client;
use holdfast_model::{ByteCount, GroupId, NodeId, config::NodeConfig};
use holdfast_object::{
    Directory, ObjectService, StripeIo,
    journal::{Journal, JournalParts, Owner},
    workers,
};
use holdfast_peer::{
    PeerClient, PeerServer,
    pki::{Ca, Certificate, PeerIdentity, PrivateKey},
};
use holdfast_ring::BufferPool;
use holdfast_store::{Counters, Findings, Health, ReadMemory, Shards, StripeRebuilder};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Admin,
    admission::Admission,
    comparison::{Comparison, States},
    control::Control,
    drains,
    drives::{Keeper, KeeperParts},
    external_keys::ExternalKeys,
    features,
    founding::{
        CA_KEY, FIRST_NODE, Founding, JOIN_PATIENCE, REGION, SESSION_KEY, found, found_or_join, join_with,
        start_keys,
    },
    groups::{Groups, LostLog, Ward},
    identities::NodeIdentities,
    identity::Credentials,
    key_admin::Keys,
    keys::{Front, Holder, KeySteward, KeyWatch, Retirement, Shredder, Unlocker},
    leaders::Leaders,
    links::{NodeService, RaftTransport},
    membership::Steward,
    metadata_keys::LiveMetadataKeys,
    metrics,
    orders::Orders,
    poller::Poller,
    readmission,
    second_copy::{self, CatalogFiles, ControlFiles, LiveKeys, owner_of},
    splits::Splitter,
    tenants, tls,
};

/// How long a node waits for its keys in silence, before it answers clients that it is locked.
const LOCKED_AFTER: Duration = Duration::from_secs(1);

/// How long a node that starts waits between looks at what it waits for.
const STARTING_POLL: Duration = Duration::from_millis(100);

/// How often a starting node says what it waits for.
const STARTING_WORD: Duration = Duration::from_secs(10);

/// Memory for catalog records at least: some of the largest ones at once.
const JOURNAL_MEMORY_MIN: ByteCount = ByteCount::mib(4);

/// How long an address that is in use is waited for.
const FREE_WITHIN: Duration = Duration::from_secs(10);

/// How long requests in progress may take when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; the chain says what and with which file or address.
pub async fn run(config: NodeConfig) -> Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed before"))?;
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("creating {}", config.state_dir.display()))?;
    readmission::refuse_removed(&config.state_dir)?;
    readmission::take_up(&config.state_dir)?;
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let mut founding = match Credentials::load(&config.state_dir)? {
        Some(credentials) => Founding { credentials, keys: None, members: Vec::new() },
        None => found_or_join(&config, &stop).await?,
    };
    let outcome = loop {
        let credentials = founding.credentials.clone();
        match Node::start(config.clone(), founding, &stop).await {
            Ok(node) => {
                stop.cancelled().await;
                break node.shut_down().await;
            }
            Err(_) if stop.is_cancelled() => break Ok(()),
            Err(error) if error.is::<LostLog>() => {
                tracing::error!(%error, node = %credentials.identity.node);
                match join_again(&config, &credentials, &stop).await {
                    Ok(next) => founding = next,
                    Err(_) if stop.is_cancelled() => break Ok(()),
                    Err(error) => break Err(error.context("coming back under a new identity")),
                }
            }
            Err(error) => break Err(error),
        }
    };
    signals.abort();
    outcome
}

/// A node that lost its log takes its own place under a new identity.
async fn join_again(
    config: &NodeConfig,
    credentials: &Credentials,
    stop: &CancellationToken,
) -> Result<Founding> {
    let members = readmission::known_members(&config.state_dir).await;
    let (token, peers) =
        readmission::ask_for_token(config, credentials, &members, JOIN_PATIENCE, stop).await?;
    let next = join_with(config, &peers, &token, stop).await?;
    readmission::put_down(&config.state_dir, &next.credentials)?;
    readmission::take_up(&config.state_dir)?;
    Ok(next)
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received; stop this node with SIGKILL");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
}

/// A node that serves.
struct Node {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    consensus: Arc<Consensus>,
    journal: Arc<Journal>,
    server: Arc<PeerServer>,
    shards: Arc<Shards>,
}

impl Node {
    async fn start(config: NodeConfig, founding: Founding, stop: &CancellationToken) -> Result<Self> {
        let Founding { credentials, keys, members } = founding;
        let identity = credentials.identity.clone();
        let (cluster, own) = (identity.cluster, identity.node);
        tracing::info!(%cluster, node = %own, name = identity.name, version = env!("CARGO_PKG_VERSION"), "starting");
        let keyring = match keys {
            Some(keys) => keys,
            None => {
                let (config, begins) = (config.clone(), !members.is_empty());
                // argon2id takes its time.
                tokio::task::spawn_blocking(move || start_keys(&config, cluster, begins)).await??
            }
        };
        let keyring = Arc::new(keyring);
        let holder = Arc::new(Holder { keyring: Arc::clone(&keyring) });
        let pools = Pools::new(config.buffer_memory)?;
        let mut tasks = JoinSet::new();

        // Peer links.
        let orders = Arc::new(Orders::new(Arc::clone(&holder)));
        let service =
            Arc::new(NodeService::new(own, identity.name.clone(), Arc::clone(&orders), Arc::clone(&holder)));
        let peer_identity = PeerIdentity::new(
            credentials.ca.clone(),
            credentials.certificate.clone(),
            credentials.key.clone(),
        )
        .context("this node's peer certificate")?;
        let server = when_free(|| {
            PeerServer::bind(
                config.listen.peer,
                &peer_identity,
                Arc::clone(&service) as _,
                pools.peer.clone(),
            )
        })
        .await
        .with_context(|| format!("listening for peers on {}", config.listen.peer))?;
        let server = Arc::new(server);
        let peers = PeerClient::new(peer_identity, pools.drive.clone());
        for (node, address) in members.iter().filter(|(node, _)| *node != own) {
            peers.set_address(*node, *address);
        }

        // Consensus and its groups.
        let transport = Arc::new(RaftTransport(peers.clone()));
        let all_groups = (0..=identity.catalog_groups).map(GroupId::new);
        let journal = Journal::new(cluster, own, all_groups);
        let mut options = ConsensusOptions::new(own, config.state_dir.join("raft"), transport);
        options.second_copy = Some(Arc::clone(&journal) as _);
        let consensus = match Consensus::open(options).await {
            Ok(consensus) => consensus,
            // It cannot be told whose the damaged records are: as good as lost.
            Err(error @ ConsensusError::Log(LogError::Damaged { .. })) => {
                tracing::error!(%error, "the log of all groups is damaged");
                server.shutdown().await;
                return Err(LostLog.into());
            }
            Err(error) => return Err(error).context("opening the log"),
        };
        if readmission::is_other_log(&config.state_dir, consensus.log_identity())? {
            server.shutdown().await;
            consensus.shutdown().await.context("closing the log")?;
            return Err(LostLog.into());
        }
        let (control_machine, control_reader) = {
            let dir = config.state_dir.join("control");
            tokio::task::spawn_blocking(move || ControlMachine::open(&dir, random_array())).await??
        };
        let control = Control::new(Arc::clone(&consensus), control_reader.clone());
        let (health, ward) = (Arc::new(Health::default()), Arc::new(Ward::default()));
        let comparison = Arc::new(Comparison::default());
        let watch = KeyWatch::default();
        let poller = Poller {
            peers: peers.clone(),
            server: Arc::clone(&server),
            health: Arc::clone(&health),
            ward: Arc::clone(&ward),
            comparison: Arc::clone(&comparison),
            keys: watch.clone(),
            service: Arc::clone(&service),
        };
        poller.cut_off_removed(&control.view().await?);
        tasks.spawn(poller.run(control_reader.clone(), stop.clone()));
        let unlocker = Arc::new(Unlocker {
            holder: Arc::clone(&holder),
            peers: peers.clone(),
            control: control_reader.clone(),
            members: members.iter().map(|(node, _)| *node).collect(),
            own,
            name: identity.name.clone(),
            state: Mutex::default(),
            wake: Notify::new(),
        });
        let groups = Arc::new(Groups::new(Arc::clone(&consensus)));
        let metadata_keys = LiveMetadataKeys::new(Arc::clone(&keyring), control_reader.clone());
        let closing = (Arc::clone(&metadata_keys), stop.clone());
        tasks.spawn(async move {
            closing.1.cancelled().await;
            closing.0.close();
        });
        let control_files = Arc::new(ControlFiles(control_reader));
        let control_machine =
            journal.keep(GroupId::CONTROL, control_machine, |_| Some(Owner::Cluster), control_files);
        let started = async {
            groups.start(GroupId::CONTROL, control_machine).await?;
            service.serve_consensus(Arc::clone(&consensus), Arc::clone(&groups));
            anyhow::Ok(())
        };
        if let Err(error) = started.await {
            tasks.shutdown().await;
            server.shutdown().await;
            // The first error is the one to tell.
            let _ = consensus.shutdown().await;
            return Err(error);
        }
        tasks.spawn(Arc::clone(&groups).watch(stop.clone()));

        // Drives.
        let shards = Arc::new(Shards::new(own, Vec::new(), peers.clone(), Arc::clone(&health)));
        let keeper = KeeperParts {
            selection: config.drives.clone(),
            cluster,
            own,
            options: DriveOptions::new(pools.drive.clone()),
            state_dir: config.state_dir.clone(),
            control: control.clone(),
            health: Arc::clone(&health),
            shards: Arc::clone(&shards),
        };
        let keeper = Arc::new(Keeper::new(keeper, stop.clone()));
        keeper.begin().await?;
        let read_memory = ReadMemory::new(pools.drive.clone());
        let rebuilder = StripeRebuilder {
            shards: Arc::clone(&shards),
            health: Arc::clone(&health),
            memory: read_memory.clone(),
        };
        service.serve_shards(rebuilder, Arc::clone(&keeper));
        health.heard(service.report(), Instant::now());

        // Keys. Peers have been served since their parts came up; clients hear that this node is locked.
        tasks.spawn(Arc::clone(&unlocker).run(stop.clone()));
        if tokio::time::timeout(LOCKED_AFTER, unlocker.unlocked(stop)).await.is_err() {
            tracing::warn!(waits_for = unlocker.status().detail, "this node is locked");
            let certificate = tls::last_shown(&credentials, &config.state_dir)?;
            let front =
                Front::open(&unlocker, &config.listen, &Arc::new(certificate.server_config())).await?;
            let unlocked = unlocker.unlocked(stop).await;
            front.close().await;
            unlocked?;
        }

        // Catalogs: their files open with tenants' keys.
        let count = identity.catalog_groups;
        let keys_of_catalogs = Arc::clone(&metadata_keys);
        let catalogs =
            match start_catalogs(&groups, &journal, &config.state_dir, count, keys_of_catalogs as _).await {
                Ok(catalogs) => catalogs,
                Err(error) => {
                    tasks.shutdown().await;
                    server.shutdown().await;
                    let _ = consensus.shutdown().await;
                    return Err(error);
                }
            };
        let states = States { control: control.reader().clone(), catalogs: catalogs.clone() };
        service.serve_states(states.clone());
        tasks.spawn(comparison.run(own, Arc::clone(&consensus), Arc::clone(&groups), states, stop.clone()));
        let control_runs = consensus.status(GroupId::CONTROL).is_some();
        if own == FIRST_NODE && config.bootstrap.is_some() && control_runs {
            found(&config, &identity, &consensus, &control, &holder).await.context("founding the cluster")?;
        }

        // What needs the control state: wait until this replica has it.
        let ca = Arc::new(wait_for_cluster(&control, &keyring, &credentials.ca, stop).await?);
        let level = features::level(config.feature_level_max);
        features::check(&control.view().await?, level)?;
        tasks.spawn(features::run(control.clone(), Arc::clone(&consensus), own, level, stop.clone()));
        let session_key = open_session_key(&control, &keyring).await?;
        let admission = Arc::new(Admission::new(cluster, control.clone(), Arc::clone(&ca)));
        orders.serve_admission(Arc::clone(&admission));
        server.set_join_authority(admission);
        tasks.spawn(leave_when_told(orders, config.state_dir.clone(), own, stop.clone()));
        tasks.spawn(announce(control.clone(), config.clone(), own, stop.clone()));
        tasks.spawn(Arc::clone(&keeper).run());

        // Objects.
        let counters = Arc::new(Counters::default());
        let (findings, found) = Findings::channel();
        let stripes = StripeIo {
            shards: Arc::clone(&shards),
            health: Arc::clone(&health),
            write_pool: pools.write.clone(),
            read_memory,
            counters: Arc::clone(&counters),
            findings,
            uses_spare: false,
        };
        let directory = Arc::new(Directory::new(cluster, REGION.to_owned()));
        let identities = Arc::new(NodeIdentities::new(control.clone(), Arc::clone(&keyring)));
        tasks.spawn(tenants::follow(
            control.clone(),
            Arc::clone(&keyring),
            Arc::clone(&directory),
            Arc::clone(&health),
            Arc::clone(&identities),
            Arc::clone(&metadata_keys),
            stop.clone(),
        ));
        let external_keys = ExternalKeys::new(Arc::clone(&keyring), control.clone());
        tasks.spawn(Arc::clone(&external_keys).run(stop.clone()));
        let (levels, members) = (Arc::clone(&directory), Arc::clone(&health));
        let copies = move || second_copy::copies(&levels, members.members().unwrap_or(1));
        journal
            .start(JournalParts {
                shards: Arc::clone(&stripes.shards),
                health: Arc::clone(&health),
                pool: pools.journal.clone(),
                consensus: Arc::clone(&consensus),
                keys: Arc::new(LiveKeys { keyring: Arc::clone(&keyring), directory: Arc::clone(&directory) }),
                copies: Arc::new(copies),
                scratch: config.state_dir.join("second-copy"),
            })
            .await;
        let day = Duration::from_secs(config.s3.day_seconds);
        let replicas = catalogs.clone();
        let objects = ObjectService::new(directory, Arc::<Consensus>::clone(&consensus), catalogs, stripes)
            .with_day(day)
            .with_event_sender(Arc::new(WebhookSender::default()));
        let objects = Arc::new(objects);
        tasks.spawn(drains::run(
            control.clone(),
            Arc::clone(&consensus),
            Arc::clone(&objects),
            Arc::clone(&health),
            own,
            stop.clone(),
        ));
        service.serve_objects(Arc::clone(&objects));
        tasks.spawn(workers::run(Arc::clone(&objects), own, found, stop.clone()));
        let splitter = Splitter {
            control: control.clone(),
            consensus: Arc::clone(&consensus),
            objects: Arc::clone(&objects),
            own,
        };
        tasks.spawn(splitter.run(stop.clone()));
        let steward = Steward {
            control: control.clone(),
            consensus: Arc::clone(&consensus),
            health: Arc::clone(&health),
            ward: Arc::clone(&ward),
            peers: peers.clone(),
            own,
            leaving: Mutex::default(),
        };
        tasks.spawn(steward.run(stop.clone()));
        let leaders = Leaders {
            control: control.clone(),
            consensus: Arc::clone(&consensus),
            health: Arc::clone(&health),
            ward: Arc::clone(&ward),
            own,
        };
        tasks.spawn(leaders.run(stop.clone()));
        let key_steward = Arc::new(KeySteward {
            control: control.clone(),
            consensus: Arc::clone(&consensus),
            health: Arc::clone(&health),
            watch: watch.clone(),
            peers: peers.clone(),
            holder,
            retirement: Retirement { control: control.clone(), watch, journal: Arc::clone(&journal) },
            own,
        });
        tasks.spawn(Arc::clone(&key_steward).run(stop.clone()));
        let shredder = Shredder {
            steward: Arc::clone(&key_steward),
            journal: Arc::clone(&journal),
            catalogs: replicas,
            metadata_keys,
            renewals: Mutex::default(),
        };
        tasks.spawn(shredder.run(stop.clone()));

        // Gateways.
        let names = service_names(&config);
        let peer_certificate = tls::PeerCertificate {
            credentials,
            state_dir: config.state_dir.clone(),
            server: Arc::clone(&server),
            client: peers.clone(),
            ca: Arc::clone(&ca),
        };
        tasks.spawn(peer_certificate.keep_fresh(stop.clone()));
        let certificate = tls::issue(&ca, &names, &config.state_dir)?;
        let tls_config = Arc::new(certificate.server_config());
        tasks.spawn(tls::keep_fresh(
            certificate,
            Arc::clone(&ca),
            names,
            config.state_dir.clone(),
            stop.clone(),
        ));
        let monitor = metrics::monitor(metrics::Parts {
            shards: Arc::clone(&shards),
            health: Arc::clone(&health),
            keeper: Arc::clone(&keeper),
            consensus: Arc::clone(&consensus),
            groups,
            peers: peers.clone(),
            journal: Arc::clone(&journal),
            counters,
            pools: pools.clone(),
            objects: Arc::clone(&objects),
            unlocker: Arc::clone(&unlocker),
            external_keys: Arc::clone(&external_keys),
        });
        let admin = Arc::new(Admin {
            name: identity.name.clone(),
            control,
            consensus: Arc::clone(&consensus),
            health: Arc::clone(&health),
            ward,
            keyring,
            ca,
            session_key,
            objects: Arc::clone(&objects),
            keys: Keys { steward: key_steward, unlocker, health },
            external_keys,
            identities: Arc::clone(&identities),
            peers: peers.clone(),
            keeper,
            own,
        });
        let admin_listener = listen(config.listen.admin, "admin").await?;
        let metrics_listener = listen(config.listen.metrics, "metrics").await?;
        let s3_listener = listen(config.listen.s3, "S3").await?;
        let shutdown = || stop.clone().cancelled_owned();
        tasks.spawn(holdfast_admin_api::serve(
            admin_listener,
            Arc::clone(&tls_config),
            holdfast_admin_api::router(admin),
            shutdown(),
        ));
        let render = Arc::clone(&monitor);
        tasks.spawn(holdfast_admin_api::serve_metrics(
            metrics_listener,
            Arc::clone(&tls_config),
            Arc::new(move || render.render()),
            shutdown(),
        ));
        let gateway = S3Gateway::new(
            Arc::new(objects),
            identities,
            config.s3_domains.clone(),
            &config.s3,
            Arc::new(metrics::S3Observer(Arc::clone(&monitor))),
        );
        tasks.spawn(gateway.serve(s3_listener, tls_config, shutdown()));
        tracing::info!(s3 = %config.listen.s3, admin = %config.listen.admin, metrics = %config.listen.metrics, "serving");
        Ok(Self { stop: stop.clone(), tasks, consensus, journal, server, shards })
    }

    /// Gateways first, then groups, then drives: what is acknowledged is durable before each step.
    async fn shut_down(mut self) -> Result<()> {
        self.stop.cancel();
        let drain = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIMEOUT, drain).await.is_err() {
            tracing::warn!("requests in progress are cut off");
            self.tasks.abort_all();
        }
        self.journal.stop().await;
        self.server.shutdown().await;
        let log = self.consensus.shutdown().await;
        for drive in self.shards.local() {
            drive.close().await;
        }
        log.context("closing the log")?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Payload memory by purpose. They are apart so that no wait for memory can close a circle over nodes:
/// a write holds `write` memory while it waits for another node's `peer` memory, never the other way.
#[derive(Debug, Clone)]
pub struct Pools {
    /// Stripes being filled by this node's gateways.
    pub write: BufferPool,
    /// Shards that come in from peers, and answers from them.
    pub peer: BufferPool,
    /// Shards read from this node's drives, and rebuilt ones.
    pub drive: BufferPool,
    /// Records of the catalog's second copy. Nothing that waits for a client holds any of it.
    pub journal: BufferPool,
}

impl Pools {
    fn new(memory: ByteCount) -> Result<Self> {
        let part = |share: u64| BufferPool::new(ByteCount::new(memory.get() * share / 16));
        Ok(Self {
            write: part(8).context("write buffers")?,
            peer: part(4).context("peer buffers")?,
            drive: part(3).context("read buffers")?,
            journal: BufferPool::new(ByteCount::new(memory.get() / 16).max(JOURNAL_MEMORY_MIN))
                .context("journal buffers")?,
        })
    }
}

pub(crate) async fn listen(address: std::net::SocketAddr, what: &str) -> Result<TcpListener> {
    when_free(|| TcpListener::bind(address))
        .await
        .with_context(|| format!("listening for {what} on {address}"))
}

/// Binds an address, waiting a while when it is still in use: a process that was killed is seen to be gone
/// before the last of its threads has let go of its sockets.
async fn when_free<T, E: std::error::Error + 'static, F: Future<Output = Result<T, E>>>(
    bind: impl Fn() -> F,
) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        match bind().await {
            Err(error) if is_in_use(&error) && begun.elapsed() < FREE_WITHIN => {
                tokio::time::sleep(STARTING_POLL).await;
            }
            outcome => return outcome,
        }
    }
}

fn is_in_use(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::AddrInUse)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

async fn start_catalogs(
    groups: &Groups,
    journal: &Journal,
    state_dir: &Path,
    count: u32,
    keys: Arc<dyn MetadataKeys>,
) -> Result<HashMap<GroupId, CatalogReader>> {
    let mut readers = HashMap::new();
    for number in 1..=count {
        let group = GroupId::new(number);
        let dir = state_dir.join("catalog").join(group.to_string());
        let keys = Arc::clone(&keys);
        let machine = tokio::task::spawn_blocking(move || CatalogMachine::open(&dir, keys))
            .await?
            .with_context(|| format!("opening catalog group {group}"))?;
        let reader = machine.reader();
        readers.insert(group, reader.clone());
        let files = Arc::new(CatalogFiles(reader.clone()));
        let machine = journal.keep(group, machine, move |command| owner_of(&reader, command), files);
        groups.start(group, machine).await?;
    }
    Ok(readers)
}

/// Stops this node for good once it is told that it has left the cluster.
async fn leave_when_told(orders: Arc<Orders>, state_dir: PathBuf, own: NodeId, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = orders.farewell.notified() => {}
    }
    match readmission::note_removed(&state_dir, own).and_then(|()| Ok(ShareStore::remove(&state_dir)?)) {
        Ok(()) => stop.cancel(),
        Err(error) => tracing::error!(error = format!("{error:#}"), "removed, and it could not be noted"),
    }
}

pub(crate) fn services(config: &NodeConfig) -> ServiceAddresses {
    ServiceAddresses {
        s3: config.listen.s3.to_string(),
        admin: config.listen.admin.to_string(),
        metrics: config.listen.metrics.to_string(),
    }
}

/// Waits until this replica holds the founded cluster and this node may sign; returns the CA.
async fn wait_for_cluster(
    control: &Control,
    keyring: &Client,
    certificate: &Certificate,
    stop: &CancellationToken,
) -> Result<Ca> {
    let mut word = tokio::time::interval(STARTING_WORD);
    word.tick().await;
    loop {
        let view = control.view().await?;
        tenants::learn(&view, keyring);
        if let Some(sealed) = view.secrets.get(CA_KEY)
            && view.secrets.contains_key(SESSION_KEY)
            && keyring.has_cluster_key()
        {
            let key = keyring.open_secret(CA_KEY, sealed).context("the CA's key")?;
            return Ca::from_der(certificate.clone(), PrivateKey::from_der(key)).context("the CA's key");
        }
        tokio::select! {
            () = stop.cancelled() => bail!("stopped while waiting for the cluster's state"),
            () = tokio::time::sleep(STARTING_POLL) => {}
            _ = word.tick() => tracing::info!("waiting for the cluster's state from its other nodes"),
        }
    }
}

async fn open_session_key(control: &Control, keyring: &Client) -> Result<[u8; 32]> {
    let view = control.view().await?;
    let sealed = view.secrets.get(SESSION_KEY).context("the session key")?;
    let key = keyring.open_secret(SESSION_KEY, sealed).context("the session key")?;
    key.try_into().map_err(|_| anyhow::anyhow!("the session key has another length"))
}

/// Tells the control group where this node is, until it has taken it.
async fn announce(control: Control, config: NodeConfig, own: NodeId, stop: CancellationToken) {
    loop {
        let outcome = async {
            let view = control.view().await?;
            let moved = view.nodes.get(&own).is_none_or(|record| {
                record.peer != config.advertise_peer || record.services != services(&config)
            });
            if moved {
                let update = Command::UpdateNode {
                    node: own,
                    peer: config.advertise_peer,
                    services: services(&config),
                };
                control.propose(&update).await?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            }
            anyhow::Ok(())
        };
        match outcome.await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "not announced yet; will be tried again")
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Everything a client may call this node's services by.
fn service_names(config: &NodeConfig) -> Vec<String> {
    let mut names: Vec<String> = vec![config.name.clone(), "localhost".to_owned()];
    names.push(config.advertise_peer.ip().to_string());
    names.extend(config.service_names.iter().cloned());
    for domain in &config.s3_domains {
        names.push(domain.clone());
        names.push(format!("*.{domain}"));
        names.push(format!("*.website.{domain}"));
    }
    names.sort();
    names.dedup();
    names
}
