//! The end of a run: faults are off, and everything has to become as it was promised.

use std::{sync::Arc, time::Duration};

use holdfast_blackbox::linear::{self, Verdict};
use holdfast_model::ByteCount;
use holdfast_object::{
    api::ObjectGateway,
    versioned::{ListedVersion, Usage, VersionListQuery},
    workers::Kind,
};
use holdfast_store::READ_TIMEOUT;
use tokio::time::sleep;

use crate::{
    audit::{Audit, audit, catalog, index_by_drive, live},
    bodies::CANARY,
    clients::{BUCKET, Client, Ledger, name},
    faults::Site,
    keys::KeyState,
    plan::{Ask, Fault, KEYS, VERSIONED_KEYS, Versioned},
    rig::TENANT,
    versions::VERSIONED,
    world::World,
};

/// Nodes hear of each other, links are made, elections end.
const CALM: Duration = Duration::from_secs(14);

/// Debt has to be zero after so long: a drive's grace, the work, and counting again.
const DEBT_MAX: Duration = Duration::from_secs(240);

/// What is placed on a drive that is gone is counted after so long at most.
const RECOUNTED: Duration = Duration::from_secs(9);

/// Between two looks.
const LOOK: Duration = Duration::from_secs(3);

/// A scrub and what it has repaired take so long at most.
const SCRUB_MAX: Duration = Duration::from_secs(200);

/// What may have been left by a write that was given up is swept after so long.
const DAY: Duration = Duration::from_secs(25 * 3600);

/// What writes that were refused have left is condemned and swept after so long.
const SOON: Duration = Duration::from_secs(120);

/// Orphans are looked for so often.
const ORPHANS: Duration = Duration::from_secs(3700);

/// After this garbage is gone, and what was found to be garbage then as well.
const GARBAGE: Duration = Duration::from_secs(120);

/// Findings shown.
const SHOWN: usize = 3;

/// Versions listed at once.
const LISTED_MAX: usize = 1000;

/// Bytes of a disk searched at once.
const PIECE: ByteCount = ByteCount::kib(4);

const _: () = assert!(CALM.as_secs() > READ_TIMEOUT.as_secs());

/// Judges a run whose cluster must be whole again.
pub async fn settle(world: &Arc<World>, site: &Arc<Site>, ledger: &Arc<Ledger>, guests: &Arc<Ledger>) {
    sleep(CALM).await;
    site.finish_leaving(world, DEBT_MAX).await;
    debt_ends(world).await;
    let Some(found) = scrub(world).await else { return };
    let shown = |all: &[String]| all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if !found.bad.is_empty() {
        world
            .trace
            .violation("auditor", format_args!("{} bad shards: {}", found.bad.len(), shown(&found.bad)));
    }
    if !found.misplaced.is_empty() {
        world.trace.violation("placement", format_args!("{}", shown(&found.misplaced)));
    }
    read_all(world, ledger).await;
    write_anew(world, ledger).await;
    nothing_lies_on_what_left(world, site);
    abort_uploads(world, ledger).await;
    count_usage(world).await;
    ask_as_guest(world, guests).await;
    judge_histories(world, ledger);
    judge_histories(world, guests);
    compare_replicas(world);
    let wrong = index_by_drive(world, site);
    if !wrong.is_empty() {
        world.trace.violation("index", format_args!("by drive: {}", shown(&wrong)));
    }
    if world.plan.tidy {
        site.write_off(world);
        sleep(SOON).await;
        nothing_is_left(world, "two minutes").await;
    }
    if world.plan.day_later {
        a_day_later(world, site).await;
    }
    look_for_canaries(world, site);
}

