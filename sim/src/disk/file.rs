//! Inodes and the handles that refer to them.
//!
//! A handle names an inode, not a path: after an unlink or a rename it goes on reading and
//! writing the same file, as POSIX has it. After power loss every handle of the earlier boot
//! answers EIO for ever; its process is gone, and whoever still holds it is a ghost.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::image::Image;
use super::{Disk, DiskFault, DiskOp, EIO, ENOSPC, Stat, lock, os};

/// Inode 1 holds bad blocks and 2 the root on ext filesystems; files begin here.
const FIRST_INO: u64 = 11;

/// Hands out inode numbers, smallest free one first when reuse is on.
#[derive(Default)]
pub(super) struct InodeNumbers {
    reuse: bool,
    last: AtomicU64,
    free: Mutex<BTreeSet<u64>>,
    /// Shared with those that come after a disk was brought back as it was.
    versions: Arc<AtomicU64>,
}

impl InodeNumbers {
    pub(super) fn new(reuse: bool) -> Self {
        Self { reuse, ..Self::default() }
    }

    /// As they are where these numbers are taken and no others, after what was handed out `before`.
    pub(super) fn taken(reuse: bool, taken: &BTreeSet<u64>, before: &InodeNumbers) -> Self {
        let last = taken.last().map_or(0, |ino| ino - FIRST_INO + 1);
        let free = (FIRST_INO..FIRST_INO + last).filter(|ino| !taken.contains(ino)).collect();
        let versions = Arc::clone(&before.versions);
        Self { reuse, last: AtomicU64::new(last), free: Mutex::new(free), versions }
    }

    /// Versions that were handed out.
    pub(super) fn versions(&self) -> u64 {
        self.versions.load(Ordering::Relaxed)
    }

    /// A number that was not handed out before.
    pub(super) fn version(&self) -> u64 {
        1 + self.versions.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> u64 {
        match lock(&self.free).pop_first() {
            Some(ino) if self.reuse => ino,
            _ => FIRST_INO + self.last.fetch_add(1, Ordering::SeqCst),
        }
    }
}

pub(super) struct Inode {
    pub(super) image: Image,
    pub(super) nlink: u32,
    pub(super) ctime_ns: u64,
    pub(super) mtime_ns: u64,
    /// Changes with the content, and is not that of any other content of any file.
    pub(super) version: u64,
    /// The version from which on the content has changed only by writes that hit where they should.
    pub(super) birth: u64,
    pub(super) changes: Changes,
}

impl Inode {
    /// An inode with its change times, whose content is new to everybody by its version.
    pub(super) fn new(image: Image, nlink: u32, (ctime_ns, mtime_ns): (u64, u64), version: u64) -> Inode {
        Inode { image, nlink, ctime_ns, mtime_ns, version, birth: version, changes: Changes::default() }
    }
}

/// From which offset on the content has changed since a version.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Versions and the offsets that they begin at, of each only if none after it begins before.
    writes: VecDeque<(u64, u64)>,
    /// What came up to this version is not known any more.
    forgotten: u64,
}

impl Changes {
    /// Writes that are remembered.
    const MAX: usize = 1_024;

    fn note(&mut self, version: u64, offset: u64) {
        while self.writes.back().is_some_and(|(_, later)| *later >= offset) {
            self.writes.pop_back();
        }
        self.writes.push_back((version, offset));
        if self.writes.len() > Changes::MAX {
            self.forgotten = self.writes.pop_front().map_or(0, |(version, _)| version);
        }
    }

    pub(super) fn since(&self, version: u64) -> u64 {
        if version < self.forgotten {
            return 0;
        }
        let at = self.writes.partition_point(|(written, _)| *written <= version);
        self.writes.get(at).map_or(u64::MAX, |(_, offset)| *offset)
    }
}

pub(super) struct FileNode {
    pub(super) ino: u64,
    numbers: Arc<InodeNumbers>,
    /// False once a reboot gave the number to the node that replaces this one.
    owns_number: AtomicBool,
    inode: Mutex<Inode>,
}

impl FileNode {
    pub(super) fn new(numbers: &Arc<InodeNumbers>, now_ns: u64) -> Arc<Self> {
        let birth = numbers.version();
        let image = Image::default();
        let inode = Inode::new(image, 0, (now_ns, now_ns), birth);
        Arc::new(Self {
            ino: numbers.take(),
            numbers: Arc::clone(numbers),
            owns_number: AtomicBool::new(true),
            inode: Mutex::new(inode),
        })
    }

    /// An inode as it once was.
    pub(super) fn again(numbers: &Arc<InodeNumbers>, ino: u64, inode: Inode) -> Arc<Self> {
        let (numbers, owns_number) = (Arc::clone(numbers), AtomicBool::new(true));
        Arc::new(Self { ino, numbers, owns_number, inode: Mutex::new(inode) })
    }

    /// The same inode after a reboot: a new node, so that old handles cannot reach it.
    pub(super) fn reborn(&self, image: Image, nlink: u32) -> Arc<Self> {
        self.owns_number.store(false, Ordering::SeqCst);
        let old = self.inode();
        let birth = self.numbers.version();
        let (ctime_ns, mtime_ns) = (old.ctime_ns, old.mtime_ns);
        let inode = Inode::new(image, nlink, (ctime_ns, mtime_ns), birth);
        Arc::new(Self {
            ino: self.ino,
            numbers: Arc::clone(&self.numbers),
            owns_number: AtomicBool::new(true),
            inode: Mutex::new(inode),
        })
    }

