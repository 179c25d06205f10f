//! Requests to the S3 gateway: counted, timed and measured where they are served.
//!
//! A request that ends without an answer (the client went away, the task was cancelled) is counted under the
//! status `aborted`: `S3Request` accounts for itself when dropped.

use std::time::{Duration, Instant};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector};

use crate::catalogue::{Kind, Metric};

/// Upper bounds in seconds: a cached HEAD is below the first, a 5 GiB part on a slow link in the last.
const DURATION_BUCKETS_SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

const REQUESTS: Metric = Metric {
    name: "holdfast_s3_requests_total",
    kind: Kind::Counter,
    labels: &["operation", "status"],
    help: "Requests by operation and status: 2xx, 3xx, 4xx, 5xx, or aborted when no answer was sent.",
};
const DURATION: Metric = Metric {
    name: "holdfast_s3_request_duration_seconds",
    kind: Kind::Histogram,
    labels: &["operation"],
    help: "Time from the request's header to the last byte of its answer.",
};
const IN_FLIGHT: Metric = Metric {
    name: "holdfast_s3_requests_in_flight",
    kind: Kind::Gauge,
    labels: &["operation"],
    help: "Requests being served.",
};
const RECEIVED: Metric = Metric {
    name: "holdfast_s3_received_bytes_total",
    kind: Kind::Counter,
    labels: &["operation"],
    help: "Payload bytes received from clients.",
};
const SENT: Metric = Metric {
    name: "holdfast_s3_sent_bytes_total",
    kind: Kind::Counter,
    labels: &["operation"],
    help: "Payload bytes sent to clients.",
};
const LIMITED: Metric = Metric {
    name: "holdfast_s3_limited_total",
    kind: Kind::Counter,
    labels: &["tenant", "limit"],
    help: "Requests refused and pieces of bodies paced by a tenant's limit. Tenants are those with limits.",
};
const PACED: Metric = Metric {
    name: "holdfast_s3_paced_milliseconds_total",
    kind: Kind::Counter,
    labels: &["tenant", "limit"],
    help: "Time that bodies waited for a tenant's bandwidth.",
};
const LOG_LINES: Metric = Metric {
    name: "holdfast_s3_access_log_lines_total",
    kind: Kind::Counter,
    labels: &["fate"],
    help: "Lines of access logs: delivered into their buckets, or dropped for want of room or of the bucket.",
};
const INVENTORIES: Metric = Metric {
    name: "holdfast_s3_inventories_total",
    kind: Kind::Counter,
    labels: &["fate"],
    help: "Inventories that were due: made, delayed (tried again soon), or missed until the next midnight.",
};
pub(crate) const METRICS: &[Metric] =
    &[REQUESTS, DURATION, IN_FLIGHT, RECEIVED, SENT, LIMITED, PACED, LOG_LINES, INVENTORIES];

/// Handle for the S3 gateway. Clones share their counters.
#[derive(Debug, Clone)]
pub struct S3Metrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGaugeVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    limited: IntCounterVec,
    paced: IntCounterVec,
    log_lines: IntCounterVec,
    inventories: IntCounterVec,
}

