//! What befalls our own files: the journal of the local state, what is put aside in scratch files,
//! and what is read of the `-wal`.
//!
//! The disk asks before each operation; who is at work then says the host. The database itself is
//! the application's, and what its disk does to it is not ours to answer for; but what we read of
//! the WAL is checked by us, and so are a scratch file and the journal.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::app::WAL_PATH;
use super::dice::Dice;
use super::faults::Faults;
use super::sites::Sites;
use crate::disk::{DiskFault, DiskOp, lock};

/// Who is at work on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Worker {
    /// None of those below.
    Other = 0,
    /// The journal of the local state.
    State = 1,
    /// A scratch file.
    Scratch = 2,
    /// A reader of the WAL.
    Wal = 3,
}

/// Decides about the faults of our own files.
#[derive(Clone)]
pub(super) struct Mishap(Arc<Inner>);

struct Inner {
    dice: Dice,
    faults: Mutex<Faults>,
    sites: Sites,
    worker: AtomicU8,
    count: AtomicU64,
    died: AtomicBool,
}

const EIO: &str = "disk: EIO";
const NO_ROOM: &str = "disk: ENOSPC";
const QUOTA: &str = "disk: EDQUOT";
const NO_FILES: &str = "disk: no descriptors";
const SHORT_READ: &str = "disk: short read";
const SHORT_WRITE: &str = "disk: short write";
const LIES: &str = "disk: fsync lies";
const CLEAN: &str = "disk: fsync fails, then clean";
const STALE: &str = "disk: stale read";
const ASIDE: &str = "disk: misdirected write";
const ROT: &str = "disk: bit rot";
const DEATH: &str = "process: killed within a write";

/// What may become of an operation of somebody.
fn kinds(worker: Worker, op: DiskOp) -> &'static [&'static str] {
    match (worker, op) {
        (Worker::Wal, DiskOp::Read) => &[SHORT_READ, STALE, ROT],
        (Worker::Other | Worker::Wal, _) => &[],
        (_, DiskOp::Open | DiskOp::Create) => &[NO_FILES],
        (_, DiskOp::Read) => &[EIO, SHORT_READ, STALE, ROT],
        (_, DiskOp::Write) => &[EIO, NO_ROOM, QUOTA, SHORT_WRITE, ASIDE, DEATH],
        (_, DiskOp::Sync) => &[EIO, LIES, CLEAN, DEATH],
        (_, DiskOp::SyncDir) => &[EIO, LIES, DEATH],
        (_, DiskOp::Rename) => &[EIO, DEATH],
        _ => &[],
    }
}

impl Mishap {
    pub(super) fn new(dice: Dice, faults: &Faults, sites: Sites) -> Mishap {
        Mishap(Arc::new(Inner {
            dice,
            faults: Mutex::new(faults.clone()),
            sites,
            worker: AtomicU8::new(0),
            count: AtomicU64::new(0),
            died: AtomicBool::new(false),
        }))
    }

    /// Who is at work from now on.
    pub(super) fn set(&self, worker: Worker) {
        self.0.worker.store(worker as u8, Ordering::SeqCst);
    }

    /// Whether the process has died in an operation, and takes note of it.
    pub(super) fn has_died(&self) -> bool {
        self.0.died.swap(false, Ordering::SeqCst)
    }

    /// All ends.
    pub(super) fn heal(&self) {
        *lock(&self.0.faults) = Faults::none();
    }

    /// What becomes of an operation.
    pub(super) fn strikes(&self, op: DiskOp, path: &str) -> Option<DiskFault> {
        let inner = &*self.0;
        let worker = match inner.worker.load(Ordering::SeqCst) {
            1 => Worker::State,
            2 => Worker::Scratch,
            3 if path == WAL_PATH => Worker::Wal,
            _ => return None,
        };
        if inner.died.load(Ordering::SeqCst) {
            return Some(DiskFault::Eio);
        }
        let here: Vec<_> = {
            let faults = lock(&inner.faults);
            kinds(worker, op).iter().copied().filter(|kind| faults.has(kind)).collect()
        };
        if here.is_empty() {
            return None;
        }
        let n = inner.count.fetch_add(1, Ordering::SeqCst);
        let (dice, of) = (inner.dice, if worker == Worker::Wal { 150 } else { 40 });
        let drawn = dice.chance("mishap", "", n, 1, of).then(|| *dice.pick("mishap", "kind", n, &here));
        let at = format!("{worker:?} {op:?}");
        let fault = inner.sites.settle(&at, drawn, kinds(worker, op))?;
        let draw = dice.draw("mishap", "where", n);
        Some(match fault {
            NO_ROOM => DiskFault::Enospc,
            QUOTA => DiskFault::Edquot,
            NO_FILES => DiskFault::Emfile,
            SHORT_READ => DiskFault::ShortRead,
            SHORT_WRITE => DiskFault::ShortWrite,
            LIES => DiskFault::SyncLies,
            CLEAN => DiskFault::SyncEioThenClean,
            STALE => DiskFault::StaleRead,
            ASIDE => DiskFault::Misdirect { delta: (draw % 8_192) as i64 - 4_096 },
            ROT => DiskFault::Rot { at: draw },
            DEATH => {
                inner.died.store(true, Ordering::SeqCst);
                DiskFault::Eio
            }
            _ => DiskFault::Eio,
        })
    }
}
