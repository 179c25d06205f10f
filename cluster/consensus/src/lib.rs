//! openraft behind our interface: log store, groups, batching.