impl S3Metrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        let opts = |metric: &Metric| Opts::new(metric.name, metric.help);
        let buckets =
            HistogramOpts::new(DURATION.name, DURATION.help).buckets(DURATION_BUCKETS_SECONDS.to_vec());
        Self {
            requests: add(registry, IntCounterVec::new(opts(&REQUESTS), REQUESTS.labels)),
            duration: add(registry, HistogramVec::new(buckets, DURATION.labels)),
            in_flight: add(registry, IntGaugeVec::new(opts(&IN_FLIGHT), IN_FLIGHT.labels)),
            received: add(registry, IntCounterVec::new(opts(&RECEIVED), RECEIVED.labels)),
            sent: add(registry, IntCounterVec::new(opts(&SENT), SENT.labels)),
            limited: add(registry, IntCounterVec::new(opts(&LIMITED), LIMITED.labels)),
            paced: add(registry, IntCounterVec::new(opts(&PACED), PACED.labels)),
            log_lines: add(registry, IntCounterVec::new(opts(&LOG_LINES), LOG_LINES.labels)),
            inventories: add(registry, IntCounterVec::new(opts(&INVENTORIES), INVENTORIES.labels)),
        }
    }

    /// A request begins. `operation` is the S3 name of a closed set (`PutObject`), never request content,
    /// which its `'static` lifetime makes hard to get wrong.
    pub fn start(&self, operation: &'static str) -> S3Request {
        self.in_flight.with_label_values(&[operation]).inc();
        S3Request {
            metrics: self.clone(),
            operation,
            started: Instant::now(),
            status: ABORTED,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Lines of access logs came to their end.
    pub fn log_lines(&self, fate: &'static str, count: u64) {
        self.log_lines.with_label_values(&[fate]).inc_by(count);
    }

    /// An inventory was due.
    pub fn inventory(&self, fate: &'static str) {
        self.inventories.with_label_values(&[fate]).inc();
    }

    /// A tenant's limit was felt. `wait` is what it cost a body; zero for a request that was refused.
    pub fn limited(&self, tenant: &str, limit: &'static str, wait: Duration) {
        self.limited.with_label_values(&[tenant, limit]).inc();
        if !wait.is_zero() {
            let waited = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            self.paced.with_label_values(&[tenant, limit]).inc_by(waited);
        }
    }

    /// A request that ended, told as a whole. `status` is `None` when the answer was not sent whole.
    pub fn observe(
        &self,
        operation: &'static str,
        status: Option<u16>,
        bytes_in: u64,
        bytes_out: u64,
        duration: Duration,
    ) {
        self.requests.with_label_values(&[operation, status.map_or(ABORTED, class)]).inc();
        self.duration.with_label_values(&[operation]).observe(duration.as_secs_f64());
        self.received.with_label_values(&[operation]).inc_by(bytes_in);
        self.sent.with_label_values(&[operation]).inc_by(bytes_out);
    }
}

const ABORTED: &str = "aborted";

/// The class of an HTTP status, as the label shows it.
fn class(status: u16) -> &'static str {
    match status / 100 {
        1 | 2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names and labels are constants that a test reads");
    registry.register(Box::new(metric.clone())).expect("each name is registered once");
    metric
}

/// One request being served. Accounts for itself when finished or dropped.
#[derive(Debug)]
#[must_use = "a request dropped at once is counted as aborted"]
pub struct S3Request {
    metrics: S3Metrics,
    operation: &'static str,
    started: Instant,
    status: &'static str,
    bytes_in: u64,
    bytes_out: u64,
}

impl S3Request {
    /// Payload bytes arrived.
    pub fn add_bytes_in(&mut self, bytes: u64) {
        self.bytes_in += bytes;
    }

    /// Payload bytes were handed to the connection.
    pub fn add_bytes_out(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// The answer is out, with this HTTP status.
    pub fn finish(mut self, status: u16) {
        self.status = class(status);
    }
}

impl Drop for S3Request {
    fn drop(&mut self) {
        let operation = self.operation;
        self.metrics.in_flight.with_label_values(&[operation]).dec();
        self.metrics.requests.with_label_values(&[operation, self.status]).inc();
        self.metrics.duration.with_label_values(&[operation]).observe(self.started.elapsed().as_secs_f64());
        self.metrics.received.with_label_values(&[operation]).inc_by(self.bytes_in);
        self.metrics.sent.with_label_values(&[operation]).inc_by(self.bytes_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_dropped_without_an_answer_is_aborted_and_no_longer_in_flight() {
        let metrics = S3Metrics::register(&Registry::new());
        let request = metrics.start("PutObject");
        assert_eq!(metrics.in_flight.with_label_values(&["PutObject"]).get(), 1);
        drop(request);
        assert_eq!(metrics.in_flight.with_label_values(&["PutObject"]).get(), 0);
        assert_eq!(metrics.requests.with_label_values(&["PutObject", "aborted"]).get(), 1);
    }

    #[test]
    fn a_request_told_as_a_whole_is_counted_once() {
        let metrics = S3Metrics::register(&Registry::new());
        metrics.observe("GetObject", Some(206), 0, 7, Duration::from_millis(3));
        metrics.observe("GetObject", None, 0, 3, Duration::from_millis(3));
        assert_eq!(metrics.requests.with_label_values(&["GetObject", "2xx"]).get(), 1);
        assert_eq!(metrics.requests.with_label_values(&["GetObject", "aborted"]).get(), 1);
        assert_eq!(metrics.sent.with_label_values(&["GetObject"]).get(), 10);
    }

    #[test]
    fn bytes_of_long_requests_are_counted_when_they_end() {
        let metrics = S3Metrics::register(&Registry::new());
        let mut request = metrics.start("PutObject");
        request.add_bytes_in(40);
        request.add_bytes_in(2);
        request.finish(503);
        assert_eq!(metrics.received.with_label_values(&["PutObject"]).get(), 42);
        assert_eq!(metrics.requests.with_label_values(&["PutObject", "5xx"]).get(), 1);
    }
}
