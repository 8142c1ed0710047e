//! A filesystem in memory that remembers what was never synced.
//!
//! # Fault model
//! Two things can happen to the machine. A *process crash* loses nothing: the page cache is
//! the kernel's. *Power loss* keeps what was synced and asks, for everything else, whether it
//! survives: each 512-byte sector of each unsynced write, each unsynced truncation, each
//! unsynced change of names ([`Unsynced`]). So writes survive torn and out of order, a file
//! may exist without its content, and a rename is lost unless the directory was synced: the
//! defect that this disk is there to find. Syncing a file does not make its name durable
//! (ext4 happens to; POSIX does not promise it).
//!
//! The rest comes through the hook ([`Disk::set_fault_hook`]), asked before each operation:
//! EIO, ENOSPC, EMFILE, short reads and writes, syncs that lie, syncs that fail and then
//! pretend all is clean, stale reads, misdirected writes. [`Disk::flip`] is bit rot.
//!
//! Inode numbers are used again as soon as they are free, as on ext4: a file that was deleted
//! and recreated may well have the number of its predecessor. Change times come from a
//! [`SimClock`] cut to the granularity of a kernel tick, so that two changes within one tick
//! cannot be told apart. Nothing here iterates a hash map or asks the host for randomness.

mod clock;
mod file;
mod fs;
mod image;
mod model;
mod save;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

pub use clock::SimClock;
pub use file::DiskFile;
pub use fs::{SimFile, SimFs};
pub use image::SECTOR_BYTES;
pub use model::{Content, DiskConfig, DiskFault, DiskOp, FaultHook, Stat, Unsynced};
pub use save::Saved;

use file::{FileNode, InodeNumbers};
use image::Piece;
use tree::{Node, Tree};
pub(crate) use tree::{normalize, parent};

pub(crate) const ENOENT: i32 = 2;
pub(crate) const EIO: i32 = 5;
pub(crate) const EBADF: i32 = 9;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const EISDIR: i32 = 21;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const ENOTEMPTY: i32 = 39;
pub(crate) const EDQUOT: i32 = 122;

struct Shared {
    config: DiskConfig,
    clock: SimClock,
    numbers: Mutex<Arc<InodeNumbers>>,
    boot: AtomicU64,
    tree: Mutex<Tree>,
    hook: Mutex<Option<Arc<FaultHook>>>,
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct Disk(Arc<Shared>);

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk(dev {:#x} boot {})", self.0.config.dev, self.boot())
    }
}

impl Disk {
    /// An empty disk: only the root directory exists.
    pub fn new(config: DiskConfig, clock: SimClock) -> Self {
        let numbers = InodeNumbers::new(config.reuse_inodes);
        Self(Arc::new(Shared {
            config,
            clock,
            numbers: Mutex::new(Arc::new(numbers)),
            boot: AtomicU64::new(1),
            tree: Mutex::default(),
            hook: Mutex::default(),
        }))
    }

    /// Consult `hook` before each operation from now on. It runs without any lock held and
    /// may use the disk, though its own operations ask it again.
    pub fn set_fault_hook(&self, hook: Option<Arc<FaultHook>>) {
        *lock(&self.0.hook) = hook;
    }

