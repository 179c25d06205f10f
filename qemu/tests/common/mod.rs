//! What the VM tests share: an image with the tiny node, clusters of it, and patience.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use holdfast_image::{ImageArtifacts, ImageSpec, KERNEL_PARAMETERS, PartitionSizes};
use holdfast_model::config::{DriveSelection, Listen, NodeConfig};
use holdfast_qemu::{
    Accelerator, Boot, ClusterSpec, Forward, Image, NodeSpec, cluster_address, free_ports, network,
};

/// Emulation on a busy machine is slow; nothing here takes a tenth of this on an idle one.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// Where the tiny node listens.
pub const PORT: u16 = 8080;

/// The image with the tiny node, built once per test program.
pub fn image() -> &'static ImageArtifacts {
    static IMAGE: OnceLock<ImageArtifacts> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!("image-", env!("CARGO_CRATE_NAME")));
        let mut spec = ImageSpec::new(env!("CARGO_BIN_EXE_holdfast-tiny-node"), output);
        spec.cache_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image/cache");
        spec.partitions = PartitionSizes { esp: 300 << 20, state: 256 << 20 };
        holdfast_image::build(&spec).expect("the image of the tiny node is built")
    })
}

/// A cluster of tiny nodes in a directory of its own.
pub struct TinyCluster {
    pub spec: ClusterSpec,
    _dir: tempfile::TempDir,
}

impl TinyCluster {
    pub fn new(boot: Boot, nodes: u8, drives: u8) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ports = free_ports(nodes.into()).expect("free ports");
        let nodes = (1..=nodes).zip(ports).map(|(number, port)| {
            let seed = dir.path().join(format!("n{number}.json"));
            fs::write(&seed, serde_json::to_vec(&seed_of(number)).expect("a configuration serialises"))
                .expect("written");
            let mut node = NodeSpec::new(number, drives, seed);
            node.drive_size_mib = 64;
            node.memory_mib = 512;
            node.forwards = vec![Forward { service: "tiny".to_owned(), host_port: port, guest_port: PORT }];
            node
        });
        let nodes = nodes.collect();
        let spec = ClusterSpec {
            dir: dir.path().to_owned(),
            image: Image::from(image()),
            boot,
            accelerator: Accelerator::Tcg,
            command_line: format!("{KERNEL_PARAMETERS} console=ttyS0"),
            nodes,
            switch_seed: 1,
        };
        Self { spec, _dir: dir }
    }

    pub fn port(&self, node: usize) -> u16 {
        self.spec.nodes[node].forwards[0].host_port
    }

    pub fn console(&self, node: &str) -> String {
        fs::read_to_string(self.spec.dir.join(node).join("console.log")).unwrap_or_default()
    }

    /// Asks a node; `None` when it does not answer.
    pub fn ask(&self, node: usize, request: &str) -> Option<String> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port(node))).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(15))).ok()?;
        writeln!(connection, "{request}").ok()?;
        let mut answer = String::new();
        BufReader::new(connection).read_line(&mut answer).ok()?;
        Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty())
    }

    /// Asks a node until the answer is as wanted, and returns it.
    pub fn await_answer(&self, node: usize, request: &str, wanted: impl Fn(&str) -> bool) -> String {
        let name = self.spec.nodes[node].name.clone();
        let mut last = None;
        until(|| {
            last = self.ask(node, request);
            last.clone().filter(|answer| wanted(answer))
        })
        .unwrap_or_else(|| {
            panic!("{name} answers {last:?} to {request}; its console:\n{}", self.console(&name))
        })
    }
}

/// Tries again and again; `None` when patience is at its end.
pub fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = attempt() {
            return Some(done);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn seed_of(number: u8) -> NodeConfig {
    let any = |port| (Ipv4Addr::UNSPECIFIED, port).into();
    let peer = (cluster_address(number), 7000).into();
    NodeConfig {
        name: format!("n{number}"),
        state_dir: PathBuf::from("/state"),
        drives: DriveSelection::AllBlank,
        listen: Listen { s3: any(9443), admin: any(8443), metrics: any(9100), peer },
        advertise_peer: peer,
        service_names: Vec::new(),
        s3_domains: Vec::new(),
        s3: holdfast_model::config::S3Settings::default(),
        buffer_memory: holdfast_model::ByteCount::mib(64),
        unlock: holdfast_model::config::Unlock::default(),
        feature_level_max: None,
        tpm_device: holdfast_model::config::default_tpm_device(),
        bootstrap: None,
        join: None,
        network: Some(network(number)),
    }
}
