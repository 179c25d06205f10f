//! Frames: the one unit on a link, in both directions.
//!
//! A frame is a header, then `body_len` bytes (encoded by the caller, small), then `payload_len` bytes
//! (a shard, as it is). Integrity is TLS's; the header is checked so that a program error or another
//! version is found at once and never read as something else.
//!
//! Invariant: `parse` is canonical; what it accepts, `encode` gives back byte for byte.

use holdfast_model::limits::SHARD_SIZE_MAX;

/// Largest body in bytes.
pub const BODY_SIZE_MAX: usize = 16 * 1024 * 1024;

/// Largest payload in bytes: one shard.
pub const PAYLOAD_SIZE_MAX: usize = SHARD_SIZE_MAX;

/// Longest message of a refusal in bytes.
pub const REFUSAL_SIZE_MAX: usize = 64 * 1024;

/// Largest body that is read from or sent to someone without a certificate, in bytes.
pub const JOIN_BODY_SIZE_MAX: usize = 64 * 1024;

/// Longest deadline of a request in milliseconds.
pub const DEADLINE_MAX_MS: u32 = 10 * 60 * 1000;

const MAGIC: [u8; 4] = *b"HFPL";
const VERSION: u8 = 1;

const _: () = assert!(BODY_SIZE_MAX <= u32::MAX as usize);
const _: () = assert!(PAYLOAD_SIZE_MAX <= u32::MAX as usize);
const _: () = assert!(REFUSAL_SIZE_MAX <= BODY_SIZE_MAX && JOIN_BODY_SIZE_MAX <= BODY_SIZE_MAX);

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A question; the answer carries the same id.
    Request,
    /// The answer.
    Reply,
    /// The answer, when it is no: a code and a text.
    Refusal,
    /// Nothing but a sign of life.
    Heartbeat,
    /// The asking side no longer waits for an answer; none need come.
    Cancel,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
            Self::Refusal => 3,
            Self::Heartbeat => 4,
            Self::Cancel => 5,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Request, Self::Reply, Self::Refusal, Self::Heartbeat, Self::Cancel]
            .into_iter()
            .find(|k| k.code() == code)
    }
}

/// Frame header, version 1: 32 bytes. Integers are little-endian.
///
/// | offset | size | field       | meaning                                                           |
/// |-------:|-----:|-------------|-------------------------------------------------------------------|
/// |      0 |    4 | magic       | `HFPL`                                                            |
/// |      4 |    1 | version     | 1                                                                 |
/// |      5 |    1 | kind        | 1 request, 2 reply, 3 refusal, 4 heartbeat, 5 cancel              |
/// |      6 |    2 | method      | [`Method::code`](crate::Method::code); 0 in heartbeat and cancel  |
/// |      8 |    8 | request id  | chosen by the asking side, not 0; 0 in a heartbeat                |
/// |     16 |    2 | status      | code of a refusal, not 0; 0 in all others                         |
/// |     18 |    2 | reserved    | zero, verified                                                    |
/// |     20 |    4 | deadline    | request: milliseconds left to answer, 1 to 600,000; 0 in others   |
/// |     24 |    4 | body len    | to 16 MiB (refusal: 64 KiB); 0 in heartbeat and cancel            |
/// |     28 |    4 | payload len | to one shard (512 KiB); 0 in all but request and reply            |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// What is asked. Kept as a number: an unknown method is refused, it does not break the link.
    pub method: u16,
    /// Which request this is or answers.
    pub id: u64,
    /// Code of a refusal.
    pub status: u16,
    /// Milliseconds left to answer.
    pub deadline_ms: u32,
    /// Bytes of body.
    pub body_len: u32,
    /// Bytes of payload.
    pub payload_len: u32,
}

/// A header that ends the connection it came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else is spoken here.
    #[error("not a frame: it begins with {0:02x?}")]
    NotAFrame([u8; 4]),
    /// A newer or older program.
    #[error("frame version {0}, this program speaks version {VERSION}")]
    UnknownVersion(u8),
    /// No such kind.
    #[error("frame kind {0} does not exist")]
    UnknownKind(u8),
    /// A field that has no meaning in this kind, or lacks the one it must have.
    #[error("{field} is {value} in a {kind:?} frame")]
    Misplaced {
        /// Kind of the frame.
        kind: Kind,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// More than the limit.
    #[error("{what} of {size} bytes, at most {limit} are read")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its declared size.
        size: usize,
        /// What would be read.
        limit: usize,
    },
}

impl Header {
    /// Size in bytes.
    pub const SIZE: usize = 32;

