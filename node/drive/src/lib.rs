//! Segments on one device: group commit, recovery, scrub.
