//! The unsafe crate of the data path: io_uring and aligned, registered buffers.
