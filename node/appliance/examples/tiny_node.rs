//! The smallest program that makes a bootable image: PID 1, and a role that answers TCP.
//!
//! The VM tests of `qemu` boot it. The role prints one line, answers every connection to port 8080 with
//! its name and drives, and ends at SIGTERM as the node does.

use std::{io::Write as _, net::TcpListener, path::Path};

use holdfast_appliance::{Role, data_drives, is_pid1, run_pid1};
use holdfast_model::config::NodeConfig;

fn main() -> std::io::Result<()> {
    if is_pid1() {
        run_pid1(Role::node());
    }
    let config = std::env::args().nth(3).unwrap_or_default();
    let config: NodeConfig = serde_json::from_slice(&std::fs::read(Path::new(&config))?)?;
    let boots = count_boot()?;
    let listener = TcpListener::bind(("0.0.0.0", 8080))?;
    println!("tiny node {} is ready", config.name);
    for connection in listener.incoming() {
        let mut connection = connection?;
        writeln!(connection, "{} boots {boots} drives {:?}", config.name, data_drives())?;
    }
    Ok(())
}

/// Starts of the role so far, kept on STATE.
fn count_boot() -> std::io::Result<u64> {
    let path = Path::new("/state/boots");
    let boots = std::fs::read_to_string(path).ok().and_then(|text| text.parse().ok()).unwrap_or(0) + 1;
    let mut file = std::fs::File::create(path)?;
    write!(file, "{boots}")?;
    file.sync_all()?;
    Ok(boots)
}
