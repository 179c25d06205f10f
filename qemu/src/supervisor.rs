//! The process that owns a cluster while nobody watches it.
//!
//! `cargo xtask up --detach` starts it as a process of its own; `xtask vm` and `xtask down` talk to it.
//! It ends on `Shutdown`, SIGTERM or SIGINT, and its machines with it; when it is killed, the kernel
//! kills them.

use std::{
    fs,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{
    cluster::{Cluster, runtime_directory},
    control::{Command, Reply, read_line, write_line},
    error::{HarnessError, io_error},
    guest::check_socket_path,
    spec::ClusterSpec,
};

/// In the cluster's directory: where its supervisor is.
pub const SUPERVISOR_FILE: &str = "supervisor.json";
/// Machines may take this long to switch themselves off.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// A client that connects and says nothing is dropped.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
const ACCEPT_INTERVAL: Duration = Duration::from_millis(50);

/// What a supervisor says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorInfo {
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub control_socket: PathBuf,
}

/// The supervisor of the cluster in a directory, if one answers.
pub fn running_supervisor(dir: &Path) -> Option<SupervisorInfo> {
    let info: SupervisorInfo = serde_json::from_slice(&fs::read(dir.join(SUPERVISOR_FILE)).ok()?).ok()?;
    UnixStream::connect(&info.control_socket).is_ok().then_some(info)
}

/// Starts a cluster and serves its control socket until it is told to end.
///
/// The socket lies in a private directory; `running_supervisor` finds it through the cluster's own.
/// `ready` is called once the machines that start with the cluster have been started.
///
/// # Errors
/// As `Cluster::start`, and `Io` when the socket cannot be served.
pub fn supervise(spec: &ClusterSpec, ready: impl FnOnce(&SupervisorInfo)) -> Result<(), HarnessError> {
    if let Some(other) = running_supervisor(&spec.dir) {
        return Err(HarnessError::AlreadySupervised { dir: spec.dir.clone(), pid: other.pid });
    }
    let runtime = runtime_directory()?;
    let control_socket = &runtime.path().join("control");
    check_socket_path(control_socket)?;
    let ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&ending))
            .map_err(io_error("catch signals for", &spec.dir))?;
    }
    fs::create_dir_all(&spec.dir).map_err(io_error("create", &spec.dir))?;
    let listener = UnixListener::bind(control_socket).map_err(io_error("listen on", control_socket))?;
    listener.set_nonblocking(true).map_err(io_error("listen on", control_socket))?;
    let mut cluster = Cluster::start(spec)?;

    let file = spec.dir.join(SUPERVISOR_FILE);
    let info = SupervisorInfo { pid: std::process::id(), control_socket: control_socket.to_owned() };
    let json = serde_json::to_vec_pretty(&info).expect("a number and a path serialise");
    fs::write(&file, json).map_err(io_error("write", &file))?;
    let _file = Removed(file);
    ready(&info);

    while !ending.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                if serve(&mut cluster, &stream, control_socket) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::sleep(ACCEPT_INTERVAL),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error("listen on", control_socket)(error)),
        }
    }
    cluster.stop(STOP_WITHIN);
    Ok(())
}

/// A file that goes when its owner goes.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// Serves one connection; `true` when the supervisor is to end.
fn serve(cluster: &mut Cluster, stream: &UnixStream, socket: &Path) -> bool {
    let ready = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(REQUEST_WITHIN)));
    if ready.is_err() {
        return false;
    }
    let (reply, end) = match read_line::<Command>(stream, socket) {
        // Someone only looked whether we are there.
        Err(HarnessError::BadMessage(error)) if error.is_eof() => return false,
        Err(error) => (Reply::Failed { message: chain(&error) }, false),
        Ok(Command::Shutdown) => (Reply::Stopped { killed: cluster.stop(STOP_WITHIN) }, true),
        Ok(command) => (
            carry_out(cluster, &command).unwrap_or_else(|error| Reply::Failed { message: chain(&error) }),
            false,
        ),
    };
    // A client that went away does not get its answer; what it asked for is done.
    write_line(stream, &reply).ok();
    end
}

fn carry_out(cluster: &mut Cluster, command: &Command) -> Result<Reply, HarnessError> {
    match command {
        Command::Kill { node } => cluster.guest(node)?.kill(),
        Command::Start { node } => cluster.guest(node)?.start()?,
        Command::Stop { node } => {
            let guest = cluster.guest(node)?;
            if !guest.stop(STOP_WITHIN)? {
                let node = node.clone();
                return Err(HarnessError::WrongState {
                    node,
                    state: "still running",
                    needed: "kill it if it must end",
                });
            }
        }
        Command::Pause { node } => cluster.guest(node)?.pause()?,
        Command::Resume { node } => cluster.guest(node)?.resume()?,
        Command::Unplug { node, drive } => cluster.guest(node)?.unplug(drive)?,
        Command::Plug { node, drive } => cluster.guest(node)?.plug(drive)?,
        Command::Corrupt { node, drive, blocks_max } => {
            return Ok(Reply::Corrupted(cluster.corrupt(node, drive, *blocks_max)?));
        }
        Command::Remember { node, drive } => cluster.guest(node)?.remember(drive)?,
        Command::PutBack { node, drive } => cluster.guest(node)?.put_back(drive)?,
        Command::Dump { node, drive, file } => cluster.guest(node)?.dump(drive, file)?,
        Command::SetClock { node, ahead_seconds } => cluster.guest(node)?.set_clock(*ahead_seconds),
        Command::SetMemory { node, memory_mib } => cluster.guest(node)?.set_memory(*memory_mib),
        Command::SetImage { node, image } => cluster.guest(node)?.set_image(image.clone())?,
        Command::Partition { node } => cluster.partition(node)?,
        Command::Heal { node } => cluster.heal(node)?,
        Command::Link { from, to, fault } => cluster.set_link_fault(from, to, *fault)?,
        Command::Registers { node } => {
            return Ok(Reply::Registers { text: cluster.guest(node)?.registers()? });
        }
        Command::Status => return Ok(Reply::Status(cluster.status())),
        Command::Shutdown => unreachable!("the caller serves it"),
    }
    Ok(Reply::Done)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
