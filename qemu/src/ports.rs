//! Free ports on the loopback.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::error::HarnessError;

/// Below the range from which the kernel takes ports of outgoing connections, so that a stopped guest's
/// ports are still free when it starts again.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

/// Ports of 127.0.0.1 that nobody listens on at the moment, all different, and never the same twice in
/// one process: who got one may not have started to listen yet.
///
/// # Errors
/// `NoPorts`.
pub fn free_ports(count: usize) -> Result<Vec<u16>, HarnessError> {
    static NEXT: OnceLock<Mutex<u32>> = OnceLock::new();
    let range = u32::from(LAST - FIRST) + 1;
    // Processes that ask at the same moment start at different places.
    let next = NEXT.get_or_init(|| Mutex::new(std::process::id().wrapping_mul(613) % range));
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ports = Vec::new();
    for _ in 0..range {
        if ports.len() == count {
            return Ok(ports);
        }
        let port = FIRST + u16::try_from(*next).expect("below the size of the range");
        *next = (*next + 1) % range;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.push(port);
        }
    }
    Err(HarnessError::NoPorts(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different_and_free() {
        let taken = free_ports(1).unwrap()[0];
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
        let mut ports = [free_ports(10).unwrap(), free_ports(10).unwrap()].concat();
        assert!(!ports.contains(&taken));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
        drop(listener);
    }
}
