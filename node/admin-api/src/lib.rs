//! Typed admin routes, sessions and the embedded web console.
