//! Lifecycle rules, in the catalog's words, for gateways that read and show them.

pub use holdfast_catalog::{
    Candidate, Expiration, FilterForm, Lifecycle, LifecycleError, LifecycleFilter, LifecycleRule,
    NoncurrentExpiration, NoncurrentTransition, RULE_ID_SIZE_MAX, RULES_MAX, TRANSITION_SIZE_MIN, Transition,
    TransitionTime,
};
