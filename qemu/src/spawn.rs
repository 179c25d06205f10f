//! Starts processes that die with this one.
//!
//! The kernel can send a signal to a process when its parent ends, but means by "parent" the thread that
//! started it. So all processes are started by one thread that lives as long as this process. The
//! signal is asked for by `setpriv` of util-linux, in the child, without unsafe code here. What remains is
//! the millisecond between fork and that request: a process killed in it leaves a child behind.

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

    /// Not a test: the process that the next test kills. It starts a child, says its number, and waits.
    #[test]
    #[ignore = "run by children_die_with_a_process_that_is_killed"]
    fn parent_of_a_sleeper() {
        let output = tempfile::tempfile().unwrap();
        let mut child = spawn(Program { name: "sleep", arguments: vec!["600".into()], output }).unwrap();
        println!("sleeper {}", child.id());
        child.wait().unwrap();
    }

    #[test]
    fn children_die_with_a_process_that_is_killed() {
        use std::io::{BufRead as _, BufReader};
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "spawn::tests::parent_of_a_sleeper"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let number = |line: String| line.split("sleeper ").nth(1).map(str::to_owned);
        let sleeper = lines.map_while(Result::ok).find_map(number).expect("the parent names its child");
        let status = std::path::PathBuf::from(format!("/proc/{sleeper}/status"));
        let alive = || std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("State:\tZ"));
        // Until it has become `sleep`, it may not have asked for the signal yet.
        let asked = || std::fs::read_to_string(&status).unwrap().contains("Name:\tsleep");
        while !asked() {
            thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(alive());
        parent.kill().unwrap();
        parent.wait().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while alive() {
            assert!(std::time::Instant::now() < deadline, "process {sleeper} outlived its parent");
            thread::sleep(std::time::Duration::from_millis(20));
        }
    }

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
