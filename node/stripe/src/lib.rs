//! Pure: cut, seal and encode a stripe; open, decode and plan its reads.
