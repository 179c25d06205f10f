//! `cargo xtask nemesis`: hurts a cluster of processes or virtual machines while clients work, then judges what they saw.
//!
//! - [`deck`]: what is done, in an order that the seed decides; [`hand`]: what does it, to [`processes`], with [`links`]
//!   between them, or to [`machines`].
//! - [`workload`]: the clients; [`bodies`]: what they write.
//! - [`oracles`]: what must hold in the end; [`offline`]: the same of what is left when all nodes are stopped; [`report`]: what
//!   was found.
//!
//! The budget: one fault at a time, and no second drive is hurt before all that the first one held is whole
//! again. A correct cluster survives that at its default level with every acknowledged byte in place. The deck
//! and what clients ask come from the seed; when things happen does not, so a run is not repeated exactly.

#![forbid(unsafe_code)]

mod bodies;
mod deck;
mod hand;
mod links;
mod machines;
mod offline;
mod oracles;
mod processes;
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

use anyhow::{Context, Result, ensure};
use clap::Parser;
use holdfast_blackbox::second_copy;
use tokio::{task::JoinSet, time::sleep};

use deck::{Deck, Event, Kind};
use hand::{FILLER_BUCKET, Hand, Shape};
use machines::Machines;
use processes::Processes;
use report::Report;
use workload::{BUCKET, Shared};

/// Keys the clients work on: few enough that they meet, many enough that histories stay short.
const KEYS: u64 = 150;

/// Time the clients have before the first fault.
const BEFORE: Duration = Duration::from_secs(3);

/// Size of a drive in MiB. Machines', which are emulated and write slowly, must be full within minutes.
const DRIVE_MIB: u64 = 256;
const DRIVE_OF_MACHINES_MIB: u64 = 64;

/// How long all nodes run the other program when it is tried: a feature level that all can is raised by then.
const TRIED_FOR: Duration = Duration::from_secs(5);

/// Names of faults on the command line.
const NAMES: [(&str, Kind); 17] = [
    ("kill", Kind::Kill),
    ("pause", Kind::Pause),
    ("kill-all", Kind::KillAll),
    ("rolling-restart", Kind::RollingRestart),
    ("two-versions", Kind::TwoVersions),
    ("memory-limit", Kind::MemoryLimit),
    ("isolate", Kind::Isolate),
    ("cut-between", Kind::CutBetween),
    ("mute", Kind::Mute),
    ("slow-links", Kind::SlowLinks),
    ("lossy-links", Kind::LossyLinks),
    ("rot", Kind::Rot),
    ("stale-drive", Kind::StaleDrive),
    ("blank-drive", Kind::BlankDrive),
    ("unplug", Kind::Unplug),
    ("clock-step", Kind::ClockStep),
    ("full", Kind::Full),
];

#[derive(Debug, Parser)]
#[command(name = "holdfast-nemesis", about = "Hurt a cluster while clients work")]
struct Arguments {
    /// Where the cluster goes; emptied first
    #[arg(long)]
    dir: PathBuf,
    /// The node program
    #[arg(long)]
    noded: PathBuf,
    /// What boots virtual machines
    #[arg(long)]
    xtask: PathBuf,
    /// Hurt virtual machines, not processes
    #[arg(long)]
    qemu: bool,
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
    /// Size of each drive in MiB [default: 256, of emulated machines 64]
    #[arg(long)]
    drive_mib: Option<u64>,
    /// Clients at work [default: 12, of emulated machines 4]
    #[arg(long)]
    clients: Option<usize>,
    /// Another version of the node program, of the same feature level: for the fault two-versions
    #[arg(long)]
    other: Option<PathBuf>,
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
    let shape = Shape {
        dir: arguments.dir.clone(),
        nodes: usize::from(arguments.nodes),
        drives: arguments.drives,
        drive_mib: arguments.drive_mib.unwrap_or(if arguments.qemu {
            DRIVE_OF_MACHINES_MIB
        } else {
            DRIVE_MIB
        }),
        seed: arguments.seed,
        other: arguments.other.as_ref().map(fs::canonicalize).transpose().context("--other")?,
    };
    let report = if arguments.qemu {
        let kinds = dealt(&arguments, Machines::kinds())?;
        run(&arguments, &kinds, Machines::start(&shape, &arguments.xtask, &arguments.noded)?).await?
    } else {
        let kinds = dealt(&arguments, Processes::kinds())?;
        let hand = Processes::start(&shape, arguments.noded.clone(), arguments.dir.clone()).await?;
        run(&arguments, &kinds, hand).await?
    };
    fs::write(arguments.dir.join("report.md"), report.to_string())?;
    println!("\n{report}");
    if report.violations.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let qemu = if arguments.qemu { " --qemu" } else { "" };
    let other =
        arguments.other.as_ref().map(|other| format!(" --other {}", other.display())).unwrap_or_default();
    println!(
        "again: cargo xtask nemesis{qemu}{other} --minutes {} --seed {}",
        arguments.minutes, arguments.seed
    );
    Ok(ExitCode::FAILURE)
}

