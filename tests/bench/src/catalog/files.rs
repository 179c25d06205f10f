//! The same rows through the same settings, in a plain and in a sealed SQLite file.

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use holdfast_catalog::sqlite::{Durability, Form, Migration, checkpoint, open_reader, open_writer};
use holdfast_crypt::FileKey;
use holdfast_sealed_sqlite::SealedFile;
use rusqlite::params;

use crate::{BATCH, DIRECTORIES, key, millis_at};

const SCHEMA: &[Migration] = &[Migration {
    name: "objects",
    up: "CREATE TABLE objects (bucket INTEGER NOT NULL, key BLOB NOT NULL, size INTEGER NOT NULL,
                               etag TEXT NOT NULL, attributes BLOB NOT NULL,
                               PRIMARY KEY (bucket, key)) STRICT, WITHOUT ROWID;",
}];

const PAGES: u64 = 201;
const PAGE_ROWS: usize = 1000;

/// Figures of one file.
struct Figures {
    inserts_per_second: f64,
    checkpoint_millis: f64,
    cold_list_millis: f64,
    list_millis: f64,
    bytes_per_row: f64,
}

/// Measures both forms, twice in turn, and prints the better of each.
///
/// # Errors
/// I/O.
pub fn compare(dir: &Path, rows: u64) -> Result<()> {
    println!("## {rows} rows, {BATCH} a transaction");
    println!(
        "| file | inserts/s | checkpoint ms | first 1,000 keys ms, cache cold | 1,000 keys ms, p50 | bytes/row |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let mut best: [Option<Figures>; 2] = [None, None];
    for round in 0..2 {
        for (at, name) in ["plain", "sealed"].into_iter().enumerate() {
            let form = match at {
                0 => Form::Plain,
                _ => Form::Sealed(SealedFile::new(Arc::new(FileKey::generate()))),
            };
            let figures = measure(&dir.join(format!("{name}-{round}.sqlite")), &form, rows)?;
            if best[at].as_ref().is_none_or(|best| figures.inserts_per_second > best.inserts_per_second) {
                best[at] = Some(figures);
            }
        }
    }
    for (name, figures) in ["plain", "sealed"].into_iter().zip(best.iter().flatten()) {
        println!(
            "| {name} | {:.0} | {:.0} | {:.2} | {:.2} | {:.1} |",
            figures.inserts_per_second,
            figures.checkpoint_millis,
            figures.cold_list_millis,
            figures.list_millis,
            figures.bytes_per_row
        );
    }
    println!();
    Ok(())
}

fn measure(path: &Path, form: &Form, rows: u64) -> Result<Figures> {
    let mut writer = open_writer(path, form, SCHEMA, Durability::AtCheckpoint)?;
    let begun = Instant::now();
    for batch in 0..rows.div_ceil(BATCH) {
        let transaction = writer.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO objects VALUES (1, ?1, 48, ?2, ?3)")?;
            for row in batch * BATCH..((batch + 1) * BATCH).min(rows) {
                let etag = "0123456789abcdef0123456789abcdef";
                insert.execute(params![key(row).into_bytes(), etag, [5_u8; 24].as_slice()])?;
            }
        }
        transaction.commit()?;
    }
    let inserts_per_second = rows as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    checkpoint(&writer, path)?;
    let checkpoint_millis = begun.elapsed().as_secs_f64() * 1e3;
    let bytes_per_row = std::fs::metadata(path)?.len() as f64 / rows as f64;

    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for page in 0..PAGES {
        // Every connection has a cache of its own: the first page is read through the operating system's.
        let reader = open_reader(path, form)?;
        let mut list = reader.prepare(
            "SELECT key, size, etag FROM objects WHERE bucket = 1 AND key >= ?1 ORDER BY key LIMIT 1000",
        )?;
        let from = format!("directory-{:03}/", page * 37 % (DIRECTORIES - 10)).into_bytes();
        for times in [&mut cold, &mut warm] {
            let begun = Instant::now();
            let found = list
                .query_map(params![from], |row| row.get::<_, Vec<u8>>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            times.push(begun.elapsed());
            ensure!(found.len() == PAGE_ROWS.min(found.len()), "a page of {} keys", found.len());
        }
    }
    Ok(Figures {
        inserts_per_second,
        checkpoint_millis,
        cold_list_millis: millis_at(&mut cold, 0.5),
        list_millis: millis_at(&mut warm, 0.5),
        bytes_per_row,
    })
}
