//! Workload A: a model of SQLite on the simulated disk, fast because no SQLite runs.
//!
//! It writes databases and WALs whose bytes are valid by SQLite's file format, and follows the
//! rules of `wal.c` and of the pager step by step: locks, read marks, backfill, restarts with new
//! salts, checkpoints of every mode, recovery, spilled frames, phantom commits, the last close,
//! rollback journals outside of WAL mode. So a fault or a death strikes where it would strike in
//! SQLite. What is left out is SQL: pages hold what `rows` makes up, and no two processes run at
//! the same instant.
//!
//! The library is the judge of the model. `sim/tests/model.rs` runs the same scripts of an
//! application's operations and a replicator's requests on both, and compares what can be seen.
//!
//! One thing the model does that the library here does not: checksums may be in either byte order,
//! as after a WAL was begun on another machine.

mod code;
mod connection;
mod copy;
mod index;
mod link;
mod machine;
mod pager;
mod rows;
mod wal;

use std::rc::Rc;
use std::sync::Arc;

use crate::disk::{Disk, Saved, SimClock, Unsynced};
use crate::ring0::sqlite::{Connection, Source, SqlResult, Sqlite};
use crate::vfs::VfsFaultHook;
use connection::ModelConnection;
pub use copy::ModelCopy;
use link::ModelSource;
use machine::Machine;

/// The model of SQLite on one machine.
pub struct Model {
    machine: Rc<Machine>,
}

impl Model {
    /// A machine around `disk`, whose randomness follows from a seed. With `both_orders` a WAL
    /// that is started over may have checksums of big-endian words.
    pub fn new(disk: Disk, seed: u64, pending_byte: u64, both_orders: bool) -> Model {
        Model { machine: Machine::new(disk, seed, pending_byte, both_orders) }
    }

    /// The port by which a process writes a copy of a replica.
    pub fn copy(&self, process: &str, path: &str) -> ModelCopy {
        ModelCopy::new(&self.machine, self.machine.process(process), path)
    }
}

impl Sqlite for Model {
    fn disk(&self) -> &Disk {
        &self.machine.disk
    }

    fn set_fault_hook(&self, hook: Arc<VfsFaultHook>) {
        self.machine.set_fault_hook(hook);
    }

    fn open(&self, process: &str, path: &str) -> SqlResult<Box<dyn Connection>> {
        let process = self.machine.process(process);
        Ok(Box::new(ModelConnection::open(&self.machine, process, path)?))
    }

    fn source(&self, process: &str, path: &str) -> Box<dyn Source> {
        Box::new(ModelSource::new(&self.machine, self.machine.process(process), path))
    }

    fn is_alive(&self, process: &str) -> bool {
        self.machine.is_alive(process)
    }

    fn wal_index_lives(&self, path: &str) -> bool {
        self.machine.wal_index_lives(path)
    }

    fn kill_process(&self, process: &str) {
        self.machine.kill_where(|name| name == process);
    }

    fn power_loss(&self, survives: &mut dyn FnMut(&Unsynced<'_>) -> bool) {
        self.machine.kill_where(|_| true);
        self.machine.disk.power_loss(survives);
    }

    fn roll_back(&self, saved: &Saved) {
        self.machine.kill_where(|_| true);
        self.machine.disk.roll_back(saved);
    }

    fn another(&self, disk: Disk, _clock: &SimClock, seed: u64) -> Box<dyn Sqlite> {
        let Machine { pending_byte, both_orders, .. } = *self.machine;
        Box::new(Model::new(disk, seed, pending_byte, both_orders))
    }
}