/// Judges a run of which more was broken than the level survives: nothing wrong is given, and what is lost is told.
pub async fn settle_beyond(world: &Arc<World>, site: &Arc<Site>, ledger: &Arc<Ledger>) {
    sleep(CALM + Duration::from_secs(60)).await;
    drop(scrub(world).await);
    let Some(node) = (0..world.plan.nodes).find_map(|node| world.node(node)) else { return };
    // Nothing moves while it is counted.
    let Some(before) = audit(world).await else { return };
    node.objects.start_audit();
    for _ in 0..100 {
        sleep(LOOK).await;
        if !node.objects.audit_status().0 {
            break;
        }
    }
    let Some(after) = audit(world).await else { return };
    read_all(world, ledger).await;
    judge_histories(world, ledger);
    compare_replicas(world);
    look_for_canaries(world, site);
    let (_, report) = node.objects.audit_status();
    let sorted = |audit: &Audit| {
        let mut lost = audit.lost.clone();
        lost.sort();
        lost.dedup();
        lost
    };
    let Some(report) = report.filter(|_| sorted(&before) == sorted(&after)) else { return };
    let mut told: Vec<String> = report.lost.iter().map(|lost| lost.key.clone()).collect();
    told.sort();
    told.dedup();
    // Rot that was not met yet is no part of a report; what is told lost must be.
    if told.iter().any(|key| !sorted(&after).contains(key)) {
        world.trace.violation("report", format_args!("told lost: {told:?}; are: {:?}", sorted(&after)));
    }
    let gone = after.lost.len() as u64;
    if report.unreadable_stripes > gone {
        world.trace.violation(
            "report",
            format_args!("{} stripes told unreadable, {gone} are", report.unreadable_stripes),
        );
    }
}

/// Debt is told to be zero, and is. What a client was not told of and is decided after a count is part of the next one.
async fn debt_ends(world: &Arc<World>) {
    let mut waited = Duration::ZERO;
    loop {
        let zero = told_zero(world, &mut waited).await;
        let Some(found) = audit(world).await else { return };
        world
            .trace
            .note(format_args!("debt after {waited:?}: {} stripes, {} absent", found.stripes, found.absent));
        if !zero {
            let trouble: Vec<String> = (0..world.plan.nodes)
                .filter_map(|node| world.node(node))
                .flat_map(|node| node.objects.workers().workers())
                .filter_map(|worker| worker.trouble)
                .collect();
            return world.trace.violation("debt", format_args!("not zero after {waited:?}; {trouble:?}"));
        }
        if found.absent == 0 {
            return;
        }
        let delayed = world.plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::Delay { .. }));
        let late = delayed || world.log.decided_late(RECOUNTED);
        let patience = if late { RECOUNTED } else { Duration::ZERO };
        for _ in 0..patience.as_secs() / LOOK.as_secs() {
            if !is_told_zero(world) {
                break;
            }
            sleep(LOOK).await;
            waited += LOOK;
        }
        // Counted meanwhile: that is waited for.
        if !is_told_zero(world) {
            continue;
        }
        let Some(found) = audit(world).await else { return };
        if is_told_zero(world) && found.absent > 0 {
            let what = format_args!("debt is told to be zero, {} stripes have some", found.absent);
            return world.trace.violation("honesty", what);
        }
    }
}

/// Whether debt was told to be zero twice before it is too late.
async fn told_zero(world: &World, waited: &mut Duration) -> bool {
    let mut zero = 0;
    while *waited < DEBT_MAX {
        zero = if is_told_zero(world) { zero + 1 } else { 0 };
        if zero == 2 {
            return true;
        }
        sleep(LOOK).await;
        *waited += LOOK;
    }
    false
}

fn is_told_zero(world: &World) -> bool {
    let leader = world.node(world.log.leader());
    let debts = leader.map(|leader| leader.objects.workers().debt()).unwrap_or_default();
    !debts.is_empty() && debts.into_values().all(|debt| debt.total() == 0 && debt.draining == 0)
}

/// Scrubs, if there is anything to repair: once, after which nothing may be left.
async fn scrub(world: &Arc<World>) -> Option<Audit> {
    let found = audit(world).await?;
    if found.bad.is_empty() {
        return Some(found);
    }
    for node in (0..world.plan.nodes).filter_map(|node| world.node(node)) {
        node.objects.scrub_now();
    }
    let mut waited = Duration::ZERO;
    while waited < SCRUB_MAX {
        sleep(LOOK).await;
        waited += LOOK;
        let busy = (0..world.plan.nodes).filter_map(|node| world.node(node)).any(|node| {
            let workers = node.objects.workers().workers();
            workers.iter().any(|w| matches!(w.kind, Kind::Scrub | Kind::Repair | Kind::Rebuild) && w.working)
        });
        if !busy {
            break;
        }
    }
    let found = audit(world).await?;
    world.trace.note(format_args!("scrubbed for {waited:?}: {} bad", found.bad.len()));
    Some(found)
}

