//! Which use is made of whose key. The one table.
//!
//! | purpose | active | suspended | shredding | destroyed | not known |
//! |---|---|---|---|---|---|
//! | `object_read`, `object_write` | yes | no | no | no | no |
//! | `background` | yes | yes | no | no | no |
//! | `catalog` | yes | yes | yes | no | yes |
//! | `tenant_key` | yes | yes | no | no | yes: it is being made |
//! | `rotation` | yes | yes | yes | no | yes |
//! | `names` | yes | yes | yes | no | no |
//!
//! How tenants stand the node program says, from the control state; until it has said so, nobody is known. What the
//! catalog needs comes before that: replicas start first.

use crate::protocol::{Purpose, Standing};

/// Whether a use is allowed; `standing` is `None` for a tenant that is not known.
#[must_use]
pub const fn allows(purpose: Purpose, standing: Option<Standing>) -> bool {
    use Standing::{Active, Destroyed, Shredding, Suspended};
    match purpose {
        Purpose::ObjectRead | Purpose::ObjectWrite => matches!(standing, Some(Active)),
        Purpose::Background => matches!(standing, Some(Active | Suspended)),
        Purpose::Catalog | Purpose::Rotation => !matches!(standing, Some(Destroyed)),
        Purpose::TenantKey => !matches!(standing, Some(Shredding | Destroyed)),
        Purpose::Names => matches!(standing, Some(Active | Suspended | Shredding)),
    }
}

/// For people.
#[must_use]
pub const fn named(standing: Option<Standing>) -> &'static str {
    match standing {
        Some(Standing::Active) => "active",
        Some(Standing::Suspended) => "suspended",
        Some(Standing::Shredding) => "being destroyed",
        Some(Standing::Destroyed) => "destroyed",
        None => "not known here yet",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_as_it_is_written() {
        use Standing::{Active, Destroyed, Shredding, Suspended};
        let columns = [Some(Active), Some(Suspended), Some(Shredding), Some(Destroyed), None];
        let rows = [
            (Purpose::ObjectRead, "y...."),
            (Purpose::ObjectWrite, "y...."),
            (Purpose::Background, "yy..."),
            (Purpose::Catalog, "yyy.y"),
            (Purpose::TenantKey, "yy..y"),
            (Purpose::Rotation, "yyy.y"),
            (Purpose::Names, "yyy.."),
        ];
        assert_eq!(rows.len(), Purpose::ALL.len());
        for (purpose, row) in rows {
            for (standing, expected) in columns.into_iter().zip(row.chars()) {
                assert_eq!(allows(purpose, standing), expected == 'y', "{purpose:?} {standing:?}");
            }
        }
    }
}
