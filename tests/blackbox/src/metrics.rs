//! Reading a node's Prometheus exposition.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Request;

use crate::http_client::{Https, Trust, full};

/// One scrape: sample name with its labels, as printed, to value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Fetches `https://host:port/metrics`.
    ///
    /// # Errors
    /// When the node does not answer with an exposition.
    pub async fn fetch(url: &str, trust: Trust) -> Result<Self> {
        let https = Https::new(url, trust)?;
        let request = Request::get("/metrics").header("host", https.authority()).body(full(Bytes::new()))?;
        let answer = https.send(request).await?;
        if !answer.status.is_success() {
            bail!("{url}: {} {}", answer.status, answer.text());
        }
        Self::parse(&answer.text()).with_context(|| format!("exposition of {url}"))
    }

    /// Parses the text format.
    ///
    /// # Errors
    /// When a line is neither a comment nor a sample.
    pub fn parse(text: &str) -> Result<Self> {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            // The value follows the labels; label values may hold spaces, so split from the right.
            let (name, value) = line.rsplit_once(' ').with_context(|| format!("not a sample: {line:?}"))?;
            let value = value.parse().with_context(|| format!("not a number: {line:?}"))?;
            samples.insert(name.to_owned(), value);
        }
        Ok(Self(samples))
    }

    /// Sum over all label sets of one metric; `None` when it is not exposed.
    #[must_use]
    pub fn sum(&self, metric: &str) -> Option<f64> {
        let mut found = None;
        for (name, value) in &self.0 {
            if name.split('{').next() == Some(metric) {
                *found.get_or_insert(0.0) += value;
            }
        }
        found
    }

    /// The samples of one metric, each with its labels as printed.
    pub fn labelled<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(name, value)| {
            let labels = name.strip_prefix(metric)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        })
    }

    /// Names of all metrics, without labels.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.keys().filter_map(|name| name.split('{').next()).collect();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_label_sets() {
        let text = "# HELP x y\na_total{op=\"get it\"} 2\na_total{op=\"put\"} 3.5\na_total_more 9\nb 1e3\n";
        let samples = Samples::parse(text).unwrap();
        assert_eq!(samples.sum("a_total"), Some(5.5));
        assert_eq!(samples.sum("b"), Some(1000.0));
        assert_eq!(samples.labelled("b").collect::<Vec<_>>(), [("", 1000.0)]);
        let labelled: Vec<_> = samples.labelled("a_total").collect();
        assert_eq!(labelled, [(r#"{op="get it"}"#, 2.0), (r#"{op="put"}"#, 3.5)]);
        assert_eq!(samples.sum("c"), None);
    }
}
