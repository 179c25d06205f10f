//! A made-up cluster for tests and for looking at the console. Nothing of it is in the node program.

#![allow(dead_code, reason = "each user of this module takes a part of it")]
#![allow(clippy::unwrap_used, reason = "only tests and an example use it")]

mod access_keys;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use argon2::{Argon2, Params, PasswordHash, PasswordHasher as _};
use async_trait::async_trait;
use axum::{Router, body::Body, extract::ConnectInfo};
use holdfast_admin_api::{
    AccessKeyBounds, AccountStatus, AdminBackend, AdminError, Audit, AuditLoss, AuditStatus, BucketLevels,
    Capacity, ClusterStatus, CreatedAccount, CreatedTenant, DriveState, DriveStatus, DriveUsage,
    EventBackend, EventStatus, ExternalKeyBackend, ExternalKeySpec, ExternalKeyState, ExternalKeyStatus,
    GroupStatus, JoinTokenInfo, KeyAdmin, KeysStatus, LevelScope, LevelStatus, LockState, LockStatus,
    LostShards, NodeState, NodeStatus, OperatorRecord, PartitionBackend, PartitionState, PartitionStatus,
    ProtectionBackend, Quota, Readiness, RecoveryShares, Role, Secret, ServiceUrls, ShareHolder, ShredOrder,
    ShredState, ShredStatus, StripeShape, TenancyBackend, TenantDebt, TenantLevels, TenantQuota,
    TenantStanding, TenantStatus, WebhookSpec, WebhookStatus, WorkStatus, WorkerChange, WorkerHours,
    WorkerImpact, WorkerOrder, WorkerStatus, router,
};
use holdfast_model::{
    ByteCount, ClusterId, DriveId, Epoch, GroupId, KeyId, Level, NodeId, PartitionId, TenantId, TenantLimits,
    UnixMillis,
};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use tower::ServiceExt as _;

/// The password of all accounts.
pub const PASSWORD: &str = "correct horse";

/// A hash that is quick to check: 64 KiB, one pass.
fn password_hash() -> String {
    let hasher = Argon2::from(Params::new(64, 1, 1, None).unwrap());
    let hash: PasswordHash =
        hasher.hash_password_with_salt(PASSWORD.as_bytes(), b"0123456789abcdef").unwrap();
    hash.to_string()
}

/// Everything a test may change while the service runs.
pub struct Example {
    pub node: &'static str,
    pub key: [u8; 32],
    pub operators: Mutex<Vec<OperatorRecord>>,
    pub tenants: Mutex<Vec<TenantStatus>>,
    /// Bounds of access keys.
    pub bounds: Mutex<BTreeMap<String, AccessKeyBounds>>,
    pub cluster: Mutex<Box<dyn Fn() -> ClusterStatus + Send>>,
    /// Calls take forever.
    pub hangs: bool,
}

impl Default for Example {
    fn default() -> Self {
        let operator =
            |user: &str, role| OperatorRecord { user: user.into(), password_hash: password_hash(), role };
        Self {
            node: "n1",
            key: [1; 32],
            operators: Mutex::new(vec![operator("admin", Role::Operator), operator("watcher", Role::Viewer)]),
            tenants: Mutex::new(vec![TenantStatus {
                id: TenantId::from_bytes([3; 16]),
                name: "demo".into(),
                state: TenantStanding::Active,
                region: "us-east-1".into(),
                level: None,
                access_keys: vec!["HFDEMO0000000001".into()],
                journal_address: None,
            }]),
            bounds: Mutex::default(),
            cluster: Mutex::new(Box::new(healthy)),
            hangs: false,
        }
    }
}

#[async_trait]
impl KeyAdmin for Example {
    fn lock(&self) -> LockStatus {
        LockStatus {
            node: self.node.into(),
            state: LockState::Unlocked,
            passphrase_wanted: false,
            shares: 2,
            shares_needed: Some(2),
            detail: "Unlocked.".into(),
        }
    }

    async fn status(&self) -> Result<KeysStatus, AdminError> {
        let holder = |node: &str, locked| ShareHolder {
            node: node.into(),
            has_share: Some(true),
            protection: Some("file".into()),
            locked: Some(locked),
        };
        Ok(KeysStatus {
            root_epoch: 1,
            root_id: KeyId::from_bytes([9; 16]),
            since_unix_ms: UnixMillis::new(1_800_000_000_000),
            retiring: Vec::new(),
            threshold: 2,
            threshold_wanted: None,
            nodes: vec![holder("n1", false), holder("n2", false), holder("n3", true)],
            certificate_key: "ab".repeat(32),
            recovery: None,
        })
    }

