//! One machine: a QEMU process, its QMP connection, its disks.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant, SystemTime},
};

use holdfast_fault::{Cut, FaultDisk, nbd::NbdServer};
use holdfast_model::ByteCount;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    command_line::{self, Endpoints},
    disks::{self, CorruptedDrive, Disks},
    error::{HarnessError, io_error},
    qmp::{Qmp, QmpError},
    spawn::{self, Program},
    spec::{Boot, ClusterSpec, Image, NodeSpec},
    tpm::{self, Emulator},
};

const QEMU: &str = "qemu-system-x86_64";
/// QEMU opens its control socket within this time, on a busy host too.
const QMP_WITHIN: Duration = Duration::from_secs(60);
/// The guest's kernel lets go of a drive within this time.
const UNPLUG_WITHIN: Duration = Duration::from_secs(60);
/// The power button is pressed again at this interval: before PID 1 listens, a press is lost.
const POWER_BUTTON_INTERVAL: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How much of QEMU's own output an error quotes.
const QUOTE_SIZE_MAX: usize = 2000;
/// Longest path of a unix socket that the kernel takes, with room for the final zero byte.
const SOCKET_PATH_MAX: usize = 100;

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    /// No process.
    Off,
    /// Runs.
    Running,
    /// Stands still, in the middle of whatever it did.
    Paused,
}

impl GuestState {
    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Running => "running",
            Self::Paused => "paused",
        }
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    qmp: Qmp,
    paused: bool,
    // Ends with QEMU, and is reaped with it.
    _tpm: Option<Emulator>,
}

/// A machine. Dropping it kills it; its disks stay.
#[derive(Debug)]
pub struct Guest {
    cluster: ClusterSpec,
    node: NodeSpec,
    disks: Disks,
    qmp_socket: PathBuf,
    switch_socket: PathBuf,
    tpm_socket: Option<PathBuf>,
    /// Data drives with a volatile cache. They outlive the machine's deaths.
    volatile: Vec<NbdServer>,
    power_cuts: u64,
    /// Copies of drives with a volatile cache, by full name.
    remembered: BTreeMap<String, FaultDisk>,
    clock_ahead_seconds: i64,
    process: Option<Process>,
    last_exit: Option<ExitStatus>,
}

impl Guest {
    /// A machine that is off. `runtime` holds its QMP socket; the switch already listens at
    /// `switch_socket`.
    ///
    /// # Errors
    /// `LongSocketPath`.
    pub fn new(
        cluster: &ClusterSpec,
        node: &NodeSpec,
        runtime: &Path,
        switch_socket: &Path,
    ) -> Result<Self, HarnessError> {
        let qmp_socket = runtime.join(format!("{}.qmp", node.name));
        let tpm_socket = node.tpm.then(|| runtime.join(format!("{}.tpm", node.name)));
        for path in [qmp_socket.as_path(), switch_socket].into_iter().chain(tpm_socket.as_deref()) {
            check_socket_path(path)?;
        }
        let mut volatile = Vec::new();
        for (seed, name) in node.volatile.into_iter().flat_map(|seed| (seed..).zip(node.drive_names())) {
            let socket = runtime.join(format!("{name}.nbd"));
            check_socket_path(&socket)?;
            let disk = FaultDisk::new(ByteCount::mib(node.drive_size_mib));
            volatile.push(NbdServer::start(&socket, disk, seed).map_err(io_error("listen at", socket))?);
        }
        Ok(Self {
            cluster: cluster.clone(),
            node: node.clone(),
            disks: Disks::of(cluster, node),
            qmp_socket,
            switch_socket: switch_socket.to_owned(),
            tpm_socket,
            volatile,
            power_cuts: 0,
            remembered: BTreeMap::new(),
            clock_ahead_seconds: 0,
            process: None,
            last_exit: None,
        })
    }

    /// What it was made from.
    pub fn node(&self) -> &NodeSpec {
        &self.node
    }

    /// Log of its serial console, over all its lives.
    pub fn console_log(&self) -> PathBuf {
        self.directory().join("console.log")
    }

    /// Host file of a data drive; of one with a volatile cache there is none.
    ///
    /// # Errors
    /// `NoDrive`.
    pub fn drive_file(&self, drive: &str) -> Result<PathBuf, HarnessError> {
        Ok(self.directory().join(format!("{}.img", self.node.drive(drive)?)))
    }

