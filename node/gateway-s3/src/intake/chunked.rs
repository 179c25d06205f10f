//! The aws-chunked framing of streaming uploads: unsigned or signed chunks, with or without trailers.
//!
//! ```text
//! 400;chunk-signature=<64 hex>\r\n  <0x400 bytes> \r\n      signed; unsigned has no ";chunk-signature"
//! 0;chunk-signature=<64 hex>\r\n                            the last chunk is empty
//! x-amz-checksum-crc32c:sOO8/Q==\r\n                        trailers, if declared
//! x-amz-trailer-signature:<64 hex>\r\n                      of the trailers, in signed mode
//! \r\n
//! ```
//!
//! Sans-io: bytes in, events out. Nothing is buffered but lines, so a chunk of 5 GiB costs no memory.
//! Invariant: [`Event::End`] comes only after every signature was verified. Data events come before
//! their chunk's signature is known, so a receiver keeps nothing until it has seen the end.
//!
//! Format: AWS, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple
//! Chunks", and the same with trailing headers.

use bytes::{Buf, Bytes};
use ring::digest;

use crate::{
    limits::{CHUNK_LINE_SIZE_MAX, CHUNK_SIZE_MAX, TRAILERS_SIZE_MAX},
    sigv4::ChunkSigner,
};

const SIGNATURE_TRAILER: &str = "x-amz-trailer-signature";

/// What comes out of a [`Decoder`].
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Content.
    Data(Bytes),
    /// The body is complete; its trailers, names in lower case.
    End(Vec<(String, String)>),
}

/// Why a framing was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not the format.
    #[error("aws-chunked framing is malformed: {0}")]
    Malformed(&'static str),
    /// The trailers are not the format, or are not the declared ones.
    #[error("aws-chunked trailers are malformed: {0}")]
    Trailer(&'static str),
    /// A chunk or the trailers are not what the client signed.
    #[error("a chunk signature does not match")]
    Signature,
}

enum State {
    Line,
    Data { left: u64 },
    DataEnd { seen: u8 },
    Trailers,
    Done,
}

/// Takes an aws-chunked body apart.
pub struct Decoder {
    state: State,
    line: Vec<u8>,
    signer: Option<ChunkSigner>,
    chunk_hash: digest::Context,
    chunk_signature: String,
    trailers: Vec<(String, String)>,
    trailer_signature: Option<String>,
    trailers_size: usize,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("signed", &self.signer.is_some()).finish_non_exhaustive()
    }
}

impl Decoder {
    /// `signer` verifies a signed body; `None` reads an unsigned one.
    #[must_use]
    pub fn new(signer: Option<ChunkSigner>) -> Self {
        Self {
            state: State::Line,
            line: Vec::new(),
            signer,
            chunk_hash: digest::Context::new(&digest::SHA256),
            chunk_signature: String::new(),
            trailers: Vec::new(),
            trailer_signature: None,
            trailers_size: 0,
        }
    }

