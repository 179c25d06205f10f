//! The cluster root key: where it lives on a node, wrapping of tenant keys and secrets.