    /// The power loss of a machine: `survives` is asked about everything unsynced, names
    /// first in the order in which they changed, then content by inode and in write order.
    /// All handles are dead afterwards.
    pub fn power_loss(&self, mut survives: impl FnMut(&Unsynced<'_>) -> bool) {
        let mut tree = lock(&self.0.tree);
        let mut after = tree.after_power_loss(|change| {
            let path = &change.sets[0].0;
            survives(&Unsynced::Name { path, rename: change.sets.len() > 1 })
        });
        let mut files: BTreeMap<u64, (&Arc<FileNode>, &str, u32)> = BTreeMap::new();
        for (path, node) in after.durable() {
            if let Node::File(file) = node {
                files.entry(file.ino).or_insert((file, path, 0)).2 += 1;
            }
        }
        let mut reborn = BTreeMap::new();
        for (ino, (file, path, nlink)) in files {
            let image = file.inode().image.after_power_loss(|piece| {
                survives(&match piece {
                    Piece::Sector(offset) => Unsynced::Sector { path, offset },
                    Piece::SetLen(len) => Unsynced::SetLen { path, len },
                })
            });
            reborn.insert(ino, file.reborn(image, nlink));
        }
        after.map_files(|file| Arc::clone(&reborn[&file.ino]));
        let before = std::mem::replace(&mut *tree, after);
        self.0.boot.fetch_add(1, Ordering::SeqCst);
        drop(tree);
        drop(before);
    }

    /// The crash of a process, which is nothing to a disk: the page cache survives. Here so
    /// that a scenario can say what it means.
    pub fn process_crash(&self) {}

    /// Open an existing file.
    pub fn open(&self, path: &str) -> io::Result<DiskFile> {
        let path = normalize(path);
        self.fault(DiskOp::Open, &path)?;
        let tree = lock(&self.0.tree);
        match tree.get(&path) {
            Some(Node::File(node)) => Ok(DiskFile::new(self, Arc::clone(node), &path)),
            Some(Node::Dir) => Err(os(EISDIR)),
            None => Err(missing(&tree, &path)),
        }
    }

    /// Open a file, creating it empty if it does not exist.
    pub fn create(&self, path: &str) -> io::Result<DiskFile> {
        match self.open(path) {
            Err(error) if error.raw_os_error() == Some(ENOENT) => self.create_new(path),
            other => other,
        }
    }

    /// Create a file; EEXIST if the name is taken.
    pub fn create_new(&self, path: &str) -> io::Result<DiskFile> {
        let path = normalize(path);
        self.fault(DiskOp::Create, &path)?;
        let mut tree = lock(&self.0.tree);
        if tree.get(&path).is_some() {
            return Err(os(EEXIST));
        }
        self.require_parent(&tree, &path)?;
        let node = FileNode::new(&lock(&self.0.numbers), self.stamp_ns());
        self.set_names(&mut tree, vec![(path.to_string(), Some(Node::File(Arc::clone(&node))))]);
        Ok(DiskFile::new(self, node, &path))
    }

    /// Create a file that never had a name and vanishes with its last handle.
    pub fn create_unnamed(&self) -> io::Result<DiskFile> {
        self.fault(DiskOp::Create, "")?;
        let node = FileNode::new(&lock(&self.0.numbers), self.stamp_ns());
        Ok(DiskFile::new(self, node, ""))
    }

    /// Create one directory; EEXIST if the name is taken, whatever has it.
    pub fn create_dir(&self, path: &str) -> io::Result<()> {
        let path = normalize(path);
        self.fault(DiskOp::CreateDir, &path)?;
        let mut tree = lock(&self.0.tree);
        if path == "/" || tree.get(&path).is_some() {
            return Err(os(EEXIST));
        }
        self.require_parent(&tree, &path)?;
        self.set_names(&mut tree, vec![(path.into_owned(), Some(Node::Dir))]);
        Ok(())
    }

    /// Create a directory and those above it.
    pub fn create_dir_all(&self, path: &str) -> io::Result<()> {
        let path = normalize(path);
        self.fault(DiskOp::CreateDir, &path)?;
        let mut tree = lock(&self.0.tree);
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        for end in ends {
            let dir = &path[..end];
            if tree.is_dir(dir) {
                continue;
            }
            if tree.get(dir).is_some() {
                return Err(os(ENOTDIR));
            }
            self.set_names(&mut tree, vec![(dir.to_owned(), Some(Node::Dir))]);
        }
        Ok(())
    }

    /// Remove a name; the file lives on while a handle or another name refers to it.
    pub fn unlink(&self, path: &str) -> io::Result<()> {
        let path = normalize(path);
        self.fault(DiskOp::Unlink, &path)?;
        let mut tree = lock(&self.0.tree);
        match tree.get(&path) {
            None => Err(os(ENOENT)),
            Some(Node::Dir) => Err(os(EISDIR)),
            Some(Node::File(_)) => {
                self.set_names(&mut tree, vec![(path.into_owned(), None)]);
                Ok(())
            }
        }
    }

    /// Remove an empty directory.
    pub fn remove_dir(&self, path: &str) -> io::Result<()> {
        let path = normalize(path);
        self.fault(DiskOp::Unlink, &path)?;
        let mut tree = lock(&self.0.tree);
        match tree.get(&path) {
            None => Err(os(ENOENT)),
            Some(Node::File(_)) => Err(os(ENOTDIR)),
            Some(Node::Dir) if tree.below(&path).next().is_some() => Err(os(ENOTEMPTY)),
            Some(Node::Dir) => {
                self.set_names(&mut tree, vec![(path.into_owned(), None)]);
                Ok(())
            }
        }
    }

    /// Give a file a second name; EEXIST if it is taken.
    pub fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (normalize(from), normalize(to));
        self.fault(DiskOp::Link, &to)?;
        let mut tree = lock(&self.0.tree);
        let node = match tree.get(&from) {
            None => return Err(os(ENOENT)),
            Some(Node::Dir) => return Err(os(EISDIR)),
            Some(file) => file.clone(),
        };
        if tree.get(&to).is_some() {
            return Err(os(EEXIST));
        }
        self.require_parent(&tree, &to)?;
        self.set_names(&mut tree, vec![(to.into_owned(), Some(node))]);
        Ok(())
    }

