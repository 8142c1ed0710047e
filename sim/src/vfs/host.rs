//! What SQLite asks of the world beside its files: time, sleep, randomness, misfortune.
//!
//! Nothing here comes from the real machine. `sleep` must not sleep: the default busy handler
//! calls it, and a simulator has one thread, so the hook moves the clock (or lets somebody
//! else run) and returns.

use std::sync::Mutex;

use crate::disk::{SimClock, lock};

/// The operation of SQLite that a fault hook is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the VFS method of that name")]
pub enum VfsOp {
    Open,
    Delete,
    Access,
    Read,
    Write,
    Truncate,
    Sync,
    Lock,
    ShmMap,
    ShmLock,
}

impl VfsOp {
    /// Its name as a place where faults strike.
    pub const fn name(self) -> &'static str {
        match self {
            VfsOp::Open => "sqlite open",
            VfsOp::Delete => "sqlite delete",
            VfsOp::Access => "sqlite access",
            VfsOp::Read => "sqlite read",
            VfsOp::Write => "sqlite write",
            VfsOp::Truncate => "sqlite truncate",
            VfsOp::Sync => "sqlite sync",
            VfsOp::Lock => "sqlite lock",
            VfsOp::ShmMap => "sqlite shm map",
            VfsOp::ShmLock => "sqlite shm lock",
        }
    }
}

/// What becomes of one operation of SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfsFault {
    /// It fails with the I/O error of its kind and has no effect.
    Io,
    /// It fails with SQLITE_FULL and has no effect.
    Full,
    /// It fails with SQLITE_BUSY and has no effect.
    Busy,
    /// The process dies just before it: its locks vanish, and this and every later call of
    /// its SQLite answers an I/O error. On the sync of a `-wal` this makes a phantom commit.
    Die,
}

impl VfsFault {
    /// Its name among the faults that strike.
    pub const fn name(self) -> &'static str {
        match self {
            VfsFault::Io => "sqlite: I/O error",
            VfsFault::Full => "sqlite: disk full",
            VfsFault::Busy => "sqlite: busy",
            VfsFault::Die => "process: died in an operation of SQLite",
        }
    }
}

/// Decides about faults: process, operation, path.
pub type VfsFaultHook = dyn Fn(&str, VfsOp, &str) -> Option<VfsFault> + Send + Sync;

/// The hooks through which SQLite reaches the simulated world. They run with no lock of the
/// VFS held, on the thread that called SQLite.
pub trait Host: Send + Sync {
    /// Fill `buf` from the seed. SQLite's own generator does not come here but from
    /// [`Turn`](super::Turn).
    fn random(&self, buf: &mut [u8]);

    /// Wall time in milliseconds since the Unix epoch, as `CURRENT_TIMESTAMP` sees it.
    fn now_ms(&self) -> i64;

    /// The process waits `us` microseconds, typically for a lock.
    fn sleep_us(&self, process: &str, us: u64);

    /// What becomes of this operation; `None` leaves it alone.
    fn fault(&self, process: &str, op: VfsOp, path: &str) -> Option<VfsFault>;
}

/// A host with a clock, a seed, and a fault hook that may be changed at any time. Sleeping
/// moves the clock.
pub struct SimHost {
    clock: SimClock,
    random: Mutex<u64>,
    hook: Mutex<Option<std::sync::Arc<VfsFaultHook>>>,
}

impl SimHost {
    /// A host on `clock` whose randomness follows from `seed`.
    pub fn new(clock: SimClock, seed: u64) -> Self {
        Self { clock, random: Mutex::new(seed), hook: Mutex::default() }
    }

    /// Consult `hook` before each operation from now on.
    pub fn set_fault_hook(&self, hook: Option<std::sync::Arc<VfsFaultHook>>) {
        *lock(&self.hook) = hook;
    }
}

impl Host for SimHost {
    fn random(&self, buf: &mut [u8]) {
        let mut state = lock(&self.random);
        for chunk in buf.chunks_mut(8) {
            let bytes = splitmix(&mut state).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    fn now_ms(&self) -> i64 {
        (self.clock.now_ns() / 1_000_000) as i64
    }

    fn sleep_us(&self, _process: &str, us: u64) {
        self.clock.advance_ns(us * 1_000);
    }

    fn fault(&self, process: &str, op: VfsOp, path: &str) -> Option<VfsFault> {
        let hook = lock(&self.hook).clone()?;
        hook(process, op, path)
    }
}

/// The SplitMix64 generator.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
