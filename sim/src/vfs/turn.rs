//! SQLite's process-global state, and the right to use it.
//!
//! SQLite has one random generator (WAL salts, `random()`, `randomblob()`) and one lock byte
//! for the whole process. A simulation with real SQLite therefore runs alone: it holds a
//! [`Turn`] from its first connection to its last.

use std::ptr;
use std::sync::{Mutex, MutexGuard};

use rusqlite::ffi;

use crate::disk::lock;

static TURN: Mutex<()> = Mutex::new(());

/// Where SQLite's lock byte is unless moved.
const PENDING_BYTE_DEFAULT: u32 = 0x4000_0000;

/// The exclusive use of SQLite in this process, with its generator seeded. Other simulations
/// wait in [`Turn::take`] until it is dropped.
#[must_use = "the turn ends when it is dropped"]
pub struct Turn {
    _guard: MutexGuard<'static, ()>,
}

impl Turn {
    /// Wait for the others, then seed SQLite's generator.
    pub fn take(seed: u32) -> Self {
        let turn = Self { _guard: lock(&TURN) };
        turn.seed_prng(seed);
        turn
    }

    /// Seed SQLite's generator anew. Zero would mean "from the operating system" to SQLite
    /// and is taken for another seed.
    pub fn seed_prng(&self, seed: u32) {
        let seed = if seed == 0 { 0x5eed } else { seed };
        // SAFETY: this operation takes an unsigned int and a connection, which may be null;
        // the guard keeps other simulations out.
        unsafe {
            let none = ptr::null_mut::<ffi::sqlite3>();
            ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_PRNG_SEED, seed, none);
        }
    }

    /// Move the lock page of databases opened from now on until the turn ends: 0x10000 makes
    /// it page 17 of a database with 4 KiB pages. No connection may be open, on other
    /// threads neither.
    pub fn set_pending_byte(&self, offset: u32) {
        set_pending_byte(offset);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        set_pending_byte(PENDING_BYTE_DEFAULT);
    }
}

fn set_pending_byte(offset: u32) {
    // SAFETY: this operation takes an unsigned int and writes one global variable, which only
    // connections of the holder of the turn read.
    unsafe { ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_PENDING_BYTE, offset) };
}
