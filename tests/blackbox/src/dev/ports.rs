//! Loopback ports for node processes: the well-known ones when free, otherwise any below the range from
//! which the kernel takes ports for outgoing connections, so that a restarted node finds its own free.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use anyhow::{Result, bail};
use parking_lot::Mutex;

const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;
const TRIES_MAX: usize = 500;

/// What was handed out in this process. A port stays its node's while that is down: clusters run side by side, and another
/// that took it would keep the node from coming back.
static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// `wanted` when it is free and was not handed out, else any such.
///
/// # Errors
/// When none is found.
pub fn prefer(wanted: u16) -> Result<SocketAddr> {
    if take(wanted) { Ok(loopback(wanted)) } else { any() }
}

/// Any free port that was not handed out.
///
/// # Errors
/// When none is found in 500 tries.
pub fn any() -> Result<SocketAddr> {
    for _ in 0..TRIES_MAX {
        let port = FIRST + u16::try_from(getrandom::u32()? % u32::from(COUNT))?;
        if take(port) {
            return Ok(loopback(port));
        }
    }
    bail!("no free loopback port found between {FIRST} and {}", FIRST + COUNT)
}

fn take(port: u16) -> bool {
    TcpListener::bind(loopback(port)).is_ok() && HANDED_OUT.lock().insert(port)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_or_handed_out_before_is_not_handed_out() {
        let first = any().unwrap();
        let busy = TcpListener::bind(first).unwrap();
        assert_ne!(prefer(first.port()).unwrap(), first);
        drop(busy);
        assert_ne!(prefer(first.port()).unwrap(), first, "its node may be down, and come back");
    }
}
