//! Key hierarchy, AEAD envelopes and key wrapping. No other crate holds a cipher.
