//! What asks a node: one function a subject, from the API's documents to tables.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    access_keys,
    arguments::{
        AuditCommand, Command, DriveCommand, EventCommand, LevelCommand, NodeCommand, ScrubCommand,
        SpareCommand, TenantCommand, WebhookCommand, WorkCommand,
    },
    client::{Client, segment},
    external_keys,
    table::{Table, bytes, show, word},
};

/// Carries a command out in a session.
///
/// # Errors
/// When the node cannot be reached or refuses.
pub async fn run(client: &Client, command: Command, json: bool) -> Result<()> {
    match command {
        Command::Status => status(client, json).await,
        Command::Drive { command } => drive(client, command, json).await,
        Command::Node { command } => node(client, command, json).await,
        Command::Work { command } => work(client, command, json).await,
        Command::Level { command } => level(client, command, json).await,
        Command::Spare { command } => spare(client, command, json).await,
        Command::Scrub { command: ScrubCommand::Start } => done(client, "/api/v1/scrub", None).await,
        Command::Audit { command: AuditCommand::Start } => done(client, "/api/v1/audit", None).await,
        Command::Audit { command: AuditCommand::Show } => audit(client, json).await,
        Command::Tenant { command: TenantCommand::List } => tenants(client, json).await,
        Command::Webhook { command } => webhook(client, command, json).await,
        Command::AccessKey { command } => access_keys::run(client, command, json).await,
        Command::ExternalKey { command } => external_keys::run(client, command, json).await,
        Command::Event { command } => event(client, command, json).await,
        Command::Login | Command::Logout => bail!("a session is begun and ended without one"),
    }
}

pub(crate) async fn done(client: &Client, path: &str, body: Option<&Value>) -> Result<()> {
    client.post(path, body).await.map(drop)
}

pub(crate) fn list<'v>(document: &'v Value, field: &str) -> Result<&'v Vec<Value>> {
    document[field]
        .as_array()
        .with_context(|| format!("the answer has no list {field:?}: is the node of another release?"))
}

async fn status(client: &Client, json: bool) -> Result<()> {
    let (cluster, work) = (client.get("/api/v1/cluster").await?, client.get("/api/v1/work").await?);
    let nodes = list(&cluster, "nodes")?;
    let (level, capacity) = (&cluster["level"], &cluster["capacity"]);
    let mut overview =
        Table::new(&["CLUSTER", "LEVEL", "ACTUAL", "SUGGESTED", "RAW", "USED", "FREE", "DEBT", "UNREADABLE"]);
    let counted = if work["complete"] == true { "" } else { " or more" };
    overview.row([
        word(&cluster["name"]),
        word(&level["requested"]),
        word(&level["actual"]),
        word(&level["suggested"]),
        bytes(&capacity["raw_bytes"]),
        bytes(&capacity["used_bytes"]),
        bytes(&capacity["free_bytes"]),
        format!("{}{counted}", work["debt_stripes"]),
        word(&work["unreadable_stripes"]),
    ]);
    show(json, &json!({ "cluster": cluster, "work": work }), &[overview, node_table(nodes)])
}

fn node_table(nodes: &[Value]) -> Table {
    let mut table = Table::new(&[
        "NODE", "STATE", "VERSION", "UPTIME", "CLOCK", "DRIVES", "NOT WELL", "DEVICES", "ADMIN",
    ]);
    for node in nodes {
        let drives = node["drives"].as_array().map_or(&[][..], Vec::as_slice);
        let unwell = drives.iter().filter(|drive| drive["state"]["kind"] != "healthy").count();
        table.row([
            word(&node["name"]),
            word(&node["state"]["kind"]),
            word(&node["version"]),
            node["uptime_seconds"].as_u64().map(duration).unwrap_or_default(),
            clock(node),
            drives.len().to_string(),
            unwell.to_string(),
            node["devices"].as_array().map_or(0, Vec::len).to_string(),
            word(&node["services"]["admin"]),
        ]);
    }
    table
}

