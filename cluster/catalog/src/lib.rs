//! Deterministic catalog commands applied to SQLite, one file per tenant partition.
