//! Addresses of the virtual network, derived from a node's number.

use std::net::Ipv4Addr;

use holdfast_model::config::{Interface, Network};

/// QEMU's user network gives every guest the same private address; forwards lead to it.
pub const ACCESS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// Address on the network between the nodes.
pub fn cluster_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// MAC address on the network between the nodes.
pub fn cluster_mac(number: u8) -> String {
    format!("52:54:00:77:00:{number:02x}")
}

/// MAC address on the private network to the host.
pub fn access_mac(number: u8) -> String {
    format!("52:54:00:78:00:{number:02x}")
}

/// The network part of the node's configuration.
pub fn network(number: u8) -> Network {
    Network {
        interfaces: vec![
            Interface {
                mac: cluster_mac(number),
                address: format!("{}/24", cluster_address(number)),
                gateway: None,
            },
            Interface { mac: access_mac(number), address: format!("{ACCESS_ADDRESS}/24"), gateway: None },
        ],
    }
}