/// Every key through every node.
async fn read_all(world: &Arc<World>, ledger: &Arc<Ledger>) {
    for home in world.serving() {
        let client = Client::new(world, ledger, 8, home);
        for key in 0..KEYS {
            let answered = client.ask(&Ask::Get { key }, u64::MAX).await;
            if !answered && !world.plan.beyond {
                world.trace.violation("readable", format_args!("{} through n{}", name(key), home + 1));
            }
        }
    }
    read_versions(world, ledger).await;
}

/// Every version that somebody was told of, each through some node, and all listings.
async fn read_versions(world: &Arc<World>, ledger: &Arc<Ledger>) {
    if !world.plan.keeps_versions() {
        return;
    }
    let serving = world.serving();
    let mut all = vec![Versioned::List; serving.len()];
    for key in 0..VERSIONED_KEYS {
        all.extend([Versioned::Current { key }, Versioned::GetNull { key }]);
        let known = ledger.known.lock().iter().filter(|known| known.key == key).count();
        all.extend((0..known).map(|nth| Versioned::Get { key, nth }));
    }
    for (at, what) in all.into_iter().enumerate() {
        let home = serving[at % serving.len()];
        let client = Client::new(world, ledger, 8, home);
        let answered = client.ask(&Ask::Versioned(what), u64::MAX).await;
        if !answered && !world.plan.beyond {
            world.trace.violation("readable", format_args!("{what:?} through n{}", home + 1));
        }
    }
}

/// The second tenant finds all it had, or nobody is served: asking judges that.
async fn ask_as_guest(world: &Arc<World>, guests: &Arc<Ledger>) {
    if world.plan.guests.is_empty() {
        return;
    }
    for home in world.serving() {
        let client = Client::guest(world, guests, 7, home);
        for key in 0..KEYS {
            let answered = client.ask(&Ask::Get { key }, u64::MAX).await;
            if !answered && world.key_state() == KeyState::Active {
                world
                    .trace
                    .violation("readable", format_args!("{} of the guest through n{}", name(key), home + 1));
            }
        }
        let (put, delete) = (Ask::Put { key: 0, size: 20_000 }, Ask::Delete { key: 1 });
        client.ask(&put, 7000 + home as u64).await;
        client.ask(&delete, u64::MAX).await;
        client.ask(&Ask::List, u64::MAX).await;
    }
}

/// What clients have left of uploads is aborted.
async fn abort_uploads(world: &Arc<World>, ledger: &Arc<Ledger>) {
    let Some(home) = world.serving().pop() else { return };
    let client = Client::new(world, ledger, 8, home);
    if let Some(node) = world.node(home) {
        client.abort_what_is_left(node.objects.open(TENANT).as_ref()).await;
    }
}

/// What buckets are told to hold is what is listed in them.
async fn count_usage(world: &World) {
    let Some(node) = world.serving().first().and_then(|first| world.node(*first)) else { return };
    let tenant = node.objects.open(TENANT);
    let buckets = [BUCKET, VERSIONED];
    for bucket in &buckets[..1 + usize::from(world.plan.keeps_versions())] {
        let query = VersionListQuery { limit: LISTED_MAX, ..VersionListQuery::default() };
        let told = tenant.bucket(bucket).await.map(|bucket| bucket.usage);
        let listed = tenant.list_versions(bucket, query).await.map(|page| sum(&page.versions));
        match (told, listed) {
            (Ok(told), Ok(listed)) if told == listed => {}
            (told, listed) => {
                let what = format_args!("bucket {bucket} is told to hold {told:?}, listed are {listed:?}");
                world.trace.violation("usage", what);
            }
        }
    }
}

/// What versions count for.
fn sum(versions: &[ListedVersion]) -> Usage {
    let mut sum = Usage::default();
    for version in versions {
        if version.latest && !version.marker {
            sum.objects += 1;
            sum.bytes += version.size;
        } else {
            sum.old_versions += 1;
            sum.old_bytes += version.size;
        }
    }
    sum
}

/// New writes succeed, through every node.
async fn write_anew(world: &Arc<World>, ledger: &Arc<Ledger>) {
    for home in world.serving() {
        let client = Client::new(world, ledger, 9, home);
        let put = Ask::Put { key: home as u64, size: 30_000 };
        if !client.ask(&put, 9000 + home as u64).await {
            world.trace.violation("writable", format_args!("not through n{}", home + 1));
        }
        client.ask(&Ask::Get { key: home as u64 }, u64::MAX).await;
    }
}