    /// The content has changed.
    pub(super) fn renew(&self, inode: &mut Inode) {
        inode.version = self.numbers.version();
    }

    /// The content has changed behind everybody's back.
    pub(super) fn damage(&self, inode: &mut Inode) {
        self.renew(inode);
        inode.birth = inode.version;
    }

    pub(super) fn inode(&self) -> MutexGuard<'_, Inode> {
        lock(&self.inode)
    }
}

impl Drop for FileNode {
    fn drop(&mut self) {
        if self.numbers.reuse && self.owns_number.load(Ordering::SeqCst) {
            lock(&self.numbers.free).insert(self.ino);
        }
    }
}

/// An open file. Clones share the inode, as `dup` does; there is no file position.
#[derive(Clone)]
pub struct DiskFile {
    disk: Disk,
    node: Arc<FileNode>,
    path: Arc<str>,
    boot: u64,
}

impl std::fmt::Debug for DiskFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskFile({} ino {} boot {})", self.path, self.node.ino, self.boot)
    }
}

impl DiskFile {
    pub(super) fn new(disk: &Disk, node: Arc<FileNode>, path: &str) -> Self {
        Self { disk: disk.clone(), node, path: path.into(), boot: disk.boot() }
    }

    /// The path it was opened by; the file may be elsewhere now.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The inode number.
    pub fn ino(&self) -> u64 {
        self.node.ino
    }

    /// The boot in which it was opened, see [`Disk::boot`].
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Read up to `buf.len()` bytes; fewer at the end of the file. EIO by fault.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.enter(DiskOp::Read)? {
            Some(DiskFault::StaleRead) => Ok(self.node.inode().image.read_stale(buf, offset)),
            Some(DiskFault::ShortRead) => {
                let half = buf.len().div_ceil(2);
                Ok(self.node.inode().image.read_at(&mut buf[..half], offset))
            }
            Some(DiskFault::Rot { at }) => {
                let count = self.node.inode().image.read_at(buf, offset);
                if count > 0 {
                    buf[(at >> 3) as usize % count] ^= 1 << (at & 7);
                }
                Ok(count)
            }
            _ => Ok(self.node.inode().image.read_at(buf, offset)),
        }
    }

    /// Write into the page cache. Returns fewer bytes than asked only by a
    /// [`DiskFault::ShortWrite`].
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let fault = self.enter(DiskOp::Write)?;
        let misdirected = matches!(fault, Some(DiskFault::Misdirect { .. }));
        let (count, offset) = match fault {
            Some(DiskFault::ShortWrite) => (bytes.len() / 2, offset),
            Some(DiskFault::Misdirect { delta }) => (bytes.len(), offset.saturating_add_signed(delta)),
            _ => (bytes.len(), offset),
        };
        self.node.inode().image.write_at(&bytes[..count], offset);
        self.touch(offset);
        if misdirected {
            // Its caller is told that all went well.
            self.node.damage(&mut self.node.inode());
        }
        Ok(count)
    }

    /// Repeat [`write_at`](Self::write_at) until all is written; ENOSPC once it makes no
    /// progress, with a torn piece left behind.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(&bytes[done..], offset + done as u64)? {
                0 => return Err(os(ENOSPC)),
                count => done += count,
            }
        }
        Ok(())
    }

    /// Write at the end; returns how much was written.
    pub fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.node.inode().image.len();
        self.write_at(bytes, end)
    }

    /// Truncate, or extend with zeros.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.enter(DiskOp::SetLen)?;
        let before = self.len()?;
        self.node.inode().image.set_len(len);
        self.touch(len.min(before));
        Ok(())
    }

    /// The current length in bytes.
    pub fn len(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(self.node.inode().image.len())
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Make the content durable. The name is not: see [`Disk::sync_dir`].
    pub fn sync(&self) -> io::Result<()> {
        match self.enter(DiskOp::Sync)? {
            Some(DiskFault::SyncLies) => Ok(()),
            Some(DiskFault::SyncEioThenClean) => {
                self.node.inode().image.forget_unsynced();
                Err(os(EIO))
            }
            _ => {
                self.node.inode().image.sync();
                Ok(())
            }
        }
    }

    /// What `fstat` tells.
    pub fn stat(&self) -> io::Result<Stat> {
        self.enter(DiskOp::Stat)?;
        Ok(self.disk.stat_node(&self.node))
    }

    /// Whether the path it was opened by now names another file, or none.
    pub fn has_moved(&self) -> bool {
        self.disk.ino_of(&self.path) != Some(self.node.ino)
    }

    fn alive(&self) -> io::Result<()> {
        if self.disk.boot() == self.boot { Ok(()) } else { Err(os(EIO)) }
    }

    /// Refuse a ghost, then ask the fault hook; what it answers and this layer does not
    /// model for the operation is ignored.
    fn enter(&self, op: DiskOp) -> io::Result<Option<DiskFault>> {
        self.alive()?;
        self.disk.fault(op, &self.path)
    }

    /// The content has changed from here on.
    fn touch(&self, from: u64) {
        let now_ns = self.disk.stamp_ns();
        let mut inode = self.node.inode();
        inode.ctime_ns = now_ns;
        inode.mtime_ns = now_ns;
        self.node.renew(&mut inode);
        let version = inode.version;
        inode.changes.note(version, from);
    }
}