    /// Rename a file or directory, replacing a file that has the new name.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_with(from, to, true)
    }

    /// Rename a file or directory; EEXIST if the new name is taken.
    pub fn rename_noreplace(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_with(from, to, false)
    }

    fn rename_with(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        let (from, to) = (normalize(from), normalize(to));
        self.fault(DiskOp::Rename, &from)?;
        let mut tree = lock(&self.0.tree);
        let node = tree.get(&from).cloned().ok_or_else(|| os(ENOENT))?;
        if from == to {
            return if replace { Ok(()) } else { Err(os(EEXIST)) };
        }
        match (tree.get(&to), &node) {
            (None, _) => {}
            (Some(_), _) if !replace => return Err(os(EEXIST)),
            (Some(Node::Dir), Node::File(_)) => return Err(os(EISDIR)),
            (Some(Node::File(_)), Node::Dir) => return Err(os(ENOTDIR)),
            (Some(Node::Dir), Node::Dir) if tree.below(&to).next().is_some() => {
                return Err(os(ENOTEMPTY));
            }
            _ => {}
        }
        self.require_parent(&tree, &to)?;
        let mut sets = vec![(to.to_string(), Some(node.clone())), (from.to_string(), None)];
        if matches!(node, Node::Dir) {
            for (path, below) in tree.below(&from) {
                sets.push((format!("{to}{}", &path[from.len()..]), Some(below.clone())));
                sets.push((path.clone(), None));
            }
        }
        self.set_names(&mut tree, sets);
        Ok(())
    }

    /// Make the names in a directory durable.
    pub fn sync_dir(&self, path: &str) -> io::Result<()> {
        let path = normalize(path);
        let fault = self.fault(DiskOp::SyncDir, &path)?;
        let mut tree = lock(&self.0.tree);
        if !tree.is_dir(&path) {
            return Err(missing(&tree, &path));
        }
        match fault {
            Some(DiskFault::SyncLies) => Ok(()),
            Some(DiskFault::SyncEioThenClean) => Err(os(EIO)),
            _ => {
                tree.sync_dir(&path);
                Ok(())
            }
        }
    }