    async fn set_threshold(&self, threshold: Option<u8>) -> Result<(), AdminError> {
        match threshold {
            Some(4..) => Err(AdminError::Conflict { what: "The cluster has 3 nodes.".into() }),
            _ => Ok(()),
        }
    }

    async fn issue_recovery(&self, threshold: u8, shares: u8) -> Result<RecoveryShares, AdminError> {
        Ok(RecoveryShares {
            threshold,
            root_epoch: 1,
            root_id: KeyId::from_bytes([9; 16]),
            shares: (0..shares).map(|n| Secret::new(format!("HFR1-EXAMPLE{n}"))).collect(),
        })
    }

    async fn rotate_root(&self) -> Result<(), AdminError> {
        Ok(())
    }

    async fn rotate_tenant(&self, tenant: &str) -> Result<(), AdminError> {
        let known = self.tenants.lock().iter().any(|known| known.name == tenant);
        if known { Ok(()) } else { Err(AdminError::NotFound { what: format!("tenant \"{tenant}\"") }) }
    }
}

#[async_trait]
impl ProtectionBackend for Example {
    async fn levels(&self, _tenant: &str) -> Result<TenantLevels, AdminError> {
        let bucket = |bucket: &str, own: Option<Level>, pending_stripes| BucketLevels {
            bucket: bucket.to_owned(),
            own,
            requested: own.unwrap_or(Level::PLUS_2D_1N),
            actual: Some(Level::PLUS_2D_1N),
            pending_stripes,
        };
        Ok(TenantLevels {
            own: None,
            requested: Level::PLUS_2D_1N,
            suggested: Level::PLUS_2D_1N,
            stripe: Some(StripeShape { data: 4, parity: 2 }),
            stripes: 4000,
            pending_stripes: 120,
            complete: true,
            buckets: vec![bucket("mail", None, 0), bucket("vault", Some(Level::Mirror { copies: 3 }), 120)],
        })
    }

    async fn set_level(&self, scope: LevelScope<'_>, level: Option<Level>) -> Result<(), AdminError> {
        match (scope, level) {
            (LevelScope::Bucket(_, "none"), _) => {
                Err(AdminError::NotFound { what: "bucket \"none\"".to_owned() })
            }
            (_, Some(Level::Mirror { copies: 8 })) => {
                Err(AdminError::Conflict { what: "level 8x cannot be kept on 3 nodes".to_owned() })
            }
            _ => Ok(()),
        }
    }

    async fn widen(&self) -> Result<(), AdminError> {
        Ok(())
    }

    async fn set_spare(&self, _drives: Option<u8>) -> Result<(), AdminError> {
        Ok(())
    }

    async fn set_worker(&self, kind: &str, _change: WorkerChange) -> Result<(), AdminError> {
        if kind == "rebuild" {
            return Ok(());
        }
        Err(AdminError::NotFound { what: format!("worker {kind:?}") })
    }

    async fn audit(&self) -> Result<AuditStatus, AdminError> {
        let lost = AuditLoss {
            tenant: TenantId::from_bytes([7; 16]),
            bucket: "mail".to_owned(),
            key: "2026/11/27".to_owned(),
        };
        let audit = Audit {
            begun_unix_ms: UnixMillis::new(1_800_000_000_000),
            ended_unix_ms: UnixMillis::new(1_800_000_060_000),
            drives_listed: 11,
            drives_unreadable: vec![DriveId::from_bytes([3; 16])],
            shards: 24_000,
            stripes: 4000,
            debt_stripes: 12,
            unreadable_stripes: 1,
            lost_count: 1,
            lost: vec![lost],
        };
        Ok(AuditStatus { running: false, last: Some(audit) })
    }

    async fn start_audit(&self) -> Result<(), AdminError> {
        Ok(())
    }

    async fn drain_node(&self, name: &str, _draining: bool) -> Result<(), AdminError> {
        let known = (self.cluster.lock())().nodes.iter().any(|node| node.name == name);
        if known { Ok(()) } else { Err(AdminError::NotFound { what: format!("node {name:?}") }) }
    }
}

