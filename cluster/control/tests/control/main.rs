//! The control group's machine as the log and the nodes see it.

mod common;
mod golden;
mod history;
mod recovery;
mod rules;
