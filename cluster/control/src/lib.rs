//! The control group's state: membership, drives, tenants, join tokens, settings.
