//! Event notifications: where events of a tenant's buckets may be sent, and what the cluster lets them do.

use async_trait::async_trait;
use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AdminError,
    audit::Note,
    problem::{Body, Problem},
    state::AppState,
};

/// What the admin API asks about events.
#[async_trait]
pub trait EventBackend: Send + Sync + 'static {
    /// Targets of a tenant, by name.
    async fn webhooks(&self, tenant: &str) -> Result<Vec<WebhookStatus>, AdminError>;

    /// Defines a target, in the place of one of that name.
    async fn set_webhook(&self, tenant: &str, webhook: WebhookSpec) -> Result<(), AdminError>;

    /// Forgets a target. What waits for it waits on, until it is defined again or too old.
    async fn remove_webhook(&self, tenant: &str, webhook: &str) -> Result<(), AdminError>;

    /// What the cluster lets events do, and how many wait.
    async fn events(&self) -> Result<EventStatus, AdminError>;

    /// Networks that events may be sent to although such addresses are refused by themselves.
    async fn set_event_networks(&self, networks: Vec<String>) -> Result<(), AdminError>;
}

/// A target to be.
#[derive(Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {
    /// What buckets name it by: 1 to 63 letters, digits, hyphens and underscores.
    pub name: String,
    /// Where events are posted to: `https://` or `http://`.
    pub url: String,
    /// Sent as `Authorization: Bearer`, to `https://` only; never shown again. Null or absent: none is sent.
    pub bearer: Option<String>,
    /// Certificates of the authorities that vouch for the target, as PEM. Needed for `https://`.
    pub ca_pem: Option<String>,
}

impl std::fmt::Debug for WebhookSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSpec")
            .field("name", &self.name)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// A target, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookStatus {
    /// Its name.
    pub name: String,
    /// By which buckets name it in their notification configurations.
    pub arn: String,
    /// Where events are posted to.
    pub url: String,
    /// Whether a secret is sent along.
    pub has_secret: bool,
}

/// Targets of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookList {
    /// By name.
    webhooks: Vec<WebhookStatus>,
}

/// What the cluster lets events do, and what the node that answers knows of those that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventStatus {
    /// Every node's program knows of events; until then buckets cannot ask for them.
    pub enabled: bool,
    /// Networks that events may be sent to although such addresses are refused by themselves: the node itself, its
    /// links, metadata services.
    pub networks: Vec<String>,
    /// Events that wait, in the partitions that the node that answers leads.
    pub queued: u64,
    /// When the oldest of them happened; null when none waits.
    #[schema(required = true)]
    pub oldest_unix_ms: Option<u64>,
    /// Events of these partitions that were given up.
    pub dropped: u64,
}

/// Networks that events may be sent to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventNetworks {
    /// In CIDR notation, `127.0.0.0/8`; all of them: others are refused again.
    networks: Vec<String>,
}

pub(crate) async fn webhooks(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<WebhookList>, Problem> {
    Ok(Json(WebhookList { webhooks: state.backend.webhooks(&name).await? }))
}

pub(crate) async fn set_webhook(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
    Body(webhook): Body<WebhookSpec>,
) -> Response {
    let target = format!("{tenant}/{}", webhook.name);
    let result = if is_name(&webhook.name) {
        state.backend.set_webhook(&tenant, webhook).await
    } else {
        let what = "A webhook's name has 1 to 63 letters, digits, hyphens and underscores.".to_owned();
        Err(AdminError::Invalid { what })
    };
    done(target, result)
}

pub(crate) async fn remove_webhook(
    State(state): State<AppState>,
    Path((tenant, webhook)): Path<(String, String)>,
) -> Response {
    let result = state.backend.remove_webhook(&tenant, &webhook).await;
    done(format!("{tenant}/{webhook}"), result)
}

pub(crate) async fn show(State(state): State<AppState>) -> Result<Json<EventStatus>, Problem> {
    Ok(Json(state.backend.events().await?))
}

pub(crate) async fn set_networks(
    State(state): State<AppState>,
    Body(EventNetworks { networks }): Body<EventNetworks>,
) -> Response {
    let target = networks.join(" ");
    let result = state.backend.set_event_networks(networks).await;
    done(target, result)
}

fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn done(target: String, result: Result<(), AdminError>) -> Response {
    let answer = result.map(|()| StatusCode::NO_CONTENT).map_err(Problem::from);
    (Extension(Note { user: None, target: Some(target) }), answer).into_response()
}