#[async_trait]
impl PartitionBackend for Example {
    async fn partitions(&self, tenant: &str) -> Result<Vec<PartitionStatus>, AdminError> {
        let known = self.tenants.lock().iter().any(|known| known.name == tenant);
        if !known {
            return Err(AdminError::NotFound { what: format!("tenant {tenant:?}") });
        }
        Ok(vec![PartitionStatus {
            partition: PartitionId::new(1),
            group: GroupId::new(2),
            leader: Some("n1".into()),
            split_from: None,
            state: PartitionState::Settled,
            hash_from: Some(0),
            hash_until: Some(65_536),
            versions: 3,
            bytes: 7,
        }])
    }

    async fn split_partition(
        &self,
        tenant: &str,
        _partition: Option<PartitionId>,
    ) -> Result<PartitionId, AdminError> {
        self.partitions(tenant).await.map(|_| PartitionId::new(2))
    }
}

#[async_trait]
impl ExternalKeyBackend for Example {
    async fn external_key(&self, _tenant: &str) -> Result<ExternalKeyStatus, AdminError> {
        Ok(ExternalKeyStatus {
            service: Some("transit key transit/k at https://vault.example".into()),
            state: Some(ExternalKeyState::Allowed),
            asked_unix_ms: Some(7),
            check_seconds: Some(60),
            grace_seconds: Some(3600),
            ..ExternalKeyStatus::none()
        })
    }

    async fn set_external_key(&self, _tenant: &str, _spec: ExternalKeySpec) -> Result<(), AdminError> {
        Ok(())
    }

    async fn rotate_external_key(&self, _tenant: &str) -> Result<(), AdminError> {
        Ok(())
    }

    async fn remove_external_key(&self, _tenant: &str) -> Result<(), AdminError> {
        Ok(())
    }
}

#[async_trait]
impl EventBackend for Example {
    async fn webhooks(&self, _tenant: &str) -> Result<Vec<WebhookStatus>, AdminError> {
        Ok(vec![WebhookStatus {
            name: "hook".into(),
            arn: "arn:holdfast:sqs::hook:webhook".into(),
            url: "https://example.net/".into(),
            has_secret: true,
        }])
    }

    async fn set_webhook(&self, _tenant: &str, _webhook: WebhookSpec) -> Result<(), AdminError> {
        Ok(())
    }

    async fn remove_webhook(&self, _tenant: &str, webhook: &str) -> Result<(), AdminError> {
        match webhook {
            "hook" => Ok(()),
            _ => Err(AdminError::NotFound { what: format!("webhook {webhook:?}") }),
        }
    }

    async fn events(&self) -> Result<EventStatus, AdminError> {
        let networks = vec!["127.0.0.0/8".into()];
        Ok(EventStatus { enabled: true, networks, queued: 1, oldest_unix_ms: Some(7), dropped: 0 })
    }

    async fn set_event_networks(&self, _networks: Vec<String>) -> Result<(), AdminError> {
        Ok(())
    }
}

#[async_trait]
impl TenancyBackend for Example {
    async fn suspend(&self, tenant: &str, suspended: bool) -> Result<(), AdminError> {
        let mut tenants = self.tenants.lock();
        let found = tenants.iter_mut().find(|known| known.name == tenant);
        let found = found.ok_or_else(|| AdminError::NotFound { what: format!("tenant {tenant:?}") })?;
        found.state = if suspended { TenantStanding::Suspended } else { TenantStanding::Active };
        Ok(())
    }

    async fn quota(&self, _tenant: &str) -> Result<TenantQuota, AdminError> {
        Ok(TenantQuota { bytes_max: None, objects_max: None, used_bytes: 7, used_objects: 1 })
    }

    async fn set_quota(&self, _tenant: &str, _quota: Quota) -> Result<(), AdminError> {
        Ok(())
    }

    async fn limits(&self, _tenant: &str) -> Result<TenantLimits, AdminError> {
        Ok(TenantLimits { requests_per_second: Some(100), ..TenantLimits::default() })
    }

    async fn set_limits(&self, _tenant: &str, _limits: TenantLimits) -> Result<(), AdminError> {
        Ok(())
    }

