//! The kernel's announcements of new devices (netlink, protocol KOBJECT_UEVENT).
//!
//! A message is `ACTION@PATH` followed by `KEY=VALUE` strings, all ended by a zero byte.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
        socket, sockopt,
    },
};

/// Room for announcements while PID 1 is busy loading modules.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The kernel's own limit for one message is 2 KiB plus the path.
const MESSAGE_SIZE_MAX: usize = 8192;
/// The group on which the kernel itself speaks.
const KERNEL_GROUP: u32 = 1;

/// What an announcement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// A device that a driver may be found for.
    Device {
        /// Its `modalias`.
        modalias: String,
    },
    /// Announcements were lost; look at everything again.
    Lost,
}

/// The socket.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn listen() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self { socket })
    }

    /// Descriptor to wait on.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next announcement that matters, `None` when there is none at present.
    pub fn next(&self) -> Option<Announcement> {
        let mut buffer = [0; MESSAGE_SIZE_MAX];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(0) => return None,
                Ok(length) => {
                    if let Some(announcement) = parse(&buffer[..length]) {
                        return Some(announcement);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Some(Announcement::Lost),
                Err(_) => return None,
            }
        }
    }
}

fn parse(message: &[u8]) -> Option<Announcement> {
    let mut parts = message.split(|&b| b == 0).filter_map(|part| std::str::from_utf8(part).ok());
    if !parts.next()?.starts_with("add@") {
        return None;
    }
    let modalias = parts.find_map(|part| part.strip_prefix("MODALIAS="))?;
    Some(Announcement::Device { modalias: modalias.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_devices_with_a_modalias_matter() {
        let add = b"add@/devices/pci0/x\0ACTION=add\0SUBSYSTEM=pci\0MODALIAS=pci:v00001AF4\0SEQNUM=7\0";
        assert_eq!(parse(add), Some(Announcement::Device { modalias: "pci:v00001AF4".into() }));
        assert_eq!(parse(b"remove@/devices/x\0MODALIAS=pci:v1\0"), None);
        assert_eq!(parse(b"add@/devices/x\0ACTION=add\0"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(&[0xff; 40]), None);
    }
}
