//! The NBD protocol, as far as a disk needs it: fixed newstyle handshake, simple replies.
//!
//! After the specification of the protocol (NBD project, `doc/proto.md`). Integers are big-endian.
//!
//! | message      | layout                                                                              |
//! |--------------|-------------------------------------------------------------------------------------|
//! | greeting     | `NBDMAGIC` · `IHAVEOPT` · u16 flags (fixed newstyle, no zeroes); client: u32 flags    |
//! | option       | `IHAVEOPT` · u32 option · u32 length · data                                          |
//! | option reply | u64 0x3e889045565a9 · u32 option · u32 kind · u32 length · data                      |
//! | request      | u32 0x25609513 · u16 flags · u16 kind · u64 cookie · u64 offset · u32 length         |
//! | reply        | u32 0x67446698 · u32 error · u64 cookie · data of a read                             |

use std::io::{self, Read, Write};

/// Longest request in bytes; what clients assume when nothing else is said.
pub const REQUEST_SIZE_MAX: u32 = 32 << 20;

/// Longest option data in bytes that is looked at.
const OPTION_SIZE_MAX: u32 = 8 << 10;

/// Smallest piece a client may ask for, in bytes, and what it better asks for.
const BLOCK_SIZE_MIN: u32 = 512;
const BLOCK_SIZE_PREFERRED: u32 = 4096;

const MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY_MAGIC: u64 = 0x3_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

const HANDSHAKE_FIXED_NEWSTYLE: u16 = 1;
const HANDSHAKE_NO_ZEROES: u16 = 2;

const OPTION_EXPORT_NAME: u32 = 1;
const OPTION_ABORT: u32 = 2;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;

const REPLY_ACKNOWLEDGE: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = (1 << 31) + 1;
const REPLY_INVALID: u32 = (1 << 31) + 3;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flags: flags are here, FLUSH and FUA work. Nothing else is offered.
pub const TRANSMISSION_FLAGS: u16 = 1 | 4 | 8;

const COMMAND_FUA: u16 = 1;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Bytes.
    Read,
    /// To write the bytes that follow; durable before the reply, when `fua`.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// To go.
    Disconnect,
    /// All that was answered made durable.
    Flush,
    /// Something that is not offered (TRIM is 4).
    Other(u16),
}

/// A request; of a write, the bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub command: Command,
    /// The client's name for it.
    pub cookie: u64,
    /// Where.
    pub offset: u64,
    /// How much.
    pub length: u32,
}

impl Request {
    /// Bytes of a request on the wire.
    pub const SIZE: usize = 28;

    /// Reads a request.
    ///
    /// # Errors
    /// `InvalidData` when it is none, or larger than [`REQUEST_SIZE_MAX`]: the stream is out of step then.
    pub fn parse(bytes: &[u8; Self::SIZE]) -> io::Result<Self> {
        let mut bytes = &bytes[..];
        if u32::from_be_bytes(take(&mut bytes)?) != REQUEST_MAGIC {
            return Err(invalid("not an NBD request"));
        }
        let flags = u16::from_be_bytes(take(&mut bytes)?);
        let command = match u16::from_be_bytes(take(&mut bytes)?) {
            0 => Command::Read,
            1 => Command::Write { fua: flags & COMMAND_FUA != 0 },
            2 => Command::Disconnect,
            3 => Command::Flush,
            other => Command::Other(other),
        };
        let cookie = u64::from_be_bytes(take(&mut bytes)?);
        let offset = u64::from_be_bytes(take(&mut bytes)?);
        let length = u32::from_be_bytes(take(&mut bytes)?);
        if length > REQUEST_SIZE_MAX && matches!(command, Command::Read | Command::Write { .. }) {
            return Err(invalid("an NBD request of more than 32 MiB"));
        }
        Ok(Self { command, cookie, offset, length })
    }
}

