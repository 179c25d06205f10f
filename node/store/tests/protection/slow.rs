//! One drive at a hundred times the latency of the others.

use std::time::{Duration, Instant};

use holdfast_fault::Fault;
use holdfast_model::{ByteCount, Level};
use holdfast_store::{DriveReport, DriveReportState};

use crate::cluster::{Cluster, Stored, View, node_report, percentile, report};

/// What an operation takes on a healthy drive, and on the slow one.
const USUAL: Duration = Duration::from_millis(2);
const SLOW: Duration = Duration::from_millis(200);

const STRIPES: u32 = 24;
const ROUNDS: usize = 12;

async fn read_all(cluster: &Cluster, view: &View, stored: &[Stored]) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        for stored in stored {
            let begun = Instant::now();
            let found = view.read(cluster.key.key(), stored).await;
            times.push(begun.elapsed());
            assert_eq!(found.as_ref(), Some(&stored.content));
        }
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_hardly_feel_a_slow_drive_of_a_hundred_times_the_latency_and_new_stripes_spare_it() {
    let cluster = Cluster::new(3, 4, ByteCount::mib(64));
    let view = cluster.without(|_| false);
    let mut stored = Vec::new();
    for number in 0..STRIPES {
        stored.push(cluster.write(&view, Level::PLUS_2D_1N, 200_000, number).await);
    }
    for (_, _, disk) in &cluster.drives {
        disk.arrange(Fault::Slow(USUAL));
    }
    let healthy = percentile(read_all(&cluster, &view, &stored).await, 0.99);
    let (slow, _, disk) = &cluster.drives[5];
    disk.heal();
    disk.arrange(Fault::Slow(SLOW));
    // Its node says so, once it lags behind the others there.
    let of_node = cluster.drives.iter().filter(|(place, _, _)| place.node == slow.node);
    let reports = of_node.map(|(place, drive, _)| {
        let state = if place == slow { DriveReportState::Slow } else { DriveReportState::Live };
        DriveReport { state, ..report(place.drive, drive) }
    });
    view.health.heard(node_report(slow.node, reports.collect()), Instant::now());
    let with_slow = percentile(read_all(&cluster, &view, &stored).await, 0.99);
    println!("p99 {healthy:?} healthy, {with_slow:?} with a drive of {SLOW:?} among those of {USUAL:?}");
    assert!(with_slow <= 2 * healthy + SLOW / 10, "p99 {with_slow:?} against {healthy:?}");

    let spared = view.health.prompt(&view.health.candidates());
    assert!(spared.len() == 11 && spared.iter().all(|candidate| candidate.drive != slow.drive));
}
