//! The table of levels: what each one costs and survives on a number of nodes, as operators see it.

use std::fmt;

use crate::{Geometry, Level, level::ParityLevel, limits::PARITY_SHARDS_MAX};

/// All levels on a cluster of equal nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelTable {
    nodes: usize,
    drives: usize,
    rows: Vec<LevelRow>,
}

/// One level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelRow {
    /// The level.
    pub level: Level,
    /// How its stripes are cut; `None` when it cannot be kept.
    pub geometry: Option<Geometry>,
    /// Whether writes go on after the loss of as many nodes as it survives: the others are a majority.
    pub writes_go_on: bool,
}

impl LevelRow {
    /// Part of all bytes that is redundancy, in percent, rounded.
    #[must_use]
    pub fn overhead_percent(&self) -> Option<u32> {
        let geometry = self.geometry?;
        let (data, parity) = (u32::from(geometry.data), u32::from(geometry.parity));
        Some((parity * 200 + data + parity) / (2 * (data + parity)))
    }

    /// In words: `2 drives or 1 node`.
    #[must_use]
    pub fn survives(&self, nodes: usize) -> String {
        let count = |number: u8, what: &str| {
            if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
        };
        let drives = count(self.level.drives_survived(), "drive");
        let lost = self.level.nodes_survived();
        if nodes == 1 {
            return drives;
        }
        match self.level {
            Level::Parity(ParityLevel::Plus3d1n1d) => format!("{drives}, or 1 node and 1 drive"),
            _ => format!("{drives} or {}", count(lost, "node")),
        }
    }
}

impl LevelTable {
    /// The table for `nodes` nodes of `drives` drives each.
    #[must_use]
    pub fn new(nodes: usize, drives: usize) -> Self {
        let cluster = vec![drives; nodes];
        let mirrors = (2..=PARITY_SHARDS_MAX as u8 + 1).map(|copies| Level::Mirror { copies });
        let row = |level: Level| LevelRow {
            level,
            geometry: level.geometry(&cluster),
            writes_go_on: nodes == 1 || 2 * (nodes - usize::from(level.nodes_survived()).min(nodes)) > nodes,
        };
        let rows = ParityLevel::every().map(Level::Parity).chain(mirrors).map(row).collect();
        Self { nodes, drives, rows }
    }

    /// The rows: parity levels, then mirrors.
    #[must_use]
    pub fn rows(&self) -> &[LevelRow] {
        &self.rows
    }
}

impl fmt::Display for LevelTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suggested = Level::suggested(self.nodes);
        writeln!(f, "{} nodes, {} drives each; suggested level {suggested}", self.nodes, self.drives)?;
        writeln!(f, "{:<9} {:<8} {:>8}  {:<32} writes then", "level", "stripe", "overhead", "survives")?;
        for row in &self.rows {
            let level = row.level.to_string();
            let (Some(geometry), Some(overhead)) = (row.geometry, row.overhead_percent()) else {
                writeln!(f, "{level:<9} {:<8} {:>8}  cannot be kept on these nodes and drives", "-", "-")?;
                continue;
            };
            let stripe = format!("{}+{}", geometry.data, geometry.parity);
            let writes = if row.writes_go_on { "go on" } else { "stop: no majority of nodes" };
            writeln!(f, "{level:<9} {stripe:<8} {overhead:>7}%  {:<32} {writes}", row.survives(self.nodes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OneFS's published chart (3 to 6 nodes) and the rows its rule gives beyond; `-` where it has none.
    const PUBLISHED: [(&str, [&str; 7]); 9] = [
        ("+1n", ["2+1 33%", "3+1 25%", "4+1 20%", "5+1 17%", "6+1 14%", "9+1 10%", "16+1 6%"]),
        ("+2d:1n", ["4+2 33%", "6+2 25%", "8+2 20%", "10+2 17%", "12+2 14%", "16+2 11%", "16+2 11%"]),
        ("+2n", ["-", "-", "3+2 40%", "4+2 33%", "5+2 29%", "8+2 20%", "16+2 11%"]),
        ("+3d:1n", ["6+3 33%", "9+3 25%", "12+3 20%", "15+3 17%", "15+3 17%", "15+3 17%", "15+3 17%"]),
        ("+3d:1n1d", ["3+3 50%", "5+3 38%", "7+3 30%", "9+3 25%", "11+3 21%", "15+3 17%", "15+3 17%"]),
        ("+3n", ["-", "-", "-", "-", "4+3 43%", "7+3 30%", "15+3 17%"]),
        ("+4d:1n", ["8+4 33%", "12+4 25%", "16+4 20%", "16+4 20%", "16+4 20%", "16+4 20%", "16+4 20%"]),
        ("+4d:2n", ["-", "4+4 50%", "6+4 40%", "8+4 33%", "10+4 29%", "16+4 20%", "16+4 20%"]),
        ("+4n", ["-", "-", "-", "-", "-", "6+4 40%", "16+4 20%"]),
    ];
    const NODES: [usize; 7] = [3, 4, 5, 6, 7, 10, 20];

    #[test]
    fn every_published_row_is_printed_and_where_none_is_published_writes_would_stop() {
        for (column, nodes) in NODES.into_iter().enumerate() {
            let table = LevelTable::new(nodes, 12);
            let printed = table.to_string();
            for (level, cells) in PUBLISHED {
                let row = table.rows().iter().find(|row| row.level.to_string() == level).unwrap();
                let line = printed.lines().find(|line| line.split(' ').next() == Some(level)).unwrap();
                match cells[column].split_once(' ') {
                    Some((stripe, overhead)) => {
                        let cells: Vec<&str> = line.split_whitespace().collect();
                        assert_eq!((cells[1], cells[2]), (stripe, overhead), "{level} on {nodes} nodes");
                    }
                    None => assert!(row.geometry.is_none() || !row.writes_go_on, "{level} on {nodes} nodes"),
                }
            }
        }
    }

    #[test]
    fn levels_of_node_losses_need_twice_as_many_nodes_and_one_for_writes_to_go_on() {
        for nodes in 2..=252 {
            for row in LevelTable::new(nodes, 4).rows() {
                let enough = nodes > 2 * usize::from(row.level.nodes_survived());
                assert_eq!(row.writes_go_on, enough, "{} on {nodes}", row.level);
                if let Some(geometry) = row.geometry {
                    assert!(geometry.shards() <= 20, "{} on {nodes}", row.level);
                }
            }
        }
    }

    #[test]
    fn mirrors_cost_all_copies_but_one() {
        let table = LevelTable::new(8, 4);
        let overheads: Vec<_> = table.rows()[9..].iter().map(|row| row.overhead_percent().unwrap()).collect();
        assert_eq!(overheads, [50, 67, 75, 80, 83, 86, 88]);
        assert_eq!(table.rows()[1].survives(8), "2 drives or 1 node");
        assert_eq!(table.rows()[4].survives(8), "3 drives, or 1 node and 1 drive");
    }
}
