//! What connections share: processes, open files, the locks on them, the wal-indexes.
//!
//! A process that is dead answers an I/O error to every call, so that whoever still holds its
//! connections can neither write nor hold a lock.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::code::Code;
use super::index::Index;
use crate::disk::{Disk, DiskFile, ENOENT, ENOSPC, parent};
use crate::vfs::locks::{FileLocks, Level, Owner, ShmLocks};
use crate::vfs::{VfsFault, VfsFaultHook, VfsOp};

/// A process, from its start to its death.
pub(super) struct Process {
    name: String,
    id: u64,
    alive: Cell<bool>,
}

impl Process {
    pub(super) fn is_alive(&self) -> bool {
        self.alive.get()
    }
}

/// A file in one boot: inode numbers are used again after a reboot.
type FileKey = (u64, u64);

fn key(file: &DiskFile) -> FileKey {
    (file.boot(), file.ino())
}

/// The wal-index of one database, as its processes share it.
pub(super) struct Shm {
    /// Held open, so that the inode number by which processes meet is not used again.
    file: DiskFile,
    /// `None` until the first region exists.
    pub(super) index: Option<Index>,
    locks: ShmLocks,
    /// By process: how many connections use it.
    users: BTreeMap<u64, u32>,
}

impl Shm {
    /// Whether it is still that of the database at `path`.
    fn is_at(&self, path: &str) -> bool {
        self.file.path().strip_suffix("-shm") == Some(path) && !self.file.has_moved()
    }
}

#[derive(Default)]
struct Tables {
    locks: BTreeMap<FileKey, Weak<RefCell<FileLocks>>>,
    /// By the inode of the `-shm` file.
    shm: BTreeMap<FileKey, Rc<RefCell<Shm>>>,
    /// Which `-shm` inode a process uses for a database inode: a process opens that file once for
    /// all its connections.
    shm_of: BTreeMap<(u64, FileKey), FileKey>,
}

pub(super) struct Machine {
    pub(super) disk: Disk,
    pub(super) pending_byte: u64,
    /// Whether a restarted WAL may get checksums in the other byte order.
    pub(super) both_orders: bool,
    random: Cell<u64>,
    last_id: Cell<u64>,
    hook: RefCell<Option<Arc<VfsFaultHook>>>,
    processes: RefCell<Vec<Rc<Process>>>,
    tables: RefCell<Tables>,
}

impl Machine {
    pub(super) fn new(disk: Disk, seed: u64, pending_byte: u64, both_orders: bool) -> Rc<Machine> {
        Rc::new(Machine {
            disk,
            pending_byte,
            both_orders,
            random: Cell::new(seed),
            last_id: Cell::new(0),
            hook: RefCell::default(),
            processes: RefCell::default(),
            tables: RefCell::default(),
        })
    }

    pub(super) fn set_fault_hook(&self, hook: Arc<VfsFaultHook>) {
        *self.hook.borrow_mut() = Some(hook);
    }

    /// The next number of the machine's generator.
    pub(super) fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn next_id(&self) -> u64 {
        self.last_id.set(self.last_id.get() + 1);
        self.last_id.get()
    }

    /// The process of that name, which starts if it is not alive.
    pub(super) fn process(&self, name: &str) -> Rc<Process> {
        let mut processes = self.processes.borrow_mut();
        if let Some(process) = processes.iter().find(|process| process.name == name) {
            return Rc::clone(process);
        }
        let started = Process { name: name.to_owned(), id: self.next_id(), alive: Cell::new(true) };
        processes.push(Rc::new(started));
        Rc::clone(processes.last().expect("just pushed"))
    }

    pub(super) fn is_alive(&self, name: &str) -> bool {
        self.processes.borrow().iter().any(|process| process.name == name)
    }

    /// SIGKILL to all that are named so.
    pub(super) fn kill_where(&self, doomed: impl Fn(&str) -> bool) {
        let mut processes = self.processes.borrow_mut();
        processes.iter().filter(|process| doomed(&process.name)).for_each(|process| self.bury(process));
        processes.retain(|process| process.is_alive());
    }

    fn bury(&self, process: &Process) {
        process.alive.set(false);
        let mut tables = self.tables.borrow_mut();
        tables.locks.retain(|_, locks| match locks.upgrade() {
            Some(locks) => {
                locks.borrow_mut().drop_process(process.id);
                true
            }
            None => false,
        });
        tables.shm.retain(|_, shm| {
            let mut shm = shm.borrow_mut();
            shm.locks.drop_process(process.id);
            shm.users.remove(&process.id);
            !shm.users.is_empty()
        });
        tables.shm_of.retain(|(id, _), _| *id != process.id);
    }

    /// Asks what becomes of an operation; the process may die of the answer.
    pub(super) fn enter(&self, process: &Process, op: VfsOp, path: &str) -> Result<(), Code> {
        if !process.is_alive() {
            return Err(Code::of_fault(VfsFault::Die, op));
        }
        let fault = self.hook.borrow().as_ref().and_then(|hook| hook(&process.name, op, path));
        if fault == Some(VfsFault::Die) {
            self.kill_where(|name| name == process.name);
        }
        fault.map_or(Ok(()), |fault| Err(Code::of_fault(fault, op)))
    }