/// What is dealt: everything that can be, or what was asked for.
fn dealt(arguments: &Arguments, can: &[Kind]) -> Result<Vec<Kind>> {
    let has_other = arguments.other.is_some();
    if arguments.only.is_empty() {
        return Ok(can.iter().copied().filter(|kind| has_other || *kind != Kind::TwoVersions).collect());
    }
    if let Some(kind) = arguments.only.iter().find(|kind| !can.contains(kind)) {
        anyhow::bail!("{kind} cannot be done to this cluster");
    }
    ensure!(has_other || !arguments.only.contains(&Kind::TwoVersions), "which version? --other PROGRAM");
    Ok(arguments.only.clone())
}

/// A program that is too old for the cluster, or one that makes the cluster too new for the first, is found before anything
/// is judged: each node in turn runs it, and then its own again.
async fn try_the_other<H: Hand>(hand: &mut H) -> Result<()> {
    println!("trying the other program on every node");
    let trial = Event {
        kind: Kind::TwoVersions,
        node: 0,
        other: 1,
        drive: 1,
        lasts: TRIED_FOR,
        pause: Duration::ZERO,
        seed: 0,
    };
    hand.carry_out(&trial).await.map(drop).context(
        "the two programs cannot take turns: each must know the files and the feature level of the other",
    )
}

