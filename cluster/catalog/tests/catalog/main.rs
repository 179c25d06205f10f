//! The catalog as the log and the object layer see it.

mod common;
mod golden;
mod history;
mod listing;
mod measure;
mod model;
mod multipart;
mod objects;
mod recovery;
mod stripes;
