//! Loopback ports for node processes: the well-known ones when free, otherwise any below the range from
//! which the kernel takes ports for outgoing connections, so that a restarted node finds its own free.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use anyhow::{Result, bail};

const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;
const TRIES_MAX: usize = 500;

/// Hands out ports, none twice.
#[derive(Debug, Default)]
pub struct Ports(HashSet<u16>);

impl Ports {
    /// `wanted` when it is free, else any free one.
    ///
    /// # Errors
    /// When none is found.
    pub fn prefer(&mut self, wanted: u16) -> Result<SocketAddr> {
        if self.take(wanted) { Ok(loopback(wanted)) } else { self.any() }
    }

    /// Any free port.
    ///
    /// # Errors
    /// When none is found in 500 tries.
    pub fn any(&mut self) -> Result<SocketAddr> {
        for _ in 0..TRIES_MAX {
            let port = FIRST + u16::try_from(getrandom::u32()? % u32::from(COUNT))?;
            if self.take(port) {
                return Ok(loopback(port));
            }
        }
        bail!("no free loopback port found between {FIRST} and {}", FIRST + COUNT)
    }

    fn take(&mut self, port: u16) -> bool {
        !self.0.contains(&port) && TcpListener::bind(loopback(port)).is_ok() && self.0.insert(port)
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_handed_out() {
        let mut ports = Ports::default();
        let first = ports.any().unwrap();
        let busy = TcpListener::bind(first).unwrap();
        assert_ne!(Ports::default().prefer(first.port()).unwrap(), first);
        drop(busy);
        assert_ne!(ports.prefer(first.port()).unwrap(), first, "handed out already");
    }
}
