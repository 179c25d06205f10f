//! The sequence of PID 1, and its loop.

use std::{
    convert::Infallible,
    fs,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use holdfast_image_layout::names::{OS_RELEASE_PATH, PARTITION_STATE};
use holdfast_model::config::NodeConfig;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        reboot::{RebootMode, reboot, set_cad_enabled},
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    CONFIG_PATH, Role, STATE_DIRECTORY, SYS, block, config,
    config::Origin,
    console::{chain, say},
    kernel_modules::Loader,
    mounts, network,
    network::NetworkError,
    power_button::PowerButtons,
    settings,
    signals::{Signals, Wish},
    supervise::{Action, Event, Goal, Supervisor},
    uevent::{Announcement, Uevents},
    watchdog::{KICK_INTERVAL, Watchdog},
};

/// Pause between two tries of a step that waits for the machine or a person.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// The same complaint is repeated on the console at this interval.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);
/// How long interfaces may take to appear before the node is started without them.
const INTERFACES_WITHIN: Duration = Duration::from_secs(15);
/// Time processes other than the role have to end.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);
/// Pause before a restart after a bug in PID 1 itself, so that the console can be read.
const PANIC_PAUSE: Duration = Duration::from_secs(10);

/// Runs the machine to its end.
pub fn run(role: Role) -> ! {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut machine = Machine::start();
        let goal = machine.live(&role);
        machine.stop(goal)
    }));
    if outcome.is_err() {
        // The panic's message is on the console already.
        say("PID 1 failed; the machine restarts");
        std::thread::sleep(PANIC_PAUSE);
        mounts::release_state();
        nix::unistd::sync();
    }
    end(RebootMode::RB_AUTOBOOT)
}

/// The machine is to end; unwinds the boot sequence.
struct Ending(Goal);

struct Machine {
    started: Instant,
    signals: Signals,
    loader: Loader,
    uevents: Option<Uevents>,
    buttons: PowerButtons,
    watchdog: Watchdog,
    supervisor: Supervisor,
}

impl Machine {
    /// From the kernel's hand-over to a machine that can be told to stop.
    fn start() -> Self {
        let started = Instant::now();
        mounts::kernel();
        say(&greeting());
        let signals = Signals::install().expect("PID 1 can open a socket pair");
        // Ctrl-Alt-Del becomes a signal to PID 1.
        if let Err(errno) = set_cad_enabled(false) {
            say(&format!("Ctrl-Alt-Del restarts at once: {errno}"));
        }
        let uevents = Uevents::listen()
            .map_err(|error| say(&format!("devices that appear later stay without drivers: {error}")))
            .ok();
        let mut loader = Loader::open(Path::new("/"));
        loader.load_early();
        loader.coldplug(&Path::new(SYS).join("devices"));
        let dev = Path::new("/dev");
        let mut watchdog = Watchdog::arm(dev);
        watchdog.kick();
        say(&format!("{} kernel modules loaded after {} ms", loader.loaded(), started.elapsed().as_millis()));
        mounts::firmware_variables();
        mounts::seal_root();
        settings::apply(Path::new("/proc/sys"));
        let buttons = PowerButtons::open(Path::new(SYS), dev);
        Self { started, signals, loader, uevents, buttons, watchdog, supervisor: Supervisor::new() }
    }

    /// From there to the wish that the machine ends.
    fn live(&mut self, role: &Role) -> Goal {
        match self.prepare().and_then(|()| self.supervise(role)) {
            Err(Ending(goal)) => goal,
            Ok(never) => match never {},
        }
    }

    /// Everything the role needs: STATE, configuration, network.
    fn prepare(&mut self) -> Result<(), Ending> {
        let device = self.persist("STATE", |_| mount_state())?;
        say(&format!("STATE is {device}"));
        let (config, origin) = self.persist("configuration", |_| {
            config::load(Path::new(CONFIG_PATH), &config::seed_path(Path::new(SYS)))
                .map_err(|error| chain(&error))
        })?;
        let origin = match origin {
            Origin::Kept => "kept on STATE",
            Origin::Seed => "taken from the seed, now kept",
        };
        say(&format!("this is {}; configuration {origin}", config.name));
        settings::host_name(&config.name);
        self.configure_network(&config)
    }

