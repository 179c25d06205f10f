//! QEMU Machine Protocol: JSON lines over a unix socket (QEMU docs/interop/qmp-spec).

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Events kept until someone asks; older ones are dropped.
const EVENTS_MAX: usize = 256;
/// A line longer than this is not from QEMU.
const LINE_SIZE_MAX: usize = 1 << 20;
/// A command is answered within this time unless the host is stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket.
    #[error("the QMP socket failed")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer to {0} in time")]
    Timeout(String),
    /// QEMU went away.
    #[error("QEMU closed the connection")]
    Closed,
    /// Not JSON, or not what the protocol says.
    #[error("unreadable message from QEMU")]
    Unreadable(#[source] serde_json::Error),
    /// QEMU refused.
    #[error("QEMU refused {command}: {description}")]
    Refused {
        /// Command.
        command: String,
        /// QEMU's words.
        description: String,
    },
}

/// A connection.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    line: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects and leaves the negotiation mode.
    ///
    /// # Errors
    /// `Io` when nobody listens, `Timeout`, `Closed`, `Unreadable`.
    pub fn connect(path: &Path) -> Result<Self, QmpError> {
        let writer = UnixStream::connect(path)?;
        let reader = BufReader::new(writer.try_clone()?);
        let mut qmp = Self { reader, writer, line: Vec::new(), events: VecDeque::new() };
        let deadline = Instant::now() + ANSWER_WITHIN;
        while qmp.read("the greeting", deadline)?.get("QMP").is_none() {}
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returns.
    ///
    /// # Errors
    /// All of `QmpError`.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let mut message = json!({ "execute": command });
        if arguments.as_object().is_some_and(|arguments| !arguments.is_empty()) {
            message["arguments"] = arguments;
        }
        writeln!(self.writer, "{message}")?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let mut answer = self.read(command, deadline)?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let description = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), description });
            }
            self.keep(answer);
        }
    }

    /// Waits for an event, also among those that arrived earlier; it is consumed.
    ///
    /// # Errors
    /// `Timeout` when it does not come within `time`, and those of reading.
    pub fn wait_event(
        &mut self,
        what: &str,
        time: Duration,
        wanted: impl Fn(&str, &Value) -> bool,
    ) -> Result<Value, QmpError> {
        let matches = |event: &Value| wanted(event["event"].as_str().unwrap_or_default(), &event["data"]);
        if let Some(index) = self.events.iter().position(matches) {
            return Ok(self.events.remove(index).expect("the index was just found"));
        }
        let deadline = Instant::now() + time;
        loop {
            let message = self.read(what, deadline)?;
            if matches(&message) {
                return Ok(message);
            }
            self.keep(message);
        }
    }

    fn keep(&mut self, event: Value) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn read(&mut self, what: &str, deadline: Instant) -> Result<Value, QmpError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QmpError::Timeout(what.to_owned()));
            }
            self.reader.get_ref().set_read_timeout(Some(left))?;
            // A line cut by the timeout stays in the buffer and is completed by the next call.
            match self.reader.read_until(b'\n', &mut self.line) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(_) if self.line.ends_with(b"\n") => {
                    let message = serde_json::from_slice(&self.line).map_err(QmpError::Unreadable);
                    self.line.clear();
                    return message;
                }
                Ok(_) => return Err(QmpError::Closed),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(QmpError::Closed),
                Err(error) => return Err(error.into()),
            }
            if self.line.len() > LINE_SIZE_MAX {
                return Err(QmpError::Closed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::net::UnixListener, thread};

    /// A QEMU that sends given lines after each command it gets.
    fn fake(answers: Vec<&'static str>) -> (tempfile::TempDir, thread::JoinHandle<Vec<Value>>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("q")).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"{\"QMP\": {}}\r\n").unwrap();
            let mut commands = Vec::new();
            for answer in answers {
                commands.push(serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            commands
        });
        (dir, server)
    }

    #[test]
    fn answers_are_told_from_events() {
        let (dir, server) = fake(vec![
            "{\"return\": {}}\r\n",
            "{\"event\": \"STOP\", \"data\": {}}\r\n{\"return\": {\"status\": \"paused\"}}\r\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such device\"}}\r\n",
        ]);
        let mut qmp = Qmp::connect(&dir.path().join("q")).unwrap();
        assert_eq!(qmp.execute("query-status", json!({})).unwrap()["status"], "paused");
        let refused = qmp.execute("device_del", json!({"id": "x"})).unwrap_err();
        assert!(matches!(refused, QmpError::Refused { description, .. } if description == "no such device"));
        qmp.wait_event("STOP", Duration::from_secs(5), |name, _| name == "STOP").unwrap();
        let commands = server.join().unwrap();
        assert_eq!(commands[2], json!({"execute": "device_del", "arguments": {"id": "x"}}));
        let gone = qmp.wait_event("more", Duration::from_secs(5), |_, _| true).unwrap_err();
        assert!(matches!(gone, QmpError::Closed));
    }

    #[test]
    fn an_event_that_does_not_come_is_a_timeout() {
        let (dir, server) = fake(vec!["{\"return\": {}}\r\n", "{\"return\": {}}\r\n"]);
        let mut qmp = Qmp::connect(&dir.path().join("q")).unwrap();
        let late = qmp.wait_event("DEVICE_DELETED", Duration::from_millis(50), |_, _| true).unwrap_err();
        assert!(matches!(late, QmpError::Timeout(_)));
        qmp.execute("cont", json!({})).unwrap();
        server.join().unwrap();
    }
}
