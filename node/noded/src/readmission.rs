//! A node that lost its Raft log comes back under a new identity, by itself.
//!
//! It may have voted and acknowledged what it no longer remembers, so it must never speak under its old
//! number again. Its certificate still proves who it was: any member gives it a token to take its own
//! place, with which it joins as any node does. Its drives go with it: shards are found by drive, not by
//! node.
//!
//! ```text
//! state_dir/
//!   log.identity       the log this node took part with; another one, or none, means it was lost
//!   next/              credentials of the new identity, until they are in place
//!   lost-NODE/         what the old identity left: log, control and catalog files, for evidence
//! ```
//!
//! Invariant: the old identity's files are set aside before the new identity is in place, so that the two
//! never meet; every step may be repeated after a crash.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use holdfast_consensus::LogIdentity;
use holdfast_control::{ControlMachine, NodeState};
use holdfast_crypt::random_array;
use holdfast_model::{NodeId, config::NodeConfig};
use holdfast_peer::{PeerClient, join::JoinToken, pki::PeerIdentity};
use holdfast_ring::BufferPool;
use tokio_util::sync::CancellationToken;

use crate::{
    identity::{Credentials, write_durably},
    orders::{self, Answer, Order},
};

const LOG_IDENTITY: &str = "log.identity";
const NEXT: &str = "next";
/// What the old identity's state is in.
const SET_ASIDE: [&str; 3] = ["raft", "control", "catalog"];

/// Written when the node was removed: it does not start again.
const REMOVED: &str = "removed";

