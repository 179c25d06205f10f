//! The S3 protocol over TLS, served from the object layer.
//!
//! A request passes, in this order: the connection's bounds ([`limits`], `server`), the head read once
//! (`front`, `sigv4`, `target`, [`operations`]), the protocol library's signature check, the gate (`gate`,
//! `headers`, `normal`), the library's parsing, a handler (`ops`) and the object layer. Content passes beside
//! it, verified as it streams ([`intake`]). Errors become AWS's documents in one place (`errors`, `answer`).
//!
//! What is not served is refused, never ignored: operations, parameters and headers outside the tables get
//! `NotImplemented`. Left out on purpose: everything that decides (conditions, placement, durability) is the
//! object layer's; this crate holds no state beyond a request.

mod actions;
mod answer;
mod authorize;
mod browser;
mod call;
mod conditions;
mod errors;
mod forms;
mod front;
mod gate;
mod headers;
pub mod identities;
pub mod intake;
mod inventory;
mod lent;
pub mod limits;
mod lists;
mod logs;
mod normal;
pub mod observer;
pub mod operations;
mod ops;
mod query_api;
mod server;
mod service;
pub mod sigv4;
mod sse;
pub mod target;
mod throttle;
mod watch;
mod website;

use std::{future::Future, sync::Arc, time::Duration};

use futures::FutureExt;
use holdfast_model::config::S3Settings;
use holdfast_object::api::ObjectGateway;
use rustls::ServerConfig;
use s3s::{
    config::{S3Config, StaticConfigProvider},
    service::S3ServiceBuilder,
};
use tokio::{net::TcpListener, sync::oneshot};

pub use crate::{
    errors::Refusal,
    observer::{Cut, InventoryFate, Limit, LogFate, Observer, RequestRecord},
};
use crate::{
    front::Front,
    identities::Identities,
    inventory::Clerk,
    logs::{Book, Courier},
    target::Domains,
    throttle::Throttle,
};

/// The first pass only verifies signatures.
struct NoOperations;

impl s3s::S3 for NoOperations {}

/// The gateway of one node.
#[derive(Clone)]
pub struct S3Gateway {
    front: Arc<Front>,
    courier: Arc<Courier>,
    clerk: Arc<Clerk>,
    observer: Arc<dyn Observer>,
}

impl std::fmt::Debug for S3Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("S3Gateway")
    }
}

impl S3Gateway {
    /// `domains` are those below which `bucket.DOMAIN` names a bucket, and `bucket.website.DOMAIN` its website; any
    /// other host is path style.
    #[must_use]
    pub fn new(
        objects: Arc<dyn ObjectGateway>,
        identities: Arc<dyn Identities>,
        domains: Vec<String>,
        settings: &S3Settings,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let domains = Domains::new(domains);
        let mut config = S3Config::default();
        // The intake refuses what is longer, and says so better.
        config.xml_max_body_size = limits::XML_BODY_SIZE_MAX;
        config.presigned_url_max_skew_time_secs =
            u32::try_from(limits::CLOCK_SKEW_MAX.as_secs()).unwrap_or(u32::MAX);
        config.normalize_forward_slash_path = false;
        // Forms are refused before they reach the library; should one, it is not gathered in memory.
        config.post_object_max_file_size = 0;
        config.form_max_parts = 0;

        let config = Arc::new(StaticConfigProvider::new(Arc::new(config)));

        let mut second = S3ServiceBuilder::new(service::Service::new(
            Arc::clone(&objects),
            settings.new_buckets,
            !domains.is_empty(),
        ));
        second.set_auth(gate::NoSecrets);
        second.set_access(gate::Gate);
        second.set_host(domains.clone());
        second.set_config(config.clone());

        let throttle = Arc::new(Throttle::new(Arc::clone(&observer)));
        let mut first = S3ServiceBuilder::new(NoOperations);
        first.set_auth(gate::Secrets(Arc::clone(&identities)));
        let second = Arc::new(second.build());
        first.set_route(gate::Verified {
            second: Arc::clone(&second),
            objects: Arc::clone(&objects),
            identities: Arc::clone(&identities),
            throttle: Arc::clone(&throttle),
        });
        first.set_host(domains.clone());
        first.set_config(config);
        let library = (first.build(), second);
        let day = Duration::from_secs(settings.day_seconds);
        let book = Arc::new(Book::new(day / logs::DELIVERIES_A_DAY, Arc::clone(&observer)));
        let courier = Courier {
            book: Arc::clone(&book),
            objects: Arc::clone(&objects),
            identities: Arc::clone(&identities),
        };
        let clerk = Clerk {
            objects: Arc::clone(&objects),
            identities: Arc::clone(&identities),
            observer: Arc::clone(&observer),
            day,
        };
        let front = Front::new(library, objects, identities, domains, Arc::clone(&observer), throttle, book);
        Self { front: Arc::new(front), courier: Arc::new(courier), clerk: Arc::new(clerk), observer }
    }

    /// Serves connections of `listener` until `shutdown` completes, then lets requests in progress end and delivers
    /// what is left of access logs.
    /// Protocols are offered by ALPN unless `tls` already chose.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let (ended, ending) = oneshot::channel::<()>();
        let serving = async {
            server::serve(self.front, self.observer, listener, tls, shutdown).await;
            drop(ended);
        };
        // Its sender is only ever dropped.
        let ended = async { drop(ending.await) }.shared();
        let delivering = self.courier.run(ended.clone());
        let counting = self.clerk.run(ended);
        tokio::join!(serving, delivering, counting);
    }
}
