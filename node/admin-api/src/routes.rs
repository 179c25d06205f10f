//! The table of all routes: who may use each, and why. What is not a row here does not answer.
//!
//! The router, the OpenAPI document and the tests are all made from this table.

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{self, MethodRouter},
};

use crate::{
    AccessKeyPair, ClusterStatus, CreatedAccount, CreatedTenant, JoinTokenInfo, LockStatus, Role, accounts,
    drives, events, external_keys, guard, keys, login,
    openapi::{self, Shape, shape},
    partitions, protection,
    state::AppState,
    status, tenancy, tenants, workers,
};

/// HTTP methods that routes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Post,
    Delete,
}

impl Method {
    /// `GET`
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone who reaches the port.
    Anyone,
    /// An operator with this role or a higher one.
    Session(Role),
}

impl Role {
    /// `viewer`, `operator`
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }
}

/// One row.
#[derive(Debug)]
pub struct Route {
    /// HTTP method.
    pub method: Method,
    /// Path, with parameters as `{name}`.
    pub path: &'static str,
    /// Name of the action: `operationId` of the OpenAPI document, `action` of audit events.
    pub id: &'static str,
    /// One line for the document.
    pub summary: &'static str,
    /// Who may use it.
    pub access: Access,
    /// Why they, and not fewer or more.
    pub reason: &'static str,
    pub(crate) request: Option<Shape>,
    pub(crate) answer: Answer,
    pub(crate) handler: fn() -> MethodRouter<AppState>,
}

/// What a route answers when all goes well.
#[derive(Debug)]
pub(crate) enum Answer {
    Json(u16, Shape),
    Document,
    Text,
    Nothing,
}

impl Route {
    /// Writes and logins leave an audit event; looking does not.
    #[must_use]
    pub fn is_audited(&self) -> bool {
        self.method != Method::Get
    }
}

const VIEWER: Access = Access::Session(Role::Viewer);
const OPERATOR: Access = Access::Session(Role::Operator);

