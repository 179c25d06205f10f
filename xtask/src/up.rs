//! `cargo xtask up`: a cluster of virtual machines.
//!
//! A supervisor process (this program once more) owns the machines, so that they outlive this command and
//! die with one process. The first machine founds the cluster; the others are switched on once their seed
//! holds a join token, and reach the first over the guests' own network.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use holdfast_blackbox::{
    admin,
    cluster_file::{ClusterFile, Kind, NodeEntry, ProcessesFile, Supervisor, relative},
    dev::{self, ports},
    paths,
    process::{self, Identity},
};
use holdfast_model::{
    ByteCount,
    config::{Bootstrap, DriveSelection, Join, Listen, NodeConfig, S3Settings, Unlock},
};
use holdfast_qemu::{
    Accelerator, Boot, ClusterSpec, Command, Forward, NodeSpec, cluster_address, network, send,
};
use tokio::time::sleep;

use crate::{
    dev::{introduce, print_recovery_shares, refuse_second},
    follow, image,
    run::{duration, say},
};

const S3_PORT: u16 = 9443;
const ADMIN_PORT: u16 = 8443;
const METRICS_PORT: u16 = 9100;
const SMTP_PORT: u16 = 2525;
const PEER_PORT: u16 = 7443;
const SERVICES: [(&str, u16); 4] =
    [("s3", S3_PORT), ("admin", ADMIN_PORT), ("metrics", METRICS_PORT), ("smtp", SMTP_PORT)];
/// Where the appliance mounts STATE.
const STATE_DIRECTORY: &str = "/state";
/// An emulated machine on a busy host.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(100);

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Machines
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// Data drives of each
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=20))]
    drives: u8,
    /// Leave it running and return
    #[arg(long)]
    detach: bool,
    /// Boot the disk image through UEFI firmware, not the kernel directly
    #[arg(long)]
    ovmf: bool,
    /// Use the host's virtualisation instead of emulation
    #[arg(long)]
    kvm: bool,
    /// Drives in memory, of this size each, that lose what was not flushed when a machine is killed
    #[arg(long, hide = true)]
    volatile_mib: Option<u64>,
    #[arg(long, hide = true)]
    dir: Option<PathBuf>,
}

/// Arguments of the supervisor process.
#[derive(Debug, Args)]
pub struct Supervise {
    #[arg(long)]
    spec: PathBuf,
}

impl Supervise {
    /// Owns the machines until told to end.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn run(&self) -> Result<()> {
        let text =
            fs::read_to_string(&self.spec).with_context(|| format!("reading {}", self.spec.display()))?;
        let spec: ClusterSpec = serde_json::from_str(&text)?;
        holdfast_qemu::supervise(&spec, |info| println!("listening on {}", info.control_socket.display()))?;
        Ok(())
    }
}

impl Up {
    /// Builds the image, boots the machines, forms the cluster.
    ///
    /// # Errors
    /// When a cluster runs already, a build fails, or the cluster does not form; then everything is stopped.
    pub async fn run(self) -> Result<()> {
        let dir = self.dir.clone().unwrap_or_else(paths::cluster_dir);
        refuse_second(&dir)?;
        let built = image::build(image::output_dir())?;
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("emptying {}", dir.display()))?;
        }
        fs::create_dir_all(&dir)?;
        let machines = self.machines(&dir)?;
        let spec = ClusterSpec {
            dir: dir.clone(),
            image: (&built).into(),
            boot: if self.ovmf { Boot::Ovmf } else { Boot::Pvh },
            accelerator: if self.kvm { Accelerator::Kvm } else { Accelerator::Tcg },
            command_line: format!("{} console=ttyS0,115200", holdfast_image::KERNEL_PARAMETERS),
            nodes: machines,
            switch_seed: 0,
        };
        let begun = Instant::now();
        let supervisor = start_supervisor(&spec)?;
        let formed = form(&spec, &supervisor).await;
        let cluster = match formed {
            Ok(cluster) => cluster,
            Err(error) => {
                supervisor.process.stop(Duration::from_secs(90))?;
                return Err(
                    error.context(format!("the cluster was not formed; logs are in {}", dir.display()))
                );
            }
        };
        say(&format!("formed in {}", duration(begun.elapsed())));
        introduce(&cluster, &dir);
        print_recovery_shares(&cluster).await?;
        if self.detach {
            return Ok(());
        }
        let followed = follow::until_interrupted(&cluster).await;
        say("switching the machines off");
        supervisor.process.stop(Duration::from_secs(90))?;
        followed
    }

    fn machines(&self, dir: &Path) -> Result<Vec<NodeSpec>> {
        (1..=self.nodes)
            .map(|number| {
                let home = dir.join(format!("n{number}"));
                fs::create_dir_all(&home)?;
                let mut machine = NodeSpec::new(number, self.drives, home.join("seed.json"));
                machine.autostart = number == 1;
                machine.tpm = true;
                if let Some(size) = self.volatile_mib {
                    machine.drive_size_mib = size;
                    machine.volatile = Some(u64::from(number) * u64::from(self.drives));
                }
                for (service, guest_port) in SERVICES {
                    // People find the ports they know; tests, which run beside them, take any.
                    let known = guest_port + u16::from(number) - 1;
                    let host = if self.dir.is_none() { ports::prefer(known)? } else { ports::any()? };
                    machine.forwards.push(Forward {
                        service: service.into(),
                        host_port: host.port(),
                        guest_port,
                    });
                }
                Ok(machine)
            })
            .collect()
    }
}

