//! What the connections of one machine share: its disk, its processes, its lock tables.
//!
//! Lock order: `tables`, then one lock table or wal-index. No hook of the host runs under
//! either. A process dies by first being marked dead and then losing what the tables say it
//! holds; whoever takes a lock checks the mark while holding the table, so nothing is taken
//! by the dead after the sweep.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::host::{Host, VfsFault, VfsOp};
use super::locks::FileLocks;
use super::shm::{ProcessMap, ShmNode};
use crate::disk::{Disk, DiskFile, EIO, lock, os};

/// A simulated process, from its start to its death. A restart under the same name is
/// another one.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) id: u64,
    alive: AtomicBool,
    /// How many files SQLite has open in it; dead processes count down as they are dropped.
    pub(super) open_files: AtomicUsize,
}

impl Process {
    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }
}

/// A file in one boot. Inode numbers are used again after a reboot.
type FileKey = (u64, u64);

fn key(file: &DiskFile) -> FileKey {
    (file.boot(), file.ino())
}

#[derive(Default)]
struct Tables {
    locks: BTreeMap<FileKey, Weak<Mutex<FileLocks>>>,
    /// By the inode of the `-shm` file, as processes meet there.
    shm: BTreeMap<FileKey, Arc<Mutex<ShmNode>>>,
    /// Which `-shm` inode a process uses for a database inode: a process opens the file once
    /// for all its connections, even if the name went to another file in between.
    shm_of: BTreeMap<(u64, FileKey), FileKey>,
}

pub(super) struct World {
    pub(super) disk: Disk,
    pub(super) host: Arc<dyn Host>,
    last_id: AtomicU64,
    tables: Mutex<Tables>,
}

/// A connection's use of a wal-index.
pub(super) struct ShmJoin {
    pub(super) node: Arc<Mutex<ShmNode>>,
    pub(super) map: Arc<ProcessMap>,
    shm: FileKey,
}

impl World {
    pub(super) fn new(disk: Disk, host: Arc<dyn Host>) -> Self {
        Self { disk, host, last_id: AtomicU64::new(0), tables: Mutex::default() }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn start(&self, name: &str) -> Arc<Process> {
        Arc::new(Process {
            name: name.to_owned(),
            id: self.next_id(),
            alive: AtomicBool::new(true),
            open_files: AtomicUsize::new(0),
        })
    }

    /// Ask what becomes of an operation, and let the process die if that is the answer.
    pub(super) fn fate(&self, process: &Process, op: VfsOp, path: &str) -> Option<VfsFault> {
        if !process.is_alive() {
            return Some(VfsFault::Die);
        }
        let fault = self.host.fault(&process.name, op, path);
        if fault == Some(VfsFault::Die) {
            self.kill(process);
        }
        // The hook itself may have killed the process.
        if process.is_alive() { fault } else { Some(VfsFault::Die) }
    }

    pub(super) fn kill(&self, process: &Process) {
        process.alive.store(false, Ordering::SeqCst);
        let mut tables = lock(&self.tables);
        tables.locks.retain(|_, locks| match locks.upgrade() {
            Some(locks) => {
                lock(&locks).drop_process(process.id);
                true
            }
            None => false,
        });
        tables.shm.retain(|_, node| {
            let mut node = lock(node);
            node.drop_process(process.id);
            node.is_mapped()
        });
        tables.shm_of.retain(|(id, _), _| *id != process.id);
    }

    /// The lock table of a database file.
    pub(super) fn locks_of(&self, file: &DiskFile) -> Arc<Mutex<FileLocks>> {
        let mut tables = lock(&self.tables);
        let entry = tables.locks.entry(key(file)).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let fresh = Arc::default();
            *entry = Arc::downgrade(&fresh);
            fresh
        })
    }

    /// Drop the lock table of a file that nobody has open any more.
    pub(super) fn forget_locks(&self, file: &DiskFile) {
        let mut tables = lock(&self.tables);
        if tables.locks.get(&key(file)).is_some_and(|locks| locks.strong_count() == 0) {
            tables.locks.remove(&key(file));
        }
    }

    /// Whether a living connection has the wal-index of a database mapped.
    pub(super) fn wal_index_lives(&self, path: &str) -> bool {
        let Ok(file) = self.disk.open(&format!("{path}-shm")) else { return false };
        let tables = lock(&self.tables);
        tables.shm.get(&key(&file)).is_some_and(|node| lock(node).is_mapped())
    }

    /// Begin to use the wal-index of a database, creating its file if need be.
    pub(super) fn join_shm(&self, process: &Process, file: &DiskFile) -> io::Result<ShmJoin> {
        let known = {
            let tables = lock(&self.tables);
            let shm = tables.shm_of.get(&(process.id, key(file))).copied();
            shm.and_then(|shm| Some((shm, Arc::clone(tables.shm.get(&shm)?))))
        };
        let (shm, fresh) = match known {
            Some(known) => known,
            None => {
                let named = self.disk.create(&format!("{}-shm", file.path()))?;
                (key(&named), Arc::new(Mutex::new(ShmNode::new(named)?)))
            }
        };
        let mut tables = lock(&self.tables);
        if !process.is_alive() {
            return Err(os(EIO));
        }
        let node = Arc::clone(tables.shm.entry(shm).or_insert(fresh));
        tables.shm_of.insert((process.id, key(file)), shm);
        let map = lock(&node).join(process.id);
        Ok(ShmJoin { node, map, shm })
    }

    /// End the use of a wal-index; true if no other connection of the process uses it.
    pub(super) fn leave_shm(&self, process: &Process, file: &DiskFile, join: &ShmJoin) -> bool {
        let mut tables = lock(&self.tables);
        let (last, mapped) = {
            let mut node = lock(&join.node);
            (node.leave(process.id), node.is_mapped())
        };
        if last {
            tables.shm_of.remove(&(process.id, key(file)));
        }
        // A killed connection may come late, when the number belongs to another wal-index.
        let same = tables.shm.get(&join.shm).is_some_and(|node| Arc::ptr_eq(node, &join.node));
        if same && !mapped {
            tables.shm.remove(&join.shm);
        }
        last
    }
}
