//! A cluster of ordinary processes on loopback: started, killed, started again.
//!
//! `cargo xtask dev` and every black-box test use this one way. A cluster's directory holds everything
//! it writes; `cluster.json` and `processes.json` there are rewritten whenever a process comes or goes,
//! so that another command can take over.

mod layout;
pub mod ports;

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use holdfast_model::{
    ByteCount, Level,
    config::{Join, NodeConfig, S3Settings, Unlock},
};
use tokio::time::sleep;

pub use layout::{NodeLayout, S3_DOMAIN, bootstrap, operator, service_names};

use crate::{
    cluster_file::{ClusterFile, Kind, NodeEntry, NodeProcess, ProcessesFile, relative},
    paths,
    process::{self, Identity},
    s3::Client,
};

/// Drive size unless asked otherwise: room for the acceptance tree and its parity on six drives.
pub const DRIVE_SIZE: ByteCount = ByteCount::mib(2048);
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a node may take to leave: its groups move, one hand-over and change after the other.
pub const LEAVE_LIMIT: Duration = Duration::from_secs(120);
const STOP_GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
const LOG_TAIL_LINES: usize = 15;
/// Set to keep the drive files of test clusters.
const KEEP_DRIVES: &str = "HOLDFAST_KEEP_DRIVES";

/// What to start.
#[derive(Debug, Clone)]
pub struct DevSpec {
    /// Where everything goes; emptied first.
    pub dir: PathBuf,
    /// The node program.
    pub noded: PathBuf,
    /// Nodes.
    pub nodes: u16,
    /// Drives on each.
    pub drives: u16,
    /// Size of each drive.
    pub drive_size: ByteCount,
    /// The drives' space is taken from the machine's disk at once, rather than as they fill up.
    pub reserved: bool,
    /// Nodes watch their directory of drives, as the appliance watches its devices: files may come and go, and
    /// blank ones wait for approval. Otherwise drives are named, and a blank one is taken at the next start.
    pub watched: bool,
    /// Payload buffers of each node.
    pub buffer_memory: ByteCount,
    /// Default protection level; the product's when absent.
    pub level: Option<Level>,
    /// Name of the cluster.
    pub cluster_name: String,
    /// Peer addresses that nodes tell each other, by number of the node from 1, where these are not the ones
    /// they listen on: something stands between.
    pub advertise: Vec<SocketAddr>,
    /// Settings of the S3 gateways.
    pub s3: S3Settings,
    /// What protects each node's share of the root key.
    pub unlock: Unlock,
    /// Holds new features back: see the node's configuration.
    pub feature_level_max: Option<u32>,
    /// Use 9443, 8443, 9100 ... when they are free (people), or any ports (tests).
    pub known_ports: bool,
}

impl DevSpec {
    /// A cluster for one test, in a directory of its own below `target/blackbox`.
    ///
    /// # Errors
    /// When an earlier run's processes are still there and cannot be stopped.
    pub fn for_test(name: &str, nodes: u16, drives: u16) -> Result<Self> {
        let dir = paths::scratch_dir().join(name);
        stop_leftovers(&dir)?;
        Ok(Self {
            dir,
            noded: paths::noded(),
            nodes,
            drives,
            drive_size: ByteCount::mib(1024),
            reserved: true,
            watched: false,
            buffer_memory: ByteCount::mib(64),
            level: None,
            cluster_name: name.to_owned(),
            advertise: Vec::new(),
            s3: S3Settings::default(),
            unlock: Unlock::default(),
            feature_level_max: None,
            known_ports: false,
        })
    }
}

/// A cluster of processes. Dropping it stops them, unless it was [`DevCluster::released`].
#[derive(Debug)]
pub struct DevCluster {
    /// Its directory.
    dir: PathBuf,
    noded: PathBuf,
    /// Nodes that are started with another program, by name.
    programs: BTreeMap<String, PathBuf>,
    /// The contract as last written.
    file: ClusterFile,
    processes: ProcessesFile,
    /// Processes that are our children, to be reaped.
    children: Vec<Child>,
    owned: bool,
}

