//! Recognising damaged structures: for reports that say what was damaged, and where.

use crate::{FormatError, Sector, footer, record, resume, tombstone};

/// What is wrong with a sector of a segment that was one of our structures and is none any more.
///
/// Its magic and version are ours, all but a byte or two, and the rest does not hold together, or the other
/// way round. `None` for sound structures, and for whatever never was one. A guess for messages: payload
/// that was made to look like this is reported likewise, so nothing may be decided by it.
#[must_use]
pub fn damage(sector: &Sector) -> Option<FormatError> {
    [record::KIND, tombstone::KIND, resume::KIND, footer::KIND].iter().find_map(|kind| kind.damage(sector))
}