/// Answers a request; `error` is an error number or zero.
///
/// # Errors
/// Those of writing.
pub fn reply(stream: &mut impl Write, cookie: u64, error: u32, data: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(16 + data.len());
    message.extend(REPLY_MAGIC.to_be_bytes());
    message.extend(error.to_be_bytes());
    message.extend(cookie.to_be_bytes());
    message.extend(data);
    stream.write_all(&message)
}

/// Greets a client and haggles until it takes the one export there is, of whatever name.
///
/// Returns whether transmission begins; `false` when the client changed its mind.
///
/// # Errors
/// Those of the stream; `InvalidData` when the client speaks something else.
pub fn handshake(stream: &mut (impl Read + Write), size: u64) -> io::Result<bool> {
    let mut greeting = [MAGIC.to_be_bytes(), OPTION_MAGIC.to_be_bytes()].concat();
    greeting.extend((HANDSHAKE_FIXED_NEWSTYLE | HANDSHAKE_NO_ZEROES).to_be_bytes());
    stream.write_all(&greeting)?;
    let client_flags = u32::from_be_bytes(receive(stream)?);
    loop {
        if u64::from_be_bytes(receive(stream)?) != OPTION_MAGIC {
            return Err(invalid("not an NBD option"));
        }
        let option = u32::from_be_bytes(receive(stream)?);
        let length = u32::from_be_bytes(receive(stream)?);
        if length > OPTION_SIZE_MAX {
            return Err(invalid("an NBD option of more than 8 KiB"));
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        match option {
            OPTION_EXPORT_NAME => {
                let mut answer = size.to_be_bytes().to_vec();
                answer.extend(TRANSMISSION_FLAGS.to_be_bytes());
                if client_flags & u32::from(HANDSHAKE_NO_ZEROES) == 0 {
                    answer.extend([0; 124]);
                }
                stream.write_all(&answer)?;
                return Ok(true);
            }
            OPTION_ABORT => {
                option_reply(stream, option, REPLY_ACKNOWLEDGE, &[])?;
                return Ok(false);
            }
            OPTION_INFO | OPTION_GO if is_info_request(&data) => {
                let mut export = INFO_EXPORT.to_be_bytes().to_vec();
                export.extend(size.to_be_bytes());
                export.extend(TRANSMISSION_FLAGS.to_be_bytes());
                option_reply(stream, option, REPLY_INFO, &export)?;
                let mut blocks = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
                for size in [BLOCK_SIZE_MIN, BLOCK_SIZE_PREFERRED, REQUEST_SIZE_MAX] {
                    blocks.extend(size.to_be_bytes());
                }
                option_reply(stream, option, REPLY_INFO, &blocks)?;
                option_reply(stream, option, REPLY_ACKNOWLEDGE, &[])?;
                if option == OPTION_GO {
                    return Ok(true);
                }
            }
            OPTION_INFO | OPTION_GO => option_reply(stream, option, REPLY_INVALID, &[])?,
            _ => option_reply(stream, option, REPLY_UNSUPPORTED, &[])?,
        }
    }
}

/// u32 length of a name · name · u16 count · so many u16.
fn is_info_request(data: &[u8]) -> bool {
    let mut rest = data;
    let Ok(name) = take(&mut rest).map(u32::from_be_bytes) else { return false };
    let Some((_, mut rest)) = rest.split_at_checked(name as usize) else { return false };
    let Ok(count) = take(&mut rest).map(u16::from_be_bytes) else { return false };
    rest.len() == usize::from(count) * 2
}

fn option_reply(stream: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut message = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    message.extend(option.to_be_bytes());
    message.extend(kind.to_be_bytes());
    message.extend(u32::try_from(data.len()).expect("a few bytes").to_be_bytes());
    message.extend(data);
    stream.write_all(&message)
}

fn receive<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> io::Result<[u8; N]> {
    let (field, rest) = bytes.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    *bytes = rest;
    Ok(*field)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
