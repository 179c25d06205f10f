//! The S3 protocol over TLS, served from the object layer.
