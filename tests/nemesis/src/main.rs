//! `cargo xtask nemesis`: hurts a cluster of real processes while clients work, then judges what they saw.
//!
//! - [`deck`]: what is done, in an order that the seed decides; [`hand`]: does it; [`links`]: between nodes.
//! - [`workload`]: the clients; [`bodies`]: what they write.
//! - [`oracles`]: what must hold in the end; [`report`]: what was found.
//!
//! The budget: one fault at a time, and no second drive is hurt before all that the first one held is whole
//! again. A correct cluster survives that at its default level with every acknowledged byte in place. The deck
//! and what clients ask come from the seed; when things happen does not, so a run is not repeated exactly.

#![forbid(unsafe_code)]

mod bodies;
mod deck;
mod hand;
mod links;
mod oracles;
mod report;
mod workload;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use holdfast_blackbox::dev::{DevCluster, DevSpec, stop_leftovers};
use holdfast_model::ByteCount;
use tokio::{task::JoinSet, time::sleep};

use deck::{Deck, Kind};
use hand::{FILLER_BUCKET, Hand};
use links::Links;
use report::Report;
use workload::{BUCKET, Shared};

/// Keys the clients work on: few enough that they meet, many enough that histories stay short.
const KEYS: u64 = 150;

/// Time the clients have before the first fault.
const BEFORE: Duration = Duration::from_secs(3);

/// Names of faults on the command line.
const NAMES: [(&str, Kind); 12] = [
    ("kill", Kind::Kill),
    ("pause", Kind::Pause),
    ("kill-all", Kind::KillAll),
    ("rolling-restart", Kind::RollingRestart),
    ("isolate", Kind::Isolate),
    ("cut-between", Kind::CutBetween),
    ("mute", Kind::Mute),
    ("slow-links", Kind::SlowLinks),
    ("rot", Kind::Rot),
    ("stale-drive", Kind::StaleDrive),
    ("blank-drive", Kind::BlankDrive),
    ("full", Kind::Full),
];

#[derive(Debug, Parser)]
#[command(name = "holdfast-nemesis", about = "Hurt a cluster of processes while clients work")]
struct Arguments {
    /// Where the cluster goes; emptied first
    #[arg(long)]
    dir: PathBuf,
    /// The node program
    #[arg(long)]
    noded: PathBuf,
    /// How long faults are at work
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Decides the order of the faults, whom they hit, and what clients ask
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// Drives on each
    #[arg(long, default_value_t = 4)]
    drives: u16,
    /// Size of each drive in MiB
    #[arg(long, default_value_t = 256)]
    drive_mib: u64,
    /// Clients at work
    #[arg(long, default_value_t = 12)]
    clients: usize,
    /// Only these faults, by name
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    only: Vec<Kind>,
}

fn kind(name: &str) -> Result<Kind, String> {
    let found = NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    found.ok_or_else(|| format!("{name:?} is no fault; there are {}", NAMES.map(|(name, _)| name).join(", ")))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let report = run(&arguments).await?;
    fs::write(arguments.dir.join("report.md"), report.to_string())?;
    println!("\n{report}");
    if report.violations.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("again: cargo xtask nemesis --minutes {} --seed {}", arguments.minutes, arguments.seed);
    Ok(ExitCode::FAILURE)
}

