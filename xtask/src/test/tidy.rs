//! Habits of the tree that no compiler checks: files say what they are for, nothing names one machine,
//! nothing outside tests panics on `unwrap`, files stay short enough to hold one subject.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use holdfast_blackbox::paths;

use super::count::Count;

/// A longer file is reported.
const LINES_LONG: usize = 500;
/// A file as long as this fails: it holds two subjects.
const LINES_MAX: usize = 900;
/// Home directories and work places of people and machines, as they begin a path.
const FOREIGN_PATHS: [&str; 4] = ["/home/", "/root/", "/Users/", "/work/"];

type Check = (&'static str, fn(&File) -> Option<String>);

const CHECKS: [Check; 5] = [
    ("a Rust file opens with its purpose (//!)", opens_with_purpose),
    ("no path of one machine", no_foreign_path),
    ("no unwrap outside tests", no_unwrap),
    ("no file of two subjects", not_too_long),
    ("no unfinished work by its own words", nothing_unfinished),
];

/// Before what is compiled for tests only.
const TESTS: &str = "#[cfg(test)]";

struct File {
    path: String,
    text: String,
    /// Belongs to tests as a whole: by its directory, or by a `#[cfg(test)] mod` that names it.
    is_test: bool,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The part of a Rust file before its unit tests.
    fn before_tests(&self) -> &str {
        self.text.split(TESTS).next().unwrap_or_default()
    }

    /// Paths, without their endings, of the modules that this file declares for tests only.
    fn test_modules(&self) -> Vec<String> {
        let (dir, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let below = match name {
            "lib.rs" | "main.rs" | "mod.rs" => dir.to_owned(),
            other => format!("{dir}/{}", other.trim_end_matches(".rs")),
        };
        let mut lines = self.text.lines().map(str::trim);
        let mut modules = Vec::new();
        while let Some(line) = lines.next() {
            // A simulation may be lent to the run that plants bugs.
            if [TESTS, "#[cfg(any(test, feature = \"simulation\"))]"].contains(&line)
                && let Some(declared) = lines.next().and_then(|line| {
                    let line = line.strip_prefix("pub ").unwrap_or(line);
                    line.strip_prefix("mod ")?.strip_suffix(';')
                })
            {
                modules.push(format!("{below}/{declared}"));
            }
        }
        modules
    }

    fn line_with(&self, found: impl Fn(&str) -> bool, text: &str) -> Option<String> {
        let number = text.lines().position(found)?;
        let line = text.lines().nth(number).unwrap_or_default();
        Some(format!("{}:{}: {}", self.path, number + 1, line.trim()))
    }
}

/// Runs every check on every file that git keeps.
///
/// # Errors
/// With all findings.
pub fn run() -> Result<(Count, String)> {
    let files = tracked_files()?;
    let mut findings = Vec::new();
    let mut count = Count::default();
    for (what, check) in CHECKS {
        let found: Vec<_> = files.iter().filter_map(check).collect();
        if found.is_empty() {
            count.passed += 1;
        } else {
            findings.push(format!("{what}:\n  {}", found.join("\n  ")));
        }
    }
    if !findings.is_empty() {
        bail!("{}", findings.join("\n"));
    }
    let mut long: Vec<_> = files.iter().filter(|file| lines(file) > LINES_LONG && is_source(file)).collect();
    long.sort_by_key(|file| std::cmp::Reverse(lines(file)));
    let report: Vec<_> =
        long.iter().map(|file| format!("long: {} lines  {}", lines(file), file.path)).collect();
    Ok((count, report.join("\n")))
}

fn tracked_files() -> Result<Vec<File>> {
    let root = paths::workspace();
    let listing =
        Command::new("git").args(["ls-files", "-z"]).current_dir(&root).output().context("git ls-files")?;
    let names = String::from_utf8(listing.stdout).context("a file name is not UTF-8")?;
    let mut files: Vec<_> =
        names.split('\0').filter(|name| !name.is_empty()).filter_map(|name| read(&root, name)).collect();
    let modules: Vec<_> = files.iter().filter(|file| file.is_rust()).flat_map(File::test_modules).collect();
    for file in &mut files {
        file.is_test |= modules.iter().any(|module| {
            let rest = file.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
    }
    Ok(files)
}

/// `None` for what is not text.
fn read(root: &Path, name: &str) -> Option<File> {
    let text = fs::read_to_string(root.join(name)).ok()?;
    let is_test = ["/tests/", "/benches/", "/examples/"].iter().any(|dir| name.contains(dir))
        || name.starts_with("tests/");
    Some(File { path: name.to_owned(), text, is_test })
}

fn opens_with_purpose(file: &File) -> Option<String> {
    (file.is_rust() && !file.text.starts_with("//!")).then(|| file.path.clone())
}

fn no_foreign_path(file: &File) -> Option<String> {
    if file.path.ends_with(".lock")
        || file.path.ends_with("package-lock.json")
        || file.path == "xtask/src/test/tidy.rs"
    {
        return None;
    }
    let begins_path = |line: &str, prefix: &str| {
        line.match_indices(prefix).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before
                .is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | '}' | '$' | '~'))
        })
    };
    file.line_with(|line| FOREIGN_PATHS.iter().any(|prefix| begins_path(line, prefix)), &file.text)
}