impl DevCluster {
    /// Makes and starts a cluster, forms it, makes tenant `demo`. `say` hears what is being done.
    ///
    /// # Errors
    /// When a step fails; what was started is stopped again and its log is quoted.
    pub async fn create(spec: &DevSpec, say: &dyn Fn(&str)) -> Result<Self> {
        ensure!(spec.nodes > 0 && spec.drives > 0, "a cluster has at least one node and one drive");
        ensure!(spec.noded.exists(), "{} is not there: cargo build -p holdfast-noded", spec.noded.display());
        if let Some(processes) = ProcessesFile::load(&spec.dir)? {
            ensure!(!processes.anything_runs(), "a cluster runs in {}: stop it first", spec.dir.display());
        }
        if spec.dir.exists() {
            fs::remove_dir_all(&spec.dir).with_context(|| format!("emptying {}", spec.dir.display()))?;
        }
        fs::create_dir_all(&spec.dir)?;
        say(&format!("preparing {} x {} drives of {}", spec.nodes, spec.drives, spec.drive_size));
        let layouts =
            (1..=spec.nodes).map(|number| NodeLayout::create(spec, number)).collect::<Result<Vec<_>>>()?;
        let mut cluster = Self {
            dir: spec.dir.clone(),
            noded: spec.noded.clone(),
            programs: BTreeMap::new(),
            file: ClusterFile {
                kind: Kind::Dev,
                ca: relative(&spec.dir.join("ca.pem")),
                nodes: layouts.iter().map(NodeLayout::entry).collect(),
                tenants: Vec::new(),
                operator: layout::operator()?,
            },
            processes: ProcessesFile {
                kind: Kind::Dev,
                owner: Some(Identity::of(i32::try_from(std::process::id())?)?),
                nodes: Vec::new(),
                supervisor: None,
            },
            children: Vec::new(),
            owned: true,
        };
        cluster.form(spec, &layouts, say).await?;
        Ok(cluster)
    }