    async fn shred(&self, order: ShredOrder) -> Result<ShredStatus, AdminError> {
        let mut tenants = self.tenants.lock();
        let found = tenants.iter_mut().find(|known| known.name == order.tenant);
        let found =
            found.ok_or_else(|| AdminError::NotFound { what: format!("tenant {:?}", order.tenant) })?;
        if found.state != TenantStanding::Suspended {
            return Err(AdminError::Conflict { what: "it is not suspended".into() });
        }
        found.state = TenantStanding::Shredding;
        Ok(ShredStatus {
            tenant: found.id,
            name: order.tenant,
            state: ShredState::Pending,
            waits_for: Some("the old root to be let go".into()),
            keys: vec![KeyId::from_bytes([4; 16])],
            by: order.by,
            override_retention: order.override_retention,
            begun_unix_ms: UnixMillis::new(1),
            destroyed_unix_ms: None,
            confirmed_by: Vec::new(),
            finished_unix_ms: None,
        })
    }

    async fn shreds(&self) -> Result<Vec<ShredStatus>, AdminError> {
        Ok(Vec::new())
    }

    async fn certificate(&self, tenant: TenantId) -> Result<String, AdminError> {
        Ok(format!("HOLDFAST CERTIFICATE OF DESTRUCTION 1\ntenant {tenant}\n"))
    }
}

#[async_trait::async_trait]
impl holdfast_admin_api::DriveBackend for Example {
    async fn adopt(&self, _node: &str, device: &str, erase: Option<&str>) -> Result<(), AdminError> {
        match (device, erase) {
            ("blank", _) | ("full", Some("full")) => Ok(()),
            ("full", _) => Err(AdminError::Conflict { what: "full is not blank".to_owned() }),
            _ => Err(AdminError::NotFound { what: format!("device {device:?}") }),
        }
    }

    async fn locate(&self, _node: &str, _device: &str, _minutes: u32) -> Result<(), AdminError> {
        Ok(())
    }
}

