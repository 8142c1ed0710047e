//! A registered `sqlite3_vfs` for each living process.
//!
//! SQLite passes a VFS pointer, not a context, so a process *is* a VFS: whoever opens a
//! database by that VFS name runs in that process, the production link included. SQLite
//! keeps the pointer for as long as a connection exists, and connections of killed processes
//! may be leaked; so slots are never freed. They are used again once the process has no file
//! open, and otherwise leave SQLite's list when the simulation ends.

use std::cell::UnsafeCell;
use std::ffi::{CString, c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::ffi;

use super::io_methods::{self, RAW_FILE_BYTES};
use super::vfs_methods;
use super::world::{Process, World};
use crate::disk::lock;

/// The longest path, in bytes.
const PATH_BYTES_MAX: c_int = 1024;

/// Which process runs in a slot.
#[derive(Clone)]
pub(super) struct Tenant {
    pub(super) world: Arc<World>,
    pub(super) process: Arc<Process>,
}

/// A VFS that SQLite knows for ever.
pub(super) struct Slot {
    name: CString,
    raw: UnsafeCell<ffi::sqlite3_vfs>,
    tenant: Mutex<Option<Tenant>>,
}

// SAFETY: `raw` is written by this module before registration and by SQLite (its `pNext`)
// under SQLite's own mutex; `name` is never changed; `tenant` is behind a mutex.
unsafe impl Sync for Slot {}

static FREE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());
static COUNT: AtomicU64 = AtomicU64::new(0);

impl Slot {
    pub(super) fn name(&self) -> &str {
        self.name.to_str().expect("made from a str")
    }

    pub(super) fn tenant(&self) -> Option<Tenant> {
        lock(&self.tenant).clone()
    }
}

/// A slot in use; dropping it ends the tenancy.
pub(super) struct Lease(&'static Slot);

impl Lease {
    pub(super) fn take(tenant: Tenant) -> Self {
        let free = lock(&FREE).pop();
        let slot = free.unwrap_or_else(register);
        *lock(&slot.tenant) = Some(tenant);
        Self(slot)
    }

    pub(super) fn name(&self) -> &str {
        self.0.name()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let tenant = lock(&self.0.tenant).take().expect("a lease has a tenant");
        if tenant.process.open_files.load(Ordering::SeqCst) == 0 {
            lock(&FREE).push(self.0);
        } else {
            // SAFETY: the slot was registered by `register`; SQLite takes it off its list under
            // its own mutex and keeps no pointer but those of connections, which stay valid.
            unsafe { ffi::sqlite3_vfs_unregister(self.0.raw.get()) };
        }
    }
}

fn register() -> &'static Slot {
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    let name = CString::new(format!("driftless-sim-{number}")).expect("no NUL in it");
    let raw = UnsafeCell::new(raw_vfs(name.as_ptr()));
    let slot: &'static Slot = Box::leak(Box::new(Slot { name, raw, tenant: Mutex::new(None) }));
    // SAFETY: the slot lives for ever and no one else knows it yet. `raw` is in a cell, so
    // SQLite may write its `pNext` while shared references to the slot exist; the string that
    // `zName` points to is on the heap and did not move with `name`.
    unsafe {
        (*slot.raw.get()).pAppData = ptr::from_ref(slot).cast_mut().cast();
        assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK, "sqlite does not start");
        let registered = ffi::sqlite3_vfs_register(slot.raw.get(), 0);
        assert_eq!(registered, ffi::SQLITE_OK, "sqlite refuses the vfs");
    }
    slot
}

fn raw_vfs(name: *const c_char) -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: RAW_FILE_BYTES,
        mxPathname: PATH_BYTES_MAX,
        pNext: ptr::null_mut(),
        zName: name,
        pAppData: ptr::null_mut(),
        xOpen: Some(io_methods::x_open),
        xDelete: Some(vfs_methods::x_delete),
        xAccess: Some(vfs_methods::x_access),
        xFullPathname: Some(vfs_methods::x_full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(vfs_methods::x_randomness),
        xSleep: Some(vfs_methods::x_sleep),
        xCurrentTime: Some(vfs_methods::x_current_time),
        xGetLastError: Some(vfs_methods::x_get_last_error),
        xCurrentTimeInt64: Some(vfs_methods::x_current_time_ms),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}
