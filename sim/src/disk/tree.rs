//! Names: the current directory tree, the durable one, and what lies between them.
//!
//! A change of names (create, link, unlink, rename) is one [`NameChange`] and survives power
//! loss as a whole or not at all; nothing orders one before another unless a directory sync
//! came between. A rename is one change that names two paths. Syncing a directory makes
//! durable every change that touches it, and before each such change those older ones that
//! concern the same names, or a later sync would bring back a name that is already gone.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::file::FileNode;

/// Beyond this many unsynced name changes the older half is written back.
const UNSYNCED_NAMES_MAX: usize = 4096;

#[derive(Clone)]
pub(super) enum Node {
    File(Arc<FileNode>),
    Dir,
}

#[derive(Clone)]
pub(super) struct NameChange {
    pub(super) sets: Vec<(String, Option<Node>)>,
}

pub(super) type Names = BTreeMap<String, Node>;

#[derive(Default)]
pub(super) struct Tree {
    current: Names,
    durable: Names,
    unsynced: Vec<NameChange>,
    changes: u64,
}

impl Tree {
    /// Names that are all durable, after so many changes.
    pub(super) fn durable_of(names: Names, changes: u64) -> Tree {
        Tree { current: names.clone(), durable: names, unsynced: Vec::new(), changes }
    }

    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.current.get(path)
    }

    pub(super) fn is_dir(&self, path: &str) -> bool {
        path == "/" || matches!(self.get(path), Some(Node::Dir))
    }

    pub(super) fn current(&self) -> &Names {
        &self.current
    }

    pub(super) fn durable(&self) -> &Names {
        &self.durable
    }

    /// Every name below a directory, at any depth.
    pub(super) fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a String, &'a Node)> {
        let prefix = if dir == "/" { "/".to_owned() } else { format!("{dir}/") };
        self.current.range(prefix.clone()..).take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Changes of names so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn change(&mut self, sets: Vec<(String, Option<Node>)>) {
        self.changes += 1;
        apply(&mut self.current, &sets);
        self.unsynced.push(NameChange { sets });
        if self.unsynced.len() > UNSYNCED_NAMES_MAX {
            for change in self.unsynced.drain(..UNSYNCED_NAMES_MAX / 2) {
                apply(&mut self.durable, &change.sets);
            }
        }
    }

    pub(super) fn sync_dir(&mut self, dir: &str) {
        let mut names = BTreeSet::new();
        let mut chosen = vec![false; self.unsynced.len()];
        for (index, change) in self.unsynced.iter().enumerate().rev() {
            let touches = |(path, _): &(String, Option<Node>)| parent(path) == dir || names.contains(path);
            if change.sets.iter().any(touches) {
                chosen[index] = true;
                names.extend(change.sets.iter().map(|(path, _)| path.clone()));
            }
        }
        let mut chosen = chosen.into_iter();
        let durable = &mut self.durable;
        self.unsynced.retain(|change| {
            let stored = chosen.next().expect("one flag per change");
            if stored {
                apply(durable, &change.sets);
            }
            !stored
        });
    }

    /// The tree after power loss: current and durable alike, nothing unsynced.
    pub(super) fn after_power_loss(&self, mut keep: impl FnMut(&NameChange) -> bool) -> Tree {
        let mut names = self.durable.clone();
        for change in &self.unsynced {
            if keep(change) {
                apply(&mut names, &change.sets);
            }
        }
        // A file whose directory was lost is lost with it. Parents sort before their children.
        let mut kept = Names::new();
        for (path, node) in names {
            let dir = parent(&path);
            if dir == "/" || matches!(kept.get(dir), Some(Node::Dir)) {
                kept.insert(path, node);
            }
        }
        Tree { current: kept.clone(), durable: kept, unsynced: Vec::new(), changes: self.changes + 1 }
    }

    /// Replace each file node, in both maps.
    pub(super) fn map_files(&mut self, mut new: impl FnMut(&Arc<FileNode>) -> Arc<FileNode>) {
        assert!(self.unsynced.is_empty(), "files are replaced only at a reboot");
        for node in self.current.values_mut() {
            if let Node::File(file) = node {
                *file = new(file);
            }
        }
        self.durable = self.current.clone();
    }
}

fn apply(names: &mut Names, sets: &[(String, Option<Node>)]) {
    for (path, node) in sets {
        match node {
            Some(node) => names.insert(path.clone(), node.clone()),
            None => names.remove(path),
        };
    }
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(slash) => &path[..slash],
    }
}

/// An absolute path without `.`, `..`, doubled or trailing slashes. A relative path is taken
/// from the root: simulated processes have no working directory.
pub(crate) fn normalize(path: &str) -> Cow<'_, str> {
    if is_plain(path) {
        return Cow::Borrowed(path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    let mut clean = String::with_capacity(path.len() + 1);
    for part in parts {
        clean.push('/');
        clean.push_str(part);
    }
    if clean.is_empty() {
        clean.push('/');
    }
    Cow::Owned(clean)
}

/// Whether nothing in a path needs to be made plain, said without an allocation.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let slash = |at: usize| bytes[at] == b'/';
    let begins_a_name = |at: usize| bytes.get(at).is_some_and(|byte| !matches!(byte, b'/' | b'.'));
    !bytes.is_empty() && slash(0) && (0..bytes.len()).all(|at| !slash(at) || begins_a_name(at + 1))
}
