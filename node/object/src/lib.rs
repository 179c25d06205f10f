//! Objects: joins the catalog (meaning) and the store (bytes).

pub mod api;