async fn run(arguments: &Arguments) -> Result<Report> {
    stop_leftovers(&arguments.dir)?;
    let nodes = usize::from(arguments.nodes);
    let links = Links::open(&arguments.dir, nodes).await?;
    let spec = DevSpec {
        dir: arguments.dir.clone(),
        noded: arguments.noded.clone(),
        nodes: arguments.nodes,
        drives: arguments.drives,
        drive_size: ByteCount::mib(arguments.drive_mib),
        watched: false,
        buffer_memory: ByteCount::mib(64),
        level: None,
        cluster_name: "nemesis".to_owned(),
        unlock: holdfast_model::config::Unlock::default(),
        feature_level_max: None,
        advertise: links.addresses(),
        s3: holdfast_model::config::S3Settings::default(),
        known_ports: false,
    };
    let cluster = DevCluster::create(&spec, &|what| println!("{what}")).await?;
    for bucket in [BUCKET, FILLER_BUCKET] {
        cluster.s3(0)?.create_bucket(bucket).await?;
    }
    let shared = Arc::new(Shared::default());
    let clients = (0..nodes).map(|node| cluster.s3(node)).collect::<Result<Vec<_>>>()?;
    let mut working = JoinSet::new();
    for number in 0..arguments.clients {
        working.spawn(workload::work(Arc::clone(&shared), clients.clone(), number, KEYS, arguments.seed));
    }
    let mut report = Report { seed: arguments.seed, shape: (nodes, arguments.drives), ..Report::default() };
    let mut hand = Hand::new(cluster, links, arguments.dir.clone(), nodes);
    let mut hurt = BTreeSet::new();
    let begun = Instant::now();
    if let Err(error) = faults(arguments, &mut hand, &mut report, &mut hurt).await {
        report.violations.push(format!("{error:#}"));
    }
    report.lasted = begun.elapsed();
    shared.stop();
    while let Some(client) = working.join_next().await {
        client.context("a client")?;
    }
    if let Err(error) = judge(arguments, &mut hand, &shared, &mut report, &hurt).await {
        report.violations.push(format!("{error:#}"));
    }
    report.ends = shared.ends();
    report.longest_without_writes = shared.longest_without_writes();
    report.violations.extend(shared.broken());
    for (key, verdict) in shared.history.judge() {
        report.violations.push(format!("{key}: {verdict}"));
    }
    let (operations, keys) = (shared.history.count(), KEYS);
    report.checked.push(format!("{operations} operations on {keys} keys judged for linearizability"));
    Ok(report)
}

/// One fault after the other, until the time is over.
async fn faults(
    arguments: &Arguments,
    hand: &mut Hand,
    report: &mut Report,
    hurt: &mut BTreeSet<(usize, u16)>,
) -> Result<()> {
    let kinds = if arguments.only.is_empty() { Kind::ALL.to_vec() } else { arguments.only.clone() };
    let mut deck = Deck::new(arguments.seed, usize::from(arguments.nodes), arguments.drives, &kinds);
    let begun = Instant::now();
    let until = Duration::from_secs_f64(arguments.minutes * 60.0);
    sleep(BEFORE).await;
    let mut whole = true;
    while begun.elapsed() < until {
        let event = deck.deal();
        if event.kind.hurts_a_drive() {
            if !whole {
                // The level says how many drives may be hurt at once; what one lost must be back first.
                hand.cluster.wait_whole(0).await?;
                oracles::debt_is_settled(&hand.cluster).await?;
                oracles::scrubbed_clean(&hand.cluster, usize::from(arguments.nodes)).await?;
            }
            hurt.insert((event.node, event.drive));
            whole = false;
        }
        let at = begun.elapsed().as_secs();
        let came = hand.carry_out(&event).await.with_context(|| format!("{at} s: {}", event.kind))?;
        println!("{at:>5} s: {}: {came}", event.kind);
        *report.injected.entry(event.kind).or_default() += 1;
        sleep(event.pause).await;
    }
    Ok(())
}

/// Ends all faults and checks what must hold then.
async fn judge(
    arguments: &Arguments,
    hand: &mut Hand,
    shared: &Shared,
    report: &mut Report,
    hurt: &BTreeSet<(usize, u16)>,
) -> Result<()> {
    let nodes = usize::from(arguments.nodes);
    println!("faults are over; judging");
    hand.heal().await.context("after the faults")?;
    let took = oracles::debt_is_settled(&hand.cluster).await?;
    report.checked.push(format!("debt was zero {:.0} s after the last fault", took.as_secs_f64()));
    let repaired = oracles::scrubbed_clean(&hand.cluster, nodes).await?;
    report
        .checked
        .push(format!("scrubbed until nothing was left to repair; {repaired} shards repaired on the way"));
    oracles::everything_is_read(&hand.cluster, shared, nodes, KEYS).await?;
    report.checked.push(format!("{KEYS} keys read through {nodes} nodes, listings equal to what is there"));
    hand.cluster.s3(0)?.put(BUCKET, "after", "still accepts").await.context("a write after the faults")?;
    hand.stop_all()?;
    let sound = oracles::drives_are_sound(hand.cluster.dir(), nodes, arguments.drives, hurt)?;
    report.checked.push(format!(
        "{sound} of {} drives sound offline; {} were hurt on purpose",
        nodes * usize::from(arguments.drives),
        hurt.len()
    ));
    Ok(())
}
