//! A replica in a temporary directory, driven as the log drives it, and short ways to make commands.

use std::path::Path;

use holdfast_consensus::{Applied, StateMachine};
use holdfast_control::{
    Command, ControlMachine, ControlReader, DriveEntry, FeatureCommand, KeyCommand, NewAccount, NewTenant,
    Outcome, RegisterNode, Response, Rewrapped, ServiceAddresses, Splitting, decode_outcome,
};
use holdfast_model::{
    ByteCount, ClusterId, DatabaseId, DriveId, GroupId, KeyId, NodeId, RootEpoch, SplitId, TenantId,
    UnixMillis,
};

pub const NOW: UnixMillis = UnixMillis::new(1_000);
pub const LATER: UnixMillis = UnixMillis::new(9_999);

pub struct Replica {
    pub machine: ControlMachine,
    pub reader: ControlReader,
    pub index: u64,
}

impl Replica {
    pub fn open(dir: &Path) -> Self {
        let (machine, reader) = ControlMachine::open(dir, [7; 16]).unwrap();
        Self { machine, reader, index: 0 }
    }

    /// Opens a new replica and applies [`script`].
    pub fn scripted(dir: &Path) -> Self {
        let mut replica = Self::open(dir);
        for command in script() {
            replica.done(&command);
        }
        replica
    }

    pub fn run(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let commands = [command.encode()];
        let answers = self.machine.apply(&[Applied { index: self.index, commands: &commands }]).unwrap();
        decode_outcome(&answers[0][0]).unwrap()
    }

    /// Applies, expecting it to be done.
    #[track_caller]
    pub fn done(&mut self, command: &Command) -> Response {
        self.run(command).unwrap()
    }

    /// Brings everything into the file.
    pub fn checkpoint(&mut self) {
        self.machine.checkpoint(b"here").unwrap();
    }

    /// Whether any file under `dir` holds these bytes.
    pub fn files_hold(&self, dir: &Path, bytes: &[u8]) -> bool {
        std::fs::read_dir(dir).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return self.files_hold(&path, bytes);
            }
            std::fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes)
        })
    }

    pub fn epoch(&self) -> u64 {
        self.reader.view().unwrap().cluster.unwrap().epoch.get()
    }
}

pub fn node(n: u64) -> NodeId {
    NodeId::new(n)
}

pub fn drive_id(n: u8) -> DriveId {
    DriveId::from_bytes([n; 16])
}

pub fn register(seed: u8, name: &str, token: u8) -> RegisterNode {
    RegisterNode {
        request: [seed; 16],
        name: name.to_owned(),
        peer: format!("10.0.0.{seed}:7443").parse().unwrap(),
        services: ServiceAddresses::default(),
        token_hash: [token; 32],
        at: NOW,
    }
}

pub fn ask(seed: u8, name: &str, token: u8) -> Command {
    Command::RegisterNode(register(seed, name, token))
}

pub fn token(n: u8, expires: UnixMillis) -> Command {
    Command::CreateJoinToken { hash: [n; 32], expires }
}

pub fn init() -> Command {
    Command::InitCluster {
        cluster: ClusterId::from_bytes([1; 16]),
        name: "test".to_owned(),
        region: "us-east-1".to_owned(),
        level: "+2d:1n".parse().unwrap(),
        catalog_groups: 2,
        first: register(1, "n1", 0),
    }
}

/// Puts a feature level in force, with one node there is.
pub fn raise(replica: &mut Replica, level: u32) {
    replica.done(&Command::Features(FeatureCommand::Report { node: node(1), level }));
    replica.done(&Command::Features(FeatureCommand::Raise { level }));
}

pub fn tenant_id(seed: u8) -> TenantId {
    TenantId::from_bytes([seed; 16])
}

pub fn tenant(seed: u8, name: &str) -> Command {
    Command::CreateTenant(NewTenant {
        tenant: tenant_id(seed),
        name: name.to_owned(),
        database_id: DatabaseId::from_bytes([seed; 16]),
        wrapped_key: vec![seed; 8],
        level: None,
        access_key: format!("KEY{seed}"),
        sealed_secret: vec![seed],
        at: NOW,
    })
}

pub fn account(seed: u8, number: u64, name: &str) -> Command {
    Command::CreateAccount(NewAccount {
        tenant: tenant_id(seed),
        account: number,
        canonical: [u8::try_from(number).unwrap_or(u8::MAX); 32],
        name: name.to_owned(),
        email: format!("{name}@example.com"),
        first: false,
        access_key: Some((format!("KEY-{number}"), vec![seed])),
        at: NOW,
    })
}

pub fn drives(of: u64, ids: &[u8]) -> Command {
    let entry = |n: &u8| DriveEntry {
        drive: drive_id(*n),
        path: format!("/dev/vd{n}"),
        capacity: ByteCount::mib(100),
    };
    Command::RegisterDrives { node: node(of), drives: ids.iter().map(entry).collect(), at: NOW }
}

pub fn voters(group: u32, nodes: &[u64]) -> Command {
    Command::SetGroupVoters { group: GroupId::new(group), voters: nodes.iter().map(|n| node(*n)).collect() }
}

pub fn operator(name: &str, role: &str) -> Command {
    Command::SetOperator { name: name.into(), password_hash: "$argon2id$".into(), role: role.into() }
}

pub fn split_id(n: u8) -> SplitId {
    SplitId::from_bytes([n; 16])
}

pub fn splitting(n: u8, threshold: u8, nodes: &[u64]) -> Splitting {
    Splitting {
        split: split_id(n),
        threshold,
        holders: (1..).zip(nodes).map(|(x, n)| (node(*n), x)).collect(),
    }
}

/// The root of `epoch`, split as `n`, in place of the one before: tenants with what was and what is.
pub fn roll(epoch: u32, n: u8, tenants: &[(u8, Vec<u8>, Vec<u8>)]) -> Command {
    Command::Keys(KeyCommand::Roll {
        epoch: RootEpoch::new(epoch),
        root: KeyId::from_bytes([n; 16]),
        splitting: splitting(n, 2, &[1, 2]),
        cluster_key: wrapped(epoch, n),
        tenants: tenants
            .iter()
            .map(|(seed, was, now)| (tenant_id(*seed), Rewrapped { was: was.clone(), now: now.clone() }))
            .collect(),
        at: NOW,
    })
}

/// The first root.
pub fn found() -> Command {
    Command::Keys(KeyCommand::Found {
        epoch: RootEpoch::new(1),
        root: KeyId::from_bytes([1; 16]),
        splitting: splitting(1, 1, &[1]),
        cluster_key: wrapped(1, 1),
        at: NOW,
    })
}

/// Something wrapped by the root of `epoch`.
pub fn wrapped(epoch: u32, what: u8) -> Vec<u8> {
    [epoch.to_be_bytes().as_slice(), &[what]].concat()
}

/// A small cluster: two nodes, a drive, two tenants, an operator.
pub fn script() -> Vec<Command> {
    vec![
        init(),
        token(9, UnixMillis::new(2_000)),
        ask(2, "n2", 9),
        Command::ActivateNode(node(2)),
        drives(2, &[4]),
        voters(0, &[1, 2]),
        tenant(1, "demo"),
        tenant(2, "acme"),
        operator("admin", "operator"),
        Command::PutSecret { name: "ca key".into(), sealed: vec![1, 2, 3] },
    ]
}