    fn configure_network(&mut self, config: &NodeConfig) -> Result<(), Ending> {
        let give_up_at = self.started.elapsed() + INTERFACES_WITHIN;
        loop {
            let errors = network::configure(Path::new(SYS), config.network.as_ref());
            let absent = errors.iter().any(|error| matches!(error, NetworkError::NoInterface(_)));
            if !absent || self.started.elapsed() >= give_up_at {
                errors.iter().for_each(|error| say(&chain(error)));
                return Ok(());
            }
            self.wait(RETRY_INTERVAL)?;
        }
    }

    /// Tries a step until it succeeds, and says why it does not.
    fn persist<T>(
        &mut self,
        what: &str,
        mut step: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<T, Ending> {
        let mut complained: Option<(Duration, String)> = None;
        loop {
            let problem = match step(self) {
                Ok(done) => return Ok(done),
                Err(problem) => problem,
            };
            let now = self.started.elapsed();
            let news = complained
                .as_ref()
                .is_none_or(|(at, last)| *last != problem || now - *at >= COMPLAINT_INTERVAL);
            if news {
                say(&format!("{what}: {problem}; trying again every {} s", RETRY_INTERVAL.as_secs()));
                complained = Some((now, problem));
            }
            self.wait(RETRY_INTERVAL)?;
        }
    }

    fn supervise(&mut self, role: &Role) -> Result<Infallible, Ending> {
        loop {
            self.step(Event::Tick, role)?;
            let now = self.started.elapsed();
            let until = self.supervisor.deadline().map_or(KICK_INTERVAL, |at| at.saturating_sub(now));
            let wishes = self.poll(until.min(KICK_INTERVAL));
            for wish in wishes {
                match wish {
                    Wish::Reap => {
                        for (pid, status) in reap() {
                            self.report_exit(pid, status);
                            self.step(Event::Exited(pid), role)?;
                            if let Some(pause) = self.supervisor.pause(self.started.elapsed()) {
                                say(&format!("the node role starts again in {} ms", pause.as_millis()));
                            }
                        }
                    }
                    Wish::PowerOff => self.step(Event::Stop(Goal::PowerOff), role)?,
                    Wish::Restart => self.step(Event::Stop(Goal::Restart), role)?,
                }
            }
        }
    }

    fn step(&mut self, event: Event, role: &Role) -> Result<(), Ending> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let now = self.started.elapsed();
            match self.supervisor.step(now, event) {
                None => {}
                Some(Action::Start) => next = Some(start_role(role, now)),
                Some(Action::Terminate(pid)) => {
                    say("stopping: the node role is asked to end");
                    kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
                }
                Some(Action::Kill(pid)) => {
                    say("the node role does not end; killing it");
                    killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
                }
                Some(Action::Finish(goal)) => return Err(Ending(goal)),
            }
        }
        Ok(())
    }

    fn report_exit(&self, pid: i32, status: ExitStatus) {
        // Orphans are reaped in silence unless they crashed.
        if self.supervisor.is_child(pid) {
            say(&format!("the node role ended: {status}"));
        } else if status.core_dumped() || status.signal().is_some() {
            say(&format!("process {pid} ended: {status}"));
        }
    }

    /// Waits while the machine is kept alive; before the role runs, a wish to stop is immediate.
    fn wait(&mut self, time: Duration) -> Result<(), Ending> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            for wish in self.poll(left.min(KICK_INTERVAL)) {
                match wish {
                    Wish::Reap => drop(reap()),
                    Wish::PowerOff => return Err(Ending(Goal::PowerOff)),
                    Wish::Restart => return Err(Ending(Goal::Restart)),
                }
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Waits for signals, buttons and new devices; serves the watchdog and the devices.
    fn poll(&mut self, time: Duration) -> Vec<Wish> {
        {
            let descriptors = self.signals.descriptors().chain(self.buttons.descriptors());
            let descriptors = descriptors.chain(self.uevents.iter().map(Uevents::descriptor));
            let mut waiting: Vec<PollFd<'_>> =
                descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
            // An interrupted wait is as good as a finished one: everything is looked at below.
            poll(&mut waiting, timeout).ok();
        }
        self.watchdog.kick();
        while let Some(announcement) = self.uevents.as_ref().and_then(Uevents::next) {
            match announcement {
                Announcement::Device { modalias } => self.loader.load_for(&modalias),
                Announcement::Lost => self.loader.coldplug(&Path::new(SYS).join("devices")),
            }
        }
        let mut wishes = self.signals.take();
        if self.buttons.pressed() {
            say("the power button was pressed");
            wishes.push(Wish::PowerOff);
        }
        wishes
    }

    /// Ends every process, writes everything out, and ends the machine.
    fn stop(&mut self, goal: Goal) -> Infallible {
        let everyone = Pid::from_raw(-1);
        kill(everyone, Signal::SIGTERM).ok();
        let until = Instant::now() + ORPHAN_GRACE;
        while Instant::now() < until && any_children() {
            self.poll(Duration::from_millis(50));
        }
        kill(everyone, Signal::SIGKILL).ok();
        drop(reap());
        nix::unistd::sync();
        mounts::release_state();
        nix::unistd::sync();
        self.watchdog.disarm();
        match goal {
            Goal::PowerOff => {
                say("the machine is switched off");
                end(RebootMode::RB_POWER_OFF)
            }
            Goal::Restart => {
                say("the machine restarts");
                end(RebootMode::RB_AUTOBOOT)
            }
        }
    }
}