    /// The names directly in a directory, sorted.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let path = normalize(path);
        self.fault(DiskOp::List, &path)?;
        let tree = lock(&self.0.tree);
        if !tree.is_dir(&path) {
            return Err(missing(&tree, &path));
        }
        let direct = tree.below(&path).filter(|(name, _)| parent(name) == path);
        Ok(direct.map(|(name, _)| name[parent(name).len()..].trim_start_matches('/').to_owned()).collect())
    }

    /// What `stat` tells of a path.
    pub fn stat(&self, path: &str) -> io::Result<Stat> {
        let path = normalize(path);
        self.fault(DiskOp::Stat, &path)?;
        let tree = lock(&self.0.tree);
        if tree.is_dir(&path) {
            let dev = self.0.config.dev;
            let dir = Stat { dev, ino: 2, size: 0, ctime_ns: 0, mtime_ns: 0, nlink: 2, is_dir: true };
            return Ok(dir);
        }
        match tree.get(&path) {
            Some(Node::File(node)) => Ok(self.stat_node(node)),
            _ => Err(missing(&tree, &path)),
        }
    }

    /// Whether the path names a directory. Asks no fault hook.
    pub fn is_dir(&self, path: &str) -> bool {
        lock(&self.0.tree).is_dir(&normalize(path))
    }

    /// Whether the path names anything. Asks no fault hook.
    pub fn exists(&self, path: &str) -> bool {
        let path = normalize(path);
        path == "/" || lock(&self.0.tree).get(&path).is_some()
    }

    /// The whole current content of a file. Asks no fault hook: it is for oracles and tests.
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        match lock(&self.0.tree).get(&normalize(path)) {
            Some(Node::File(node)) => Some(node.inode().image.current().to_vec()),
            _ => None,
        }
    }

    /// Looks at the current content of a file, or at `None`. Asks no fault hook. The look may
    /// look at another file, and must not use the disk otherwise.
    pub fn look_at<T>(&self, path: &str, look: impl FnOnce(Option<Content<'_>>) -> T) -> T {
        let node = match lock(&self.0.tree).get(&normalize(path)) {
            Some(Node::File(node)) => Some(Arc::clone(node)),
            _ => None,
        };
        // No lock on the names is held while it looks.
        let Some(node) = node else { return look(None) };
        let inode = node.inode();
        look(Some(Content {
            birth: inode.birth,
            version: inode.version,
            bytes: inode.image.current(),
            changes: &inode.changes,
        }))
    }

    /// Every file with its current content, by path. Asks no fault hook.
    pub fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let tree = lock(&self.0.tree);
        let file = |(path, node): (&String, &Node)| match node {
            Node::File(file) => Some((path.clone(), file.inode().image.current().to_vec())),
            Node::Dir => None,
        };
        tree.current().iter().filter_map(file).collect()
    }

    /// Whether all content and names are durable. Asks no fault hook.
    pub fn is_synced(&self, path: &str) -> bool {
        match lock(&self.0.tree).get(&normalize(path)) {
            Some(Node::File(node)) => node.inode().image.is_clean(),
            _ => true,
        }
    }

    /// Bit rot: XOR one byte of a file with `mask`, on the platter and in the cache, leaving
    /// its times alone. False if there is no such file.
    pub fn flip(&self, path: &str, offset: u64, mask: u8) -> bool {
        match lock(&self.0.tree).get(&normalize(path)) {
            Some(Node::File(node)) => {
                let mut inode = node.inode();
                inode.image.flip(offset, mask);
                node.damage(&mut inode);
                true
            }
            _ => false,
        }
    }

    /// How often the machine has booted; a boot id. Only power loss changes it.
    pub fn boot(&self) -> u64 {
        self.0.boot.load(Ordering::SeqCst)
    }

    /// A number that grows with each change of content, of names or of the boot.
    pub fn generation(&self) -> u64 {
        lock(&self.0.numbers).versions() + lock(&self.0.tree).changes() + self.boot()
    }

    /// The clock that stamps changes.
    pub fn clock(&self) -> &SimClock {
        &self.0.clock
    }

    fn stamp_ns(&self) -> u64 {
        let now_ns = self.0.clock.now_ns();
        now_ns - now_ns % self.0.config.ctime_granularity_ns.max(1)
    }

    fn stat_node(&self, node: &FileNode) -> Stat {
        let inode = node.inode();
        Stat {
            dev: self.0.config.dev,
            ino: node.ino,
            size: inode.image.len(),
            ctime_ns: inode.ctime_ns,
            mtime_ns: inode.mtime_ns,
            nlink: inode.nlink,
            is_dir: false,
        }
    }

    fn ino_of(&self, path: &str) -> Option<u64> {
        match lock(&self.0.tree).get(path) {
            Some(Node::File(node)) => Some(node.ino),
            _ => None,
        }
    }

    fn require_parent(&self, tree: &Tree, path: &str) -> io::Result<()> {
        let dir = parent(path);
        if tree.is_dir(dir) { Ok(()) } else { Err(missing(tree, dir)) }
    }

    /// Apply a change of names and keep link counts and change times right.
    fn set_names(&self, tree: &mut Tree, sets: Vec<(String, Option<Node>)>) {
        let now_ns = self.stamp_ns();
        for (path, node) in &sets {
            if let Some(Node::File(lost)) = tree.get(path) {
                let mut inode = lost.inode();
                inode.nlink -= 1;
                inode.ctime_ns = now_ns;
            }
            if let Some(Node::File(named)) = node {
                let mut inode = named.inode();
                inode.nlink += 1;
                inode.ctime_ns = now_ns;
            }
        }
        tree.change(sets);
    }

    /// Ask the hook; plain errors are returned as such, other faults for the caller to model.
    fn fault(&self, op: DiskOp, path: &str) -> io::Result<Option<DiskFault>> {
        let Some(hook) = lock(&self.0.hook).clone() else {
            return Ok(None);
        };
        match hook(op, path) {
            Some(DiskFault::Eio) => Err(os(EIO)),
            Some(DiskFault::Enospc) => Err(os(ENOSPC)),
            Some(DiskFault::Edquot) => Err(os(EDQUOT)),
            Some(DiskFault::Emfile) => Err(os(EMFILE)),
            other => Ok(other),
        }
    }
}

/// The error for a path that is not what it should be: ENOTDIR if it, or something above it,
/// is a file.
fn missing(tree: &Tree, path: &str) -> io::Error {
    let mut above = path;
    while above != "/" {
        if let Some(Node::File(_)) = tree.get(above) {
            return os(ENOTDIR);
        }
        above = parent(above);
    }
    os(ENOENT)
}

pub(crate) fn os(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// Lock, whether or not another test panicked while holding it.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