    /// Takes over the cluster that runs, or ran, in `dir`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(dir: &Path) -> Result<Self> {
        let processes = ProcessesFile::load(dir)?
            .with_context(|| format!("no cluster in {}: cargo xtask dev --detach", dir.display()))?;
        ensure!(
            processes.kind == Kind::Dev,
            "the cluster in {} is of virtual machines: cargo xtask vm",
            dir.display()
        );
        Ok(Self {
            dir: dir.to_path_buf(),
            noded: paths::noded(),
            programs: BTreeMap::new(),
            file: ClusterFile::load(dir)?,
            processes,
            children: Vec::new(),
            owned: false,
        })
    }

    /// From now on the processes outlive this value and whoever made it.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn released(mut self) -> Result<Self> {
        self.owned = false;
        self.processes.owner = None;
        self.processes.save(&self.dir)?;
        Ok(self)
    }

    /// How to reach it.
    #[must_use]
    pub fn file(&self) -> &ClusterFile {
        &self.file
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// S3 as tenant `demo` through node `index` (from 0).
    ///
    /// # Errors
    /// When there is no such node.
    pub fn s3(&self, index: usize) -> Result<Client> {
        self.file.s3(index)
    }

    /// The process of a node, when it runs.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<Identity> {
        let entry = self.processes.nodes.iter().find(|entry| entry.name == name)?;
        entry.process.filter(|process| process.is_running())
    }

    /// SIGKILL, as a power cut would be.
    ///
    /// # Errors
    /// When the node is unknown or does not run.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.file.node(name)?;
        let process = self.process(name).with_context(|| format!("{name} does not run"))?;
        process.kill()?;
        self.reap();
        self.note(name, None)
    }

    /// From its next start on a node runs `program`; `None`: the one it was made with.
    pub fn runs_with(&mut self, name: &str, program: Option<PathBuf>) {
        match program {
            Some(program) => drop(self.programs.insert(name.to_owned(), program)),
            None => drop(self.programs.remove(name)),
        }
    }

    /// Starts a node that does not run and waits until it serves.
    ///
    /// # Errors
    /// When it runs already or does not become ready.
    pub async fn start(&mut self, name: &str) -> Result<()> {
        self.launch(name)?;
        self.wait_ready(name).await
    }

    /// Starts a node that does not run, without waiting for it.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn launch(&mut self, name: &str) -> Result<()> {
        let log = paths::workspace().join(&self.file.node(name)?.log);
        ensure!(self.process(name).is_none(), "{name} runs already");
        let config = self.dir.join(name).join("config.json");
        let mut command = Command::new(self.programs.get(name).unwrap_or(&self.noded));
        command.arg("node").arg("--config").arg(config).current_dir(self.dir.join(name));
        let (child, identity) = process::spawn(&mut command, &log)?;
        self.children.push(child);
        self.note(name, Some(identity))
    }

    /// Waits until a node answers that it serves.
    ///
    /// # Errors
    /// When it dies or takes longer than a minute; its last lines are quoted.
    pub async fn wait_ready(&mut self, name: &str) -> Result<()> {
        let node = self.file.node(name)?.clone();
        let mut alive = || match self.process(name) {
            Some(_) => Ok(()),
            None => bail!("{name} stopped by itself"),
        };
        let outcome = self.file.wait_ready(&node, READY_LIMIT, &mut alive).await;
        self.reap();
        outcome.with_context(|| format!("last lines of {name}:\n{}", self.log_tail(name)))
    }

    /// Adds one more node to the running cluster, with `drives` drives of `drive_size`, and waits until it
    /// serves. Returns its name.
    ///
    /// # Errors
    /// When no node hands out a join token, or the new one does not become ready.
    pub async fn add_node(
        &mut self,
        drives: u16,
        drive_size: ByteCount,
        known_ports: bool,
    ) -> Result<String> {
        let number = self.next_number()?;
        let through = self.some_running()?;
        let spec = DevSpec {
            dir: self.dir.clone(),
            noded: self.noded.clone(),
            nodes: number,
            drives,
            drive_size,
            reserved: true,
            watched: false,
            buffer_memory: ByteCount::mib(64),
            level: None,
            cluster_name: String::new(),
            advertise: Vec::new(),
            s3: self.config_of(self.file.node_at(through)?)?.s3,
            unlock: Unlock::default(),
            feature_level_max: None,
            known_ports,
        };
        let layout = NodeLayout::create(&spec, number)?;
        let token = self.file.admin(through).await?.join_token().await?;
        let peers = self.peer_addresses()?;
        layout.write_config(&spec, None, Some(Join { peers, token }))?;
        self.file.nodes.push(layout.entry());
        self.file.save(&self.dir)?;
        self.start(&layout.name).await?;
        Ok(layout.name)
    }

    /// Has a node leave the cluster, waits until no other counts on it, and stops its process.
    ///
    /// # Errors
    /// When that is refused, or takes longer than [`LEAVE_LIMIT`].
    pub async fn remove_node(&mut self, name: &str, force: bool) -> Result<()> {
        let others =
            self.file.nodes.iter().position(|node| node.name != name && self.process(&node.name).is_some());
        let admin = self.file.admin(others.context("no other node runs")?).await?;
        admin.remove_node(name, force).await?;
        let deadline = Instant::now() + LEAVE_LIMIT;
        while admin.members().await?.iter().any(|member| member.name == name) {
            ensure!(Instant::now() < deadline, "{name} has not left after {} s", LEAVE_LIMIT.as_secs());
            sleep(POLL).await;
        }
        if let Some(process) = self.process(name) {
            process.stop(STOP_GRACE)?;
        }
        self.reap();
        self.note(name, None)?;
        self.file.nodes.retain(|node| node.name != name);
        self.file.save(&self.dir)
    }

    /// One above the highest number any node here ever had.
    fn next_number(&self) -> Result<u16> {
        let number =
            |entry: &NodeProcess| entry.name.strip_prefix('n').and_then(|digits| digits.parse().ok());
        let highest: Option<u16> = self.processes.nodes.iter().filter_map(number).max();
        highest.and_then(|highest| highest.checked_add(1)).context("nodes without numbers")
    }

    fn some_running(&self) -> Result<usize> {
        let running = |node: &NodeEntry| self.process(&node.name).is_some();
        self.file.nodes.iter().position(running).context("no node runs")
    }

    /// Changes the configuration of a node. It goes by it when it is started the next time.
    ///
    /// # Errors
    /// When its document cannot be read or written.
    pub fn reconfigure(&self, name: &str, change: impl FnOnce(&mut NodeConfig)) -> Result<()> {
        let node = self.file.nodes.iter().find(|node| node.name == name).context("no such node")?;
        let mut config = self.config_of(node)?;
        change(&mut config);
        let path = self.dir.join(name).join("config.json");
        fs::write(&path, serde_json::to_string_pretty(&config)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    fn config_of(&self, node: &NodeEntry) -> Result<NodeConfig> {
        let path = self.dir.join(&node.name).join("config.json");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Where the nodes listen for peers, as their configurations say.
    fn peer_addresses(&self) -> Result<Vec<std::net::SocketAddr>> {
        let of = |node: &NodeEntry| Ok(self.config_of(node)?.advertise_peer);
        self.file.nodes.iter().filter(|node| self.process(&node.name).is_some()).map(of).collect()
    }

    /// The state directory of a node.
    #[must_use]
    pub fn state_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("state")
    }

    /// Waits until every node of the cluster is up and votes, as node `index` sees it.
    ///
    /// # Errors
    /// When that takes longer than a minute; says what was still missing.
    pub async fn wait_whole(&self, index: usize) -> Result<()> {
        self.file.wait_whole(index, READY_LIMIT).await
    }

    /// Stops every process, gently first. Says which had to be killed.
    ///
    /// # Errors
    /// When one cannot be stopped.
    pub fn stop(&mut self) -> Result<Vec<String>> {
        let running: Vec<_> = self.running();
        for (_, process) in &running {
            process.signal(nix::sys::signal::Signal::SIGTERM)?;
        }
        let mut killed = Vec::new();
        for (name, process) in running {
            if !process.wait_gone(STOP_GRACE) {
                process.kill()?;
                killed.push(name.clone());
            }
            self.note(&name, None)?;
        }
        self.reap();
        Ok(killed)
    }

    /// The last lines a node printed.
    #[must_use]
    pub fn log_tail(&self, name: &str) -> String {
        let path = self.dir.join(name).join("console.log");
        let bytes = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    fn running(&self) -> Vec<(String, Identity)> {
        self.processes
            .nodes
            .iter()
            .filter_map(|entry| {
                Some((entry.name.clone(), entry.process.filter(|process| process.is_running())?))
            })
            .collect()
    }

    async fn form(&mut self, spec: &DevSpec, layouts: &[NodeLayout], say: &dyn Fn(&str)) -> Result<()> {
        let first = &layouts[0];
        say("starting n1, which founds the cluster");
        first.write_config(
            spec,
            Some(layout::bootstrap(&spec.cluster_name, spec.level, &self.file.operator)?),
            None,
        )?;
        self.launch(&first.name)?;
        self.take_ca(first).await?;
        self.wait_ready(&first.name).await?;
        let admin = self.file.admin(0).await?;
        for layout in &layouts[1..] {
            let join = Join { peers: vec![first.listen.peer], token: admin.join_token().await? };
            layout.write_config(spec, None, Some(join))?;
            say(&format!("starting {}, which joins", layout.name));
            self.launch(&layout.name)?;
        }
        for layout in &layouts[1..] {
            self.wait_ready(&layout.name).await?;
        }
        say("waiting until every node votes");
        self.wait_whole(0).await?;
        self.file.tenants = admin.create_usual_tenants().await?;
        self.file.save(&self.dir)
    }

    /// The founding node writes the CA certificate into its state directory at once.
    async fn take_ca(&mut self, first: &NodeLayout) -> Result<()> {
        let source = first.state_dir().join("ca.pem");
        let deadline = Instant::now() + READY_LIMIT;
        while !fs::read_to_string(&source).is_ok_and(|text| text.contains("END CERTIFICATE")) {
            if self.process(&first.name).is_none() || Instant::now() >= deadline {
                self.reap();
                bail!(
                    "{} made no CA certificate. Its last lines:\n{}",
                    first.name,
                    self.log_tail(&first.name)
                );
            }
            sleep(POLL).await;
        }
        fs::copy(&source, self.file.ca_path()).context("taking the CA certificate").map(drop)
    }

    fn note(&mut self, name: &str, process: Option<Identity>) -> Result<()> {
        self.processes.nodes.retain(|entry| entry.name != name);
        self.processes.nodes.push(NodeProcess { name: name.to_owned(), process });
        self.processes.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        self.processes.save(&self.dir)
    }

    fn reap(&mut self) {
        self.children.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        if self.owned {
            for (name, process) in self.running() {
                if let Err(error) = process.kill() {
                    eprintln!("{name} could not be stopped: {error:#}");
                }
            }
            self.reap();
            self.give_back_drives();
        }
    }
}

impl DevCluster {
    /// Removes the drive files of a cluster that ends with its test: tens of gigabytes over a run. Logs
    /// and state stay for whoever looks for the cause of a failure.
    fn give_back_drives(&self) {
        if env::var_os(KEEP_DRIVES).is_some() {
            return;
        }
        for node in &self.processes.nodes {
            let drives = self.dir.join(&node.name).join("drives");
            if let Err(error) = fs::remove_dir_all(&drives) {
                eprintln!("{} could not be removed: {error}", drives.display());
            }
        }
    }
}

/// Stops the processes that an interrupted run left in `dir`; those of a run that goes on are left alone.
///
/// # Errors
/// When one cannot be stopped.
pub fn stop_leftovers(dir: &Path) -> Result<usize> {
    let Some(processes) = ProcessesFile::load(dir)? else { return Ok(0) };
    let me = i32::try_from(std::process::id())?;
    if processes.owner.is_some_and(|owner| owner.pid != me && owner.is_running()) {
        return Ok(0);
    }
    let nodes = processes.nodes.iter().filter_map(|node| node.process);
    let supervisor = processes.supervisor.iter().map(|supervisor| supervisor.process);
    let running: Vec<_> = nodes.chain(supervisor).filter(|process| process.is_running()).collect();
    for process in &running {
        process.stop(STOP_GRACE)?;
    }
    Ok(running.len())
}
