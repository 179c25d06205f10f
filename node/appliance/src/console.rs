//! Lines on the console.
//!
//! The kernel opens `/dev/console` as standard input, output and error of PID 1; children inherit
//! it. A console that cannot be written to must not stop the machine, so failures are ignored here
//! and only here.

use std::{error::Error, io::Write as _};

/// Writes one line, `holdfast: ...`.
pub fn say(line: &str) {
    writeln!(std::io::stderr(), "holdfast: {line}").ok();
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
