//! Feature levels.

use rusqlite::{Connection, params};

use super::{Applied, DONE, found};
use crate::{command::Refusal, features::FeatureCommand};

pub(super) fn apply(db: &Connection, command: &FeatureCommand) -> Applied {
    match *command {
        FeatureCommand::Report { node, level } => {
            let needs = in_force(db)?;
            if level < needs {
                return Ok(Err(Refusal::FeatureLevel { needs, has: level }));
            }
            let sql = "UPDATE nodes SET feature_level = ?2 WHERE node = ?1 AND state <> 'removed'";
            found(db.execute(sql, params![node.get().cast_signed(), level])?, "node", &node)
        }
        FeatureCommand::Raise { level } => {
            let lowest: Option<u32> =
                db.query_row("SELECT min(feature_level) FROM nodes WHERE state <> 'removed'", [], |row| {
                    row.get(0)
                })?;
            let lowest = lowest.unwrap_or(0);
            if lowest < level {
                return Ok(Err(Refusal::FeatureLevel { needs: level, has: lowest }));
            }
            db.execute("UPDATE cluster SET feature_level = max(feature_level, ?1)", [level])?;
            DONE
        }
    }
}

/// Refuses what needs a level that is not in force.
pub(super) fn require(db: &Connection, needs: u32) -> rusqlite::Result<Result<(), Refusal>> {
    let has = in_force(db)?;
    Ok(if has < needs { Err(Refusal::FeatureLevel { needs, has }) } else { Ok(()) })
}

fn in_force(db: &Connection) -> rusqlite::Result<u32> {
    db.query_row("SELECT feature_level FROM cluster", [], |row| row.get(0))
}
