//! The clock of a running process, stepped from outside.
//!
//! The time of day is the machine's, and no namespace has one of its own. But a program asks for it in the vDSO, code of
//! the kernel's that is mapped into every process, and of that a process gets a copy of its own when somebody writes to
//! it, as debuggers do. There [`step`] puts another `clock_gettime`, which asks the kernel and adds to the time of day.
//! The process itself is the one that ships, and no other sees anything of it. Timers and timeouts go by another clock,
//! which nobody steps.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::process::Identity;

/// How long it may take until a process stands still with no thread in the vDSO.
const STILL_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks at its threads.
const POLL: Duration = Duration::from_millis(2);

/// The function that is replaced.
const FUNCTION: &[u8] = b"__vdso_clock_gettime";

/// `mov eax, SYS_clock_gettime; syscall`, back unless it was asked for `CLOCK_REALTIME` and told it, then
/// `movabs rcx, SECONDS; add [rsi], rcx; ret`. The seconds come at [`SECONDS_AT`].
const STUB: [u8; 29] = [
    0xb8, 0xe4, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x85, 0xff, 0x75, 0x11, 0x85, 0xc0, 0x75, 0x0d, 0x48, 0xb9, 0,
    0, 0, 0, 0, 0, 0, 0, 0x48, 0x01, 0x0e, 0xc3,
];
const SECONDS_AT: usize = 17;

/// A process whose clock is wrong.
#[derive(Debug)]
pub struct Stepped {
    process: Identity,
    /// Where the function is in it, and what was there.
    at: u64,
    original: Vec<u8>,
    vdso: Vdso,
}

/// The vDSO of a process.
#[derive(Debug, Clone, Copy)]
struct Vdso {
    from: u64,
    to: u64,
}

/// Steps the clock of a node's process, and of those that it has started, by so many seconds. Each is added to `stepped` once it
/// is done.
///
/// # Errors
/// When it does not run, or this kernel has no such function.
pub fn step(process: Identity, seconds: i64, stepped: &mut Vec<Stepped>) -> Result<()> {
    stepped.push(step_one(process, seconds)?);
    for child in children(process.pid)? {
        // What has ended since needs no clock.
        let Ok(child) = Identity::of(child) else { continue };
        stepped.push(step_one(child, seconds)?);
    }
    Ok(())
}

fn step_one(process: Identity, seconds: i64) -> Result<Stepped> {
    let vdso = Vdso::of(process.pid)?;
    let memory = memory(process)?;
    let mut image = vec![0; usize::try_from(vdso.to - vdso.from)?];
    memory.read_exact_at(&mut image, vdso.from)?;
    let (offset, size) = function(&image).context("no clock_gettime in the vDSO")?;
    ensure!(size >= STUB.len(), "clock_gettime has {size} bytes");
    let at = vdso.from + offset as u64;
    let original = image[offset..offset + STUB.len()].to_vec();
    let mut stub = STUB;
    stub[SECONDS_AT..SECONDS_AT + 8].copy_from_slice(&seconds.to_le_bytes());
    while_still(process, vdso, || Ok(memory.write_all_at(&stub, at)?))?;
    Ok(Stepped { process, at, original, vdso })
}

impl Stepped {
    /// Its clock is right again; so it is when it has ended.
    ///
    /// # Errors
    /// When it does not stand still for that.
    pub fn back(self) -> Result<()> {
        if !self.process.is_running() {
            return Ok(());
        }
        let memory = memory(self.process)?;
        let put = while_still(self.process, self.vdso, || Ok(memory.write_all_at(&self.original, self.at)?));
        if self.process.is_running() { put } else { Ok(()) }
    }
}

impl Vdso {
    fn of(pid: i32) -> Result<Self> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let line = maps.lines().find(|line| line.ends_with("[vdso]")).context("no vDSO")?;
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).context("a range")?;
        Ok(Self { from: u64::from_str_radix(from, 16)?, to: u64::from_str_radix(to, 16)? })
    }
}

fn memory(process: Identity) -> Result<File> {
    let path = format!("/proc/{}/mem", process.pid);
    File::options().read(true).write(true).open(&path).with_context(|| format!("opening {path}"))
}

/// Does `what` while the process stands still and none of its threads is anywhere in the vDSO.
fn while_still(process: Identity, vdso: Vdso, what: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + STILL_WITHIN;
    loop {
        ensure!(process.signal(Signal::SIGSTOP)?, "process {} has ended", process.pid);
        let done = match outside(process.pid, vdso) {
            Ok(true) => Some(what()),
            Ok(false) => None,
            // A thread that ended between the list and the look at it.
            Err(error) if Instant::now() >= deadline => Some(Err(error)),
            Err(_) => None,
        };
        if let Some(done) = done {
            process.signal(Signal::SIGCONT)?;
            return done;
        }
        if Instant::now() >= deadline {
            process.signal(Signal::SIGCONT)?;
            bail!("process {} did not stand still within {STILL_WITHIN:?}", process.pid);
        }
        thread::sleep(POLL);
        // A thread that stands in the vDSO must get out of it.
        process.signal(Signal::SIGCONT)?;
        thread::sleep(POLL);
    }
}

