//! Starts processes that die with this one.
//!
//! The kernel can send a signal to a process when its parent ends, but means by "parent" the thread that
//! started it. So all processes are started by one thread that lives as long as this process. The
//! signal is asked for by `setpriv` of util-linux, in the child, without unsafe code here.

use std::{
    ffi::OsString,
    fs::File,
    io,
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    thread,
};

/// A program with its arguments; its output goes to a file.
#[derive(Debug)]
pub struct Program {
    /// Name, found in PATH.
    pub name: &'static str,
    /// Arguments.
    pub arguments: Vec<OsString>,
    /// Standard output and error.
    pub output: File,
}

type Request = (Program, mpsc::Sender<io::Result<Child>>);

/// Starts a program that gets SIGKILL when this process ends.
///
/// # Errors
/// When `setpriv` cannot be started. A missing program itself shows in the child's exit status.
pub fn spawn(program: Program) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (program, answer) in requests {
                    // A caller that went away leaves a child that is reaped when this process ends.
                    drop(answer.send(start(program)));
                }
            })
            .expect("a process that starts machines can start a thread");
        Mutex::new(sender)
    });
    let (sender, answer) = mpsc::channel();
    let gone = || io::Error::other("the spawning thread has ended");
    spawner.lock().map_err(|_| gone())?.send((program, sender)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn start(program: Program) -> io::Result<Child> {
    let output = program.output;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", program.name])
        .args(program.arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let output = tempfile::tempfile().unwrap();
        let program = Program { name: "sleep", arguments: vec!["60".into()], output };
        let mut child = thread::spawn(move || spawn(program).unwrap()).join().unwrap();
        thread::sleep(std::time::Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none(), "the child died with the thread");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