#[async_trait]
impl AdminBackend for Example {
    async fn cluster(&self) -> Result<ClusterStatus, AdminError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok((self.cluster.lock())())
    }

    async fn operator(&self, user: &str) -> Result<Option<OperatorRecord>, AdminError> {
        Ok(self.operators.lock().iter().find(|operator| operator.user == user).cloned())
    }

    async fn create_join_token(&self, valid_for: Duration) -> Result<JoinTokenInfo, AdminError> {
        let expires = UnixMillis::new(1_800_000_000_000 + u64::try_from(valid_for.as_millis()).unwrap());
        Ok(JoinTokenInfo { token: Secret::new("hfj1-EXAMPLE-TOKEN".into()), expires_unix_ms: expires })
    }

    async fn remove_node(&self, name: &str, force: bool) -> Result<(), AdminError> {
        match (name, force) {
            ("n1" | "n2", _) | ("n3", true) => Ok(()),
            ("n3", false) => Err(AdminError::Conflict { what: "the drives of n3 hold 7 shards".into() }),
            _ => Err(AdminError::NotFound { what: format!("node {name:?}") }),
        }
    }

    async fn tenants(&self) -> Result<Vec<TenantStatus>, AdminError> {
        Ok(self.tenants.lock().clone())
    }

    async fn create_tenant(&self, name: &str, level: Option<Level>) -> Result<CreatedTenant, AdminError> {
        let mut tenants = self.tenants.lock();
        if tenants.iter().any(|tenant| tenant.name == name) {
            return Err(AdminError::Conflict { what: format!("Tenant \"{name}\" exists already.") });
        }
        let id = TenantId::from_bytes([u8::try_from(tenants.len()).unwrap() + 4; 16]);
        let access_key = format!("HFEXAMPLE{:07}", tenants.len());
        let (name, region) = (name.to_owned(), "us-east-1".to_owned());
        let access_keys = vec![access_key.clone()];
        tenants.push(TenantStatus {
            id,
            name: name.clone(),
            state: TenantStanding::Active,
            region: region.clone(),
            level,
            access_keys,
            journal_address: None,
        });
        Ok(CreatedTenant {
            id,
            name,
            region,
            access_key,
            secret_key: Secret::new("example-secret-shown-once".into()),
        })
    }

    async fn create_encryption_key(&self, tenant: &str, _: &str) -> Result<(), AdminError> {
        match self.tenants.lock().iter().any(|known| known.name == tenant) {
            true => Ok(()),
            false => Err(AdminError::NotFound { what: format!("tenant \"{tenant}\"") }),
        }
    }

    fn keys(&self) -> &dyn KeyAdmin {
        self
    }

    async fn accounts(&self, tenant: &str) -> Result<Vec<AccountStatus>, AdminError> {
        Ok(vec![AccountStatus {
            number: "000000000007".into(),
            id: "07".repeat(32),
            name: tenant.to_owned(),
            email: format!("root@{tenant}.invalid"),
            identities: 3,
        }])
    }

    async fn create_account(
        &self,
        tenant: &str,
        name: &str,
        email: &str,
    ) -> Result<CreatedAccount, AdminError> {
        if !self.tenants.lock().iter().any(|known| known.name == tenant) {
            return Err(AdminError::NotFound { what: format!("tenant \"{tenant}\"") });
        }
        Ok(CreatedAccount {
            number: "000000000008".into(),
            id: "08".repeat(32),
            name: name.to_owned(),
            email: email.to_owned(),
            access_key: "HFACCOUNT0000000".into(),
            secret_key: Secret::new("account-secret-shown-once".into()),
        })
    }

    async fn work(&self) -> Result<WorkStatus, AdminError> {
        Ok(WorkStatus {
            debt_stripes: 12,
            unreadable_stripes: 0,
            draining_shards: 0,
            complete: true,
            tenants: vec![TenantDebt {
                tenant: TenantId::from_bytes([7; 16]),
                by_lost_shards: vec![LostShards { lost: 1, stripes: 12 }],
            }],
            orders: vec![WorkerOrder {
                kind: "rebuild".to_owned(),
                paused: false,
                impact: WorkerImpact::Medium,
                hours: Some(WorkerHours { from: 22, until: 6 }),
            }],
            workers: vec![WorkerStatus {
                node: NodeId::new(1),
                kind: "rebuild".to_owned(),
                working: true,
                held: false,
                done: 30,
                left: 12,
                failed: 0,
                bytes: ByteCount::mib(64),
                bytes_per_second: ByteCount::mib(8),
                elapsed_seconds: 8,
                remaining_seconds: Some(3),
                trouble: None,
            }],
        })
    }

    async fn scrub_now(&self) -> Result<(), AdminError> {
        Ok(())
    }

    async fn drain_drive(&self, drive: DriveId, _draining: bool) -> Result<(), AdminError> {
        let cluster = (self.cluster.lock())();
        let known = cluster.nodes.iter().flat_map(|node| &node.drives).any(|known| known.id == drive);
        if known { Ok(()) } else { Err(AdminError::NotFound { what: format!("drive {drive}") }) }
    }

    fn session_key(&self) -> [u8; 32] {
        self.key
    }

    fn ca_pem(&self) -> String {
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned()
    }

    fn node_name(&self) -> String {
        self.node.to_owned()
    }

    async fn ready(&self) -> Readiness {
        if self.hangs { Readiness::NotReady } else { Readiness::Ready }
    }
}

const TIB: u64 = 1 << 40;

fn drive(node: u8, index: u8, used: u64) -> DriveStatus {
    DriveStatus {
        id: DriveId::from_bytes([node * 16 + index; 16]),
        serial: format!("ZX{node}0{index}A7{index}K"),
        path: format!("/dev/vd{}", char::from(b'b' + index)),
        state: DriveState::Healthy,
        capacity_bytes: ByteCount::new(4 * TIB),
        usage: Some(DriveUsage {
            used_bytes: ByteCount::new(used),
            live_bytes: ByteCount::new(used / 8 * 7),
            free_bytes: ByteCount::new(4 * TIB - used),
            shards: used / 400_000,
            errors: 0,
        }),
        reason: None,
        locate_until_unix_ms: None,
    }
}

fn node(number: u8) -> NodeStatus {
    let host = format!("10.77.0.{number}");
    NodeStatus {
        id: NodeId::new(number.into()),
        name: format!("n{number}"),
        state: NodeState::Up,
        peer_address: format!("{host}:7400"),
        services: Some(ServiceUrls {
            s3: format!("https://{host}:9443"),
            admin: format!("https://{host}:8443"),
            metrics: format!("https://{host}:9100/metrics"),
        }),
        version: Some("0.1.0".into()),
        uptime_seconds: Some(86_400 * u64::from(number) + 4_321),
        clock_ahead_ms: None,
        drives: (0..4).map(|i| drive(number, i, TIB + u64::from(i) * (TIB / 9))).collect(),
        devices: Vec::new(),
    }
}

