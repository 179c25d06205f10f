//! The module index: what the image builder knows about the modules it packed, for PID 1 to load them.
//!
//! Text, one fact a line, so that it can be read where it is found:
//!
//! ```text
//! holdfast-modules 1
//! module virtio_blk lib/modules/virtio_blk.ko virtio,virtio_ring
//! alias virtio_blk virtio:d00000002v*
//! early virtio_blk
//! ```
//!
//! A `module` line carries path and needs (`-` when there are none), soft ones first. `early` names
//! modules to load before any device is looked at, in order. An alias runs to the end of its line.
//!
//! Invariant: every need and every `early` name is a module of the index.

use std::collections::{BTreeMap, BTreeSet};

use crate::glob;

/// First line of version 1.
const HEADER: &str = "holdfast-modules 1";

/// One packed module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Module {
    /// Path in the initramfs, without the leading slash.
    pub path: String,
    /// Modules to load first.
    pub needs: Vec<String>,
    /// Device patterns and other names.
    pub aliases: Vec<String>,
}

/// All packed modules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleIndex {
    modules: BTreeMap<String, Module>,
    early: Vec<String>,
}

/// Why an index was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// First line is not ours.
    #[error("not a module index of version 1")]
    UnknownVersion,
    /// A line that says nothing we know.
    #[error("module index, line {line}: {problem}")]
    BadLine {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A name without a `module` line.
    #[error("module {name} is wanted by {by} and is not in the index")]
    Missing {
        /// The absent module.
        name: String,
        /// Who wants it.
        by: String,
    },
}

impl ModuleIndex {
    /// Joins modules by name and the early list.
    ///
    /// # Errors
    /// `Missing` when a need or an early name is not among the modules.
    pub fn new(modules: BTreeMap<String, Module>, early: Vec<String>) -> Result<Self, IndexError> {
        for (by, module) in &modules {
            for name in &module.needs {
                if !modules.contains_key(name) {
                    return Err(IndexError::Missing { name: name.clone(), by: by.clone() });
                }
            }
        }
        for name in &early {
            if !modules.contains_key(name) {
                return Err(IndexError::Missing { name: name.clone(), by: "the early list".to_owned() });
            }
        }
        Ok(Self { modules, early })
    }

