//! Every on-disk layout: byte tables, parse and encode, golden files.