fn sum(nodes: &[NodeStatus]) -> Capacity {
    let drives = || nodes.iter().flat_map(|node| &node.drives);
    let raw: u64 = drives().map(|drive| drive.capacity_bytes.get()).sum();
    let used: u64 = drives().filter_map(|drive| drive.usage).map(|usage| usage.used_bytes.get()).sum();
    Capacity {
        raw_bytes: ByteCount::new(raw),
        used_bytes: ByteCount::new(used),
        free_bytes: ByteCount::new(raw - used),
        reserved_bytes: ByteCount::new(4 * TIB),
        spare_drives: 1,
    }
}

/// Three nodes of four drives, all well.
pub fn healthy() -> ClusterStatus {
    let nodes: Vec<_> = (1..=3).map(node).collect();
    let level = Level::PLUS_2D_1N;
    ClusterStatus {
        id: ClusterId::from_bytes([0xc5; 16]),
        name: "archive-west".into(),
        epoch: Epoch::new(7),
        level: LevelStatus {
            requested: level,
            actual: Some(level),
            suggested: level,
            stripe: Some(StripeShape { data: 4, parity: 2 }),
        },
        capacity: sum(&nodes),
        groups: (0..=8)
            .map(|group| GroupStatus {
                id: GroupId::new(group),
                leader: Some(NodeId::new(u64::from(group % 3 + 1))),
                term: 3,
                voters: (1..=3).map(NodeId::new).collect(),
                applied_index: 18_000 + 731 * u64::from(group),
                compared_index: 17_920,
                states_differ: false,
                ailing: Vec::new(),
            })
            .collect(),
        nodes,
        tenants: 1,
    }
}

/// The same with a node down, one joining, drives in trouble and a group without a leader.
pub fn troubled() -> ClusterStatus {
    let mut status = healthy();
    let [first, second, third] = &mut status.nodes[..] else { unreachable!("three nodes") };
    first.drives[1].state =
        DriveState::Fenced { reason: "flush failed: Input/output error (os error 5)".into() };
    if let Some(usage) = &mut first.drives[1].usage {
        usage.errors = 1;
    }
    first.drives[2].state = DriveState::Slow;
    second.state = NodeState::Down { last_heard_unix_ms: Some(UnixMillis::new(1_790_000_000_000)) };
    (second.services, second.version, second.uptime_seconds) = (None, None, None);
    for drive in &mut second.drives {
        (drive.state, drive.usage) = (DriveState::Unknown, None);
    }
    third.drives[3].state = DriveState::Missing;
    third.drives[3].usage = None;
    let mut fourth = node(4);
    fourth.state = NodeState::Joining;
    fourth.drives.truncate(2);
    fourth.drives[1].state = DriveState::Mounting;
    status.nodes.push(fourth);
    status.level.actual = None;
    status.level.stripe = None;
    status.groups[4].leader = None;
    status.capacity = sum(&status.nodes);
    status
}

/// A client of one node's router, without sockets.
pub struct Client {
    pub router: Router,
    pub address: SocketAddr,
}

impl Client {
    pub fn new(backend: Example) -> Self {
        Self { router: router(Arc::new(backend)), address: SocketAddr::from(([192, 0, 2, 1], 4000)) }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let mut request = request;
        request.extensions_mut().insert(ConnectInfo(self.address));
        Answer::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    pub async fn login(&self, user: &str, password: &str) -> Answer {
        let body = serde_json::json!({ "user": user, "password": password });
        self.send(json("POST", "/api/v1/session", &body).body(Body::from(body.to_string())).unwrap()).await
    }

    /// The token of a fresh session.
    pub async fn token(&self, user: &str) -> String {
        let answer = self.login(user, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json["token"].as_str().unwrap().to_owned()
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let request = json(method, path, body).header("authorization", format!("Bearer {token}"));
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.send(request.body(Body::from(text)).unwrap()).await
    }
}

pub fn json(method: &str, path: &str, body: &Value) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    if body.is_null() { request } else { request.header("content-type", "application/json") }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub text: String,
    /// Null when the body is not JSON.
    pub json: Value,
}

impl Answer {
    async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or_default();
        Self { status: parts.status, headers: parts.headers, text, json }
    }

    /// Last part of the problem's type.
    pub fn problem(&self) -> &str {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        self.json["type"].as_str().unwrap().rsplit(':').next().unwrap()
    }
}
