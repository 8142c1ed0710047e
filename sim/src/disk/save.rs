//! A disk as it was: what a snapshot of a volume or of a machine brings back, and what a clone
//! begins with. Numbers and times of inodes come back as well, since they are taken for proof that
//! nothing has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::file::{FileNode, Inode, InodeNumbers};
use super::image::Image;
use super::tree::{Names, Node, Tree};
use super::{Disk, lock};

/// All names and contents of a disk at one moment.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    dirs: Vec<String>,
    files: BTreeMap<u64, SavedFile>,
}

#[derive(Clone, Debug)]
struct SavedFile {
    names: Vec<String>,
    bytes: Vec<u8>,
    ctime_ns: u64,
    mtime_ns: u64,
}

impl Disk {
    /// All that is on it now, as readers see it.
    pub fn save(&self) -> Saved {
        let mut saved = Saved::default();
        for (path, node) in lock(&self.0.tree).current() {
            let Node::File(file) = node else {
                saved.dirs.push(path.clone());
                continue;
            };
            let inode = file.inode();
            let entry = saved.files.entry(file.ino).or_insert_with(|| SavedFile {
                names: Vec::new(),
                bytes: inode.image.current().to_vec(),
                ctime_ns: inode.ctime_ns,
                mtime_ns: inode.mtime_ns,
            });
            entry.names.push(path.clone());
        }
        saved
    }

    /// Becomes what was saved, durably, in another boot. All handles are dead afterwards.
    pub fn roll_back(&self, saved: &Saved) {
        let taken: BTreeSet<u64> = saved.files.keys().copied().collect();
        let numbers =
            Arc::new(InodeNumbers::taken(self.0.config.reuse_inodes, &taken, &lock(&self.0.numbers)));
        let mut names: Names = saved.dirs.iter().map(|dir| (dir.clone(), Node::Dir)).collect();
        for (ino, file) in &saved.files {
            let (image, times) = (Image::durable(file.bytes.clone()), (file.ctime_ns, file.mtime_ns));
            let inode = Inode::new(image, file.names.len() as u32, times, numbers.version());
            let node = FileNode::again(&numbers, *ino, inode);
            names.extend(file.names.iter().map(|name| (name.clone(), Node::File(Arc::clone(&node)))));
        }
        // The ghosts of files that are no more give their numbers back to where they had them from.
        *lock(&self.0.numbers) = numbers;
        let mut tree = lock(&self.0.tree);
        let after = Tree::durable_of(names, tree.changes() + 1);
        let before = std::mem::replace(&mut *tree, after);
        drop(tree);
        self.0.boot.fetch_add(1, Ordering::SeqCst);
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskConfig, SimClock};

    #[test]
    fn a_disk_comes_back_with_its_numbers_and_times() {
        let clock = SimClock::new(1_000_000_000);
        let disk = Disk::new(DiskConfig::default(), clock.clone());
        disk.create_dir("/d").unwrap();
        let first = disk.create("/d/a").unwrap();
        first.write_at(b"old", 0).unwrap();
        disk.create("/b").unwrap();
        let (saved, before) = (disk.save(), disk.stat("/d/a").unwrap());
        clock.advance_ns(5_000_000_000);
        first.write_at(b"newer", 0).unwrap();
        disk.unlink("/b").unwrap();
        disk.create("/c").unwrap();
        disk.roll_back(&saved);
        assert_eq!(disk.stat("/d/a").unwrap(), before);
        assert_eq!(disk.contents("/d/a").unwrap(), b"old");
        assert!(disk.exists("/b") && !disk.exists("/c"));
        assert!(first.write_at(b"ghost", 0).is_err(), "a handle of the boot before");
        drop(first);
        let fresh = disk.create("/e").unwrap();
        assert!(fresh.ino() != before.ino && fresh.ino() != disk.stat("/b").unwrap().ino);
        disk.roll_back(&Saved::default());
        assert!(disk.snapshot().is_empty());
    }
}