/// Ends the machine. PID 1 must not return: that would be a kernel panic.
fn end(how: RebootMode) -> ! {
    loop {
        let Err(errno) = reboot(how);
        say(&format!("the kernel does not end the machine: {errno}"));
        std::thread::sleep(RETRY_INTERVAL);
    }
}

fn greeting() -> String {
    let text = fs::read_to_string(Path::new("/").join(OS_RELEASE_PATH)).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Holdfast");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} on Linux {}", name.trim_matches('"'), kernel.trim())
}

fn mount_state() -> Result<String, String> {
    let found = block::partitions_named(Path::new(SYS), PARTITION_STATE);
    let device = match &found[..] {
        [device] => device,
        [] => return Err(format!("no partition is named {PARTITION_STATE}; is the system disk attached?")),
        several => {
            return Err(format!(
                "{} partitions are named {PARTITION_STATE}: {several:?}; detach all but one",
                several.len()
            ));
        }
    };
    mounts::state(device)
        .map(|()| device.display().to_string())
        .map_err(|error| format!("cannot mount {} on {STATE_DIRECTORY}: {error}", device.display()))
}

fn start_role(role: &Role, now: Duration) -> Event {
    let mut command = Command::new(&role.program);
    command.args(&role.arguments).env_clear().env("HOME", STATE_DIRECTORY).env("TMPDIR", "/tmp");
    command.current_dir("/").stdin(Stdio::null()).process_group(0);
    match command.spawn() {
        Ok(child) => {
            say(&format!(
                "the node role runs as process {}, {} ms after the kernel",
                child.id(),
                now.as_millis()
            ));
            Event::Started(i32::try_from(child.id()).expect("process numbers are below 2^22"))
        }
        Err(error) => {
            say(&format!("cannot start the node role {}: {error}", role.program.display()));
            Event::StartFailed
        }
    }
}

/// Every process that has ended. PID 1 inherits all orphans and must bury them.
fn reap() -> Vec<(i32, ExitStatus)> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.push((pid.as_raw(), ExitStatus::from_raw(code << 8))),
            Ok(WaitStatus::Signaled(pid, signal, core)) => {
                let core = if core { 0x80 } else { 0 };
                ended.push((pid.as_raw(), ExitStatus::from_raw(signal as i32 | core)));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}

fn any_children() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