/// Pause after all members were asked in vain.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether `found` is not the log this node took part with. A node that starts for the first time notes it.
///
/// # Errors
/// I/O.
pub fn is_other_log(state_dir: &Path, found: LogIdentity) -> Result<bool> {
    let path = state_dir.join(LOG_IDENTITY);
    match fs::read_to_string(&path) {
        Ok(known) => Ok(known.trim() != found.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_durably(&path, found.to_string().as_bytes(), 0o644)?;
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Notes that the node takes part with another log from here on: one made by recovery.
///
/// # Errors
/// I/O.
pub fn note_log(state_dir: &Path, log: LogIdentity) -> Result<()> {
    write_durably(&state_dir.join(LOG_IDENTITY), log.to_string().as_bytes(), 0o644)
}

/// Notes that this node was removed from its cluster for good.
///
/// # Errors
/// I/O.
pub fn note_removed(state_dir: &Path, node: NodeId) -> Result<()> {
    write_durably(&state_dir.join(REMOVED), node.to_string().as_bytes(), 0o644)
}

/// Refuses to start a node that was removed.
///
/// # Errors
/// When it was.
pub fn refuse_removed(state_dir: &Path) -> Result<()> {
    let path = state_dir.join(REMOVED);
    if path.exists() {
        bail!(
            "this node was removed from its cluster; to use the machine again, wipe {} and let it join anew",
            state_dir.display()
        );
    }
    Ok(())
}

/// Members this node knew, from its replica of the control state.
///
/// # Errors
/// Never for a missing or damaged replica: then nobody is known.
pub async fn known_members(state_dir: &Path) -> Vec<(NodeId, SocketAddr)> {
    let dir = state_dir.join("control");
    let view = tokio::task::spawn_blocking(move || {
        let (_machine, reader) = ControlMachine::open(&dir, random_array()).ok()?;
        reader.view().ok()
    });
    let Ok(Some(view)) = view.await else { return Vec::new() };
    let nodes = view.nodes.values().filter(|node| node.state != NodeState::Removed);
    nodes.map(|node| (node.node, node.peer)).collect()
}

/// Asks members for a token to take this node's place, for at most `patience`. Returns it with whom to
/// show it to.
///
/// # Errors
/// When no member is known, or none gave one in time.
pub async fn ask_for_token(
    config: &NodeConfig,
    credentials: &Credentials,
    members: &[(NodeId, SocketAddr)],
    patience: Duration,
    stop: &CancellationToken,
) -> Result<(JoinToken, Vec<SocketAddr>)> {
    let others: Vec<_> = members.iter().filter(|(node, _)| *node != credentials.identity.node).collect();
    if others.is_empty() {
        bail!(
            "the Raft log is lost and no other member is known to ask for a new identity; with one node only, \
             recover the catalog from the drives"
        );
    }
    let identity =
        PeerIdentity::new(credentials.ca.clone(), credentials.certificate.clone(), credentials.key.clone())
            .context("this node's peer certificate")?;
    let pool = BufferPool::new(config.buffer_memory).context("buffers")?;
    let peers = PeerClient::new(identity, pool);
    for (node, address) in &others {
        peers.set_address(*node, *address);
    }
    let asking = async {
        loop {
            for (node, _) in &others {
                match orders::give(&peers, *node, &Order::ReplaceMe).await {
                    Ok(Answer::Token(token)) => return token.parse().context("the token a member gave"),
                    Ok(other) => tracing::warn!(%node, ?other, "no token for a new identity"),
                    Err(error) => {
                        tracing::info!(%node, error = format!("{error:#}"), "no token for a new identity yet");
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let token = tokio::select! {
        () = stop.cancelled() => bail!("stopped while asking for a new identity"),
        token = tokio::time::timeout(patience, asking) => token.context("no member gave a new identity")??,
    };
    Ok((token, others.into_iter().map(|(_, address)| *address).collect()))
}

/// Puts the new identity down, to be taken up by [`take_up`].
///
/// # Errors
/// I/O.
pub fn put_down(state_dir: &Path, next: &Credentials) -> Result<()> {
    next.store(&state_dir.join(NEXT))
}

/// Takes up a new identity that was put down, here or before a crash.
///
/// # Errors
/// I/O.
pub fn take_up(state_dir: &Path) -> Result<()> {
    let next_dir = state_dir.join(NEXT);
    let Some(next) = Credentials::load(&next_dir)? else { return Ok(()) };
    if let Some(old) = Credentials::load(state_dir)?.filter(|old| old.identity.node != next.identity.node) {
        let aside = state_dir.join(format!("lost-{}", old.identity.node));
        fs::create_dir_all(&aside).with_context(|| format!("creating {}", aside.display()))?;
        for name in SET_ASIDE {
            move_when_there(&state_dir.join(name), &aside.join(name))?;
        }
    }
    match fs::remove_file(state_dir.join(LOG_IDENTITY)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    next.store(state_dir)?;
    fs::remove_dir_all(&next_dir).with_context(|| format!("removing {}", next_dir.display()))?;
    tracing::info!(node = %next.identity.node, "took up a new identity");
    Ok(())
}

fn move_when_there(from: &Path, to: &PathBuf) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("setting {} aside", from.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_model::ClusterId;
    use holdfast_peer::pki::{Certificate, PrivateKey};

    use super::*;
    use crate::identity::Identity;

    fn credentials(node: u64) -> Credentials {
        Credentials {
            identity: Identity {
                cluster: ClusterId::from_bytes([1; 16]),
                node: NodeId::new(node),
                name: "n2".to_owned(),
                catalog_groups: 8,
            },
            ca: Certificate::from_der(vec![1]),
            certificate: Certificate::from_der(vec![2]),
            key: PrivateKey::from_der(vec![3]),
        }
    }

    #[test]
    fn another_log_than_the_first_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (first, other) = (LogIdentity([1; 16]), LogIdentity([2; 16]));
        assert!(!is_other_log(dir.path(), first).unwrap());
        assert!(!is_other_log(dir.path(), first).unwrap());
        assert!(is_other_log(dir.path(), other).unwrap());
    }

    #[test]
    fn a_new_identity_replaces_the_old_one_and_sets_its_state_aside_whenever_it_is_cut_off() {
        for cut in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let state = dir.path();
            credentials(2).store(state).unwrap();
            is_other_log(state, LogIdentity([1; 16])).unwrap();
            for name in SET_ASIDE {
                fs::create_dir(state.join(name)).unwrap();
                fs::write(state.join(name).join("old"), "old").unwrap();
            }
            put_down(state, &credentials(4)).unwrap();
            // As far as it had come when the power went.
            if cut > 0 {
                fs::create_dir_all(state.join("lost-n2")).unwrap();
                fs::rename(state.join("raft"), state.join("lost-n2/raft")).unwrap();
            }
            if cut > 1 {
                for name in ["control", "catalog"] {
                    fs::rename(state.join(name), state.join("lost-n2").join(name)).unwrap();
                }
                credentials(4).store(state).unwrap();
            }
            take_up(state).unwrap();
            take_up(state).unwrap();
            let now = Credentials::load(state).unwrap().unwrap();
            assert_eq!(now.identity.node, NodeId::new(4), "cut {cut}");
            for name in SET_ASIDE {
                assert!(!state.join(name).exists(), "cut {cut}: {name}");
                assert!(state.join("lost-n2").join(name).join("old").exists(), "cut {cut}: {name}");
            }
            assert!(!is_other_log(state, LogIdentity([9; 16])).unwrap(), "the new identity has a new log");
        }
    }
}