    /// The text form.
    pub fn encode(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (name, module) in &self.modules {
            let needs = if module.needs.is_empty() { "-".to_owned() } else { module.needs.join(",") };
            text.push_str(&format!("module {name} {} {needs}\n", module.path));
        }
        for (name, module) in &self.modules {
            for alias in &module.aliases {
                text.push_str(&format!("alias {name} {alias}\n"));
            }
        }
        for name in &self.early {
            text.push_str(&format!("early {name}\n"));
        }
        text
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// `UnknownVersion`, `BadLine`, `Missing`.
    pub fn parse(text: &str) -> Result<Self, IndexError> {
        let mut lines = text.lines().enumerate();
        if lines.next().map(|(_, line)| line) != Some(HEADER) {
            return Err(IndexError::UnknownVersion);
        }
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        let mut early = Vec::new();
        for (index, line) in lines {
            let bad = |problem| IndexError::BadLine { line: index + 1, problem };
            let (kind, rest) = line.split_once(' ').ok_or(bad("a lone word"))?;
            match kind {
                "module" => {
                    let mut words = rest.split(' ');
                    let mut word = || words.next().filter(|w| !w.is_empty()).ok_or(bad("a word is missing"));
                    let (name, path, needs) = (word()?, word()?, word()?);
                    let needs = match needs {
                        "-" => Vec::new(),
                        list => list.split(',').map(str::to_owned).collect(),
                    };
                    let module = Module { path: path.to_owned(), needs, aliases: Vec::new() };
                    if modules.insert(name.to_owned(), module).is_some() {
                        return Err(bad("a module for the second time"));
                    }
                }
                "alias" => {
                    let (name, pattern) = rest.split_once(' ').ok_or(bad("an alias without a pattern"))?;
                    let module = modules.get_mut(name).ok_or(bad("an alias of an unknown module"))?;
                    module.aliases.push(pattern.to_owned());
                }
                "early" => early.push(rest.to_owned()),
                _ => return Err(bad("an unknown word")),
            }
        }
        Self::new(modules, early)
    }

    /// Modules to load before devices are looked at, in order.
    pub fn early(&self) -> &[String] {
        &self.early
    }

    /// One module.
    pub fn get(&self, name: &str) -> Option<&Module> {
        self.modules.get(name)
    }

    /// Names of all modules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// Modules that drive a device, by the `modalias` the kernel gives it.
    pub fn driving<'a>(&'a self, modalias: &str) -> Vec<&'a str> {
        let drives = |module: &Module| module.aliases.iter().any(|alias| glob::matches(alias, modalias));
        self.modules.iter().filter(|(_, module)| drives(module)).map(|(name, _)| name.as_str()).collect()
    }

    /// `name` and everything it needs, needs first, each once. Empty when there is no such module.
    ///
    /// A cycle of soft needs is broken where it is met: the linker's own needs have none.
    pub fn load_order<'a>(&'a self, name: &str) -> Vec<&'a str> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        self.visit(name, &mut seen, &mut order);
        order
    }

    fn visit<'a>(&'a self, name: &str, seen: &mut BTreeSet<&'a str>, order: &mut Vec<&'a str>) {
        let Some((name, module)) = self.modules.get_key_value(name) else { return };
        if !seen.insert(name) {
            return;
        }
        for need in &module.needs {
            self.visit(need, seen, order);
        }
        order.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> ModuleIndex {
        let module = |path: &str, needs: &[&str], aliases: &[&str]| Module {
            path: path.to_owned(),
            needs: needs.iter().map(|s| (*s).to_owned()).collect(),
            aliases: aliases.iter().map(|s| (*s).to_owned()).collect(),
        };
        let modules = BTreeMap::from([
            ("virtio".to_owned(), module("lib/modules/virtio.ko", &[], &[])),
            ("virtio_ring".to_owned(), module("lib/modules/virtio_ring.ko", &["virtio"], &[])),
            (
                "virtio_blk".to_owned(),
                module("lib/modules/virtio_blk.ko", &["virtio", "virtio_ring"], &["virtio:d00000002v*"]),
            ),
            ("a".to_owned(), module("lib/modules/a.ko", &["b"], &["dmi:* with spaces *"])),
            ("b".to_owned(), module("lib/modules/b.ko", &["a"], &[])),
        ]);
        ModuleIndex::new(modules, vec!["virtio_blk".to_owned()]).unwrap()
    }

    #[test]
    fn the_text_form_keeps_everything() {
        assert_eq!(ModuleIndex::parse(&index().encode()).unwrap(), index());
    }

    #[test]
    fn needs_come_first_and_once() {
        assert_eq!(index().load_order("virtio_blk"), ["virtio", "virtio_ring", "virtio_blk"]);
        assert_eq!(index().load_order("absent"), Vec::<&str>::new());
    }

    #[test]
    fn a_cycle_of_soft_needs_ends() {
        assert_eq!(index().load_order("a"), ["b", "a"]);
    }

    #[test]
    fn a_device_finds_its_driver() {
        assert_eq!(index().driving("virtio:d00000002v00001AF4"), ["virtio_blk"]);
        assert_eq!(index().driving("dmi:x with spaces y"), ["a"]);
        assert!(index().driving("virtio:d00000001v00001AF4").is_empty());
    }

    #[test]
    fn an_index_with_holes_is_refused() {
        let missing = "holdfast-modules 1\nmodule a lib/a.ko b\n";
        assert!(matches!(ModuleIndex::parse(missing), Err(IndexError::Missing { .. })));
        assert!(matches!(ModuleIndex::parse("holdfast-modules 2\n"), Err(IndexError::UnknownVersion)));
        let bad = "holdfast-modules 1\nmodule a lib/a.ko -\nalias c x\n";
        assert_eq!(
            ModuleIndex::parse(bad),
            Err(IndexError::BadLine { line: 3, problem: "an alias of an unknown module" })
        );
    }
}