/// By how much a node's clock is wrong, or nothing.
fn clock(node: &Value) -> String {
    let way = |ahead: i64| if ahead < 0 { "behind" } else { "ahead" };
    let off = |ahead: i64| format!("{} {}", duration(ahead.unsigned_abs() / 1000), way(ahead));
    node["clock_ahead_ms"].as_i64().map(off).unwrap_or_default()
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

async fn drive(client: &Client, command: DriveCommand, json: bool) -> Result<()> {
    let of = |drive: &str, what: &str| format!("/api/v1/drives/{}/{what}", segment(drive));
    match command {
        DriveCommand::List => drives(client, json).await,
        DriveCommand::Adopt { node, device, erase } => {
            let body = json!({ "node": node, "device": device, "erase": erase });
            done(client, "/api/v1/drives/adopt", Some(&body)).await
        }
        DriveCommand::Drain { drive } => done(client, &of(&drive, "drain"), None).await,
        DriveCommand::Keep { drive } => done(client, &of(&drive, "keep"), None).await,
        DriveCommand::Locate { node, device, minutes } => {
            let body = json!({ "node": node, "device": device, "minutes": minutes });
            done(client, "/api/v1/drives/locate", Some(&body)).await
        }
        DriveCommand::Inspect { .. } => bail!("a drive is inspected without a node"),
    }
}

async fn drives(client: &Client, json: bool) -> Result<()> {
    let document = client.get("/api/v1/drives").await?;
    let columns =
        ["NODE", "DRIVE", "SERIAL", "PATH", "STATE", "CAPACITY", "USED", "FREE", "SHARDS", "ERRORS", "WHY"];
    let mut drives = Table::new(&columns);
    for row in list(&document, "drives")? {
        let (drive, usage) = (&row["drive"], &row["drive"]["usage"]);
        drives.row([
            word(&row["node"]),
            word(&drive["id"]),
            word(&drive["serial"]),
            word(&drive["path"]),
            word(&drive["state"]["kind"]),
            bytes(&drive["capacity_bytes"]),
            bytes(&usage["used_bytes"]),
            bytes(&usage["free_bytes"]),
            word(&usage["shards"]),
            word(&usage["errors"]),
            word(&drive["reason"]),
        ]);
    }
    let mut tables = vec![drives];
    let devices = list(&document, "devices")?;
    if !devices.is_empty() {
        let mut table = Table::new(&["NODE", "SERIAL", "PATH", "SIZE", "STANDING", "WHY"]);
        for row in devices {
            let device = &row["device"];
            table.row([
                word(&row["node"]),
                word(&device["serial"]),
                word(&device["path"]),
                bytes(&device["size_bytes"]),
                word(&device["standing"]),
                word(&device["reason"]),
            ]);
        }
        tables.push(table);
    }
    show(json, &document, &tables)
}

async fn node(client: &Client, command: NodeCommand, json: bool) -> Result<()> {
    let of = |node: &str, what: &str| format!("/api/v1/nodes/{}/{what}", segment(node));
    match command {
        NodeCommand::List => {
            let document = client.get("/api/v1/nodes").await?;
            let table = node_table(list(&document, "nodes")?);
            show(json, &document, &[table])
        }
        NodeCommand::Drain { node } => done(client, &of(&node, "drain"), None).await,
        NodeCommand::Keep { node } => done(client, &of(&node, "keep"), None).await,
        NodeCommand::Remove { node, force } => {
            done(client, &of(&node, "removal"), Some(&json!({ "force": force }))).await
        }
    }
}

async fn work(client: &Client, command: WorkCommand, json: bool) -> Result<()> {
    let (kind, change) = match command {
        WorkCommand::List => return workers(client, json).await,
        WorkCommand::Pause { kind } => (kind, json!({ "paused": true })),
        WorkCommand::Resume { kind } => (kind, json!({ "paused": false })),
        WorkCommand::Impact { kind, impact } => (kind, json!({ "impact": impact.name() })),
        WorkCommand::Hours { kind, from, until } => {
            (kind, json!({ "hours": { "from": from, "until": until } }))
        }
    };
    done(client, &format!("/api/v1/work/{}", segment(&kind)), Some(&change)).await
}

async fn workers(client: &Client, json: bool) -> Result<()> {
    let document = client.get("/api/v1/work").await?;
    let mut debt = Table::new(&["DEBT", "UNREADABLE", "DRAINING", "COUNTED"]);
    debt.row([
        word(&document["debt_stripes"]),
        word(&document["unreadable_stripes"]),
        word(&document["draining_shards"]),
        if document["complete"] == true { "all" } else { "in part" }.to_owned(),
    ]);
    let mut orders = Table::new(&["KIND", "PAUSED", "IMPACT", "HOURS"]);
    for order in list(&document, "orders")? {
        let hours = &order["hours"];
        let hours = if hours.is_null() {
            "all day".to_owned()
        } else {
            format!("{} to {}", hours["from"], hours["until"])
        };
        orders.row([word(&order["kind"]), word(&order["paused"]), word(&order["impact"]), hours]);
    }
    let columns = ["NODE", "KIND", "STATE", "DONE", "LEFT", "FAILED", "RATE", "REMAINING", "TROUBLE"];
    let mut workers = Table::new(&columns);
    for worker in list(&document, "workers")? {
        let state = match (worker["working"] == true, worker["held"] == true) {
            (true, _) => "working",
            (false, true) => "held",
            (false, false) => "idle",
        };
        let rate = bytes(&worker["bytes_per_second"]);
        workers.row([
            format!("n{}", worker["node"]),
            word(&worker["kind"]),
            state.to_owned(),
            word(&worker["done"]),
            word(&worker["left"]),
            word(&worker["failed"]),
            if rate.is_empty() { rate } else { format!("{rate}/s") },
            worker["remaining_seconds"].as_u64().map(duration).unwrap_or_default(),
            word(&worker["trouble"]),
        ]);
    }
    show(json, &document, &[debt, orders, workers])
}

async fn level(client: &Client, command: LevelCommand, json: bool) -> Result<()> {
    match command {
        LevelCommand::Show { tenant: None } => {
            let document = client.get("/api/v1/cluster").await?["level"].take();
            let mut table = Table::new(&["REQUESTED", "ACTUAL", "SUGGESTED", "STRIPE"]);
            table.row([
                word(&document["requested"]),
                word(&document["actual"]),
                word(&document["suggested"]),
                stripe(&document["stripe"]),
            ]);
            show(json, &document, &[table])
        }
        LevelCommand::Show { tenant: Some(tenant) } => {
            let document = client.get(&format!("/api/v1/tenants/{}/levels", segment(&tenant))).await?;
            let mut whole =
                Table::new(&["TENANT", "OWN", "REQUESTED", "SUGGESTED", "STRIPE", "STRIPES", "TO CUT ANEW"]);
            whole.row([
                tenant,
                word(&document["own"]),
                word(&document["requested"]),
                word(&document["suggested"]),
                stripe(&document["stripe"]),
                word(&document["stripes"]),
                word(&document["pending_stripes"]),
            ]);
            let mut buckets = Table::new(&["BUCKET", "OWN", "REQUESTED", "ACTUAL", "TO CUT ANEW"]);
            for bucket in list(&document, "buckets")? {
                let fields = ["bucket", "own", "requested", "actual", "pending_stripes"];
                buckets.row(fields.map(|field| word(&bucket[field])));
            }
            show(json, &document, &[whole, buckets])
        }
        LevelCommand::Set { level, tenant, bucket } => {
            let level = Some(level).filter(|level| level != "inherit");
            let path = match (&tenant, &bucket) {
                (None, _) => "/api/v1/cluster/level".to_owned(),
                (Some(tenant), None) => format!("/api/v1/tenants/{}/level", segment(tenant)),
                (Some(tenant), Some(bucket)) => {
                    format!("/api/v1/tenants/{}/buckets/{}/level", segment(tenant), segment(bucket))
                }
            };
            done(client, &path, Some(&json!({ "level": level }))).await
        }
        LevelCommand::Table { .. } => bail!("the table is made without a node"),
    }
}

async fn spare(client: &Client, command: SpareCommand, json: bool) -> Result<()> {
    let drives = match command {
        SpareCommand::Show => {
            let document = client.get("/api/v1/cluster").await?["capacity"].take();
            let mut table = Table::new(&["DRIVES", "SET ASIDE", "FREE", "RAW"]);
            table.row([
                word(&document["spare_drives"]),
                bytes(&document["reserved_bytes"]),
                bytes(&document["free_bytes"]),
                bytes(&document["raw_bytes"]),
            ]);
            return show(json, &document, &[table]);
        }
        SpareCommand::Set { drives } => Some(drives),
        SpareCommand::Usual => None,
    };
    done(client, "/api/v1/cluster/spare", Some(&json!({ "drives": drives }))).await
}

fn stripe(shape: &Value) -> String {
    if shape.is_null() { String::new() } else { format!("{}+{}", shape["data"], shape["parity"]) }
}

async fn audit(client: &Client, json: bool) -> Result<()> {
    let document = client.get("/api/v1/audit").await?;
    let last = &document["last"];
    let mut table = Table::new(&[
        "RUNNING",
        "SHARDS",
        "STRIPES",
        "DEBT",
        "UNREADABLE",
        "LOST OBJECTS",
        "DRIVES NOT READ",
    ]);
    table.row([
        word(&document["running"]),
        word(&last["shards"]),
        word(&last["stripes"]),
        word(&last["debt_stripes"]),
        word(&last["unreadable_stripes"]),
        word(&last["lost_count"]),
        last["drives_unreadable"].as_array().map_or(0, Vec::len).to_string(),
    ]);
    let mut tables = vec![table];
    if let Some(lost) = last["lost"].as_array().filter(|lost| !lost.is_empty()) {
        let mut table = Table::new(&["TENANT", "BUCKET", "KEY"]);
        for object in lost {
            table.row(["tenant", "bucket", "key"].map(|field| word(&object[field])));
        }
        tables.push(table);
    }
    show(json, &document, &tables)
}

async fn tenants(client: &Client, json: bool) -> Result<()> {
    let document = client.get("/api/v1/tenants").await?;
    let mut table = Table::new(&["TENANT", "STATE", "LEVEL", "REGION", "ACCESS KEYS", "JOURNAL ADDRESS"]);
    for tenant in list(&document, "tenants")? {
        let keys = tenant["access_keys"].as_array().map_or(0, Vec::len);
        let level =
            if tenant["level"].is_null() { "the cluster's".to_owned() } else { word(&tenant["level"]) };
        table.row([
            word(&tenant["name"]),
            word(&tenant["state"]),
            level,
            word(&tenant["region"]),
            keys.to_string(),
            word(&tenant["journal_address"]),
        ]);
    }
    show(json, &document, &[table])
}

async fn webhook(client: &Client, command: WebhookCommand, json: bool) -> Result<()> {
    let all = |tenant: &str| format!("/api/v1/tenants/{}/webhooks", segment(tenant));
    match command {
        WebhookCommand::List { tenant } => {
            let document = client.get(&all(&tenant)).await?;
            let mut table = Table::new(&["WEBHOOK", "URL", "SECRET", "ARN"]);
            for webhook in list(&document, "webhooks")? {
                let secret = if webhook["has_secret"] == true { "yes" } else { "no" };
                let [name, url, arn] = ["name", "url", "arn"].map(|field| word(&webhook[field]));
                table.row([name, url, secret.to_owned(), arn]);
            }
            show(json, &document, &[table])
        }
        WebhookCommand::Set { tenant, name, url, bearer_file, ca_file } => {
            let read = |path: &PathBuf| {
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
            };
            let bearer = bearer_file.as_ref().map(read).transpose()?;
            let bearer = bearer.map(|text| text.lines().next().unwrap_or_default().trim().to_owned());
            let ca_pem = ca_file.as_ref().map(read).transpose()?;
            let body = json!({ "name": name, "url": url, "bearer": bearer, "ca_pem": ca_pem });
            done(client, &all(&tenant), Some(&body)).await
        }
        WebhookCommand::Remove { tenant, name } => {
            client.delete(&format!("{}/{}", all(&tenant), segment(&name))).await
        }
    }
}

async fn event(client: &Client, command: EventCommand, json: bool) -> Result<()> {
    match command {
        EventCommand::Show => {
            let document = client.get("/api/v1/cluster/events").await?;
            let mut table = Table::new(&["ENABLED", "QUEUED HERE", "DROPPED HERE", "NETWORKS"]);
            let networks: Vec<String> = list(&document, "networks")?.iter().map(word).collect();
            table.row([
                word(&document["enabled"]),
                word(&document["queued"]),
                word(&document["dropped"]),
                networks.join(" "),
            ]);
            show(json, &document, &[table])
        }
        EventCommand::Networks { networks } => {
            done(client, "/api/v1/cluster/events", Some(&json!({ "networks": networks }))).await
        }
    }
}
