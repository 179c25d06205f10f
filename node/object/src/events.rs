//! Event notifications: in the catalog's words, for gateways and for who sends them; and what is behind the names of
//! targets.
//!
//! Events are queued by the catalog ([`holdfast_catalog::Op`]) and sent by the worker for them
//! ([`crate::workers`]), which is given something that sends.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    time::Duration,
};

pub use holdfast_catalog::{
    Event, EventKind, NOTIFICATION_NAME_SIZE_MAX, NOTIFICATION_RULES_MAX, NotificationRule, Notifications,
    NotificationsError, Origin, TargetForm, VersionRef, WrittenBy,
};
use serde::{Deserialize, Serialize, de};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Targets of one tenant at most.
pub const WEBHOOKS_MAX: usize = 100;

/// Longest address of a target in bytes.
pub const WEBHOOK_URL_SIZE_MAX: usize = 2048;

/// Longest secret of a target in bytes.
pub const WEBHOOK_BEARER_SIZE_MAX: usize = 2048;

/// Largest set of certificates that a target is trusted by, as PEM, in bytes.
pub const WEBHOOK_CA_SIZE_MAX: usize = 8 * 1024;

/// Networks that may be sent to although they are refused by themselves, at most.
pub const EVENT_NETWORKS_MAX: usize = 32;

/// An event that was not told after so long is given up.
pub const EVENT_KEPT: Duration = Duration::from_secs(3 * 24 * 3600);

/// A target that events are posted to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `https://` or `http://`.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    #[serde(default)]
    pub bearer: Option<String>,
    /// Certificates of the authorities that vouch for the target, as PEM. Needed for `https://`.
    #[serde(default)]
    pub ca_pem: Option<String>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A network in CIDR notation (RFC 4632): `10.0.0.0/8`, `fd00::/8`. Bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network like 10.0.0.0/8 or fd00::/8, with zeros behind the prefix")]
pub struct NotANetwork(String);

impl Network {
    /// Whether an address is in it. Of an IPv4 address in IPv6 form it is asked as of the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (u32::from(network) ^ u32::from(address)) & mask_4(self.prefix) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (u128::from(network) ^ u128::from(address)) & mask_6(self.prefix) == 0
            }
            _ => false,
        }
    }
}

fn mask_4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(Ipv4Addr::BITS - u32::from(prefix)).unwrap_or(0)
}

fn mask_6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(Ipv6Addr::BITS - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
            let (bits, rest) = match address {
                IpAddr::V4(v4) => (Ipv4Addr::BITS, u128::from(u32::from(v4) & !mask_4(prefix.min(32)))),
                IpAddr::V6(v6) => (Ipv6Addr::BITS, u128::from(v6) & !mask_6(prefix.min(128))),
            };
            (u32::from(prefix) <= bits && rest == 0).then_some(Self { address, prefix })
        };
        parse().ok_or_else(|| NotANetwork(text.to_owned()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What the cluster lets events do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSettings {
    /// Networks that targets may be in although such addresses are refused by themselves: this machine, its links,
    /// nobody's.
    #[serde(default)]
    pub networks: Vec<Network>,
}

/// An event on its way.
#[derive(Debug, Clone, Copy)]
pub struct Parcel<'a> {
    /// To whom.
    pub webhook: &'a Webhook,
    /// Where that may be.
    pub settings: &'a EventSettings,
    /// The cluster's region.
    pub region: &'a str,
    /// The event's number: of two events of one key the later one has the greater.
    pub no: u64,
    /// The event.
    pub event: &'a Event,
}

/// Why an event was not taken. It is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Undelivered {
    /// In words.
    pub why: String,
    /// The target is there and does not take this event; it may take others.
    pub only_this: bool,
}

/// What sends events.
#[async_trait::async_trait]
pub trait EventSender: fmt::Debug + Send + Sync + 'static {
    /// Sends one event; returns when the target has said that it has it.
    ///
    /// # Errors
    /// When it did not say so, for whatever reason. It may have it all the same.
    async fn send(&self, parcel: Parcel<'_>) -> Result<(), Undelivered>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("127.0.0.0/8", "127.9.0.1") && !holds("127.0.0.0/8", "128.0.0.1"));
        assert!(holds("127.0.0.0/8", "::ffff:127.0.0.1"));
        assert!(holds("0.0.0.0/0", "203.0.113.7") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("::1/128", "::1") && !holds("::1/128", "::2"));
        assert!(holds("192.0.2.7/32", "192.0.2.7") && !holds("192.0.2.7/32", "192.0.2.6"));
        assert_eq!("fd00::/8".parse::<Network>().unwrap().to_string(), "fd00::/8");
        for wrong in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_secret_is_not_shown() {
        let webhook =
            Webhook { url: "https://example.net/".into(), bearer: Some("geheim".into()), ca_pem: None };
        assert!(!format!("{webhook:?}").contains("geheim"));
        let text = serde_json::to_string(&webhook).unwrap();
        assert_eq!(serde_json::from_str::<Webhook>(&text).unwrap(), webhook);
    }
}