    /// Takes from the front of `input`; `None` when more input is needed.
    ///
    /// # Errors
    /// The body is then to be given up.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Event>, ChunkError> {
        loop {
            match self.state {
                State::Line => {
                    let Some(line) = self.take_line(input, CHUNK_LINE_SIZE_MAX)? else { return Ok(None) };
                    let size = self.chunk_line(&line)?;
                    self.chunk_hash = digest::Context::new(&digest::SHA256);
                    if size == 0 {
                        self.verify_chunk()?;
                        self.state = State::Trailers;
                    } else {
                        self.state = State::Data { left: size };
                    }
                }
                State::Data { left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let data = input.split_to(take);
                    if self.signer.is_some() {
                        self.chunk_hash.update(&data);
                    }
                    let left = left - take as u64;
                    if left == 0 {
                        self.verify_chunk()?;
                        self.state = State::DataEnd { seen: 0 };
                    } else {
                        self.state = State::Data { left };
                    }
                    return Ok(Some(Event::Data(data)));
                }
                State::DataEnd { seen } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    if input.get_u8() != b"\r\n"[usize::from(seen)] {
                        return Err(ChunkError::Malformed("chunk data is not followed by CRLF"));
                    }
                    self.state = if seen == 0 { State::DataEnd { seen: 1 } } else { State::Line };
                }
                State::Trailers => {
                    let Some(line) = self.take_line(input, TRAILERS_SIZE_MAX)? else { return Ok(None) };
                    if line.is_empty() {
                        return self.finish().map(Some);
                    }
                    self.trailer_line(&line)?;
                }
                State::Done => {
                    return if input.is_empty() {
                        Ok(None)
                    } else {
                        Err(ChunkError::Malformed("bytes after the last chunk"))
                    };
                }
            }
        }
    }

    /// The input has ended. Some clients leave out the empty line after the last chunk; nothing else may
    /// be missing.
    ///
    /// # Errors
    /// [`ChunkError::Malformed`] when it ended early.
    pub fn end_of_input(&mut self) -> Result<Option<Event>, ChunkError> {
        match self.state {
            State::Done => Ok(None),
            State::Trailers if self.line.is_empty() => self.finish().map(Some),
            _ => Err(ChunkError::Malformed("ends before its last chunk")),
        }
    }

    fn take_line(&mut self, input: &mut Bytes, max: usize) -> Result<Option<Vec<u8>>, ChunkError> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(input.len(), |at| at + 1);
        if self.line.len() + take > max {
            return Err(ChunkError::Malformed("line too long"));
        }
        self.line.extend_from_slice(&input.split_to(take));
        if end.is_none() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.line);
        line.pop();
        if line.pop_if(|last| *last == b'\r').is_none() {
            return Err(ChunkError::Malformed("line does not end in CRLF"));
        }
        Ok(Some(line))
    }

    fn chunk_line(&mut self, line: &[u8]) -> Result<u64, ChunkError> {
        let line = std::str::from_utf8(line).map_err(|_| ChunkError::Malformed("chunk line"))?;
        let (size, extension) = match line.split_once(';') {
            Some((size, extension)) => (size, Some(extension)),
            None => (line, None),
        };
        if size.is_empty() || size.len() > 16 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ChunkError::Malformed("chunk size"));
        }
        let size = u64::from_str_radix(size, 16).map_err(|_| ChunkError::Malformed("chunk size"))?;
        if size > CHUNK_SIZE_MAX {
            return Err(ChunkError::Malformed("chunk size is more than an upload may have"));
        }
        if self.signer.is_some() {
            let signature = extension.and_then(|text| text.strip_prefix("chunk-signature="));
            self.chunk_signature = signature.ok_or(ChunkError::Malformed("chunk is not signed"))?.to_owned();
        }
        Ok(size)
    }

    fn verify_chunk(&mut self) -> Result<(), ChunkError> {
        let Some(signer) = &mut self.signer else { return Ok(()) };
        let hash = std::mem::replace(&mut self.chunk_hash, digest::Context::new(&digest::SHA256)).finish();
        if signer.verify_chunk(hash.as_ref(), &self.chunk_signature) {
            Ok(())
        } else {
            Err(ChunkError::Signature)
        }
    }

    fn trailer_line(&mut self, line: &[u8]) -> Result<(), ChunkError> {
        self.trailers_size += line.len();
        if self.trailers_size > TRAILERS_SIZE_MAX {
            return Err(ChunkError::Trailer("too long"));
        }
        let line = std::str::from_utf8(line).map_err(|_| ChunkError::Trailer("not text"))?;
        let (name, value) = line.split_once(':').ok_or(ChunkError::Trailer("a line is not `name:value`"))?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        if name == SIGNATURE_TRAILER {
            self.trailer_signature = Some(value);
        } else {
            self.trailers.push((name, value));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Event, ChunkError> {
        self.state = State::Done;
        let mut trailers = std::mem::take(&mut self.trailers);
        trailers.sort();
        if let Some(signer) = &mut self.signer
            && !trailers.is_empty()
        {
            let signature = self.trailer_signature.as_deref().ok_or(ChunkError::Trailer("not signed"))?;
            let canonical: String =
                trailers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
            if !signer.verify_trailers(canonical.as_bytes(), signature) {
                return Err(ChunkError::Signature);
            }
        }
        Ok(Event::End(trailers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of `piece` bytes.
    fn decode(
        wire: &[u8],
        piece: usize,
        signer: Option<ChunkSigner>,
    ) -> Result<(Vec<u8>, Vec<(String, String)>), ChunkError> {
        let mut decoder = Decoder::new(signer);
        let (mut data, mut end) = (Vec::new(), None);
        for part in wire.chunks(piece) {
            let mut input = Bytes::copy_from_slice(part);
            while let Some(event) = decoder.next(&mut input)? {
                match event {
                    Event::Data(bytes) => data.extend_from_slice(&bytes),
                    Event::End(trailers) => end = Some(trailers),
                }
            }
        }
        if let Some(Event::End(trailers)) = decoder.end_of_input()? {
            end = Some(trailers);
        }
        Ok((data, end.expect("an end")))
    }

    #[test]
    fn unsigned_chunks_and_trailers_come_out_whatever_the_cuts() {
        let wire = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        for piece in 1..wire.len() {
            let (data, trailers) = decode(wire, piece, None).unwrap();
            assert_eq!(data, b"hello world");
            assert_eq!(trailers, [("x-amz-checksum-crc32".to_owned(), "AAAAAA==".to_owned())]);
        }
    }

    #[test]
    fn a_body_cut_anywhere_is_refused() {
        let wire = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        let last_chunk_ends = wire.windows(3).position(|w| w == b"0\r\n").unwrap() + 3;
        for cut in 0..last_chunk_ends {
            assert!(decode(&wire[..cut], 7, None).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn malformed_framing_is_refused() {
        for wire in [
            &b"-5\r\nhello\r\n0\r\n\r\n"[..],
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"\r\n",
            b"fffffffffffffffff\r\n",
            b"ffffffffffffffff\r\n",
            b"0\r\n\r\ntail",
            b"0\r\nno colon\r\n\r\n",
        ] {
            assert!(decode(wire, 3, None).is_err(), "{:?}", String::from_utf8_lossy(wire));
        }
        let endless = vec![b'1'; CHUNK_LINE_SIZE_MAX + 1];
        assert_eq!(decode(&endless, 16, None), Err(ChunkError::Malformed("line too long")));
    }

    /// The example of AWS's documentation: 65 KiB of `a` in a 64 KiB and a 1 KiB chunk.
    #[test]
    fn the_documented_signed_example_verifies_and_a_changed_byte_does_not() {
        let signer = || {
            ChunkSigner::new(
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "20130524T000000Z",
                "20130524/us-east-1/s3/aws4_request",
                "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
            )
        };
        let mut wire = Vec::new();
        wire.extend_from_slice(
            b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n",
        );
        wire.extend_from_slice(&[b'a'; 65536]);
        wire.extend_from_slice(
            b"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n",
        );
        wire.extend_from_slice(&[b'a'; 1024]);
        wire.extend_from_slice(
            b"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n",
        );
        let (data, trailers) = decode(&wire, 4096, Some(signer())).unwrap();
        assert_eq!(data, vec![b'a'; 66560]);
        assert!(trailers.is_empty());

        wire[66_000] = b'b';
        assert_eq!(decode(&wire, 4096, Some(signer())), Err(ChunkError::Signature));
    }

    #[test]
    fn an_unsigned_chunk_in_a_signed_body_is_refused() {
        let signer = ChunkSigner::new("secret", "20130524T000000Z", "20130524/r/s3/aws4_request", "00");
        assert_eq!(decode(b"0\r\n\r\n", 9, Some(signer)), Err(ChunkError::Malformed("chunk is not signed")));
    }
}
