//! Buckets ask to be told, and are told of everything at least once: while the receiver is away, while nodes are killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    dev::{DevCluster, DevSpec},
    s3::{Call, Client, first},
    tree::noise,
};
use holdfast_model::ByteCount;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

use crate::support::{BUCKET, assert_refused};

const WEBHOOKS: &str = "/api/v1/tenants/demo/webhooks";
const EVENTS: &str = "/api/v1/cluster/events";
const ARN: &str = "arn:holdfast:sqs::hook:webhook";
const LIMIT: Duration = Duration::from_secs(120);
const PART: usize = 5 << 20;

/// What was received, in the order in which it came.
#[derive(Clone, Default)]
struct Inbox {
    messages: Arc<Mutex<Vec<Value>>>,
    /// Answers 503, having read everything.
    refuses: Arc<AtomicBool>,
    /// Answers 400 to events of keys with `poison` in them.
    picky: Arc<AtomicBool>,
}

/// One record, as far as it is compared.
type Told = (String, String);

impl Inbox {
    async fn listen(&self, address: SocketAddr) -> Result<(SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind(address).await?;
        let (address, inbox) = (listener.local_addr()?, self.clone());
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(inbox.clone().serve(stream));
            }
        };
        Ok((address, tokio::spawn(accept)))
    }

    async fn serve(self, mut stream: TcpStream) -> Result<()> {
        let mut text = Vec::new();
        let body = loop {
            let mut buffer = [0; 8192];
            let read = stream.read(&mut buffer).await?;
            ensure!(read > 0, "ended early");
            text.extend_from_slice(&buffer[..read]);
            let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let body = &text[end + 4..];
            if body.len() >= length.unwrap_or(0) {
                break serde_json::from_slice(body)?;
            }
        };
        let body: Value = body;
        let key = body["Records"][0]["s3"]["object"]["key"].as_str().unwrap_or_default();
        let status = if self.refuses.load(Ordering::Relaxed) {
            "503 Service Unavailable"
        } else if self.picky.load(Ordering::Relaxed) && key.contains("poison") {
            "400 Bad Request"
        } else {
            self.messages.lock().push(body);
            "200 OK"
        };
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await?;
        Ok(())
    }

    fn records(&self) -> Vec<Value> {
        let messages = self.messages.lock();
        messages.iter().filter_map(|message| message["Records"].as_array()).flatten().cloned().collect()
    }

    fn tests(&self) -> usize {
        self.messages.lock().iter().filter(|message| message["Event"] == "s3:TestEvent").count()
    }

    /// Names of events and keys, each once, in the order of their sequencers.
    fn told(&self) -> Vec<Told> {
        let of = |record: &Value| {
            let object = &record["s3"]["object"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&object["sequencer"]), (text(&record["eventName"]), text(&object["key"])))
        };
        let sorted: BTreeMap<String, Told> = self.records().iter().map(of).collect();
        sorted.into_values().collect()
    }

    async fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !holds(self) {
            ensure!(begun.elapsed() < LIMIT, "{what}: {:?}", self.told());
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn configuration(arn: &str) -> String {
    format!(
        "<NotificationConfiguration><QueueConfiguration><Id>rule</Id><Queue>{arn}</Queue>\
         <Event>s3:ObjectCreated:*</Event><Event>s3:ObjectRemoved:*</Event><Event>s3:ObjectTagging:*</Event>\
         <Filter><S3Key><FilterRule><Name>prefix</Name><Value>in/</Value></FilterRule></S3Key></Filter>\
         </QueueConfiguration></NotificationConfiguration>"
    )
}

fn notification() -> Call {
    Call::new(Method::PUT, BUCKET, "").query("notification", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_in_a_bucket_is_told_at_least_once() -> Result<()> {
    let mut spec = DevSpec::for_test("events", 3, 4)?;
    spec.drive_size = ByteCount::mib(512);
    let mut cluster = DevCluster::create(&spec, &|_| {}).await?;
    let client = cluster.s3(0)?;
    client.create_bucket(BUCKET).await?;
    let versioned = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    client.expect(Call::new(Method::PUT, BUCKET, "").query("versioning", ""), versioned).await?;

    let inbox = Inbox::default();
    let (address, mut receiver) = inbox.listen("127.0.0.1:0".parse()?).await?;
    let admin = cluster.file().admin(0).await?;
    admin.define_hook(&format!("http://{address}/hook")).await?;
    let shown = admin.get(WEBHOOKS).await?;
    ensure!(shown["webhooks"][0]["arn"] == ARN, "{shown}");

    wait_for_target(&client).await?;
    let other = configuration("arn:holdfast:sqs::other:webhook");
    assert_refused(&client.send(notification(), other).await?, 400, "InvalidArgument");
    // This machine is not sent to until the cluster's settings say so; then nothing that was queued is lost.
    client.put(BUCKET, "in/early", "early").await?;
    sleep(Duration::from_secs(3)).await;
    ensure!(inbox.messages.lock().is_empty(), "{:?}", inbox.told());
    admin.post(EVENTS, &json!({ "networks": ["127.0.0.0/8"] })).await?;
    inbox.wait("the first event", |inbox| inbox.told().len() == 1).await?;
    ensure!(inbox.tests() >= 1, "no test event");

    everything_is_told_as_what_it_was(&client, &inbox).await?;
    receiver.abort();
    // A receiver that is away, and a leader that is killed while it is.
    let mut expected: BTreeSet<String> = BTreeSet::new();
    expected.extend(put_some(&client, "away", 50).await?);
    let leader = leader(&cluster).await?;
    let left = ["n1", "n2", "n3"].iter().position(|name| *name != leader).context("no other node")?;
    cluster.kill(&leader)?;
    let survivor = cluster.s3(left)?.patient(LIMIT);
    expected.extend(put_some(&survivor, "killed", 50).await?);
    (_, receiver) = inbox.listen(address).await?;
    cluster.start(&leader).await?;
    let all_told = |inbox: &Inbox, expected: &BTreeSet<String>| {
        let told: BTreeSet<String> = inbox.told().into_iter().map(|(_, key)| key).collect();
        expected.is_subset(&told)
    };
    inbox.wait("events of the time without a receiver", |inbox| all_told(inbox, &expected)).await?;
    // One that does not take a certain event gets all others at once, and that one when it does.
    inbox.picky.store(true, Ordering::Relaxed);
    expected.extend(put_some(&survivor, "beside", 30).await?);
    let poison = put_some(&survivor, "poison", 3).await?;
    expected.extend(put_some(&survivor, "behind", 30).await?);
    inbox.wait("events beside one that is not taken", |inbox| all_told(inbox, &expected)).await?;
    ensure!(!inbox.told().iter().any(|(_, key)| key.contains("poison")), "taken though it was refused");
    inbox.picky.store(false, Ordering::Relaxed);
    expected.extend(poison);
    inbox.wait("the event that was not taken", |inbox| all_told(inbox, &expected)).await?;
    // One that answers that it cannot, and a leader that is killed between sending and settling.
    inbox.refuses.store(true, Ordering::Relaxed);
    expected.extend(put_some(&survivor, "refused", 50).await?);
    inbox.refuses.store(false, Ordering::Relaxed);
    let writing = tokio::spawn({
        let client = survivor.clone();
        async move { put_some(&client, "during", 150).await }
    });
    sleep(Duration::from_millis(500)).await;
    let leader = self::leader(&cluster).await?;
    if leader != format!("n{}", left + 1) {
        cluster.kill(&leader)?;
    }
    expected.extend(writing.await??);
    if leader != format!("n{}", left + 1) {
        cluster.start(&leader).await?;
    }
    inbox.wait("events of the time of a kill", |inbox| all_told(inbox, &expected)).await?;
    overwrites_are_told_in_order(&survivor, &inbox).await?;
    let (events, told) = (inbox.records().len(), inbox.told().len());
    println!("{told} events, {} told more than once", events - told);

    // Nobody asks any more.
    survivor.expect(notification(), "<NotificationConfiguration/>").await?;
    survivor.put(BUCKET, "in/late", "late").await?;
    sleep(Duration::from_secs(3)).await;
    ensure!(!inbox.told().iter().any(|(_, key)| key == "in/late"), "told though nobody asked");
    wait_empty(&cluster).await?;
    receiver.abort();
    Ok(())
}

/// The node that was asked to define a target knows it at once, others a moment later.
async fn wait_for_target(client: &Client) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = client.send(notification(), configuration(ARN)).await?;
        if answer.status == StatusCode::OK {
            break;
        }
        ensure!(begun.elapsed() < LIMIT, "{answer:?}");
        sleep(Duration::from_millis(200)).await;
    }
    let read = client.expect(Call::new(Method::GET, BUCKET, "").query("notification", ""), "").await?;
    let text = String::from_utf8_lossy(&read.body).into_owned();
    ensure!(
        first(&text, "Queue").as_deref() == Some(ARN) && first(&text, "Value").as_deref() == Some("in/"),
        "{text}"
    );
    Ok(())
}

async fn everything_is_told_as_what_it_was(client: &Client, inbox: &Inbox) -> Result<()> {
    let key = "in/a b.txt";
    client.put(BUCKET, key, "content").await?;
    client.put(BUCKET, "out/x", "content").await?;
    let copy =
        Call::new(Method::PUT, BUCKET, "in/copy").header("x-amz-copy-source", format!("/{BUCKET}/out/x"));
    client.expect(copy, "").await?;
    let begun = client.expect(Call::new(Method::POST, BUCKET, "in/parts").query("uploads", ""), "").await?;
    let upload = first(&String::from_utf8_lossy(&begun.body), "UploadId").context("no upload")?;
    let mut parts = String::new();
    for number in 1..=2 {
        let call =
            Call::new(Method::PUT, BUCKET, "in/parts").query("partNumber", number).query("uploadId", &upload);
        let answer = client.expect(call, noise(number, PART)).await?;
        let etag = answer.headers["etag"].to_str()?.to_owned();
        parts += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    let complete = Call::new(Method::POST, BUCKET, "in/parts").query("uploadId", &upload);
    let text = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    client.expect(complete, text).await?;
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    client.expect(Call::new(Method::PUT, BUCKET, "in/copy").query("tagging", ""), tags).await?;
    let marked = client.expect(Call::new(Method::DELETE, BUCKET, "in/copy"), "").await?;
    let marker = marked.headers["x-amz-version-id"].to_str()?.to_owned();
    client.expect(Call::new(Method::DELETE, BUCKET, "in/copy").query("versionId", &marker), "").await?;
    let expected: Vec<Told> = [
        ("ObjectCreated:Put", "in/early"),
        ("ObjectCreated:Put", "in/a+b.txt"),
        ("ObjectCreated:Copy", "in/copy"),
        ("ObjectCreated:CompleteMultipartUpload", "in/parts"),
        ("ObjectTagging:Put", "in/copy"),
        ("ObjectRemoved:DeleteMarkerCreated", "in/copy"),
        ("ObjectRemoved:Delete", "in/copy"),
    ]
    .map(|(name, key)| (name.to_owned(), key.to_owned()))
    .to_vec();
    inbox.wait("events of every kind", |inbox| inbox.told().len() >= expected.len()).await?;
    ensure!(inbox.told() == expected, "{:?}", inbox.told());
    let records = inbox.records();
    let put =
        records.iter().find(|record| record["s3"]["object"]["key"] == "in/a+b.txt").context("no put")?;
    let object = &put["s3"]["object"];
    ensure!(object["size"] == 7 && object["eTag"].is_string() && object["versionId"].is_string(), "{put}");
    ensure!(put["requestParameters"]["sourceIPAddress"] == "127.0.0.1", "{put}");
    ensure!(put["responseElements"]["x-amz-request-id"].as_str().is_some_and(|id| !id.is_empty()), "{put}");
    let principal = put["userIdentity"]["principalId"].as_str().unwrap_or_default();
    ensure!(principal.starts_with("AWS:") && principal.len() > 4, "{put}");
    ensure!(put["s3"]["configurationId"] == "rule" && put["s3"]["bucket"]["name"] == BUCKET, "{put}");
    let removed = records.iter().find(|record| record["eventName"] == "ObjectRemoved:DeleteMarkerCreated");
    ensure!(removed.context("no marker")?["s3"]["object"]["versionId"] == *marker, "{removed:?}");
    Ok(())
}

async fn put_some(client: &Client, name: &str, count: u64) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for n in 0..count {
        let key = format!("in/{name}-{n}");
        client.put(BUCKET, &key, noise(n, 300)).await?;
        keys.push(key);
    }
    Ok(keys)
}

/// Whatever order they come in, sequencers give the order in which one key was written.
async fn overwrites_are_told_in_order(client: &Client, inbox: &Inbox) -> Result<()> {
    const WRITES: usize = 20;
    let mut etags = Vec::new();
    for n in 0..WRITES {
        etags
            .push(client.put(BUCKET, "in/again", format!("content {n}")).await?.trim_matches('"').to_owned());
    }
    let of_key = |inbox: &Inbox| {
        let records = inbox.records();
        let objects =
            records.iter().map(|record| &record["s3"]["object"]).filter(|object| object["key"] == "in/again");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        objects.map(|object| (text(&object["sequencer"]), text(&object["eTag"]))).collect::<BTreeMap<_, _>>()
    };
    inbox.wait("overwrites", |inbox| of_key(inbox).len() >= WRITES).await?;
    let told: Vec<String> = of_key(inbox).into_values().collect();
    ensure!(told == etags, "{told:?} instead of {etags:?}");
    Ok(())
}

/// The node that leads the group of the tenant's partition.
async fn leader(cluster: &DevCluster) -> Result<String> {
    let begun = Instant::now();
    loop {
        for node in 0..3 {
            let Ok(admin) = cluster.file().admin(node).await else { continue };
            if let Ok(found) = admin.get("/api/v1/tenants/demo/partitions").await
                && let Some(leader) = found["partitions"][0]["leader"].as_str()
            {
                return Ok(leader.to_owned());
            }
        }
        ensure!(begun.elapsed() < LIMIT, "no leader");
        sleep(Duration::from_millis(200)).await;
    }
}

/// What was told does not wait any more, and nothing was given up.
async fn wait_empty(cluster: &DevCluster) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut queued = 0;
        for node in 0..3 {
            let status = cluster.file().admin(node).await?.get(EVENTS).await?;
            ensure!(status["dropped"] == 0, "{status}");
            queued += status["queued"].as_u64().context("no figure")?;
        }
        if queued == 0 {
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "{queued} events wait");
        sleep(Duration::from_millis(200)).await;
    }
}
