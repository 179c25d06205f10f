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
//! | `die`          | none: the role ends with an error                            |

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use holdfast_appliance::{Role, data_drives, is_pid1, run_pid1};
use holdfast_model::config::NodeConfig;

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
        // A client that goes away is its own business.
        answer(&connection?, &config.name, starts).ok();
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
        ["die"] => std::process::exit(3),
        _ => {
            let drives: Vec<String> = data_drives().iter().map(|path| path.display().to_string()).collect();
            writeln!(connection, "{name} starts {starts} drives {}", drives.join(" "))
        }
    }
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