/// All rows.
pub static ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/healthz",
        id: "healthz",
        summary: "Whether the program runs.",
        access: Access::Anyone,
        reason: "Load balancers and supervisors have no account; the answer is one word.",
        request: None,
        answer: Answer::Text,
        handler: || routing::get(status::healthz),
    },
    Route {
        method: Method::Get,
        path: "/readyz",
        id: "readyz",
        summary: "Whether this node serves clients.",
        access: Access::Anyone,
        reason: "Load balancers have no account; the answer is one word, without a cause.",
        request: None,
        answer: Answer::Text,
        handler: || routing::get(status::readyz),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/ca.pem",
        id: "ca",
        summary: "The cluster's CA certificate, to verify all its services with.",
        access: Access::Anyone,
        reason: "A CA certificate is public; who fetches it must compare its fingerprint by another way.",
        request: None,
        answer: Answer::Text,
        handler: || routing::get(status::ca),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/session",
        id: "login",
        summary: "Begins a session; sets its cookie and returns its token.",
        access: Access::Anyone,
        reason: "The login itself. Held back by delays and by the gate before the password check.",
        request: Some(shape::<login::Login>()),
        answer: Answer::Json(201, shape::<login::NewSession>()),
        handler: || routing::post(login::begin),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/session",
        id: "session",
        summary: "Who this session belongs to.",
        access: VIEWER,
        reason: "Every account may know itself.",
        request: None,
        answer: Answer::Json(200, shape::<login::SessionInfo>()),
        handler: || routing::get(login::show),
    },
    Route {
        method: Method::Delete,
        path: "/api/v1/session",
        id: "logout",
        summary: "Ends the session on this node and drops its cookie.",
        access: VIEWER,
        reason: "Every account may leave.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::delete(login::end),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/cluster",
        id: "cluster",
        summary: "The cluster: protection, capacity, nodes with their drives, Raft groups.",
        access: VIEWER,
        reason: "Names hardware and addresses, so not for anyone; changes nothing, so for every account.",
        request: None,
        answer: Answer::Json(200, shape::<ClusterStatus>()),
        handler: || routing::get(status::cluster),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/nodes",
        id: "nodes",
        summary: "All nodes with their drives.",
        access: VIEWER,
        reason: "Part of the cluster's status.",
        request: None,
        answer: Answer::Json(200, shape::<status::NodeList>()),
        handler: || routing::get(status::nodes),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/nodes/{name}/removal",
        id: "remove_node",
        summary: "Has a node leave the cluster; refused while its drives hold shards, unless forced.",
        access: OPERATOR,
        reason: "Takes a machine out for good.",
        request: Some(shape::<status::Removal>()),
        answer: Answer::Nothing,
        handler: || routing::post(status::remove_node),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/drives",
        id: "drives",
        summary: "All drives of all nodes.",
        access: VIEWER,
        reason: "Part of the cluster's status.",
        request: None,
        answer: Answer::Json(200, shape::<status::DriveList>()),
        handler: || routing::get(status::drives),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/work",
        id: "work",
        summary: "Redundancy that is owed, and what the background workers of all nodes do about it.",
        access: VIEWER,
        reason: "Part of the cluster's status.",
        request: None,
        answer: Answer::Json(200, shape::<workers::WorkStatus>()),
        handler: || routing::get(workers::show),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/scrub",
        id: "scrub",
        summary: "Has the drives of the node that answers scrubbed now.",
        access: OPERATOR,
        reason: "Takes the drives' time.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(workers::scrub),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/work/{kind}",
        id: "set_worker",
        summary: "Pauses or resumes a kind of worker on all nodes, sets its impact and hours.",
        access: OPERATOR,
        reason: "Decides how soon the level holds again and what clients feel of it.",
        request: Some(shape::<protection::WorkerChange>()),
        answer: Answer::Nothing,
        handler: || routing::post(protection::set_worker),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/audit",
        id: "audit",
        summary: "What the last audit on this node found: missing shards, and objects that cannot be read.",
        access: OPERATOR,
        reason: "Names objects that cannot be read, so that somebody can act; for those who can.",
        request: None,
        answer: Answer::Json(200, shape::<protection::AuditStatus>()),
        handler: || routing::get(protection::audit),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/audit",
        id: "start_audit",
        summary: "Has this node compare what all drives hold with what the catalog says.",
        access: OPERATOR,
        reason: "Takes time and memory of the node.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(protection::start_audit),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/widening",
        id: "widen",
        summary: "Has stripes that are narrower than the drives allow now cut anew.",
        access: OPERATOR,
        reason: "Rewrites data: it takes time and saves space.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(protection::widen),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/cluster/spare",
        id: "set_spare",
        summary: "Sets how many drives' space is set aside for rebuilding.",
        access: OPERATOR,
        reason: "Decides when clients' writes are refused, and whether a lost drive can be made good then.",
        request: Some(shape::<protection::NewSpare>()),
        answer: Answer::Nothing,
        handler: || routing::post(protection::set_spare),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/cluster/level",
        id: "set_cluster_level",
        summary: "Asks for another level for tenants that have none of their own.",
        access: OPERATOR,
        reason: "Decides what is survived and what it costs; rewrites data.",
        request: Some(shape::<protection::NewLevel>()),
        answer: Answer::Nothing,
        handler: || routing::post(protection::set_cluster_level),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/tenants/{name}/levels",
        id: "levels",
        summary: "Requested, actual and suggested levels of a tenant and its buckets.",
        access: VIEWER,
        reason: "Names of buckets and no content: for every account, not for anyone.",
        request: None,
        answer: Answer::Json(200, shape::<protection::TenantLevels>()),
        handler: || routing::get(protection::levels),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/level",
        id: "set_tenant_level",
        summary: "Asks for another level for a tenant; its stripes are cut anew in the background.",
        access: OPERATOR,
        reason: "Decides what is survived and what it costs; rewrites data.",
        request: Some(shape::<protection::NewLevel>()),
        answer: Answer::Nothing,
        handler: || routing::post(protection::set_tenant_level),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/buckets/{bucket}/level",
        id: "set_bucket_level",
        summary: "Asks for another level for a bucket; its stripes are cut anew in the background.",
        access: OPERATOR,
        reason: "Decides what is survived and what it costs; rewrites data.",
        request: Some(shape::<protection::NewLevel>()),
        answer: Answer::Nothing,
        handler: || routing::post(protection::set_bucket_level),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/nodes/{name}/drain",
        id: "drain_node",
        summary: "Has all drives of a node emptied onto the others, so that it can be removed.",
        access: OPERATOR,
        reason: "Moves data and takes capacity away.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(protection::drain_node),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/nodes/{name}/keep",
        id: "keep_node",
        summary: "Keeps the drives of a node that were being emptied and have not left yet.",
        access: OPERATOR,
        reason: "Undoes what only an operator may do.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(protection::keep_node),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/drives/{id}/drain",
        id: "drain_drive",
        summary: "Has a drive emptied onto the others; when it is empty it leaves for good.",
        access: OPERATOR,
        reason: "Moves data and takes capacity away.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(workers::drain),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/drives/{id}/keep",
        id: "keep_drive",
        summary: "Keeps a drive that was being emptied; it takes shards again.",
        access: OPERATOR,
        reason: "Undoes what only an operator may do.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(workers::keep),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/drives/adopt",
        id: "adopt_drive",
        summary: "Has a device made a drive of the cluster; one that is not blank only when it is named to be erased.",
        access: OPERATOR,
        reason: "Writes to a device and adds capacity; may erase what is on it.",
        request: Some(shape::<drives::Adoption>()),
        answer: Answer::Nothing,
        handler: || routing::post(drives::adopt),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/drives/locate",
        id: "locate_drive",
        summary: "Has the light of a drive or device blink for some minutes, so that the right one is pulled.",
        access: OPERATOR,
        reason: "Takes a little of the drive's time and switches lights in the machine room.",
        request: Some(shape::<drives::Locating>()),
        answer: Answer::Nothing,
        handler: || routing::post(drives::locate),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/join-tokens",
        id: "create_join_token",
        summary: "Makes a single-use token with which one node may join.",
        access: OPERATOR,
        reason: "Whoever holds the token brings a machine into the cluster.",
        request: Some(shape::<tenants::NewJoinToken>()),
        answer: Answer::Json(201, shape::<JoinTokenInfo>()),
        handler: || routing::post(tenants::create_join_token),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/tenants",
        id: "tenants",
        summary: "All tenants and the ids of their access keys.",
        access: VIEWER,
        reason: "Names of clients and no secret: for every account, not for anyone.",
        request: None,
        answer: Answer::Json(200, shape::<tenants::TenantList>()),
        handler: || routing::get(tenants::list),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants",
        id: "create_tenant",
        summary: "Makes a tenant; returns the secret of its first access key this one time.",
        access: OPERATOR,
        reason: "Takes capacity and gives access.",
        request: Some(shape::<tenants::NewTenant>()),
        answer: Answer::Json(201, shape::<CreatedTenant>()),
        handler: || routing::post(tenants::create),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/access-keys",
        id: "create_access_key",
        summary: "Makes one more access key for a tenant; returns its secret this one time.",
        access: OPERATOR,
        reason: "Gives access to a tenant's data.",
        request: None,
        answer: Answer::Json(201, shape::<AccessKeyPair>()),
        handler: || routing::post(tenants::create_access_key),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/encryption-keys",
        id: "create_encryption_key",
        summary: "Gives a tenant a named key, which its clients ask for as SSE-KMS key.",
        access: OPERATOR,
        reason: "Keys stay as long as the tenant does.",
        request: Some(shape::<tenants::EncryptionKey>()),
        answer: Answer::Json(201, shape::<tenants::EncryptionKey>()),
        handler: || routing::post(tenants::create_encryption_key),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/lock",
        id: "lock",
        summary: "Whether this node has its keys, and what it waits for if it has not.",
        access: Access::Anyone,
        reason: "A locked node cannot check sessions, and must say what it waits for all the same.",
        request: None,
        answer: Answer::Json(200, shape::<LockStatus>()),
        handler: || routing::get(keys::lock),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/keys",
        id: "keys",
        summary: "The root key's version, who holds shares of it, and recovery shares given out.",
        access: VIEWER,
        reason: "Says how the cluster is kept, gives no key away; changes nothing.",
        request: None,
        answer: Answer::Json(200, shape::<keys::KeysStatus>()),
        handler: || routing::get(keys::show),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/keys/threshold",
        id: "set_threshold",
        summary: "Sets how many nodes' shares give the root; the root is split anew.",
        access: OPERATOR,
        reason: "Decides how many stolen nodes are too many.",
        request: Some(shape::<keys::NewThreshold>()),
        answer: Answer::Nothing,
        handler: || routing::post(keys::set_threshold),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/keys/recovery-shares",
        id: "issue_recovery",
        summary: "Makes recovery shares for operators, shown this one time.",
        access: OPERATOR,
        reason: "Enough of them are the root key.",
        request: Some(shape::<keys::NewRecovery>()),
        answer: Answer::Json(201, shape::<keys::RecoveryShares>()),
        handler: || routing::post(keys::issue_recovery),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/keys/rotation",
        id: "rotate_root",
        summary: "Puts a new root key in the place of the current one; recovery shares lose their worth.",
        access: OPERATOR,
        reason: "Changes what everything is wrapped by.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(keys::rotate_root),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/key-rotation",
        id: "rotate_tenant_key",
        summary: "Adds a version to a tenant's key, which wraps from then on; nothing is rewritten.",
        access: OPERATOR,
        reason: "Changes what a tenant's new data is wrapped by.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(keys::rotate_tenant),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/tenants/{name}/accounts",
        id: "accounts",
        summary: "Accounts of a tenant, with the ids by which they grant each other access.",
        access: VIEWER,
        reason: "Names and ids, and no secret: for every account, not for anyone.",
        request: None,
        answer: Answer::Json(200, shape::<accounts::AccountList>()),
        handler: || routing::get(accounts::list),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/accounts",
        id: "create_account",
        summary: "Makes an account in a tenant; returns the secret of its access key this one time.",
        access: OPERATOR,
        reason: "Gives access to a tenant's names.",
        request: Some(shape::<accounts::NewAccount>()),
        answer: Answer::Json(201, shape::<CreatedAccount>()),
        handler: || routing::post(accounts::create),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/suspend",
        id: "suspend_tenant",
        summary: "Refuses a tenant's clients; its data is kept, and background work on it goes on.",
        access: OPERATOR,
        reason: "Takes a tenant out of service.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(tenancy::suspend),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/resume",
        id: "resume_tenant",
        summary: "Serves a suspended tenant's clients again.",
        access: OPERATOR,
        reason: "Undoes what only an operator may do.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(tenancy::resume),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/tenants/{name}/partitions",
        id: "partitions",
        summary: "The partitions of a tenant's catalog: which keys each holds, how many, and where it stands.",
        access: VIEWER,
        reason: "Figures and no content: for every account, not for anyone.",
        request: None,
        answer: Answer::Json(200, shape::<partitions::PartitionList>()),
        handler: || routing::get(partitions::list),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/partitions",
        id: "split_partition",
        summary: "Splits a partition of a tenant's catalog in two while clients go on; the largest if none is named.",
        access: OPERATOR,
        reason: "Makes work for every node.",
        request: Some(shape::<partitions::SplitPartition>()),
        answer: Answer::Json(202, shape::<partitions::NewPartition>()),
        handler: || routing::post(partitions::split),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/tenants/{name}/quota",
        id: "quota",
        summary: "What a tenant holds and may hold.",
        access: VIEWER,
        reason: "Figures and no content: for every account, not for anyone.",
        request: None,
        answer: Answer::Json(200, shape::<tenancy::TenantQuota>()),
        handler: || routing::get(tenancy::quota),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/quota",
        id: "set_quota",
        summary: "Limits what a tenant may hold; what is over a new limit stays, and nothing more is taken.",
        access: OPERATOR,
        reason: "Decides whether a tenant can write.",
        request: Some(shape::<tenancy::Quota>()),
        answer: Answer::Nothing,
        handler: || routing::post(tenancy::set_quota),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/tenants/{name}/limits",
        id: "limits",
        summary: "What a tenant's clients may ask of the cluster.",
        access: VIEWER,
        reason: "Figures and no content: for every account, not for anyone.",
        request: None,
        answer: Answer::Json(200, shape::<tenancy::Limits>()),
        handler: || routing::get(tenancy::limits),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/limits",
        id: "set_limits",
        summary: "Sets what a tenant's clients may ask of the cluster; what is left out is lifted.",
        access: OPERATOR,
        reason: "Decides how well a tenant is served.",
        request: Some(shape::<tenancy::Limits>()),
        answer: Answer::Nothing,
        handler: || routing::post(tenancy::set_limits),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/tenants/{name}/webhooks",
        id: "webhooks",
        summary: "Where events of a tenant's buckets may be sent.",
        access: VIEWER,
        reason: "Addresses, and no secret: for every account, not for anyone.",
        request: None,
        answer: Answer::Json(200, shape::<events::WebhookList>()),
        handler: || routing::get(events::webhooks),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/webhooks",
        id: "set_webhook",
        summary: "Defines a webhook that a tenant's buckets may have events sent to, in the place of one of that name.",
        access: OPERATOR,
        reason: "Decides where this cluster's nodes connect to.",
        request: Some(shape::<events::WebhookSpec>()),
        answer: Answer::Nothing,
        handler: || routing::post(events::set_webhook),
    },
    Route {
        method: Method::Delete,
        path: "/api/v1/tenants/{name}/webhooks/{webhook}",
        id: "remove_webhook",
        summary: "Forgets a webhook; what waits for it waits until it is defined again or too old.",
        access: OPERATOR,
        reason: "Events are not sent any more.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::delete(events::remove_webhook),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/cluster/events",
        id: "events",
        summary: "What the cluster lets events do, and how many wait on the node that answers.",
        access: VIEWER,
        reason: "Figures and settings: for every account, not for anyone.",
        request: None,
        answer: Answer::Json(200, shape::<events::EventStatus>()),
        handler: || routing::get(events::show),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/cluster/events",
        id: "set_event_networks",
        summary: "Sets the networks that events may be sent to although such addresses are refused by themselves.",
        access: OPERATOR,
        reason: "Decides what of the nodes' own surroundings events can reach.",
        request: Some(shape::<events::EventNetworks>()),
        answer: Answer::Nothing,
        handler: || routing::post(events::set_networks),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/tenants/{name}/external-key",
        id: "external_key",
        summary: "How a tenant's external key stands with the node that answers.",
        access: VIEWER,
        reason: "An address and a key's name, and no secret: for every account, not for anyone.",
        request: None,
        answer: Answer::Json(200, shape::<external_keys::ExternalKeyStatus>()),
        handler: || routing::get(external_keys::show),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/external-key",
        id: "set_external_key",
        summary: "Seals a tenant's key under a key of its own service, in the place of any before.",
        access: OPERATOR,
        reason: "Decides whose word the tenant's data depend on.",
        request: Some(shape::<external_keys::ExternalKeySpec>()),
        answer: Answer::Nothing,
        handler: || routing::post(external_keys::set),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/external-key/rotation",
        id: "rotate_external_key",
        summary: "Seals a tenant's key under a fresh external key, encrypted by the newest version of the service's.",
        access: OPERATOR,
        reason: "Exchanges keys.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::post(external_keys::rotate),
    },
    Route {
        method: Method::Delete,
        path: "/api/v1/tenants/{name}/external-key",
        id: "remove_external_key",
        summary: "Leaves a tenant's key to the cluster's root alone; its service has to agree.",
        access: OPERATOR,
        reason: "Takes away what the tenant's own word protects.",
        request: None,
        answer: Answer::Nothing,
        handler: || routing::delete(external_keys::remove),
    },
    Route {
        method: Method::Post,
        path: "/api/v1/tenants/{name}/shred",
        id: "shred_tenant",
        summary: "Destroys a suspended tenant: its key everywhere, for good, and so all of its data.",
        access: OPERATOR,
        reason: "Destroys data, and is meant to.",
        request: Some(shape::<tenancy::Shred>()),
        answer: Answer::Json(202, shape::<tenancy::ShredStatus>()),
        handler: || routing::post(tenancy::shred),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/shreds",
        id: "shreds",
        summary: "Tenants that are being destroyed and that were, with what they wait for.",
        access: VIEWER,
        reason: "Names of clients and of keys, and no secret: for every account, not for anyone.",
        request: None,
        answer: Answer::Json(200, shape::<tenancy::ShredList>()),
        handler: || routing::get(tenancy::shreds),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/shreds/{tenant}/certificate",
        id: "certificate",
        summary: "The signed certificate that a tenant is destroyed; by the tenant's id.",
        access: VIEWER,
        reason: "Made to be shown; names a client, so not for anyone.",
        request: None,
        answer: Answer::Text,
        handler: || routing::get(tenancy::certificate),
    },
    Route {
        method: Method::Get,
        path: "/api/v1/openapi.json",
        id: "openapi",
        summary: "This description.",
        access: VIEWER,
        reason: "No secret, but a map: for those who have an account.",
        request: None,
        answer: Answer::Document,
        handler: || routing::get(openapi::serve),
    },
];

/// A router with every row behind its guard.
pub(crate) fn mount(state: &AppState) -> Router<AppState> {
    ROUTES.iter().fold(Router::new(), |router, route| {
        let guarded = (route.handler)().layer(from_fn_with_state((state.clone(), route), guard::guard));
        router.route(route.path, guarded)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_gives_its_reason_and_only_five_are_open() {
        let mut ids = BTreeSet::new();
        for route in ROUTES {
            assert!(ids.insert(route.id), "{} twice", route.id);
            assert!(route.reason.ends_with('.') && route.summary.ends_with('.'), "{}", route.id);
        }
        let open: Vec<_> =
            ROUTES.iter().filter(|route| route.access == Access::Anyone).map(|r| r.id).collect();
        assert_eq!(open, ["healthz", "readyz", "ca", "login", "lock"]);
    }

    #[test]
    fn whatever_changes_something_needs_an_operator() {
        for route in ROUTES.iter().filter(|route| route.is_audited()) {
            let own_session = ["login", "logout"].contains(&route.id);
            assert!(own_session || route.access == OPERATOR, "{}", route.id);
        }
    }
}