/// Starts the process that owns the machines, once the first one's seed is there.
fn start_supervisor(spec: &ClusterSpec) -> Result<Supervisor> {
    let dir = &spec.dir;
    let operator = dev::operator()?;
    let bootstrap = dev::bootstrap("qemu", None, &operator)?;
    write_seed(&spec.nodes[0], Some(bootstrap), None)?;
    let cluster = ClusterFile {
        kind: Kind::Qemu,
        ca: relative(&dir.join("ca.pem")),
        nodes: spec.nodes.iter().map(|machine| entry(dir, machine)).collect::<Result<_>>()?,
        tenants: Vec::new(),
        operator,
    };
    cluster.save(dir)?;

    let spec_file = dir.join("machines.json");
    fs::write(&spec_file, serde_json::to_string_pretty(spec)?)?;
    let mut command = std::process::Command::new(env::current_exe()?);
    command.arg("supervise").arg("--spec").arg(&spec_file);
    let log = dir.join("supervisor.log");
    let (mut child, process) = process::spawn(&mut command, &log)?;
    let socket = loop {
        if let Some(info) = holdfast_qemu::running_supervisor(dir) {
            break info.control_socket;
        }
        if let Some(status) = child.try_wait()? {
            let said = fs::read_to_string(&log).unwrap_or_default();
            bail!("the machines' supervisor ended at once ({status}): {}", said.trim());
        }
        std::thread::sleep(POLL);
    };
    let supervisor = Supervisor { process, socket };
    ProcessesFile { kind: Kind::Qemu, owner: None, nodes: Vec::new(), supervisor: Some(supervisor.clone()) }
        .save(dir)?;
    Ok(supervisor)
}

async fn form(spec: &ClusterSpec, supervisor: &Supervisor) -> Result<ClusterFile> {
    let mut cluster = ClusterFile::load(&spec.dir)?;
    let first = cluster.node_at(0)?.clone();
    say("booting n1, which founds the cluster");
    fetch_ca(&cluster, &first, supervisor.process).await?;
    let mut alive = || {
        if supervisor.process.is_running() {
            Ok(())
        } else {
            bail!("the machines' supervisor ended; see supervisor.log")
        }
    };
    cluster.wait_ready(&first, BOOT_LIMIT, &mut alive).await?;
    let session = cluster.admin(0).await?;
    let peers = vec![SocketAddr::from((cluster_address(spec.nodes[0].number), PEER_PORT))];
    for machine in &spec.nodes[1..] {
        say(&format!("booting {}, which joins", machine.name));
        let join = Join { peers: peers.clone(), token: session.join_token().await? };
        write_seed(machine, None, Some(join))?;
        send(&supervisor.socket, &Command::Start { node: machine.name.clone() })?;
    }
    for node in cluster.nodes.clone().iter().skip(1) {
        cluster.wait_ready(node, BOOT_LIMIT, &mut alive).await?;
    }
    say("waiting until every node votes");
    cluster.wait_whole(0, BOOT_LIMIT).await?;
    cluster.tenants = session.create_usual_tenants().await?;
    cluster.save(&spec.dir)?;
    Ok(cluster)
}

/// Takes the CA certificate from a machine made moments ago; every later connection is verified against it.
async fn fetch_ca(cluster: &ClusterFile, first: &NodeEntry, supervisor: Identity) -> Result<()> {
    let deadline = Instant::now() + BOOT_LIMIT;
    loop {
        match admin::fetch_ca(&first.admin).await {
            Ok(certificate) => {
                fs::write(cluster.ca_path(), certificate)?;
                return Ok(());
            }
            Err(error) if Instant::now() >= deadline || !supervisor.is_running() => {
                return Err(error.context(format!("n1 does not answer; see {}", first.log.display())));
            }
            Err(_) => sleep(POLL).await,
        }
    }
}

fn entry(dir: &Path, machine: &NodeSpec) -> Result<NodeEntry> {
    let port = |wanted: &str| {
        let forward = machine.forwards.iter().find(|forward| forward.service == wanted);
        forward.map(|forward| forward.host_port).with_context(|| format!("{wanted} is not forwarded"))
    };
    Ok(NodeEntry {
        name: machine.name.clone(),
        s3: format!("https://127.0.0.1:{}", port("s3")?),
        admin: format!("https://127.0.0.1:{}", port("admin")?),
        metrics: format!("https://127.0.0.1:{}/metrics", port("metrics")?),
        smtp: format!("127.0.0.1:{}", port("smtp")?),
        log: relative(&dir.join(&machine.name).join("console.log")),
    })
}

fn write_seed(machine: &NodeSpec, bootstrap: Option<Bootstrap>, join: Option<Join>) -> Result<()> {
    let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let peer = SocketAddr::from((cluster_address(machine.number), PEER_PORT));
    let config = NodeConfig {
        name: machine.name.clone(),
        state_dir: STATE_DIRECTORY.into(),
        drives: DriveSelection::AllBlank,
        listen: Listen {
            s3: everywhere(S3_PORT),
            admin: everywhere(ADMIN_PORT),
            metrics: everywhere(METRICS_PORT),
            peer,
        },
        advertise_peer: peer,
        service_names: dev::service_names(),
        s3_domains: vec![dev::S3_DOMAIN.into()],
        s3: S3Settings::default(),
        buffer_memory: ByteCount::mib(128),
        unlock: if machine.tpm { Unlock::Tpm } else { Unlock::File },
        feature_level_max: None,
        tpm_device: holdfast_model::config::default_tpm_device(),
        bootstrap,
        join,
        network: Some(network(machine.number)),
    };
    fs::write(&machine.seed, serde_json::to_string_pretty(&config)?)
        .with_context(|| format!("writing {}", machine.seed.display()))
}
