//! Schema versions: an ordered list of SQL scripts, the count of those applied kept in `user_version`.
//!
//! A published script stays as it is; a change is a new directory beside it. Each script runs in a
//! transaction of its own together with the new version, so a crash leaves a whole version behind.

use std::{io, path::Path};

use rusqlite::{Connection, TransactionBehavior};

use super::io_error;

/// One step of a schema.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Name of its directory: `0001_initial`.
    pub name: &'static str,
    /// The script.
    pub up: &'static str,
}

/// Applies the steps that `connection` has not seen.
///
/// # Errors
/// I/O; `InvalidData` when the file was written by a newer release.
pub fn migrate(connection: &mut Connection, migrations: &[Migration], path: &Path) -> io::Result<()> {
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|e| io_error("reading the schema version of", path, &e))?;
    let applied = usize::try_from(version).ok().filter(|v| *v <= migrations.len()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{}: schema version {version}, this release knows up to {}; start the newer release again",
                path.display(),
                migrations.len()
            ),
        )
    })?;
    for (step, migration) in migrations.iter().enumerate().skip(applied) {
        let doing = format!("applying migration {} to", migration.name);
        let mut apply = || -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(migration.up)?;
            transaction.pragma_update(None, "user_version", step as i64 + 1)?;
            transaction.commit()
        };
        apply().map_err(|e| io_error(&doing, path, &e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration { name: "0001_one", up: "CREATE TABLE one (x INTEGER) STRICT;" };
    const TWO: Migration = Migration { name: "0002_two", up: "ALTER TABLE one ADD COLUMN y INTEGER;" };

    #[test]
    fn steps_are_applied_once_and_newer_files_are_refused() {
        let path = Path::new("memory");
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &[ONE], path).unwrap();
        connection.execute("INSERT INTO one VALUES (7)", []).unwrap();
        migrate(&mut connection, &[ONE, TWO], path).unwrap();
        migrate(&mut connection, &[ONE, TWO], path).unwrap();
        connection.query_row("SELECT x FROM one WHERE y IS NULL", [], |r| r.get::<_, i64>(0)).unwrap();
        assert_eq!(migrate(&mut connection, &[ONE], path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let bad =
            Migration { name: "0002_bad", up: "CREATE TABLE two (x INTEGER); SELECT nonsense FROM nowhere;" };
        let mut connection = Connection::open_in_memory().unwrap();
        assert!(migrate(&mut connection, &[ONE, bad], Path::new("memory")).is_err());
        migrate(&mut connection, &[ONE, TWO], Path::new("memory")).unwrap();
        assert!(connection.prepare("SELECT x FROM two").is_err());
    }
}
