//! Counting passed and failed tests in what test runners print.

use std::{fmt, ops::AddAssign};

/// Tests that passed, failed, were skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Count {
    pub passed: u64,
    pub failed: u64,
}

impl Count {
    /// A check that is one test.
    pub fn one_passed() -> Self {
        Self { passed: 1, failed: 0 }
    }

    /// The sum of all closing lines of a run. Understands cargo (`test result: ok. 3 passed; 1 failed; ...`),
    /// vitest (`Tests  1 failed | 3 passed (4)`) and node (`# pass 3`, `# fail 1`).
    pub fn of(output: &str) -> Self {
        let mut count = Self::default();
        for line in output.lines().map(plain) {
            let line = line.trim();
            let summed = line.starts_with("test result:") || line.starts_with("Tests  ");
            if summed {
                count.passed += number_before(line, "passed");
                count.failed += number_before(line, "failed");
            } else if let Some(number) = line.strip_prefix("# pass ").or(line.strip_prefix("ℹ pass ")) {
                count.passed += number.trim().parse().unwrap_or(0);
            } else if let Some(number) = line.strip_prefix("# fail ").or(line.strip_prefix("ℹ fail ")) {
                count.failed += number.trim().parse().unwrap_or(0);
            }
        }
        count
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// `line` without colours (ECMA-48 control sequences): some runners print them into files when CI asks for them.
fn plain(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| ('@'..='~').contains(&c)).map_or(part.len(), |at| at + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

fn number_before(line: &str, word: &str) -> u64 {
    let words: Vec<_> =
        line.split(|c: char| c.is_whitespace() || c == ';' || c == '.').filter(|w| !w.is_empty()).collect();
    words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_all_runners_are_summed() {
        let output = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 7 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n \
              Tests  1 failed | 12 passed (13)\n# pass 5\n# fail 1\n";
        assert_eq!(Count::of(output), Count { passed: 27, failed: 4 });
        let coloured = "\u{1b}[2m      Tests \u{1b}[22m \u{1b}[1m\u{1b}[32m36 passed\u{1b}[39m\u{1b}[22m\u{1b}[90m (36)\u{1b}[39m";
        assert_eq!(Count::of(coloured), Count { passed: 36, failed: 0 });
        assert_eq!(Count::of("error: could not compile"), Count::default());
    }
}
