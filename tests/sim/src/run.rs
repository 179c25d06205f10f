//! One run of one plan.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use holdfast_object::{
    api::{ObjectError, ObjectGateway},
    host,
    versioned::{BucketChange, VersionedObjects, Versioning},
};
use tokio::time::sleep;

use crate::{
    clients::{BUCKET, Client, Figures, Ledger},
    faults::Site,
    log::{SimLog, lead},
    panics,
    plan::Plan,
    rig::{GUEST, Rig, TENANT, founding},
    settle::{settle, settle_beyond},
    versions::VERSIONED,
    watch::watch,
    world::{SimHost, World, stream},
};

/// Before clients begin: nodes hear of each other.
const WARM: Duration = Duration::from_millis(100);

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Hash over everything that happened.
    pub hash: u64,
    /// Events in it.
    pub events: u64,
    /// Simulated time.
    pub millis: u64,
    /// What clients were told.
    pub figures: Figures,
    /// The first broken promise.
    pub violation: Option<String>,
}

/// Runs a plan on a rig. With `print`, tells everything that happens. A panic is a broken promise; the rig is given up then.
///
/// # Errors
/// When the rig or a runtime cannot be had.
pub fn run(rig: &mut Option<Rig>, plan: &Plan, print: bool) -> io::Result<Outcome> {
    panics::watch();
    let played = panic::catch_unwind(AssertUnwindSafe(|| run_once(rig, plan, print)));
    let panicked = panics::first().map(|what| format!("panic: {what}"));
    host::simulate(None);
    let mut outcome = match played {
        Ok(outcome) => outcome?,
        Err(_) => Outcome { hash: 0, events: 0, millis: 0, figures: Figures::default(), violation: None },
    };
    outcome.violation = outcome.violation.or(panicked);
    Ok(outcome)
}

fn run_once(rig: &mut Option<Rig>, plan: &Plan, print: bool) -> io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let mut taken = match rig.take() {
        Some(rig) => rig,
        None => Rig::new()?,
    };
    if taken.begin(plan.nodes).is_err() {
        taken = Rig::new()?;
        taken.begin(plan.nodes)?;
    }
    let machines = taken.machines.clone();
    let guest_key = Arc::clone(&taken.guest_key);
    let last = taken.index;
    let site = Arc::new(Site::new(plan, taken)?);
    let (outcome, last) = runtime.block_on(async {
        let log = SimLog::new(machines, (plan.nodes, plan.founders()), last, stream(plan.seed, "log", 0));
        let world = World::new(plan.clone(), log, &guest_key, print);
        host::simulate(Some(Rc::new(SimHost(Arc::clone(&world)))));
        let outcome = play(&world, &site).await;
        host::simulate(None);
        for node in 0..plan.nodes {
            crate::node::stop(&world, node);
        }
        (outcome, world.log.last())
    });
    drop(runtime);
    if let Ok(site) = Arc::try_unwrap(site) {
        let mut back = site.into_rig();
        back.index = last;
        *rig = Some(back);
    }
    Ok(outcome)
}

async fn make_buckets(tenant: &dyn VersionedObjects, keeps_versions: bool) -> Result<(), ObjectError> {
    tenant.create_bucket_with(BUCKET, false, Vec::new()).await?;
    if keeps_versions {
        tenant.create_bucket_with(VERSIONED, false, Vec::new()).await?;
        tenant.set_bucket(VERSIONED, BucketChange::Versioning(Versioning::Enabled)).await?;
    }
    Ok(())
}

async fn play(world: &Arc<World>, site: &Arc<Site>) -> Outcome {
    world.log.append(founding(world.now()));
    for node in 0..world.plan.founders() {
        world.log.catch_up(world, node, 1);
        site.start(world, node);
    }
    sleep(WARM).await;
    let (ledger, guests) = (Arc::new(Ledger::default()), Arc::new(Ledger::default()));
    if let Some(first) = world.node(0) {
        if let Err(error) =
            make_buckets(first.objects.open(TENANT).as_ref(), world.plan.keeps_versions()).await
        {
            world.trace.violation("bucket", format_args!("{error}"));
        }
        if !world.plan.guests.is_empty()
            && let Err(error) = make_buckets(first.objects.open(GUEST).as_ref(), false).await
        {
            world.trace.violation("bucket", format_args!("of the second tenant: {error}"));
        }
    }
    let leading = tokio::spawn(lead(Arc::clone(world)));
    let watching = tokio::spawn(watch(Arc::clone(world), Arc::clone(site)));
    let breaking = tokio::spawn(Arc::clone(site).break_things(Arc::clone(world)));
    let founders = world.plan.founders();
    let clients = world.plan.clients.iter().enumerate().map(|(number, asks)| {
        let client = Client::new(world, &ledger, number as u64, number % founders);
        tokio::spawn(client.run(asks.clone()))
    });
    let others = world.plan.guests.iter().enumerate().map(|(number, asks)| {
        let client = Client::guest(world, &guests, number as u64, (number + 1) % founders);
        tokio::spawn(client.run(asks.clone()))
    });
    for client in join_all(clients.chain(others).collect::<Vec<_>>()).await {
        if let Err(error) = client {
            world.trace.violation("panic", format_args!("a client: {error}"));
        }
    }
    if let Err(error) = breaking.await {
        world.trace.violation("panic", format_args!("faults: {error}"));
    }
    site.put_right(world);
    if world.plan.beyond {
        settle_beyond(world, site, &ledger).await;
    } else {
        settle(world, site, &ledger, &guests).await;
    }
    leading.abort();
    watching.abort();
    let (hash, events) = world.trace.hash();
    let figures = *ledger.figures.lock();
    Outcome { hash, events, millis: world.trace.millis(), figures, violation: world.trace.first_violation() }
}
