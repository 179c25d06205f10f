//! Interface addresses as the configuration writes them.

use std::net::IpAddr;

use holdfast_model::config::Interface;

/// An interface's settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// MAC address, lower case with colons, as sysfs writes it.
    pub mac: String,
    /// Own address.
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: Option<IpAddr>,
}

/// Why an interface's settings were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// MAC.
    #[error("{0:?} is not a MAC address; write it as 52:54:00:00:00:01")]
    Mac(String),
    /// Address.
    #[error("{0:?} is not an address with a prefix length; write it as 10.77.0.1/24")]
    Address(String),
    /// Gateway.
    #[error("{0:?} is not a gateway address of the interface's family")]
    Gateway(String),
}

/// Checks an interface's settings.
///
/// # Errors
/// See `AddressError`.
pub fn parse(interface: &Interface) -> Result<Settings, AddressError> {
    let mac = interface.mac.to_ascii_lowercase();
    let octets: Vec<&str> = mac.split(':').collect();
    let octet = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    if octets.len() != 6 || !octets.iter().all(octet) {
        return Err(AddressError::Mac(interface.mac.clone()));
    }
    let bad_address = || AddressError::Address(interface.address.clone());
    let (address, prefix) = interface.address.split_once('/').ok_or_else(bad_address)?;
    let address: IpAddr = address.parse().map_err(|_| bad_address())?;
    let prefix: u8 = prefix.parse().map_err(|_| bad_address())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if prefix == 0 || prefix > bits {
        return Err(bad_address());
    }
    let gateway = match &interface.gateway {
        None => None,
        Some(text) => match text.parse::<IpAddr>() {
            Ok(gateway) if gateway.is_ipv4() == address.is_ipv4() => Some(gateway),
            _ => return Err(AddressError::Gateway(text.clone())),
        },
    };
    Ok(Settings { mac, address, prefix, gateway })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(mac: &str, address: &str, gateway: Option<&str>) -> Interface {
        Interface { mac: mac.into(), address: address.into(), gateway: gateway.map(Into::into) }
    }

    #[test]
    fn both_families_are_read() {
        let v4 = parse(&interface("52:54:00:AA:00:01", "10.77.0.1/24", Some("10.77.0.254"))).unwrap();
        assert_eq!((v4.mac.as_str(), v4.prefix), ("52:54:00:aa:00:01", 24));
        let v6 = parse(&interface("52:54:00:aa:00:01", "fd00::1/64", None)).unwrap();
        assert_eq!((v6.address.is_ipv6(), v6.prefix), (true, 64));
    }

    #[test]
    fn nonsense_is_refused() {
        let mac = "52:54:00:00:00:01";
        for (bad_mac, address, gateway) in [
            ("52:54:00:00:00", "10.0.0.1/8", None),
            ("52:54:00:00:00:0g", "10.0.0.1/8", None),
            (mac, "10.0.0.1", None),
            (mac, "10.0.0.1/33", None),
            (mac, "10.0.0.1/0", None),
            (mac, "fd00::1/129", None),
            (mac, "10.0.0.1/8", Some("fd00::1")),
            (mac, "10.0.0.1/8", Some("router")),
        ] {
            assert!(parse(&interface(bad_mac, address, gateway)).is_err(), "{bad_mac} {address} {gateway:?}");
        }
    }
}
