//! What the kernel says about this process: memory, CPU time, descriptors, threads.
//!
//! A figure that cannot be read is left out of the scrape; a zero would be a lie.

use nix::sys::resource::{UsageWho, getrusage};

use crate::{
    catalogue::{Kind, Metric},
    reading::Figure as _,
    sample::Sample,
};

pub(crate) const METRICS: &[Metric] = &[
    Metric {
        name: "holdfast_process_resident_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Memory of the node program in RAM, buffers included.",
    },
    Metric {
        name: "holdfast_process_threads",
        kind: Kind::Gauge,
        labels: &[],
        help: "Threads of the node program.",
    },
    Metric {
        name: "holdfast_process_open_fds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Open file descriptors: sockets, drives, catalog files.",
    },
    Metric {
        name: "holdfast_process_cpu_seconds_total",
        kind: Kind::Counter,
        labels: &[],
        help: "CPU time used in user and kernel mode.",
    },
];

pub(crate) fn collect(sample: &mut Sample) {
    let [memory, threads, descriptors, cpu] = METRICS else { unreachable!("the list is a constant of four") };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut put = |metric: &Metric, figure: Option<f64>| {
        if let Some(figure) = figure {
            sample.add_all(std::slice::from_ref(metric), &[], &[figure]);
        }
    };
    put(memory, status_field(&status, "VmRSS:").map(|kib| (kib * 1024).figure()));
    put(threads, status_field(&status, "Threads:").map(|count| count.figure()));
    put(descriptors, open_descriptors().map(|count| count.figure()));
    put(cpu, cpu_seconds());
}

/// The number in a line like `VmRSS:     1234 kB`.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Less the one that lists them.
fn open_descriptors() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(entries).ok()?.checked_sub(1)
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_read_by_their_exact_name() {
        let status = "Name:\tnoded\nVmRSSX:\t9 kB\nVmRSS:\t    1234 kB\nThreads:\t17\n";
        assert_eq!(status_field(status, "VmRSS:"), Some(1234));
        assert_eq!(status_field(status, "Threads:"), Some(17));
        assert_eq!(status_field(status, "VmSwap:"), None);
    }

    #[test]
    fn an_opened_file_is_counted() {
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..64).map(|_| std::fs::File::open("/proc/self/status").unwrap()).collect();
        // Other tests of this process open and close a few meanwhile.
        assert!(open_descriptors().unwrap() >= before + 32);
        drop(files);
    }
}