fn no_unwrap(file: &File) -> Option<String> {
    if !file.is_rust() || file.is_test {
        return None;
    }
    let is_code = |line: &str| !line.trim_start().starts_with("//");
    file.line_with(|line| is_code(line) && line.contains(concat!(".unwrap", "()")), file.before_tests())
}

fn not_too_long(file: &File) -> Option<String> {
    (is_source(file) && lines(file) > LINES_MAX).then(|| format!("{} lines  {}", lines(file), file.path))
}

fn nothing_unfinished(file: &File) -> Option<String> {
    if !is_source(file) || file.path == "xtask/src/test/tidy.rs" {
        return None;
    }
    const WORDS: [&str; 6] = ["todo!(", "unimplemented!(", "// TODO", "// FIXME", "// XXX", "// HACK"];
    file.line_with(|line| WORDS.iter().any(|word| line.contains(word)), &file.text)
}

fn is_source(file: &File) -> bool {
    [".rs", ".ts", ".tsx", ".py"].iter().any(|end| file.path.ends_with(end))
        && !file.text.lines().take(3).any(|line| line.contains("auto-generated"))
}

fn lines(file: &File) -> usize {
    file.text.lines().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into(), is_test: path.contains("/tests/") }
    }

    #[test]
    fn modules_declared_for_tests_are_known() {
        let modules = file("a/src/lib.rs", "mod b;\n#[cfg(test)]\nmod c;\n").test_modules();
        assert_eq!(modules, ["a/src/c"]);
        let lent =
            file("a/src/lib.rs", "#[cfg(any(test, feature = \"simulation\"))]\npub mod c;\n").test_modules();
        assert_eq!(lent, ["a/src/c"]);
        assert_eq!(file("a/src/d.rs", "#[cfg(test)]\n  mod e;\n").test_modules(), ["a/src/d/e"]);
    }

    #[test]
    fn each_check_finds_what_it_is_for() {
        assert!(opens_with_purpose(&file("a.rs", "use std;\n")).is_some());
        assert!(opens_with_purpose(&file("a.rs", "//! A.\n")).is_none());
        assert!(no_foreign_path(&file("a.md", "see /home/ann/x")).is_some());
        assert!(no_foreign_path(&file("a.rs", "dir.join(\"tests/work/x\")")).is_none());
        let code = concat!("//! A.\nfn f() { g().unwrap", "(); }\n");
        assert_eq!(
            no_unwrap(&file("node/a/src/b.rs", code)).as_deref().map(|line| &line[..18]),
            Some("node/a/src/b.rs:2:")
        );
        assert!(no_unwrap(&file("node/a/tests/b.rs", code)).is_none());
        assert!(no_unwrap(&file("node/a/src/b.rs", &format!("//! A.\n#[cfg(test)]\n{code}"))).is_none());
        assert!(not_too_long(&file("a.rs", &"x\n".repeat(LINES_MAX + 1))).is_some());
        assert!(nothing_unfinished(&file("a.rs", "//! A.\n// TODO later\n")).is_some());
    }
}