    fn directory(&self) -> PathBuf {
        self.cluster.dir.join(&self.node.name)
    }

    /// Whether it runs; notices when it ended by itself.
    pub fn state(&mut self) -> GuestState {
        let Some(process) = &mut self.process else { return GuestState::Off };
        match process.child.try_wait() {
            Ok(None) if process.paused => GuestState::Paused,
            Ok(None) => GuestState::Running,
            Ok(Some(status)) => {
                self.last_exit = Some(status);
                self.process = None;
                GuestState::Off
            }
            // Not our child any more: nothing there to control.
            Err(_) => {
                self.process = None;
                GuestState::Off
            }
        }
    }

    /// Process number of its QEMU.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// Starts it, with the disks it had.
    ///
    /// # Errors
    /// `WrongState` when it runs, `MissingProgram`, `NoFirmware`, `EndedAtOnce`, `Qmp`, `Io`.
    pub fn start(&mut self) -> Result<(), HarnessError> {
        self.expect_state(&[GuestState::Off], "it must be off to be started")?;
        let directory = self.directory();
        fs::create_dir_all(&directory).map_err(io_error("create", &directory))?;
        let drive_size = self.node.drive_size_mib << 20;
        self.disks.prepare(&self.cluster.image.disk, drive_size)?;
        if self.qmp_socket.exists() {
            fs::remove_file(&self.qmp_socket).map_err(io_error("remove", &self.qmp_socket))?;
        }
        let console = self.console_log();
        let drives: Vec<PathBuf> = self.volatile.iter().map(|server| server.socket().to_owned()).collect();
        let (qmp, switch) = (self.qmp_socket.as_path(), self.switch_socket.as_path());
        let tpm = self.tpm_socket.as_deref();
        let clock = command_line::clock(SystemTime::now(), self.clock_ahead_seconds);
        let endpoints = Endpoints { qmp, switch, console: &console, tpm, drives: &drives, clock: &clock };
        let arguments = command_line::arguments(&self.cluster, &self.node, &self.disks, &endpoints);
        let log = directory.join("qemu.log");
        let output =
            OpenOptions::new().create(true).append(true).open(&log).map_err(io_error("create", &log))?;
        let emulator = match tpm {
            Some(socket) => {
                let state = tpm::state_directory(&directory);
                let output = output.try_clone().map_err(io_error("write to", &log))?;
                Some(Emulator::start(&self.node.name, &state, socket, output)?)
            }
            None => None,
        };
        let program = Program { name: QEMU, arguments, output };
        let mut child = spawn::spawn(program).map_err(|source| HarnessError::MissingProgram {
            program: "setpriv",
            package: "util-linux",
            source,
        })?;
        match self.connect(&mut child, &log) {
            Ok(qmp) => {
                self.process = Some(Process { child, qmp, paused: false, _tpm: emulator });
                Ok(())
            }
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    fn connect(&self, child: &mut Child, log: &Path) -> Result<Qmp, HarnessError> {
        let deadline = Instant::now() + QMP_WITHIN;
        loop {
            match Qmp::connect(&self.qmp_socket) {
                Ok(qmp) => return Ok(qmp),
                Err(QmpError::Io(_) | QmpError::Closed) if Instant::now() < deadline => {}
                Err(source) => return Err(HarnessError::Qmp { node: self.node.name.clone(), source }),
            }
            if let Ok(Some(status)) = child.try_wait() {
                let said = tail(log);
                let node = self.node.name.clone();
                return Err(HarnessError::EndedAtOnce { node, status: status.to_string(), said });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Ends it as a power cut does. What its drives with a volatile cache had not flushed survives by chance.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // The drives lose power first: QEMU, told to end, would flush what it can.
        for (number, (seed, server)) in
            (0u64..).zip(self.node.volatile.into_iter().cycle().zip(&self.volatile))
        {
            server.cut_power(Cut::Random(seed.wrapping_add(self.power_cuts << 8).wrapping_add(number)));
        }
        self.power_cuts += 1;
        self.last_exit = end(&mut process.child);
    }

    /// A data drive with a volatile cache, for arranging faults.
    ///
    /// # Errors
    /// `NoDrive`; also when its drives are files.
    pub fn fault_disk(&self, drive: &str) -> Result<&FaultDisk, HarnessError> {
        let name = self.node.drive(drive)?;
        let position = self.node.drive_names().iter().position(|other| *other == name);
        position.and_then(|index| self.volatile.get(index)).map(NbdServer::disk).ok_or_else(|| {
            let existing = "files; set `volatile`".to_owned();
            HarnessError::NoDrive { node: self.node.name.clone(), wanted: drive.to_owned(), existing }
        })
    }

    /// Keeps a copy of what a drive with a volatile cache holds, instead of an earlier one.
    ///
    /// # Errors
    /// `NoDrive`.
    pub fn remember(&mut self, drive: &str) -> Result<(), HarnessError> {
        let copy = self.fault_disk(drive)?.copy();
        self.remembered.insert(self.node.drive(drive)?, copy);
        Ok(())
    }

    /// Puts such a drive back to the copy, which is used up; to nothing when there is none.
    ///
    /// # Errors
    /// `NoDrive`, `WrongState` when the machine runs.
    pub fn put_back(&mut self, drive: &str) -> Result<(), HarnessError> {
        self.expect_state(&[GuestState::Off], "it must be off for a drive to be swapped")?;
        let name = self.node.drive(drive)?;
        let blank = || FaultDisk::new(ByteCount::mib(self.node.drive_size_mib));
        let image = self.remembered.remove(&name).unwrap_or_else(blank);
        self.fault_disk(drive)?.put_back(&image);
        Ok(())
    }

    /// Writes what such a drive holds to a file, with holes where there is nothing.
    ///
    /// # Errors
    /// `NoDrive`, `Io`.
    pub fn dump(&self, drive: &str, file: &Path) -> Result<(), HarnessError> {
        disks::dump(self.fault_disk(drive)?, file).map_err(io_error("write", file))
    }

    /// How far its clock is ahead of the host's, from its next start on.
    pub fn set_clock(&mut self, ahead_seconds: i64) {
        self.clock_ahead_seconds = ahead_seconds;
    }

    /// How much memory it has, from its next start on.
    pub fn set_memory(&mut self, memory_mib: u32) {
        self.node.memory_mib = memory_mib;
    }

    /// What it boots, from its next start on: another kernel and initramfs, over the disks that it has.
    ///
    /// # Errors
    /// `BadSpec` when it boots from its disk.
    pub fn set_image(&mut self, image: Image) -> Result<(), HarnessError> {
        if self.cluster.boot != Boot::Pvh {
            let problem = "it boots what is on its disk";
            return Err(HarnessError::BadSpec { node: self.node.name.clone(), problem });
        }
        self.cluster.image = image;
        Ok(())
    }

    /// Presses the power button and waits for the machine to switch itself off.
    ///
    /// Returns whether it did; when it did not within `time`, it still runs.
    ///
    /// # Errors
    /// `Qmp`.
    pub fn stop(&mut self, time: Duration) -> Result<bool, HarnessError> {
        if self.state() == GuestState::Paused {
            self.resume()?;
        }
        let deadline = Instant::now() + time;
        let mut press_at = Instant::now();
        while self.state() != GuestState::Off {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            if Instant::now() >= press_at {
                press_at = Instant::now() + POWER_BUTTON_INTERVAL;
                match self.press_power_button() {
                    // It ended between the question and the press.
                    Err(HarnessError::Qmp { source: QmpError::Closed | QmpError::Io(_), .. }) => {}
                    other => other?,
                }
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(true)
    }

    /// Presses the power button and does not wait.
    ///
    /// # Errors
    /// `WrongState`, `Qmp`.
    pub fn press_power_button(&mut self) -> Result<(), HarnessError> {
        self.execute("system_powerdown", json!({}))
    }

    /// Stops its processors; its connections stay open and silent.
    ///
    /// # Errors
    /// `WrongState`, `Qmp`.
    pub fn pause(&mut self) -> Result<(), HarnessError> {
        self.execute("stop", json!({}))?;
        self.set_paused(true);
        Ok(())
    }

    /// Lets it go on as if no time had passed for it.
    ///
    /// # Errors
    /// `WrongState`, `Qmp`.
    pub fn resume(&mut self) -> Result<(), HarnessError> {
        self.execute("cont", json!({}))?;
        self.set_paused(false);
        Ok(())
    }

    fn set_paused(&mut self, paused: bool) {
        if let Some(process) = &mut self.process {
            process.paused = paused;
        }
    }

    /// Pulls a data drive out and waits until the guest has noticed.
    ///
    /// # Errors
    /// `NoDrive`, `WrongState`, `Qmp`.
    pub fn unplug(&mut self, drive: &str) -> Result<(), HarnessError> {
        let id = self.node.drive(drive)?;
        self.expect_state(&[GuestState::Running], "it must run to lose a drive")?;
        self.execute("device_del", json!({ "id": id }))?;
        let node = self.node.name.clone();
        let process = self.process()?;
        process
            .qmp
            .wait_event("DEVICE_DELETED", UNPLUG_WITHIN, |name, data| {
                name == "DEVICE_DELETED" && data["device"] == id.as_str()
            })
            .map_err(|source| HarnessError::Qmp { node, source })?;
        Ok(())
    }

    /// Puts a data drive back.
    ///
    /// # Errors
    /// `NoDrive`, `WrongState`, `Qmp`.
    pub fn plug(&mut self, drive: &str) -> Result<(), HarnessError> {
        let id = self.node.drive(drive)?;
        self.execute("device_add", command_line::data_drive(&id))
    }

    /// Rots a data drive, whether the machine runs or not.
    ///
    /// # Errors
    /// `NoDrive`, `Io`.
    pub fn corrupt(&self, drive: &str, blocks_max: u64) -> Result<CorruptedDrive, HarnessError> {
        if self.node.volatile.is_some() {
            return Ok(disks::corrupt_volatile(self.fault_disk(drive)?, blocks_max));
        }
        let path = self.drive_file(drive)?;
        disks::corrupt(&path, blocks_max).map_err(io_error("corrupt", path))
    }

    /// Runs any QMP command.
    ///
    /// # Errors
    /// `WrongState`, `Qmp`.
    pub fn execute(&mut self, command: &str, arguments: serde_json::Value) -> Result<(), HarnessError> {
        self.expect_state(&[GuestState::Running, GuestState::Paused], "it must be on")?;
        let node = self.node.name.clone();
        self.process()?
            .qmp
            .execute(command, arguments)
            .map_err(|source| HarnessError::Qmp { node, source })?;
        Ok(())
    }

    /// What is in the registers of its processors, as QEMU prints them.
    ///
    /// # Errors
    /// `WrongState`, `Qmp`.
    pub fn registers(&mut self) -> Result<String, HarnessError> {
        let node = self.node.name.clone();
        let ask = json!({ "command-line": "info registers -a" });
        let said = self
            .process()?
            .qmp
            .execute("human-monitor-command", ask)
            .map_err(|source| HarnessError::Qmp { node, source })?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    fn process(&mut self) -> Result<&mut Process, HarnessError> {
        let node = self.node.name.clone();
        self.process.as_mut().ok_or(HarnessError::WrongState { node, state: "off", needed: "it must be on" })
    }

    fn expect_state(&mut self, allowed: &[GuestState], needed: &'static str) -> Result<(), HarnessError> {
        let state = self.state();
        if allowed.contains(&state) {
            return Ok(());
        }
        Err(HarnessError::WrongState { node: self.node.name.clone(), state: state.name(), needed })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill();
        fs::remove_file(&self.qmp_socket).ok();
        if let Some(socket) = &self.tpm_socket {
            fs::remove_file(socket).ok();
        }
    }
}

/// Refuses a path that `bind` would refuse, with words that help.
pub fn check_socket_path(path: &Path) -> Result<(), HarnessError> {
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(HarnessError::LongSocketPath(path.to_owned()));
    }
    Ok(())
}

fn end(child: &mut Child) -> Option<ExitStatus> {
    // Both fail only when it has ended already.
    child.kill().ok();
    child.wait().ok()
}

/// The end of a log.
fn tail(path: &Path) -> String {
    let text = File::open(path).and_then(std::io::read_to_string).unwrap_or_default();
    let start = text.len().saturating_sub(QUOTE_SIZE_MAX);
    let start = (start..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    text[start..].trim().to_owned()
}
