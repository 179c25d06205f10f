//! Objects, and everything that looks after them and their keys while nobody asks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use holdfast_catalog::CatalogReader;
use holdfast_consensus::Consensus;
use holdfast_events::WebhookSender;
use holdfast_model::GroupId;
use holdfast_object::{Directory, ObjectService, StripeIo, journal::JournalParts, workers};
use holdfast_store::{Counters, Findings};
use parking_lot::Mutex;

use super::{base::Base, links::Links, replicas::Replicas, storage::Storage};
use crate::{
    drains,
    external_keys::ExternalKeys,
    founding::REGION,
    identities::NodeIdentities,
    keys::{KeySteward, Retirement, Shredder},
    leaders::Leaders,
    membership::Steward,
    second_copy::{self, LiveKeys},
    splits::Splitter,
    tenants,
};

/// See the module.
pub struct Objects {
    /// What gateways ask.
    pub objects: Arc<ObjectService>,
    /// Who may ask.
    pub identities: Arc<NodeIdentities>,
    /// Keys of tenants' own.
    pub external_keys: Arc<ExternalKeys>,
    /// Looks after roots and shares.
    pub key_steward: Arc<KeySteward>,
    /// What stripes did.
    pub counters: Arc<Counters>,
}

impl Objects {
    /// Starts it all.
    pub async fn serve(
        base: &mut Base,
        links: &Links,
        replicas: &Replicas,
        storage: &Storage,
        catalogs: HashMap<GroupId, CatalogReader>,
    ) -> Self {
        let (control, health) = (&replicas.control, &replicas.health);
        let counters = Arc::new(Counters::default());
        let (findings, found) = Findings::channel();
        let stripes = StripeIo {
            shards: Arc::clone(&storage.shards),
            health: Arc::clone(health),
            write_pool: base.pools.write.clone(),
            read_memory: storage.read_memory.clone(),
            counters: Arc::clone(&counters),
            findings,
            uses_spare: false,
        };
        let directory = Arc::new(Directory::new(base.cluster(), REGION.to_owned()));
        let identities = Arc::new(NodeIdentities::new(control.clone(), Arc::clone(&base.keyring)));
        base.tasks.spawn(tenants::follow(
            control.clone(),
            Arc::clone(&base.keyring),
            Arc::clone(&directory),
            Arc::clone(health),
            Arc::clone(&identities),
            Arc::clone(&replicas.metadata_keys),
            base.stop.clone(),
        ));
        let external_keys = ExternalKeys::new(Arc::clone(&base.keyring), control.clone());
        base.tasks.spawn(Arc::clone(&external_keys).run(base.stop.clone()));
        start_second_copy(base, replicas, storage, &directory).await;
        links.service.serve_journal(Arc::clone(&replicas.journal));
        let day = Duration::from_secs(base.config.s3.day_seconds);
        let consensus = Arc::<Consensus>::clone(&replicas.consensus);
        let objects = ObjectService::new(directory, consensus, catalogs.clone(), stripes)
            .with_day(day)
            .with_event_sender(Arc::new(WebhookSender::default()));
        let objects = Arc::new(objects);
        links.service.serve_objects(Arc::clone(&objects));
        base.tasks.spawn(workers::run(Arc::clone(&objects), base.own(), found, base.stop.clone()));
        look_after_cluster(base, links, replicas, &objects);
        let key_steward = look_after_keys(base, links, replicas, catalogs);
        Self { objects, identities, external_keys, key_steward, counters }
    }
}

/// Begins to write the second copy of what groups hold.
async fn start_second_copy(base: &Base, replicas: &Replicas, storage: &Storage, directory: &Arc<Directory>) {
    let (levels, members) = (Arc::clone(directory), Arc::clone(&replicas.health));
    let copies = move || second_copy::copies(&levels, members.members().unwrap_or(1));
    let (keyring, directory) = (Arc::clone(&base.keyring), Arc::clone(directory));
    replicas
        .journal
        .start(JournalParts {
            shards: Arc::clone(&storage.shards),
            health: Arc::clone(&replicas.health),
            pool: base.pools.journal.clone(),
            consensus: Arc::clone(&replicas.consensus),
            keys: Arc::new(LiveKeys { keyring, directory }),
            copies: Arc::new(copies),
            scratch: base.config.state_dir.join("second-copy"),
        })
        .await;
}

/// Drains, splits, members and leaders.
fn look_after_cluster(base: &mut Base, links: &Links, replicas: &Replicas, objects: &Arc<ObjectService>) {
    let (own, control) = (base.own(), &replicas.control);
    base.tasks.spawn(drains::run(
        control.clone(),
        Arc::clone(&replicas.consensus),
        Arc::clone(objects),
        Arc::clone(&replicas.health),
        own,
        base.stop.clone(),
    ));
    let splitter = Splitter {
        control: control.clone(),
        consensus: Arc::clone(&replicas.consensus),
        objects: Arc::clone(objects),
        own,
    };
    base.tasks.spawn(splitter.run(base.stop.clone()));
    let steward = Steward {
        control: control.clone(),
        consensus: Arc::clone(&replicas.consensus),
        health: Arc::clone(&replicas.health),
        ward: Arc::clone(&replicas.ward),
        peers: links.peers.clone(),
        own,
        leaving: Mutex::default(),
    };
    base.tasks.spawn(steward.run(base.stop.clone()));
    let leaders = Leaders {
        control: control.clone(),
        consensus: Arc::clone(&replicas.consensus),
        health: Arc::clone(&replicas.health),
        ward: Arc::clone(&replicas.ward),
        own,
    };
    base.tasks.spawn(leaders.run(base.stop.clone()));
}

/// Roots, shares, and keys that are to be destroyed.
fn look_after_keys(
    base: &mut Base,
    links: &Links,
    replicas: &Replicas,
    catalogs: HashMap<GroupId, CatalogReader>,
) -> Arc<KeySteward> {
    let (control, watch, journal) = (&replicas.control, &replicas.watch, &replicas.journal);
    let retirement =
        Retirement { control: control.clone(), watch: watch.clone(), journal: Arc::clone(journal) };
    let steward = Arc::new(KeySteward {
        control: control.clone(),
        consensus: Arc::clone(&replicas.consensus),
        health: Arc::clone(&replicas.health),
        watch: watch.clone(),
        peers: links.peers.clone(),
        holder: Arc::clone(&base.holder),
        retirement,
        own: base.own(),
    });
    base.tasks.spawn(Arc::clone(&steward).run(base.stop.clone()));
    let shredder = Shredder {
        steward: Arc::clone(&steward),
        journal: Arc::clone(journal),
        catalogs,
        metadata_keys: Arc::clone(&replicas.metadata_keys),
        renewals: Mutex::default(),
    };
    base.tasks.spawn(shredder.run(base.stop.clone()));
    steward
}
