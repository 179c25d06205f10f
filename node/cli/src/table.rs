//! What a command prints: a table of words, or the node's document as it is.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde_json::Value;

/// Rows under a heading.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|name| (*name).to_owned()).collect()] }
    }

    /// One more row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(
            cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect(),
        );
    }

    /// As text, columns apart by two spaces.
    #[must_use]
    pub fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  ", width = *width));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Prints the document, when it was asked for, or the tables.
///
/// # Errors
/// When nobody reads.
pub fn show(json: bool, document: &Value, tables: &[Table]) -> Result<()> {
    let text = if json {
        format!("{document:#}\n")
    } else {
        tables.iter().map(Table::text).collect::<Vec<_>>().join("\n")
    };
    io::stdout().write_all(text.as_bytes()).context("printing")
}

/// A text, number or word of a document; empty for null and what is not there.
#[must_use]
pub fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Bytes in binary units, three digits: `1.50 TiB`.
#[must_use]
pub fn bytes(value: &Value) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let Some(count) = value.as_u64() else { return String::new() };
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let decimals = if unit == 0 || size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    format!("{size:.decimals$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_nothing_is_a_dash() {
        let mut table = Table::new(&["NODE", "STATE"]);
        table.row(["n1".to_owned(), "up".to_owned()]);
        table.row(["a-long-name".to_owned(), String::new()]);
        assert_eq!(table.text(), "NODE         STATE\nn1           up\na-long-name  -\n");
    }

    #[test]
    fn sizes_have_three_digits() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (10 << 20, "10.0 MiB"), (200 << 20, "200 MiB")]
        {
            assert_eq!(bytes(&json!(count)), text);
        }
        assert_eq!(bytes(&Value::Null), "");
    }
}
