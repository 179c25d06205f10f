//! How messages travel.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Largest frame in bytes, its length aside: a rotation's tenants and a record of the second copy fit.
pub const FRAME_SIZE_MAX: usize = 64 * 1024 * 1024;

const NUMBER_SIZE: usize = 8;

/// Writes one frame.
///
/// # Errors
/// I/O; `InvalidInput` when it is larger than [`FRAME_SIZE_MAX`].
pub fn send(to: &mut impl Write, number: u64, message: &impl Serialize) -> io::Result<()> {
    let mut head = Zeroizing::new(vec![0; 4]);
    head.extend_from_slice(&number.to_le_bytes());
    // Serialized once for its size, so that no growing buffer leaves secrets behind.
    let size = postcard::experimental::serialized_size(message).map_err(io::Error::other)?;
    let mut frame = Zeroizing::new(vec![0; 4 + NUMBER_SIZE + size]);
    if NUMBER_SIZE + size > FRAME_SIZE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a frame past its limit"));
    }
    let length = u32::try_from(NUMBER_SIZE + size).map_err(io::Error::other)?;
    frame[..4 + NUMBER_SIZE].copy_from_slice(&head);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    postcard::to_slice(message, &mut frame[4 + NUMBER_SIZE..]).map_err(io::Error::other)?;
    to.write_all(&frame)
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// I/O; `InvalidData` for what is no frame.
pub fn receive<T: for<'de> Deserialize<'de>>(from: &mut impl Read) -> io::Result<Option<(u64, T)>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        outcome => outcome?,
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if !(NUMBER_SIZE..=FRAME_SIZE_MAX).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut frame)?;
    let (number, body) = frame.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
    let message = postcard::from_bytes(body)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(Some((u64::from_le_bytes(*number), message)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Hidden, Request},
        *,
    };

    #[test]
    fn frames_come_as_they_went_and_what_is_none_is_refused() {
        let mut line = Vec::new();
        let request = Request::Unseal(Hidden::of(b"correct horse"));
        send(&mut line, 7, &request).unwrap();
        send(&mut line, 8, &Request::State).unwrap();
        let mut from = line.as_slice();
        assert_eq!(receive::<Request>(&mut from).unwrap(), Some((7, request.clone())));
        assert_eq!(receive::<Request>(&mut from).unwrap(), Some((8, Request::State)));
        assert_eq!(receive::<Request>(&mut from).unwrap(), None);
        assert!(!format!("{request:?}").contains("horse") && !format!("{request:?}").contains("99"));
        for bad in [&[0xff; 16][..], &[3, 0, 0, 0, 1, 2, 3], &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99]] {
            assert!(receive::<Request>(&mut &bad[..]).is_err());
        }
    }
}