    /// Whether a file exists and is not empty, as the unix VFS takes existence.
    pub(super) fn access(&self, process: &Process, path: &str) -> Result<bool, Code> {
        self.enter(process, VfsOp::Access, path)?;
        Ok(self.disk.stat(path).is_ok_and(|stat| stat.size > 0))
    }

    pub(super) fn delete(&self, process: &Process, path: &str, sync: bool) -> Result<(), Code> {
        self.enter(process, VfsOp::Delete, path)?;
        match self.disk.unlink(path) {
            Err(error) if error.raw_os_error() != Some(ENOENT) => return Err(Code::Io(VfsOp::Delete)),
            _ => {}
        }
        match sync {
            true => self.disk.sync_dir(parent(path)).map_err(|_| Code::Io(VfsOp::Sync)),
            false => Ok(()),
        }
    }

    /// Whether a living connection has the wal-index of a database mapped.
    pub(super) fn wal_index_lives(&self, path: &str) -> bool {
        let tables = self.tables.borrow();
        let Some(first) = tables.shm.values().next() else { return false };
        if tables.shm.len() == 1 && first.borrow().is_at(path) {
            return true;
        }
        let Ok(file) = self.disk.open(&format!("{path}-shm")) else { return false };
        tables.shm.contains_key(&key(&file))
    }

    fn locks_of(&self, file: &DiskFile) -> Rc<RefCell<FileLocks>> {
        let mut tables = self.tables.borrow_mut();
        let entry = tables.locks.entry(key(file)).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let fresh = Rc::default();
            *entry = Rc::downgrade(&fresh);
            fresh
        })
    }

    fn join_shm(&self, process: &Process, file: &DiskFile) -> io::Result<(FileKey, Rc<RefCell<Shm>>)> {
        let mut tables = self.tables.borrow_mut();
        let known = tables.shm_of.get(&(process.id, key(file))).copied();
        let known = known.and_then(|at| Some((at, Rc::clone(tables.shm.get(&at)?))));
        let (at, shm) = match known {
            Some(known) => known,
            None => {
                let named = self.disk.create(&format!("{}-shm", file.path()))?;
                let at = key(&named);
                let fresh =
                    Shm { file: named, index: None, locks: ShmLocks::default(), users: BTreeMap::new() };
                let shm = tables.shm.entry(at).or_insert_with(|| Rc::new(RefCell::new(fresh)));
                (at, Rc::clone(shm))
            }
        };
        tables.shm_of.insert((process.id, key(file)), at);
        *shm.borrow_mut().users.entry(process.id).or_default() += 1;
        Ok((at, shm))
    }

    /// Ends the use of a wal-index; true if no other connection of the process uses it.
    fn leave_shm(&self, process: &Process, file: &DiskFile, at: FileKey, shm: &Rc<RefCell<Shm>>) -> bool {
        let mut tables = self.tables.borrow_mut();
        let mut inner = shm.borrow_mut();
        let Some(users) = inner.users.get_mut(&process.id) else { return false };
        *users -= 1;
        let last = *users == 0;
        if last {
            inner.users.remove(&process.id);
            tables.shm_of.remove(&(process.id, key(file)));
        }
        let same = tables.shm.get(&at).is_some_and(|known| Rc::ptr_eq(known, shm));
        if same && inner.users.is_empty() {
            tables.shm.remove(&at);
        }
        last
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) create: bool,
    /// Whether it is a database file.
    pub(super) lockable: bool,
    /// Whether its first sync makes its name durable, too.
    pub(super) sync_name: bool,
}

/// An open file of a connection.
pub(super) struct File {
    machine: Rc<Machine>,
    process: Rc<Process>,
    file: DiskFile,
    owner: Owner,
    locks: Option<Rc<RefCell<FileLocks>>>,
    shm: RefCell<Option<(FileKey, Rc<RefCell<Shm>>)>>,
    sync_name: Cell<bool>,
}

impl File {
    pub(super) fn open(
        machine: &Rc<Machine>,
        process: &Rc<Process>,
        path: &str,
        usage: Usage,
    ) -> Result<File, Code> {
        machine.enter(process, VfsOp::Open, path)?;
        let opened = if usage.create { machine.disk.create(path) } else { machine.disk.open(path) };
        let file = opened.map_err(|_| Code::CantOpen)?;
        Ok(File {
            owner: Owner { process: process.id, handle: machine.next_id() },
            locks: usage.lockable.then(|| machine.locks_of(&file)),
            machine: Rc::clone(machine),
            process: Rc::clone(process),
            file,
            shm: RefCell::default(),
            sync_name: Cell::new(usage.sync_name),
        })
    }

    fn enter(&self, op: VfsOp) -> Result<(), Code> {
        self.machine.enter(&self.process, op, self.file.path())
    }