/// Whether all threads have stopped, none of them in the vDSO.
fn outside(pid: i32, vdso: Vdso) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        // Threads of the kernel's that do a ring's work run none of the program's code.
        if fs::read_to_string(thread.join("comm"))?.starts_with("iou-") {
            continue;
        }
        let status = fs::read_to_string(thread.join("stat"))?;
        let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let place = fs::read_to_string(thread.join("syscall"))?;
        let counter = place.trim().rsplit_once(" 0x").map(|(_, digits)| u64::from_str_radix(digits, 16));
        match (state, counter) {
            (Some('T'), Some(Ok(counter))) if !(vdso.from..vdso.to).contains(&counter) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Processes that a process has started.
fn children(pid: i32) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(status) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = status.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        if parent == Some(pid) {
            found.push(child);
        }
    }
    Ok(found)
}

/// Where [`FUNCTION`] is in an ELF image as it lies in memory, and how many bytes it has.
fn function(image: &[u8]) -> Option<(usize, usize)> {
    const DYNAMIC_SEGMENT: u32 = 2;
    const HASH: u64 = 4;
    const NAMES: u64 = 5;
    const SYMBOLS: u64 = 6;
    let headers = table(word(image, 32)? as usize, 56).take(usize::from(half(image, 56)?));
    let mut dynamic = headers.filter(|at| int(image, *at) == Some(DYNAMIC_SEGMENT));
    let dynamic = word(image, dynamic.next()?.checked_add(16)?)? as usize;
    let tagged = |tag| {
        let entries =
            table(dynamic, 16).map_while(|at| Some((word(image, at)?, word(image, at.checked_add(8)?)?)));
        let mut entries = entries.take_while(|(found, _)| *found != 0);
        entries.find(|(found, _)| *found == tag).map(|(_, value)| value as usize)
    };
    // The table of hashes says how many symbols there are.
    let count = int(image, tagged(HASH)?.checked_add(4)?)? as usize;
    let names = tagged(NAMES)?;
    let named = |at: &usize| {
        let name = int(image, *at).and_then(|offset| names.checked_add(offset as usize));
        let name = name.and_then(|at| image.get(at..)?.split(|byte| *byte == 0).next());
        name == Some(FUNCTION)
    };
    let symbol = table(tagged(SYMBOLS)?, 24).take(count).find(named)?;
    let (at, size) =
        (word(image, symbol.checked_add(8)?)? as usize, word(image, symbol.checked_add(16)?)? as usize);
    image.get(at..at.checked_add(size)?).map(|_| (at, size))
}

/// Where the entries of a table are.
fn table(from: usize, entry_size: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(from), move |at| at.checked_add(entry_size))
}

fn word(image: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(image.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn int(image: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(image.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn half(image: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(image.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        io::{BufRead, BufReader},
        process::{Command, Stdio},
        time::{SystemTime, UNIX_EPOCH},
    };

    use super::*;

    fn now() -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
    }

    #[test]
    #[ignore = "the process that the other test steps"]
    fn says_the_time() {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            println!("\nnow {} {}", now(), begun.elapsed().as_secs());
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn the_clock_of_a_running_process_is_stepped_and_put_right() {
        let mut other = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "clocks::tests::says_the_time"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
        // What it said before it was asked lies in the pipe for a moment.
        let mut wait_for = |seconds: i64| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while Instant::now() < deadline {
                let line = lines.next().unwrap().unwrap();
                let mut words = line.split(' ');
                if words.next() != Some("now") {
                    continue;
                }
                let said: i64 = words.next().unwrap().parse().unwrap();
                let passed: i64 = words.next().unwrap().parse().unwrap();
                assert!(passed < 20, "the other clock goes on as ever: {passed} s");
                if (said - now() - seconds).abs() <= 2 {
                    return true;
                }
            }
            false
        };
        assert!(wait_for(0));
        let process = Identity::of(i32::try_from(other.id()).unwrap()).unwrap();
        for seconds in [3 * 86_400, -1200] {
            let mut stepped = Vec::new();
            step(process, seconds, &mut stepped).unwrap();
            assert!(wait_for(seconds), "{seconds}");
            stepped.into_iter().try_for_each(Stepped::back).unwrap();
            assert!(wait_for(0), "and back from {seconds}");
        }
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn what_is_no_vdso_has_no_function() {
        assert_eq!(function(&[]), None);
        assert_eq!(function(&[0xff; 4096]), None);
        let image = fs::read("/proc/self/exe").unwrap();
        assert_eq!(function(&image[..4096]), None);
    }
}
