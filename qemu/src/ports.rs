//! Free ports on the loopback.

use std::net::{Ipv4Addr, TcpListener};

use crate::error::HarnessError;

/// Below the range from which the kernel takes ports of outgoing connections, so that a stopped guest's
/// ports are still free when it starts again.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

/// Ports of 127.0.0.1 that nobody listens on at the moment, all different.
///
/// # Errors
/// `NoPorts`.
pub fn free_ports(count: usize) -> Result<Vec<u16>, HarnessError> {
    // Processes that ask at the same moment start at different places.
    let range = u32::from(LAST - FIRST) + 1;
    let start = std::process::id().wrapping_mul(613) % range;
    let mut held = Vec::new();
    for step in 0..range {
        if held.len() == count {
            break;
        }
        let port = FIRST + u16::try_from((start + step) % range).expect("below the range's size");
        // Held until all are found, so that none is found twice by two threads of this process.
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    }
    if held.len() < count {
        return Err(HarnessError::NoPorts(count));
    }
    held.iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<Result<_, _>>()
        .map_err(crate::error::io_error("inspect", "a listening socket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different_and_free() {
        let taken = free_ports(1).unwrap()[0];
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
        let mut ports = free_ports(20).unwrap();
        assert!(!ports.contains(&taken));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
        drop(listener);
    }
}