    /// Fills `buf`; where the file ends, with zeros and an answer of false.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<bool, Code> {
        let there = self.read_some(buf, offset)?;
        buf[there..].fill(0);
        Ok(there == buf.len())
    }

    /// Fills `buf`; an error where the file ends.
    pub(super) fn read_exact(&self, buf: &mut [u8], offset: u64) -> Result<(), Code> {
        if self.read(buf, offset)? { Ok(()) } else { Err(Code::Io(VfsOp::Read)) }
    }

    /// Reads what there is.
    pub(super) fn read_some(&self, buf: &mut [u8], offset: u64) -> Result<usize, Code> {
        self.enter(VfsOp::Read)?;
        let mut done = 0;
        while done < buf.len() {
            let got = self.file.read_at(&mut buf[done..], offset + done as u64);
            match got.map_err(|_| Code::Io(VfsOp::Read))? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Code> {
        self.enter(VfsOp::Write)?;
        self.file.write_all_at(bytes, offset).map_err(|error| match error.raw_os_error() {
            Some(ENOSPC) => Code::Full,
            _ => Code::Io(VfsOp::Write),
        })
    }

    pub(super) fn truncate(&self, len: u64) -> Result<(), Code> {
        self.enter(VfsOp::Truncate)?;
        self.file.set_len(len).map_err(|_| Code::Io(VfsOp::Truncate))
    }

    pub(super) fn sync(&self) -> Result<(), Code> {
        self.enter(VfsOp::Sync)?;
        self.file.sync().map_err(|_| Code::Io(VfsOp::Sync))?;
        if self.sync_name.get() {
            let synced = self.machine.disk.sync_dir(parent(self.file.path()));
            synced.map_err(|_| Code::Io(VfsOp::Sync))?;
            self.sync_name.set(false);
        }
        Ok(())
    }

    pub(super) fn len(&self) -> Result<u64, Code> {
        match self.process.is_alive() {
            true => self.file.len().map_err(|_| Code::Io(VfsOp::Read)),
            false => Err(Code::Io(VfsOp::Read)),
        }
    }

    pub(super) fn has_moved(&self) -> bool {
        self.file.has_moved()
    }

    pub(super) fn lock(&self, want: Level) -> Result<(), Code> {
        self.enter(VfsOp::Lock)?;
        let locks = self.locks.as_ref().expect("only databases are locked");
        if locks.borrow_mut().acquire(self.owner, want) { Ok(()) } else { Err(Code::Busy) }
    }

    pub(super) fn unlock(&self, to: Level) {
        if let Some(locks) = &self.locks {
            locks.borrow_mut().release(self.owner, to);
        }
    }

    pub(super) fn level(&self) -> Level {
        self.locks.as_ref().map_or(Level::None, |locks| locks.borrow().level(self.owner))
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.locks.as_ref().is_some_and(|locks| locks.borrow().is_reserved())
    }

    /// Begins to use the wal-index, and makes its first region if `extend`. Answers whether there
    /// is one.
    pub(super) fn shm_map(&self, extend: bool) -> Result<bool, Code> {
        self.enter(VfsOp::ShmMap)?;
        let mut joined = self.shm.borrow_mut();
        if joined.is_none() {
            let join = self.machine.join_shm(&self.process, &self.file);
            *joined = Some(join.map_err(|_| Code::Io(VfsOp::ShmMap))?);
        }
        let (_, shm) = joined.as_ref().expect("joined above");
        let mut shm = shm.borrow_mut();
        if extend {
            shm.index.get_or_insert_default();
        }
        Ok(shm.index.is_some())
    }

    pub(super) fn shm_lock(&self, mask: u8, exclusive: bool) -> Result<(), Code> {
        self.enter(VfsOp::ShmLock)?;
        let joined = self.shm.borrow();
        let (_, shm) = joined.as_ref().ok_or(Code::Io(VfsOp::ShmLock))?;
        let granted = shm.borrow_mut().locks.acquire(self.owner, mask, exclusive);
        if granted { Ok(()) } else { Err(Code::Busy) }
    }

    pub(super) fn shm_unlock(&self, mask: u8) {
        if let Some((_, shm)) = self.shm.borrow().as_ref() {
            shm.borrow_mut().locks.release(self.owner, mask);
        }
    }

    /// Looks at the wal-index or changes it.
    pub(super) fn index<T>(&self, look: impl FnOnce(&mut Index) -> T) -> T {
        let joined = self.shm.borrow();
        let (_, shm) = joined.as_ref().expect("mapped before it is looked at");
        look(shm.borrow_mut().index.as_mut().expect("mapped before it is looked at"))
    }

    /// Ends the use of the wal-index; `delete` removes its file if no one in the process uses it.
    pub(super) fn shm_unmap(&self, delete: bool) {
        let Some((at, shm)) = self.shm.borrow_mut().take() else { return };
        shm.borrow_mut().locks.drop_handle(self.owner);
        let last = self.machine.leave_shm(&self.process, &self.file, at, &shm);
        if last && delete && self.process.is_alive() {
            // As in the unix VFS, nobody hears of a failure.
            let _ = self.machine.disk.unlink(&format!("{}-shm", self.file.path()));
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.shm_unmap(false);
        self.unlock(Level::None);
    }
}