/// No shard of a live stripe is placed on a drive that has left.
fn nothing_lies_on_what_left(world: &World, site: &Site) {
    let left = site.left();
    let Some(catalog) = catalog(world).filter(|_| !left.is_empty()) else { return };
    for (key, stripe) in live(&catalog).values() {
        if let Some(place) = stripe.places.iter().find(|place| left.contains(&place.drive)) {
            let what = format_args!("a shard of {key} is placed on a drive of {} that has left", place.node);
            return world.trace.violation("left", what);
        }
    }
}

fn judge_histories(world: &World, ledger: &Ledger) {
    for (key, history) in ledger.histories.lock().iter() {
        if let Err(verdict @ Verdict::Violation { .. }) = linear::check(history) {
            let text = verdict.to_string().replace('\n', " | ");
            world.trace.violation("linearizability", format_args!("key {key}: {text}"));
        }
    }
    if let Err(verdict @ Verdict::Violation { .. }) = linear::check(&ledger.versions.lock()) {
        let text = verdict.to_string().replace('\n', " | ");
        world.trace.violation("versions", format_args!("{text}"));
    }
}

fn compare_replicas(world: &World) {
    let count = world.log.len();
    let mut digests = Vec::new();
    for node in (0..world.plan.nodes).filter(|node| world.node(*node).is_some()) {
        world.log.catch_up(world, node, count);
        let reader = world.log.reader(node);
        let digest = |partition| reader.partition(partition).and_then(|reader| reader.digest());
        let all: Result<Vec<_>, _> = world.partitions().into_iter().map(digest).collect();
        digests.push(all.map_err(|error| error.to_string()));
    }
    if digests.windows(2).any(|pair| pair[0] != pair[1]) || digests.iter().any(Result::is_err) {
        world.trace.violation("replicas", format_args!("digests differ after {count} entries"));
    }
}

/// What a crash left is gone a day later.
async fn a_day_later(world: &Arc<World>, site: &Arc<Site>) {
    site.write_off(world);
    world.skip(DAY);
    sleep(ORPHANS).await;
    world.skip(GARBAGE);
    sleep(GARBAGE).await;
    nothing_is_left(world, "a day").await;
}

/// Nothing is on drives but what objects are made of, and no garbage waits.
async fn nothing_is_left(world: &Arc<World>, after: &str) {
    let Some(found) = audit(world).await else { return };
    if !found.strays.is_empty() {
        let strays = found.strays.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        let what = format_args!(
            "{after} later {} shards lie elsewhere than they are placed: {strays}",
            found.strays.len()
        );
        world.trace.violation("strays", what);
    }
    if found.remains > 0 {
        let what = format_args!("{after} later {} shards of a destroyed tenant are left", found.remains);
        world.trace.violation("space", what);
    }
    if !found.orphans.is_empty() || found.garbage > 0 {
        world.trace.violation(
            "space",
            format_args!(
                "{after} later {:?} are left over beside {} live stripes, and {} entries of garbage",
                found.orphans.iter().take(SHOWN).collect::<Vec<_>>(),
                found.stripes,
                found.garbage
            ),
        );
    }
}

/// Of seeds whose disks are searched for content in the clear: one in so many.
const SEARCHED_INTERVAL: u64 = 4;

/// No disk, and no replica of the catalog, holds content in the clear.
fn look_for_canaries(world: &World, site: &Site) {
    if !world.plan.seed.is_multiple_of(SEARCHED_INTERVAL) {
        return;
    }
    let finder = memchr::memmem::Finder::new(CANARY);
    for (number, disk) in site.disks().iter().enumerate() {
        for offset in disk.used() {
            if finder.find(&disk.peek(offset, PIECE.get() as usize)).is_some() {
                return world
                    .trace
                    .violation("canary", format_args!("drive {number} holds plaintext at {offset}"));
            }
        }
    }
    let Some(catalog) = catalog(world) else { return };
    let bytes = std::fs::read(catalog.path()).unwrap_or_default();
    if finder.find(&bytes).is_some() {
        world.trace.violation("canary", format_args!("the catalog holds plaintext"));
    }
}
