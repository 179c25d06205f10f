//! What was measured, and the table of it.

use std::{collections::HashMap, fmt, time::Duration};

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// For people.
    pub name: &'static str,
    /// Writes, or reads.
    pub write: bool,
    /// Bytes of one operation.
    pub size: usize,
    /// Operations in flight.
    pub depth: usize,
    /// Whether fio flushes as well, once for so many writes as are in flight.
    pub fio_flushes: bool,
    /// The engine's share of fio's rate that is asked for.
    pub wanted: f64,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Operations done.
    pub operations: u64,
    /// In this time.
    pub took: Duration,
    /// With so much processor time.
    pub cpu: Duration,
    /// And so many flushes.
    pub flushes: u64,
    /// What a write took at the device on average, in microseconds.
    pub write_micros: f64,
    /// What a flush took, likewise.
    pub flush_micros: f64,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.operations as f64 / self.took.as_secs_f64().max(1e-9)
    }

    fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations.max(1) as f64
    }
}

/// All measurements.
#[derive(Debug)]
pub struct Table<'a> {
    rows: &'a [Row],
    fio: HashMap<&'static str, Vec<Measured>>,
    engine: HashMap<&'static str, Vec<Measured>>,
}

impl<'a> Table<'a> {
    /// An empty one.
    pub fn new(rows: &'a [Row]) -> Self {
        Self { rows, fio: HashMap::new(), engine: HashMap::new() }
    }

    /// Adds a measurement of fio.
    pub fn fio(&mut self, row: &Row, measured: Measured) {
        self.fio.entry(row.name).or_default().push(measured);
    }

    /// Adds a measurement of the engine.
    pub fn engine(&mut self, row: &Row, measured: Measured) {
        self.engine.entry(row.name).or_default().push(measured);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22} {:>11} {:>11} {:>6} {:>6}  {:<7} {:>11} {:>11} {:>11} {:>13} {:>13}",
            "",
            "fio",
            "engine",
            "ratio",
            "wanted",
            "",
            "fio CPU/op",
            "our CPU/op",
            "recs/flush",
            "fio wr/flush",
            "our wr/flush"
        )?;
        let mut reached = 0;
        for row in self.rows.iter().filter(|row| self.engine.contains_key(row.name)) {
            let none = Vec::new();
            let fio = self.fio.get(row.name).unwrap_or(&none);
            let engine = self.engine.get(row.name).unwrap_or(&none);
            let rate = |all: &[Measured]| median(all.iter().map(Measured::rate).collect());
            let micros = |all: &[Measured]| median(all.iter().map(Measured::cpu_micros).collect());
            let took = |all: &[Measured]| {
                let mean = |of: fn(&Measured) -> f64| median(all.iter().map(of).collect());
                format!("{:.0}/{:.0}", mean(|m| m.write_micros), mean(|m| m.flush_micros))
            };
            let shown = |rate: f64| match row.size {
                size if size >= 64 << 10 => format!("{:.0} MB/s", rate * size as f64 / 1e6),
                _ => format!("{rate:.0}/s"),
            };
            // Round by round: what disturbs one of the two disturbs the other as well.
            let paired = engine.iter().zip(fio).map(|(e, f)| e.rate() / f.rate().max(1e-9)).collect();
            let ratio = median(paired);
            reached += usize::from(ratio >= row.wanted);
            let flushes: u64 = engine.iter().map(|m| m.flushes).sum();
            let records: u64 = engine.iter().map(|m| m.operations).sum();
            let share =
                if row.write { format!("{:.1}", records as f64 / flushes.max(1) as f64) } else { "-".into() };
            writeln!(
                f,
                "{:<22} {:>11} {:>11} {:>5.0}% {:>5.0}%  {:<7} {:>8.1} us {:>8.1} us {:>11} {:>10} us {:>10} us",
                row.name,
                shown(rate(fio)),
                shown(rate(engine)),
                ratio * 100.0,
                row.wanted * 100.0,
                if ratio >= row.wanted { "reached" } else { "MISSED" },
                micros(fio),
                micros(engine),
                share,
                took(fio),
                took(engine),
            )?;
        }
        write!(f, "{reached} of {} reached; medians over {} rounds", self.engine.len(), self.rounds())
    }
}

impl Table<'_> {
    fn rounds(&self) -> usize {
        self.engine.values().map(Vec::len).max().unwrap_or(0)
    }
}
