//! Sealed files as SQLite uses them: nothing readable on the disk, everything readable with the key.

use std::{fs, path::PathBuf};

use super::*;

const NEEDLE: &[u8] = b"a name that no disk may show";

fn writer(file: &SealedFile, path: &Path) -> Connection {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = file.open(path, flags).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;")
        .unwrap();
    connection
}

fn fill(connection: &Connection, rows: i64) {
    connection.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY, y BLOB) STRICT").unwrap();
    for row in 0..rows {
        connection.execute("INSERT INTO t VALUES (?1, ?2)", (row, NEEDLE.repeat(40))).unwrap();
    }
}

fn count(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM t WHERE length(y) = 1120", [], |row| row.get(0))
}

fn files(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn holds(path: &Path, needle: &[u8]) -> bool {
    fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
}

fn key() -> Arc<FileKey> {
    Arc::new(FileKey::from_bytes([7; 32]))
}

#[test]
fn rows_are_nowhere_in_the_clear_and_all_there_with_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a name with spaces, ? and %.sqlite");
    let file = SealedFile::new(key());
    let connection = writer(&file, &path);
    fill(&connection, 300);
    let reader =
        file.open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX).unwrap();
    assert_eq!(count(&reader).unwrap(), 300);
    assert!(fs::metadata(with_suffix(&path, "-wal")).unwrap().len() > 300_000);
    for file in files(&path) {
        for needle in [NEEDLE, b"CREATE TABLE", b"SQLite format"] {
            assert!(!holds(&file, needle), "{}", file.display());
        }
    }
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert!(fs::metadata(&path).unwrap().len() > 300_000);
    assert!(!holds(&path, NEEDLE) && !holds(&path, b"SQLite format"));
    drop((reader, connection, file));

    // Opened anew, by another session of sealing.
    let file = SealedFile::new(key());
    assert_eq!(count(&writer(&file, &path)).unwrap(), 300);
    // The search finds what is in the clear.
    let plain = dir.path().join("plain.sqlite");
    fill(&Connection::open(&plain).unwrap(), 3);
    assert!(holds(&plain, NEEDLE) && holds(&plain, b"SQLite format"));
}

#[test]
fn without_the_key_nothing_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sqlite");
    let file = SealedFile::new(key());
    fill(&writer(&file, &path), 3);
    drop(file);
    let other = SealedFile::new(Arc::new(FileKey::from_bytes([8; 32])));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let outcome = other.open(&path, flags).and_then(|connection| count(&connection));
    assert!(outcome.is_err(), "{outcome:?}");
    assert!(Connection::open(&path).and_then(|connection| count(&connection)).is_err());
    let file = SealedFile::new(key());
    assert_eq!(count(&writer(&file, &path)).unwrap(), 3);
}

#[test]
fn a_crash_keeps_what_the_write_ahead_file_holds_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sqlite");
    let file = SealedFile::new(key());
    let connection = writer(&file, &path);
    fill(&connection, 50);
    connection.execute("INSERT INTO t VALUES (100, ?1)", [NEEDLE.repeat(40)]).unwrap();
    connection.execute("INSERT INTO t VALUES (101, ?1)", [NEEDLE.repeat(40)]).unwrap();

    // As a crash leaves it: the files as they are, the last frame torn at every kind of place.
    let wal = fs::read(with_suffix(&path, "-wal")).unwrap();
    for cut in [0, 1, 100, PAGE_SIZE, PAGE_SIZE + 10, PAGE_SIZE + 24] {
        let copy = dir.path().join(format!("copy{cut}.sqlite"));
        fs::copy(&path, &copy).unwrap();
        fs::write(with_suffix(&copy, "-wal"), &wal[..wal.len() - cut]).unwrap();
        let recovered = writer(&file, &copy);
        let rows = count(&recovered).unwrap();
        assert!(if cut == 0 { rows == 52 } else { rows == 51 || rows == 50 }, "cut {cut}: {rows}");
        let whole: String = recovered.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
    }
}

#[test]
fn a_first_page_torn_by_a_power_loss_is_read_from_the_write_ahead_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sqlite");
    let file = SealedFile::new(key());
    let connection = writer(&file, &path);
    fill(&connection, 5);
    let copy = dir.path().join("copy.sqlite");
    let mut database = fs::read(&path).unwrap();
    database[4096..8192].fill(0x11);
    fs::write(&copy, &database).unwrap();
    fs::copy(with_suffix(&path, "-wal"), with_suffix(&copy, "-wal")).unwrap();
    assert_eq!(count(&writer(&file, &copy)).unwrap(), 5);
    // Without the write-ahead file the page is damaged, and that is said.
    fs::write(&copy, &database).unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let error = file.open(&copy, flags).and_then(|connection| count(&connection)).unwrap_err();
    assert_eq!(error.sqlite_error().unwrap().extended_code, DAMAGED_PAGE, "{error}");
}

#[test]
fn a_damaged_or_moved_page_is_an_error_and_never_content() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sqlite");
    let file = SealedFile::new(key());
    let connection = writer(&file, &path);
    fill(&connection, 100);
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    let good = fs::read(&path).unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read = || file.open(&path, flags).and_then(|connection| count(&connection));
    assert_eq!(read().unwrap(), 100);
    let mut flipped = good.clone();
    flipped[5 * PAGE_SIZE + 17] ^= 1;
    let mut swapped = good.clone();
    swapped[5 * PAGE_SIZE..6 * PAGE_SIZE].copy_from_slice(&good[6 * PAGE_SIZE..7 * PAGE_SIZE]);
    for bad in [flipped, swapped] {
        fs::write(&path, bad).unwrap();
        assert_eq!(read().unwrap_err().sqlite_error().unwrap().extended_code, DAMAGED_PAGE);
    }
}

#[test]
fn pages_written_twice_in_one_transaction_and_copies_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sqlite");
    let file = SealedFile::new(key());
    let connection = writer(&file, &path);
    // A cache so small that pages leave it before the commit, and come back to be written again.
    connection.execute_batch("PRAGMA cache_size = 10").unwrap();
    fill(&connection, 0);
    connection.execute_batch("BEGIN").unwrap();
    for row in 0..600 {
        connection.execute("INSERT INTO t VALUES (?1, ?2)", (row, NEEDLE.repeat(20))).unwrap();
        connection.execute("UPDATE t SET y = ?2 WHERE x = ?1", (row / 2, NEEDLE.repeat(40))).unwrap();
    }
    connection.execute("UPDATE t SET y = ?1", [NEEDLE.repeat(40)]).unwrap();
    connection.execute_batch("COMMIT").unwrap();
    let copy = dir.path().join("copy.sqlite");
    fs::copy(&path, &copy).unwrap();
    fs::copy(with_suffix(&path, "-wal"), with_suffix(&copy, "-wal")).unwrap();
    let recovered = writer(&file, &copy);
    assert_eq!(count(&recovered).unwrap(), 600);
    let whole: String = recovered.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    // A rollback leaves frames behind that are written over.
    connection.execute_batch("BEGIN; DELETE FROM t; ROLLBACK; DELETE FROM t WHERE x < 10;").unwrap();
    assert_eq!(count(&connection).unwrap(), 590);
}

#[test]
fn no_journal_in_the_clear_can_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sqlite");
    let file = SealedFile::new(key());
    let connection = writer(&file, &path);
    fill(&connection, 3);
    let _ = connection.execute_batch("PRAGMA journal_mode = DELETE");
    let _ = connection.execute("INSERT INTO t VALUES (7, x'00')", []);
    assert!(!with_suffix(&path, "-journal").exists());
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
