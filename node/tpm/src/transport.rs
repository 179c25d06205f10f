//! The way to the TPM: one command written, one answer read.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{error::TpmError, wire::Reader};

/// Longest answer that is read, in bytes: what Linux's driver hands over at most (TPM_BUFSIZE).
pub const RESPONSE_SIZE_MAX: usize = 4096;
/// Tag, size and code of an answer, in bytes (Part 1, 18.10).
const HEADER_SIZE: usize = 10;
/// An emulator that says nothing for so long is not there. Linux has its own limits for chips.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often a command is sent again that the TPM asks for again.
const ATTEMPTS_MAX: u32 = 20;
/// Pause before that.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Response codes that ask for the command again (Part 2, 6.6.3): busy, self-test, yielded.
const AGAIN: [u32; 3] = [0x922, 0x90a, 0x908];

enum Line {
    Device(File),
    Socket(UnixStream),
}

/// An open TPM.
pub(crate) struct Transport {
    path: PathBuf,
    line: Line,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Transport {
    pub(crate) fn open(path: &Path) -> Result<Self, TpmError> {
        let failed = |source: io::Error| {
            if source.kind() == io::ErrorKind::NotFound {
                TpmError::Absent { path: path.to_owned() }
            } else {
                TpmError::Io { path: path.to_owned(), source }
            }
        };
        let is_socket = std::fs::metadata(path).map_err(failed)?.file_type().is_socket();
        let line = if is_socket {
            let stream = UnixStream::connect(path).map_err(failed)?;
            stream.set_read_timeout(Some(SILENCE_MAX)).map_err(failed)?;
            Line::Socket(stream)
        } else {
            Line::Device(OpenOptions::new().read(true).write(true).open(path).map_err(failed)?)
        };
        Ok(Self { path: path.to_owned(), line })
    }

    /// Sends a command; returns what follows the header of the answer to it.
    pub(crate) fn ask(&mut self, name: &'static str, command: &[u8]) -> Result<Vec<u8>, TpmError> {
        for _ in 0..ATTEMPTS_MAX {
            let answer =
                self.exchange(command).map_err(|source| TpmError::Io { path: self.path.clone(), source })?;
            match parse(&answer).ok_or(TpmError::Malformed { command: name })? {
                (0, body) => return Ok(body.to_vec()),
                (code, _) if AGAIN.contains(&code) => thread::sleep(RETRY_PAUSE),
                (code, _) => return Err(TpmError::Refused { command: name, code }),
            }
        }
        Err(TpmError::Refused { command: name, code: AGAIN[0] })
    }

    fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        match &mut self.line {
            Line::Device(device) => {
                // The driver takes a command in one write, and gives its answer in one read.
                device.write_all(command)?;
                let mut answer = vec![0; RESPONSE_SIZE_MAX];
                let length = device.read(&mut answer)?;
                answer.truncate(length);
                Ok(answer)
            }
            Line::Socket(stream) => {
                stream.write_all(command)?;
                let mut answer = vec![0; HEADER_SIZE];
                stream.read_exact(&mut answer)?;
                let size = u32::from_be_bytes([answer[2], answer[3], answer[4], answer[5]]);
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                if !(HEADER_SIZE..=RESPONSE_SIZE_MAX).contains(&size) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                answer.resize(size, 0);
                stream.read_exact(&mut answer[HEADER_SIZE..])?;
                Ok(answer)
            }
        }
    }
}

/// Code and body of an answer whose size is what it says.
pub(crate) fn parse(answer: &[u8]) -> Option<(u32, &[u8])> {
    let mut reader = Reader::new(answer);
    let (_tag, size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
    (usize::try_from(size).ok()? == answer.len()).then(|| (code, reader.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_says_or_none() {
        let answer = [0x80, 1, 0, 0, 0, 11, 0, 0, 1, 0xdf, 7];
        assert_eq!(parse(&answer), Some((0x1df, &[7][..])));
        for length in 0..answer.len() {
            assert_eq!(parse(&answer[..length]), None);
        }
    }

    #[test]
    fn a_tpm_that_is_not_there_is_said_to_be_absent() {
        let error = Transport::open(Path::new("/nonexistent/tpm")).unwrap_err();
        assert!(matches!(error, TpmError::Absent { .. }), "{error}");
    }
}
