//! Plans that are kept: those that failed once (`regressions`), and those written to show one planted bug each
//! (`scenarios`). Without a bug all of them keep every promise.

use crate::plan::Plan;

/// A plan's name and its text.
macro_rules! kept {
    ($($dir:literal / $name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../", $dir, "/", $name, ".json")))),*]
    };
}

/// All of them.
pub const PLANS: &[(&str, &str)] = kept![
    "regressions" / "a-put-beside-a-drive-that-goes",
    "regressions" / "cut-wide-while-a-node-leaves",
    "regressions" / "four-repair-one-stripe",
    "regressions" / "garbage-on-a-drive-that-is-gone",
    "regressions" / "labels-all-rotten",
    "regressions" / "orphans-of-a-crash",
    "regressions" / "versions-beside-a-drive-that-fails",
    "regressions" / "writes-behind-a-read-that-hangs",
    "regressions" / "rebuilt-while-a-drive-fails",
    "regressions" / "repaired-while-it-is-deleted",
    "regressions" / "two-leave-and-one-finds-a-place",
    "regressions" / "what-leaves-is-read-for-the-rest",
    "scenarios" / "a-delete-that-comes-late",
    "scenarios" / "altered-by-hand",
    "scenarios" / "condemned-although-it-was-decided",
    "scenarios" / "deleted-while-away",
    "scenarios" / "garbled-on-the-way",
    "scenarios" / "leaves-while-its-node-is-off",
    "scenarios" / "many-find-the-same",
    "scenarios" / "many-write-on-top-of-the-same",
    "scenarios" / "moved-back-too-early",
    "scenarios" / "moved-onto-a-drive-that-fails",
    "scenarios" / "moves-whose-end-nobody-learns",
    "scenarios" / "outcomes-are-unknown",
    "scenarios" / "stripes-in-order",
    "scenarios" / "writes-fail-and-are-cleaned-up",
];

/// The plan of a name.
///
/// # Errors
/// When there is none, or it does not parse.
pub fn plan(name: &str) -> anyhow::Result<Plan> {
    let text = PLANS.iter().find(|(kept, _)| *kept == name).map(|(_, text)| *text);
    let text = text.ok_or_else(|| anyhow::anyhow!("no plan is called {name}"))?;
    Ok(serde_json::from_str(text)?)
}
