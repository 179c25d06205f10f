//! The control socket of a supervised cluster: one request and one answer per connection, each a line
//! of JSON.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    cluster::ClusterStatus,
    disks::CorruptedDrive,
    error::{HarnessError, io_error},
    spec::Image,
    supervisor::running_supervisor,
    switch::LinkFault,
};

/// A longer message is not one of ours.
const MESSAGE_SIZE_MAX: u64 = 1 << 20;
/// The slowest command is a shutdown of all machines.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// What a supervisor is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Power cut.
    Kill {
        /// Machine.
        node: String,
    },
    /// Power on.
    Start {
        /// Machine.
        node: String,
    },
    /// Power button; answered when the machine is off.
    Stop {
        /// Machine.
        node: String,
    },
    /// Stand still.
    Pause {
        /// Machine.
        node: String,
    },
    /// Go on.
    Resume {
        /// Machine.
        node: String,
    },
    /// Pull a drive.
    Unplug {
        /// Machine.
        node: String,
        /// Drive.
        drive: String,
    },
    /// Put a drive back.
    Plug {
        /// Machine.
        node: String,
        /// Drive.
        drive: String,
    },
    /// Rot a drive.
    Corrupt {
        /// Machine.
        node: String,
        /// Drive.
        drive: String,
        /// Blocks of 4 KiB to change at most.
        blocks_max: u64,
    },
    /// Keep a copy of what a drive with a volatile cache holds.
    Remember {
        /// Machine.
        node: String,
        /// Drive.
        drive: String,
    },
    /// Put such a drive back to the copy, or to nothing when there is none. The machine must be off.
    PutBack {
        /// Machine.
        node: String,
        /// Drive.
        drive: String,
    },
    /// Write what such a drive holds to a file.
    Dump {
        /// Machine.
        node: String,
        /// Drive.
        drive: String,
        /// The file, which must not exist.
        file: PathBuf,
    },
    /// Set how far a machine's clock is ahead of the host's when it is next started.
    SetClock {
        /// Machine.
        node: String,
        /// Seconds; negative when it is behind.
        ahead_seconds: i64,
    },
    /// Set how much memory a machine has when it is next started.
    SetMemory {
        /// Machine.
        node: String,
        /// Memory.
        memory_mib: u32,
    },
    /// Set what a machine boots when it is next started. Its disks stay; one that boots from its disk through
    /// firmware is refused.
    SetImage {
        /// Machine.
        node: String,
        /// Kernel and initramfs; the disk image is not looked at.
        image: Image,
    },
    /// Cut a machine off.
    Partition {
        /// Machine.
        node: String,
    },
    /// Take all faults from a machine's links.
    Heal {
        /// Machine.
        node: String,
    },
    /// Set what is wrong with one link, in one direction.
    Link {
        /// Sender.
        from: String,
        /// Receiver.
        to: String,
        /// Fault.
        fault: LinkFault,
    },
    /// Say what is in the registers of a machine's processors: where one is that gets nowhere.
    Registers {
        /// Machine.
        node: String,
    },
    /// Say what there is.
    Status,
    /// Switch everything off and end.
    Shutdown,
}

/// What a supervisor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// The state.
    Status(ClusterStatus),
    /// What was rotten.
    Corrupted(CorruptedDrive),
    /// Registers, as QEMU prints them.
    Registers {
        /// For people.
        text: String,
    },
    /// Everything is off; these machines had to be killed.
    Stopped {
        /// Their names.
        killed: Vec<String>,
    },
    /// It could not be done.
    Failed {
        /// Why.
        message: String,
    },
}

/// Sends a command to the supervisor at a control socket.
///
/// # Errors
/// `NoSupervisor` when nobody listens, `Refused` with the supervisor's reason, `Io`, `BadMessage`.
pub fn send(socket: &Path, command: &Command) -> Result<Reply, HarnessError> {
    let stream = UnixStream::connect(socket).map_err(|_| HarnessError::NoSupervisor(socket.to_owned()))?;
    let failed = || io_error("talk to", socket);
    stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(failed())?;
    write_line(&stream, command).map_err(failed())?;
    match read_line(&stream, socket)? {
        Reply::Failed { message } => Err(HarnessError::Refused(message)),
        reply => Ok(reply),
    }
}

/// Sends a command to the supervisor of the cluster in a directory.
///
/// # Errors
/// As `send`.
pub fn send_to_cluster(dir: &Path, command: &Command) -> Result<Reply, HarnessError> {
    let info = running_supervisor(dir).ok_or_else(|| HarnessError::NoSupervisor(dir.to_owned()))?;
    send(&info.control_socket, command)
}

/// Writes a message.
pub fn write_line(mut stream: &UnixStream, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message).expect("messages are plain data");
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads a message.
pub fn read_line<T: DeserializeOwned>(stream: &UnixStream, socket: &Path) -> Result<T, HarnessError> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream).take(MESSAGE_SIZE_MAX);
    reader.read_until(b'\n', &mut line).map_err(io_error("read from", socket))?;
    serde_json::from_slice(&line).map_err(HarnessError::BadMessage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_readable_json() {
        let command = Command::Unplug { node: "n2".into(), drive: "d1".into() };
        let text = serde_json::to_string(&command).unwrap();
        assert_eq!(text, r#"{"command":"unplug","node":"n2","drive":"d1"}"#);
        assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command);
        assert!(serde_json::from_str::<Command>(r#"{"command":"reformat"}"#).is_err());
    }
}
