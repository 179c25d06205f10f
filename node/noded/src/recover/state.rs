//! A group's state put together from its second copy, and written into a node.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use holdfast_catalog::{CatalogMachine, IMAGE_KIND, sqlite::ImageWriter};
use holdfast_consensus::{Consensus, ConsensusOptions, StateMachine};
use holdfast_control::{CONTROL_IMAGE_KIND, ControlMachine, ControlView};
use holdfast_crypt::random_array;
use holdfast_model::GroupId;
use holdfast_object::journal::{FoundRecords, Owner, Replayed};

use super::{LostNode, Nobody, apply_all, empty, members, verdict::GroupSummary};
use crate::{readmission::note_log, second_copy::RecoveryKeys};

/// What a machine is told to be at while it is put together.
const UNPLACED: &[u8] = b"recovery";

/// A group's state.
pub(super) struct Restored {
    group: GroupId,
    /// Its image, to be installed on every node.
    image: PathBuf,
    covers: Option<u64>,
    /// Bases that were not whole.
    passed_over: Vec<String>,
    replayed: Replayed,
    /// Owners whose key does not open what is theirs.
    unopened: BTreeSet<Owner>,
}

impl Restored {
    /// The last entry in it.
    fn last(&self) -> u64 {
        self.replayed.last.max(self.covers).unwrap_or(0)
    }

    pub(super) fn summary(&self) -> GroupSummary {
        let mut problems = self.passed_over.clone();
        problems.extend(self.replayed.problems.iter().cloned());
        if self.covers.is_none() && self.replayed.last.is_none() {
            problems.push("nothing of it is on these drives".to_owned());
        }
        GroupSummary {
            group: self.group,
            covers: self.covers,
            entries: self.replayed.entries,
            commands: self.replayed.commands,
            last: self.last(),
            missing: self.replayed.missing.clone(),
            problems,
            unopened: self.unopened.iter().map(|owner| format!("{owner:?}")).collect(),
        }
    }

    /// What a destroyed tenant left behind opens with no key, and is not missed.
    pub(super) fn without_destroyed(mut self, control: &ControlView) -> Self {
        self.unopened
            .retain(|owner| !matches!(owner, Owner::Tenant(tenant) if control.is_destroyed(*tenant)));
        self
    }

    pub(super) fn words(&self) -> String {
        self.summary().to_string()
    }
}

/// Puts the state of `group` together in `dir`, with `machine`, which is new.
pub(super) async fn restore(
    found: &FoundRecords,
    group: GroupId,
    mut machine: impl StateMachine,
    keys: &RecoveryKeys,
    dir: &Path,
) -> Result<Restored> {
    let (files_dir, base_image, image) = (dir.join("base"), dir.join("base.image"), dir.join("image"));
    empty(&files_dir)?;
    let mut passed_over = Vec::new();
    let base = match found.base(group, keys, &files_dir).await {
        Ok(base) => base,
        // Without a base the journal may still be whole.
        Err(error) => {
            passed_over.push(error.to_string());
            None
        }
    };
    let covers = base.as_ref().map(|base| base.covers);
    let mut unopened = BTreeSet::new();
    if let Some(base) = base {
        let kind = if group == GroupId::CONTROL { CONTROL_IMAGE_KIND } else { IMAGE_KIND };
        let count = u32::try_from(base.files.len()).context("files of a base")?;
        let mut writer = ImageWriter::create(&base_image, kind, count)?;
        for file in &base.files {
            writer.add_file(&file.name, &file.path)?;
        }
        writer.finish()?;
        machine.install(&base_image, UNPLACED).with_context(|| format!("the base of {group}"))?;
        passed_over.extend(base.passed_over);
        unopened.extend(base.unopened);
    }
    let replayed = found
        .replay(group, covers, keys, |entries| apply_all(&mut machine, &entries))
        .await
        .with_context(|| format!("the journal of {group}"))?;
    machine.checkpoint(UNPLACED)?;
    machine.snapshot(&image)?;
    std::fs::remove_dir_all(&files_dir)?;
    unopened.extend(replayed.unopened.iter().copied());
    Ok(Restored { group, image, covers, passed_over, replayed, unopened })
}

/// Writes the state of all groups into a node, beside a new log.
pub(super) async fn install(
    node: &LostNode,
    control: &ControlView,
    groups: &[Restored],
    keys: &Arc<RecoveryKeys>,
) -> Result<()> {
    let state_dir = &node.config.state_dir;
    let options = ConsensusOptions::new(node.identity.node, state_dir.join("raft"), Arc::new(Nobody));
    let consensus = Consensus::open(options).await.context("making a new log")?;
    for restored in groups {
        let (voters, learners) = members(control, restored.group);
        let position = consensus.restored_position(restored.last(), voters, &learners);
        let (image, group, state_dir) = (restored.image.clone(), restored.group, state_dir.clone());
        let keys = Arc::clone(keys);
        let install = move || -> std::io::Result<()> {
            if group == GroupId::CONTROL {
                ControlMachine::open(&state_dir.join("control"), random_array())?.0.install(&image, &position)
            } else {
                let dir = state_dir.join("catalog").join(group.to_string());
                CatalogMachine::open(&dir, keys)?.install(&image, &position)
            }
        };
        tokio::task::spawn_blocking(install).await?.with_context(|| format!("group {group}"))?;
    }
    // The node knew its lost log by name; it is to take the new one for its own.
    note_log(state_dir, consensus.log_identity())?;
    consensus.shutdown().await.context("closing the new log")
}