    /// A sign of life.
    pub const HEARTBEAT: Self = Self {
        kind: Kind::Heartbeat,
        method: 0,
        id: 0,
        status: 0,
        deadline_ms: 0,
        body_len: 0,
        payload_len: 0,
    };

    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Result<Self, FrameError> {
        let magic = array(bytes, 0);
        if magic != MAGIC {
            return Err(FrameError::NotAFrame(magic));
        }
        if bytes[4] != VERSION {
            return Err(FrameError::UnknownVersion(bytes[4]));
        }
        let kind = Kind::from_code(bytes[5]).ok_or(FrameError::UnknownKind(bytes[5]))?;
        let header = Self {
            kind,
            method: u16::from_le_bytes(array(bytes, 6)),
            id: u64::from_le_bytes(array(bytes, 8)),
            status: u16::from_le_bytes(array(bytes, 16)),
            deadline_ms: u32::from_le_bytes(array(bytes, 20)),
            body_len: u32::from_le_bytes(array(bytes, 24)),
            payload_len: u32::from_le_bytes(array(bytes, 28)),
        };
        let reserved = u16::from_le_bytes(array(bytes, 18));
        if reserved != 0 {
            return Err(FrameError::Misplaced { kind, field: "reserved", value: reserved.into() });
        }
        header.check()?;
        Ok(header)
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        debug_assert_eq!(self.check(), Ok(()), "only valid headers are sent");
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.kind.code();
        bytes[6..8].copy_from_slice(&self.method.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.status.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.deadline_ms.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn frame_len(&self) -> u64 {
        Self::SIZE as u64 + u64::from(self.body_len) + u64::from(self.payload_len)
    }

    fn check(&self) -> Result<(), FrameError> {
        let kind = self.kind;
        let (request, refusal, heartbeat) =
            (kind == Kind::Request, kind == Kind::Refusal, kind == Kind::Heartbeat);
        let bare = heartbeat || kind == Kind::Cancel;
        let rules = [
            ("request id", self.id, heartbeat == (self.id == 0)),
            ("method", self.method.into(), !bare || self.method == 0),
            ("status", self.status.into(), refusal == (self.status != 0)),
            ("deadline", self.deadline_ms.into(), request == (self.deadline_ms != 0)),
            ("deadline", self.deadline_ms.into(), self.deadline_ms <= DEADLINE_MAX_MS),
            ("body length", self.body_len.into(), !bare || self.body_len == 0),
            ("payload length", self.payload_len.into(), !(bare || refusal) || self.payload_len == 0),
        ];
        if let Some((field, value, _)) = rules.into_iter().find(|(_, _, holds)| !holds) {
            return Err(FrameError::Misplaced { kind, field, value });
        }
        let body_limit = if refusal { REFUSAL_SIZE_MAX } else { BODY_SIZE_MAX };
        check_size("body", self.body_len as usize, body_limit)?;
        check_size("payload", self.payload_len as usize, PAYLOAD_SIZE_MAX)
    }
}

/// Refuses `size` above `limit`.
pub(crate) fn check_size(what: &'static str, size: usize, limit: usize) -> Result<(), FrameError> {
    if size > limit { Err(FrameError::TooLarge { what, size, limit }) } else { Ok(()) }
}

fn array<const N: usize>(bytes: &[u8; Header::SIZE], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("fields lie inside the header")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: Header = Header {
        kind: Kind::Request,
        method: 2,
        id: 0x0102_0304_0506_0708,
        status: 0,
        deadline_ms: 20_000,
        body_len: 77,
        payload_len: 512 * 1024,
    };

    const GOLDEN: [u8; 32] = [
        b'H', b'F', b'P', b'L', 1, 1, 2, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0x20, 0x4e, 0, 0, 77, 0, 0,
        0, 0, 0, 8, 0,
    ];

    #[test]
    fn version_1_headers_stay_readable() {
        assert_eq!(REQUEST.encode(), GOLDEN);
        assert_eq!(Header::parse(&GOLDEN), Ok(REQUEST));
        assert_eq!(Header::parse(&Header::HEARTBEAT.encode()), Ok(Header::HEARTBEAT));
    }

    #[test]
    fn every_rule_of_the_table_is_enforced() {
        let with = |at: usize, value: &[u8]| {
            let mut bytes = GOLDEN;
            bytes[at..at + value.len()].copy_from_slice(value);
            Header::parse(&bytes)
        };
        assert_eq!(with(0, b"GET "), Err(FrameError::NotAFrame(*b"GET ")));
        assert_eq!(with(4, &[2]), Err(FrameError::UnknownVersion(2)));
        assert_eq!(with(5, &[0]), Err(FrameError::UnknownKind(0)));
        for (at, value) in [
            (8, [0; 8].as_slice()),
            (16, &[1, 0]),
            (18, &[0, 1]),
            (20, &[0; 4]),
            (20, &(DEADLINE_MAX_MS + 1).to_le_bytes()),
        ] {
            assert!(matches!(with(at, value), Err(FrameError::Misplaced { .. })), "{at} {value:?}");
        }
        for (at, limit) in [(24, BODY_SIZE_MAX), (28, PAYLOAD_SIZE_MAX)] {
            let limit = u32::try_from(limit).unwrap();
            assert!(with(at, &limit.to_le_bytes()).is_ok());
            assert!(matches!(with(at, &(limit + 1).to_le_bytes()), Err(FrameError::TooLarge { .. })));
        }
        // As a refusal the same bytes lack a status and carry a deadline and a payload.
        assert!(with(5, &[3]).is_err());
        assert!(with(5, &[4]).is_err());
        assert!(with(5, &[5]).is_err());
        let cancel = Header { kind: Kind::Cancel, id: 7, ..Header::HEARTBEAT };
        assert_eq!(Header::parse(&cancel.encode()), Ok(cancel));
    }

    proptest! {
        #[test]
        fn what_parses_encodes_to_the_same_bytes(mut bytes in any::<[u8; 32]>(), keep in any::<[bool; 32]>()) {
            // Noise over a valid header reaches deeper than noise alone.
            for (i, keep) in keep.into_iter().enumerate() {
                if keep {
                    bytes[i] = GOLDEN[i];
                }
            }
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
                prop_assert!(header.body_len as usize <= BODY_SIZE_MAX);
                prop_assert!(header.payload_len as usize <= PAYLOAD_SIZE_MAX);
            }
        }

        #[test]
        fn a_changed_byte_is_never_read_as_the_same_header(at in 0..32_usize, flip in 1..=255_u8) {
            let mut bytes = GOLDEN;
            bytes[at] ^= flip;
            prop_assert_ne!(Header::parse(&bytes), Ok(REQUEST));
        }
    }
}
