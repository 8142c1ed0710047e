//! SQLite's process-wide settings, made once before its first use.
//!
//! SQLite allocates twenty pages of cache for each connection ahead of need and counts every
//! allocation under a mutex. A thousand links want neither. Both settings are refused once the
//! library runs, so the first [`Link`](super::Link) makes them, and says so if someone came first.

use std::ffi::c_int;
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi;

/// The oldest SQLite that may stand beside a live database: 3.51.3 mended a race between
/// checkpoints that corrupts.
pub const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Whether the frugal settings were in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessSetup {
    /// Page-cache preallocation and memory statistics are off.
    Frugal,
    /// Something in this process used SQLite before: connections cost some 80 KB more.
    TooLate,
}

/// Makes the settings if nobody has, and initialises SQLite. Call it early in `main`; each
/// [`Link::open`](super::Link::open) calls it too.
///
/// Panics when the SQLite that was linked in is older than [`SQLITE_VERSION_MIN`], was built
/// without threads, or cannot initialise: no link could ever be trusted.
pub fn set_up_process() -> ProcessSetup {
    static SETUP: OnceLock<ProcessSetup> = OnceLock::new();
    *SETUP.get_or_init(configure)
}

fn configure() -> ProcessSetup {
    // SAFETY: both functions only return constants of the library.
    let (version, threadsafe) = unsafe { (ffi::sqlite3_libversion_number(), ffi::sqlite3_threadsafe()) };
    assert!(version >= SQLITE_VERSION_MIN, "sqlite {version} may corrupt a database that others checkpoint");
    assert!(threadsafe != 0, "sqlite was built without threads, and links run on several");
    let off: c_int = 0;
    // SAFETY: MEMSTATUS takes one int; the call fails with MISUSE if SQLite already runs.
    let memstatus = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, off) };
    // SAFETY: PAGECACHE takes a buffer (none), a slot size and a number of slots, both ints.
    let pagecache =
        unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_PAGECACHE, ptr::null_mut::<u8>(), off, off) };
    // SAFETY: no arguments; may be called at any time from any thread.
    let started = unsafe { ffi::sqlite3_initialize() };
    assert!(started == ffi::SQLITE_OK, "sqlite does not initialise: code {started}");
    if memstatus == ffi::SQLITE_OK && pagecache == ffi::SQLITE_OK {
        ProcessSetup::Frugal
    } else {
        ProcessSetup::TooLate
    }
}
