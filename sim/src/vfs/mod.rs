//! Real SQLite on a simulated disk, in simulated processes.
//!
//! # Fault model
//! A [`SimSqlite`] is the SQLite of one machine. Its connections belong to processes with
//! names. [`SimSqlite::kill_process`] is SIGKILL: locks and mappings of the process vanish,
//! the page cache stays, the wal-index stays while another process maps it, and every later
//! call of the dead process's connections answers an I/O error. Rust still owns those
//! connections; they may be dropped at leisure, for a ghost can neither write a file nor reach
//! the memory of the living. [`SimSqlite::power_loss`] kills all and then asks the disk's
//! decider what survives.
//!
//! The host hook ([`Host::fault`]) sees each operation of SQLite with its process and path. It
//! fails one, or lets the process die just there: death in the sync of a `-wal` leaves a
//! commit frame that SQLite never committed. Faults of the [`Disk`] below come
//! up as the codes that SQLite's unix VFS would give.
//!
//! Each process is a VFS with a name of its own ([`SimSqlite::vfs_name`]), so that code which
//! opens SQLite by itself, as the production link does, can be put into a process without
//! knowing of it.
//!
//! What is not modelled: POSIX locks that a stray `close` drops, memory-mapped database I/O,
//! read-only wal-index files, dynamic extensions.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use driftless_sim::disk::{Disk, DiskConfig, SimClock};
//! use driftless_sim::vfs::{SimHost, SimSqlite, Turn};
//!
//! let _turn = Turn::take(7);
//! let clock = SimClock::new(1_800_000_000_000_000_000);
//! let disk = Disk::new(DiskConfig::default(), clock.clone());
//! let sqlite = SimSqlite::new(disk, Arc::new(SimHost::new(clock, 7)));
//!
//! let app = sqlite.open("app", "/a.db")?;
//! app.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(1)")?;
//! sqlite.kill_process("app");
//! assert!(app.execute_batch("INSERT INTO t VALUES(2)").is_err());
//!
//! let successor = sqlite.open("app", "/a.db")?;
//! let rows: i64 = successor.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
//! assert_eq!(rows, 1);
//! # Ok::<(), rusqlite::Error>(())
//! ```

mod file;
mod host;
mod io_methods;
pub(crate) mod locks;
mod shm;
mod slot;
#[cfg(test)]
mod tests;
mod turn;
mod vfs_methods;
mod world;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OpenFlags};

pub use host::{Host, SimHost, VfsFault, VfsFaultHook, VfsOp};
pub use turn::Turn;

use crate::disk::{Disk, Saved, Unsynced, lock};
use slot::{Lease, Tenant};
use world::{Process, World};

/// The SQLite of one simulated machine. Hold a [`Turn`] while it is in use.
pub struct SimSqlite {
    world: Arc<World>,
    /// The living, and the dead whose files SQLite has not closed.
    processes: Mutex<Vec<(Arc<Process>, Lease)>>,
}

impl SimSqlite {
    /// SQLite on `disk`, asking `host` for everything else.
    pub fn new(disk: Disk, host: Arc<dyn Host>) -> Self {
        Self { world: Arc::new(World::new(disk, host)), processes: Mutex::default() }
    }

    /// The disk of this machine.
    pub fn disk(&self) -> &Disk {
        &self.world.disk
    }

    /// Open a database for reading and writing in a process, creating it if need be. The
    /// process starts with its first connection.
    pub fn open(&self, process: &str, path: &str) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        self.open_with_flags(process, path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
    }

    /// Open a database in a process.
    pub fn open_with_flags(
        &self,
        process: &str,
        path: &str,
        flags: OpenFlags,
    ) -> rusqlite::Result<Connection> {
        Connection::open_with_flags_and_vfs(path, flags, self.vfs_name(process).as_str())
    }

    /// The VFS by which code that opens SQLite itself runs in a process; starts the process
    /// if it is not alive. After its death the name leads nowhere or to another process: ask
    /// again after each restart.
    pub fn vfs_name(&self, process: &str) -> String {
        let mut processes = lock(&self.processes);
        let alive = |(known, _): &&(Arc<Process>, Lease)| known.is_alive() && known.name == process;
        if let Some((_, lease)) = processes.iter().find(alive) {
            return lease.name().to_owned();
        }
        processes.retain(|(known, _)| known.is_alive() || known.open_files.load(Ordering::SeqCst) > 0);
        let started = self.world.start(process);
        let tenant = Tenant { world: Arc::clone(&self.world), process: Arc::clone(&started) };
        let lease = Lease::take(tenant);
        let name = lease.name().to_owned();
        processes.push((started, lease));
        name
    }

    /// Whether the process has started and not died. A fault may have killed it.
    pub fn is_alive(&self, process: &str) -> bool {
        lock(&self.processes).iter().any(|(known, _)| known.is_alive() && known.name == process)
    }

    /// Whether any living connection has the wal-index of the database at `path` mapped. While
    /// none has, the next opener recovers it from the WAL file.
    pub fn wal_index_lives(&self, path: &str) -> bool {
        self.world.wal_index_lives(path)
    }

    /// SIGKILL. Nothing happens if the process is not alive.
    pub fn kill_process(&self, process: &str) {
        self.kill_where(|known| known.name == process);
    }

    /// The power loss of the machine: every process dies, and `survives` decides about
    /// everything that was not synced.
    pub fn power_loss(&self, survives: impl FnMut(&Unsynced<'_>) -> bool) {
        self.kill_where(|_| true);
        self.world.disk.power_loss(survives);
    }

    /// The machine comes back as it was once: every process dies, and the disk is as it was saved.
    pub fn roll_back(&self, saved: &Saved) {
        self.kill_where(|_| true);
        self.world.disk.roll_back(saved);
    }

    fn kill_where(&self, doomed: impl Fn(&Process) -> bool) {
        for (process, _) in lock(&self.processes).iter() {
            if process.is_alive() && doomed(process) {
                self.world.kill(process);
            }
        }
    }
}
