//! The guest of the VM tests: PID 1, and a role that answers TCP.
//!
//! On port 8080, one line in, one line out:
//!
//! | request        | answer                                                       |
//! |----------------|--------------------------------------------------------------|
//! | `status`       | `NAME starts N drives PATH...`                               |
//! | `reach ADDR`   | the status of the node at ADDR, or `unreachable`             |
//! | `pull ADDR N`  | how long N MiB from the node at ADDR took                     |
//! | `pour N`       | N MiB of zeros                                               |
//! | `read PATH`    | `read N` bytes of the start of a drive, or the error         |
//! | `write PATH K N BYTE` | `ok`: N sectors from sector K on hold BYTE; not flushed         |
//! | `flush PATH`   | `ok`: everything written to the drive is flushed             |
//! | `holds PATH K N BYTE` | how many of those sectors hold BYTE throughout               |
//! | `die`          | none: the role ends with an error                            |

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use holdfast_appliance::{Role, data_drives, is_pid1, run_pid1};
use holdfast_model::{config::NodeConfig, limits::SECTOR_SIZE};

const PORT: u16 = 8080;
const REACH_WITHIN: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    if is_pid1() {
        run_pid1(Role::node());
    }
    // node --config PATH
    let path = std::env::args().nth(3).unwrap_or_default();
    let config: NodeConfig = serde_json::from_slice(&fs::read(path)?)?;
    let starts = count_start()?;
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    println!("tiny node {} is ready", config.name);
    for connection in listener.incoming() {
        let (connection, name) = (connection?, config.name.clone());
        // Each on its own: one that a cut link leaves half open must not keep others waiting. A client that goes
        // away is its own business.
        thread::spawn(move || answer(&connection, &name, starts).ok());
    }
    Ok(())
}

fn answer(mut connection: &TcpStream, name: &str, starts: u64) -> io::Result<()> {
    let mut request = String::new();
    BufReader::new(connection).read_line(&mut request)?;
    let words: Vec<&str> = request.split_whitespace().collect();
    match words[..] {
        ["reach", address] => {
            let reached = address.parse().map_err(io::Error::other).and_then(reach);
            writeln!(connection, "{}", reached.unwrap_or_else(|_| "unreachable".to_owned()))
        }
        ["pull", address, mebibytes] => {
            let took = address.parse().map_err(io::Error::other).and_then(|address| pull(address, mebibytes));
            writeln!(connection, "{}", took.unwrap_or_else(|error| error.to_string()))
        }
        ["pour", mebibytes] => {
            let zeros = vec![0; 1 << 20];
            let count = mebibytes.parse().unwrap_or(0);
            (0..count).try_for_each(|_| connection.write_all(&zeros))
        }
        ["read", path] => {
            let mut buffer = [0; 512];
            let read = fs::File::open(path).and_then(|mut drive| drive.read(&mut buffer));
            match read {
                Ok(length) => writeln!(connection, "read {length}"),
                Err(error) => writeln!(connection, "{error}"),
            }
        }
        ["write", path, first, count, byte] => {
            let done = direct(path, first, count, |drive, offset, sector| {
                sector.fill(byte.parse().unwrap_or(0));
                drive.write_all_at(sector, offset).map(|()| true)
            });
            writeln!(connection, "{}", done.map_or_else(|error| error.to_string(), |_| "ok".to_owned()))
        }
        ["flush", path] => {
            let done = fs::File::open(path).and_then(|drive| drive.sync_data());
            writeln!(connection, "{}", done.map_or_else(|error| error.to_string(), |()| "ok".to_owned()))
        }
        ["holds", path, first, count, byte] => {
            let byte = byte.parse().unwrap_or(0);
            let held = direct(path, first, count, |drive, offset, sector| {
                drive.read_exact_at(sector, offset)?;
                Ok(sector.iter().all(|found| *found == byte))
            });
            writeln!(connection, "{}", held.map_or_else(|error| error.to_string(), |held| held.to_string()))
        }
        ["die"] => std::process::exit(3),
        _ => {
            let drives: Vec<String> = data_drives().iter().map(|path| path.display().to_string()).collect();
            writeln!(connection, "{name} starts {starts} drives {}", drives.join(" "))
        }
    }
}

/// Goes through sectors past the page cache, so that the drive sees each one at once; counts the yeses.
fn direct(
    path: &str,
    first: &str,
    count: &str,
    each: impl Fn(&fs::File, u64, &mut [u8]) -> io::Result<bool>,
) -> io::Result<u64> {
    let drive = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    let (first, count) = (number(first)?, number(count)?);
    let mut memory = vec![0; 2 * SECTOR_SIZE];
    let start = memory.as_ptr().align_offset(SECTOR_SIZE);
    let sector = &mut memory[start..start + SECTOR_SIZE];
    let mut yeses = 0;
    for number in first..first + count {
        yeses += u64::from(each(&drive, number * SECTOR_SIZE as u64, sector)?);
    }
    Ok(yeses)
}

fn reach(address: SocketAddr) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, REACH_WITHIN)?;
    connection.set_read_timeout(Some(REACH_WITHIN))?;
    connection.write_all(b"status\n")?;
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

fn pull(address: SocketAddr, mebibytes: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, REACH_WITHIN)?;
    let started = Instant::now();
    writeln!(connection, "pour {mebibytes}")?;
    let bytes = io::copy(&mut connection, &mut io::sink())?;
    Ok(format!("{bytes} bytes in {} ms", started.elapsed().as_millis()))
}

/// Starts of the role so far, kept on STATE.
fn count_start() -> io::Result<u64> {
    let path = Path::new("/state/starts");
    let starts = fs::read_to_string(path).ok().and_then(|text| text.parse().ok()).unwrap_or(0) + 1;
    let mut file = fs::File::create(path)?;
    write!(file, "{starts}")?;
    file.sync_all()?;
    Ok(starts)
}
