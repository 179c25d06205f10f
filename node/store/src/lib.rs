//! Runs stripe plans on local and remote drives.
