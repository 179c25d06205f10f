//! Which addresses events are never sent to by themselves. Pure.
//!
//! A target is defined by an operator, and where its name leads is decided by whoever runs that name's servers. So
//! an address is looked at when it is connected to: the machine itself, its links, and where clouds keep the
//! credentials of machines are refused, in every form in which an IPv6 address can carry them.
//!
//! Sources: RFC 6890 (special-purpose addresses), RFC 6598 (100.64.0.0/10), RFC 4291 (IPv6 addressing), RFC 6052
//! (NAT64), RFC 3056 (6to4); metadata services of AWS (169.254.169.254, fd00:ec2::254), Alibaba Cloud
//! (100.100.100.200) and Oracle Cloud (192.0.0.192).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is not to be sent to unless the cluster's settings name its network.
#[must_use]
pub fn is_refused(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_refused_4(address),
        IpAddr::V6(address) => is_refused_6(address),
    }
}

fn is_refused_4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        // This network, loopback, multicast and what is reserved above it.
        (0 | 127 | 224.., ..) => true,
        // Links, and the metadata services of most clouds.
        (169, 254, _) => true,
        // Shared by carriers.
        (100, 64..=127, _) => true,
        // Protocol assignments.
        (192, 0, 0) => true,
        _ => false,
    }
}

fn is_refused_6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_refused_4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Unspecified, loopback, and IPv4 addresses in a form that nothing uses any more.
        [0, 0, 0, 0, 0, 0, _, _] => true,
        // NAT64 and 6to4 lead to the IPv4 address within.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // Multicast; links and sites.
        [first, ..] if first >= 0xff00 || (0xfe80..=0xfeff).contains(&first) => true,
        [0xfd00, 0x0ec2, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_its_links_and_metadata_services_are_refused_in_every_form() {
        for refused in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            assert!(is_refused(refused.parse().unwrap()), "{refused}");
        }
        for allowed in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.2.1",
            "203.0.113.7",
            "100.63.0.1",
            "100.128.0.1",
            "2001:db8::1",
            "fd12::1",
            "64:ff9b::c000:201",
        ] {
            assert!(!is_refused(allowed.parse().unwrap()), "{allowed}");
        }
    }
}
