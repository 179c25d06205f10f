//! Black-box tests: real processes, real S3 clients.
