//! One step of a test run: a program with its output in a log, or a check of our own.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result};
use holdfast_blackbox::paths;

use super::count::Count;
use crate::run::{describe, duration};

/// Lines of a failed step's log that are shown.
const TAIL_LINES: usize = 120;

/// Lines shown after one that tells of a failure.
const LINES_AFTER_FAILURE: usize = 6;

/// A named step, not yet run.
pub struct Step {
    /// What people and `--only` call it.
    pub name: &'static str,
    work: Work,
}

enum Work {
    Command(Box<dyn FnOnce() -> Result<Command>>),
    Function(Box<dyn FnOnce() -> Result<(Count, String)>>),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({})", self.name)
    }
}

/// What came of a step.
#[derive(Debug)]
pub struct Outcome {
    /// Its tests.
    pub count: Count,
    /// Tests that failed, by name, as far as their runner names them.
    pub failed_tests: Vec<String>,
}

/// A step that runs a program; it passes when the program succeeds.
pub fn command(name: &'static str, make: impl FnOnce() -> Result<Command> + 'static) -> Step {
    Step { name, work: Work::Command(Box::new(make)) }
}

/// A step of our own; what it returns beside its count is shown even when it passes.
pub fn function(name: &'static str, work: impl FnOnce() -> Result<(Count, String)> + 'static) -> Step {
    Step { name, work: Work::Function(Box::new(work)) }
}

impl Step {
    /// Runs it and prints one line, and more when it failed.
    pub fn run(self) -> Outcome {
        print!("  {:<40}", self.name);
        // A line that is begun shows what is being waited for; a terminal that is gone is no reason to stop.
        let _ = io::stdout().flush();
        let begun = Instant::now();
        let result = match self.work {
            Work::Function(work) => work(),
            Work::Command(make) => make().and_then(|command| logged(self.name, command)),
        };
        let (count, explanation) =
            result.unwrap_or_else(|error| (Count { passed: 0, failed: 1 }, format!("{error:#}")));
        let word = if count.failed == 0 { "ok" } else { "FAILED" };
        println!(" {word:<6} {count:>24}  {}", duration(begun.elapsed()));
        for line in explanation.lines() {
            println!("    | {line}");
        }
        Outcome { count, failed_tests: names_of_failed(&explanation) }
    }
}

/// Runs a program with its output in `target/test/NAME.log`; the explanation is the end of that log.
fn logged(name: &str, mut command: Command) -> Result<(Count, String)> {
    let log = log_file(name)?;
    let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let line = describe(&command);
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot start {line}"))?;
    let bytes = fs::read(&log)?;
    let output = String::from_utf8_lossy(&bytes);
    let mut count = Count::of(&output);
    let is_test_run = line.contains("test");
    if status.success() && count == Count::default() {
        // A linter is one test; a test runner that ran none proves nothing.
        count = if is_test_run { Count { passed: 0, failed: 1 } } else { Count::one_passed() };
    } else if !status.success() && count.failed == 0 {
        count.failed = 1;
    }
    if count.failed == 0 {
        return Ok((count, String::new()));
    }
    let lines: Vec<_> = output.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    let failures = failures(&lines);
    Ok((count, format!("{line}: {status}\n{failures}\n...\n{tail}\nall of it: {}", log.display())))
}

/// What went wrong, found where it stands: the end of a long log is often about tests that passed.
fn failures(lines: &[&str]) -> String {
    let telling =
        |line: &str| line.contains("panicked at") || line.ends_with("FAILED") || line.starts_with("error");
    let mut shown = Vec::new();
    let mut until = 0;
    for (at, line) in lines.iter().enumerate() {
        if telling(line) {
            until = until.max(at + 1 + LINES_AFTER_FAILURE);
        }
        if at < until {
            shown.push(*line);
        }
    }
    shown.truncate(TAIL_LINES);
    shown.join("\n")
}

/// The tests that cargo lists as failed (`test NAME ... FAILED`, or `    NAME` below `failures:`).
fn names_of_failed(output: &str) -> Vec<String> {
    let mut names = BTreeSet::new();
    let mut listing = false;
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            names.insert(name.to_owned());
        }
        let listed = line.strip_prefix("    ").filter(|name| listing && !name.contains(' '));
        names.extend(listed.map(str::to_owned));
        listing = line == "failures:" || listed.is_some();
    }
    names.into_iter().collect()
}

fn log_file(name: &str) -> Result<PathBuf> {
    let dir = paths::target().join("test");
    fs::create_dir_all(&dir)?;
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Ok(dir.join(format!("{plain}.log")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_failed_are_named() {
        let output = "test split::early ... ok\ntest split::late ... FAILED\n\nfailures:\n\n---- split::late stdout ----\n\
            thread panicked\n\n\nfailures:\n    rot::found\n    split::late\n\ntest result: FAILED. 1 passed";
        assert_eq!(names_of_failed(output), ["rot::found", "split::late"]);
        assert_eq!(names_of_failed("error: could not compile"), Vec::<String>::new());
    }
}
