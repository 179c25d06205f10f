//! Configures interfaces over rtnetlink.
//!
//! The runtime lives for the length of one call: PID 1 has none otherwise.

use std::{fs, net::IpAddr, path::Path};

use holdfast_model::config::Network;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::address::{self, AddressError, Settings};

/// Why an interface is not configured.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Netlink is not there.
    #[error("cannot open rtnetlink")]
    Netlink(#[source] std::io::Error),
    /// Settings.
    #[error("network settings")]
    Settings(#[from] AddressError),
    /// No such interface (yet).
    #[error("no interface has the MAC address {0}")]
    NoInterface(String),
    /// The kernel refused.
    #[error("cannot {action} on the interface {mac}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Where.
        mac: String,
        /// Cause.
        source: rtnetlink::Error,
    },
}

/// Brings the loopback interface up and configures every interface; one that fails does not stop the
/// others. Safe to call again: what is set already is set to the same.
pub fn configure(sys: &Path, network: Option<&Network>) -> Vec<NetworkError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return vec![NetworkError::Netlink(error)],
    };
    runtime.block_on(async {
        let (connection, handle, _) = match rtnetlink::new_connection() {
            Ok(parts) => parts,
            Err(error) => return vec![NetworkError::Netlink(error)],
        };
        let driver = tokio::spawn(connection);
        let mut errors = Vec::new();
        errors.extend(loopback(sys, &handle).await.err());
        for interface in network.iter().flat_map(|network| &network.interfaces) {
            let outcome = match address::parse(interface) {
                Ok(settings) => apply(sys, &handle, &settings).await,
                Err(error) => Err(error.into()),
            };
            errors.extend(outcome.err());
        }
        driver.abort();
        errors
    })
}

async fn loopback(sys: &Path, handle: &Handle) -> Result<(), NetworkError> {
    let Some(index) = attribute(&sys.join("class/net/lo"), "ifindex").and_then(|text| text.parse().ok())
    else {
        return Err(NetworkError::NoInterface("of the loopback interface".to_owned()));
    };
    up(handle, index, "lo").await
}

async fn apply(sys: &Path, handle: &Handle, settings: &Settings) -> Result<(), NetworkError> {
    let mac = &settings.mac;
    let index = index_of(sys, mac).ok_or_else(|| NetworkError::NoInterface(mac.clone()))?;
    up(handle, index, mac).await?;
    let refused = |action| {
        let mac = mac.clone();
        move |source| NetworkError::Refused { action, mac, source }
    };
    let add = handle.address().add(index, settings.address, settings.prefix);
    add.replace().execute().await.map_err(refused("set the address"))?;
    if let Some(gateway) = settings.gateway {
        let route = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .build(),
        };
        handle.route().add(route).replace().execute().await.map_err(refused("set the default route"))?;
    }
    Ok(())
}

async fn up(handle: &Handle, index: u32, mac: &str) -> Result<(), NetworkError> {
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await.map_err(|source| NetworkError::Refused {
        action: "bring the link up",
        mac: mac.to_owned(),
        source,
    })
}

fn index_of(sys: &Path, mac: &str) -> Option<u32> {
    let interfaces = fs::read_dir(sys.join("class/net")).ok()?;
    interfaces
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| attribute(path, "address").as_deref() == Some(mac))
        .and_then(|path| attribute(&path, "ifindex")?.parse().ok())
}

fn attribute(interface: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(interface.join(name)).ok()?.trim().to_owned())
}