async fn run<H: Hand>(arguments: &Arguments, kinds: &[Kind], mut hand: H) -> Result<Report> {
    let nodes = usize::from(arguments.nodes);
    if kinds.contains(&Kind::TwoVersions) {
        try_the_other(&mut hand).await?;
    }
    for bucket in [BUCKET, FILLER_BUCKET] {
        hand.file().s3(0)?.create_bucket(bucket).await?;
    }
    let shared = Arc::new(Shared::default());
    let clients = (0..nodes).map(|node| hand.file().s3(node)).collect::<Result<Vec<_>>>()?;
    let mut working = JoinSet::new();
    let at_work = arguments.clients.unwrap_or(if arguments.qemu { 4 } else { 12 });
    for number in 0..at_work {
        working.spawn(workload::work(Arc::clone(&shared), clients.clone(), number, KEYS, arguments.seed));
    }
    let mut report = Report { seed: arguments.seed, shape: (nodes, arguments.drives), ..Report::default() };
    let mut hurt = BTreeSet::new();
    let begun = Instant::now();
    if let Err(error) = faults(arguments, kinds, &mut hand, &mut report, &mut hurt).await {
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
    report.reasons = shared.reasons();
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
async fn faults<H: Hand>(
    arguments: &Arguments,
    kinds: &[Kind],
    hand: &mut H,
    report: &mut Report,
    hurt: &mut BTreeSet<(usize, u16)>,
) -> Result<()> {
    let mut deck = Deck::new(arguments.seed, usize::from(arguments.nodes), arguments.drives, kinds);
    let begun = Instant::now();
    let until = Duration::from_secs_f64(arguments.minutes * 60.0);
    sleep(BEFORE).await;
    let mut whole = true;
    while begun.elapsed() < until {
        let event = deck.deal();
        if event.kind.hurts_a_drive() {
            if !whole {
                // The level says how many drives may be hurt at once; what one lost must be back first.
                hand.wait_whole().await?;
                oracles::debt_is_settled(hand.file(), H::PATIENCE).await?;
                oracles::scrubbed_clean(hand.file(), usize::from(arguments.nodes), H::PATIENCE).await?;
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
async fn judge<H: Hand>(
    arguments: &Arguments,
    hand: &mut H,
    shared: &Shared,
    report: &mut Report,
    hurt: &BTreeSet<(usize, u16)>,
) -> Result<()> {
    let nodes = usize::from(arguments.nodes);
    println!("faults are over; judging");
    hand.heal().await.context("after the faults")?;
    let took = oracles::debt_is_settled(hand.file(), H::PATIENCE).await?;
    report.checked.push(format!("debt was zero {:.0} s after the last fault", took.as_secs_f64()));
    let repaired = oracles::scrubbed_clean(hand.file(), nodes, H::PATIENCE).await?;
    report
        .checked
        .push(format!("scrubbed until nothing was left to repair; {repaired} shards repaired on the way"));
    let took = second_copy::is_whole(hand.file(), H::PATIENCE).await?;
    report.checked.push(format!(
        "all copies of the catalog's second copy were there {:.0} s after that",
        took.as_secs_f64()
    ));
    let objects = oracles::everything_is_read(hand.file(), shared, nodes, KEYS).await?;
    report.checked.push(format!("{KEYS} keys read through {nodes} nodes, listings equal to what is there"));
    hand.file().s3(0)?.put(BUCKET, "after", "still accepts").await.context("a write after the faults")?;
    report.checked.extend(hand.notes());
    hand.stop_all().await?;
    judge_what_is_left::<H>(arguments, objects + 1, report, hurt)
}

/// Looks at what the stopped cluster left.
fn judge_what_is_left<H: Hand>(
    arguments: &Arguments,
    objects: usize,
    report: &mut Report,
    hurt: &BTreeSet<(usize, u16)>,
) -> Result<()> {
    let (dir, nodes, drives) = (&arguments.dir, usize::from(arguments.nodes), arguments.drives);
    let sound = offline::drives_are_sound(dir, nodes, drives, hurt)?;
    let all = nodes * usize::from(drives);
    report
        .checked
        .push(format!("{sound} of {all} drives sound offline; {} were hurt on purpose", hurt.len()));
    let searched = offline::nothing_is_in_the_clear(dir)?;
    report.checked.push(format!("nothing that clients wrote in {} MB on disks", searched / 1_000_000));
    if H::STATE_IS_READABLE {
        report.checked.extend(offline::catalogs_agree_with_drives(dir, nodes, drives)?);
        report.checked.push(offline::drives_alone_suffice(&arguments.noded, dir, nodes, objects)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(more: &[&str]) -> Result<Vec<Kind>> {
        let usual = ["nemesis", "--dir", "d", "--noded", "n", "--xtask", "x"];
        dealt(&Arguments::parse_from(usual.iter().chain(more)), &Kind::OF_PROCESSES)
    }

    #[test]
    fn two_versions_are_dealt_when_there_are_two() {
        assert!(!kinds(&[]).unwrap().contains(&Kind::TwoVersions));
        assert_eq!(kinds(&["--other", "before"]).unwrap(), Kind::OF_PROCESSES);
        assert_eq!(kinds(&["--only", "kill,full"]).unwrap(), [Kind::Kill, Kind::Full]);
        assert!(kinds(&["--only", "two-versions"]).is_err(), "which?");
        assert!(kinds(&["--only", "unplug"]).is_err(), "of a process");
    }
}
