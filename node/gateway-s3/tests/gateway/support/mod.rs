//! A real gateway on loopback over TLS, and a client that signs its requests by hand.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod client;
pub mod memory;

use std::{net::SocketAddr, sync::Arc};

use holdfast_access::policy::Policy;
use holdfast_gateway_s3::{Observer, RequestRecord, S3Gateway};
use holdfast_model::config::{NewBuckets, S3Settings};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use self::{client::Client, memory::MemoryGateway};

pub const KEY: &str = "AKIATEST";
pub const SECRET: &str = "secret/with+odd=characters";
pub const OTHER_KEY: &str = "AKIAOTHER";
pub const OTHER_SECRET: &str = "another";
pub const DOMAIN: &str = "s3.example.test";

/// Remembers what it was told.
#[derive(Default)]
pub struct Records(pub Mutex<Vec<RequestRecord>>);

impl Observer for Records {
    fn request(&self, record: &RequestRecord) {
        self.0.lock().push(record.clone());
    }
}

/// A running gateway.
pub struct Server {
    pub address: SocketAddr,
    pub objects: Arc<MemoryGateway>,
    pub records: Arc<Records>,
    pub trust: Arc<ClientConfig>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(NewBuckets::default()).await
    }

    pub async fn start_with(new_buckets: NewBuckets) -> Self {
        Self::start_as(&S3Settings { new_buckets, ..S3Settings::default() }).await
    }

    pub async fn start_as(settings: &S3Settings) -> Self {
        let below = [format!("*.{DOMAIN}"), format!("*.website.{DOMAIN}")];
        let names =
            ["localhost".to_owned(), DOMAIN.to_owned(), "127.0.0.1".to_owned()].into_iter().chain(below);
        let made = rcgen::generate_simple_self_signed(names.collect::<Vec<_>>()).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key);
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let trust = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();

        let objects = MemoryGateway::new(&[(KEY, SECRET), (OTHER_KEY, OTHER_SECRET)]);
        let records = Arc::new(Records::default());
        let gateway = S3Gateway::new(
            objects.clone(),
            objects.identities.clone(),
            vec![DOMAIN.to_owned()],
            settings,
            records.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            // A dropped sender stops the server as well.
            let _ = stopped.await;
        };
        let task =
            tokio::spawn(gateway.serve(listener, Arc::new(tls.expect("a TLS configuration")), shutdown));
        Self { address, objects, records, trust: Arc::new(trust), stop: Some(stop), task }
    }

    /// A client with the first tenant's key.
    pub fn client(&self) -> Client {
        Client::new(self.address, self.trust.clone(), KEY, SECRET)
    }

    /// Events of the first tenant that wait for a target.
    pub fn events(&self, target: &str) -> Vec<holdfast_object::events::Event> {
        self.objects.events(target)
    }

    /// Bounds a key.
    pub fn bound(&self, key: &str, expires: Option<u64>, policy: Option<&str>) {
        let policy = policy.map(|text| Policy::parse(text.as_bytes()).expect("a policy"));
        self.objects.identities.bound(key, expires, policy);
    }

    /// Whether an object of the first tenant is there.
    pub fn holds(&self, bucket: &str, key: &str) -> bool {
        self.objects.holds(bucket, key)
    }

    pub async fn stop(mut self) {
        self.end().await;
    }

    /// Stops serving; what is stored can still be looked at.
    pub async fn end(&mut self) {
        drop(self.stop.take());
        (&mut self.task).await.expect("the server ends well");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
