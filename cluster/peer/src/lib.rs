//! Mutual-TLS links between nodes: frames, shard transfer, Raft transport.
