//! The node program: wiring and supervision.
