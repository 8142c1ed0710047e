//! The C entry points that concern names, time and chance.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int};
use std::slice;

use rusqlite::ffi;

use super::file::code_of_fault;
use super::host::VfsOp;
use super::slot::{Slot, Tenant};
use crate::disk::{ENOENT, normalize, parent};

/// The Unix epoch in milliseconds of the Julian day that SQLite counts by.
const JULIAN_EPOCH_MS: i64 = 210_866_760_000_000;
const DAY_MS: f64 = 86_400_000.0;

/// The process that runs in a VFS.
///
/// # Safety
/// `vfs` is one that `slot::register` registered.
pub(super) unsafe fn tenant(vfs: *mut ffi::sqlite3_vfs) -> Option<Tenant> {
    // SAFETY: by contract `pAppData` is the slot, which is never freed.
    let slot = unsafe { &*((*vfs).pAppData as *const Slot) };
    slot.tenant()
}

/// # Safety
/// `path` is a C string that lives as long as the result.
pub(super) unsafe fn text<'a>(path: *const c_char) -> Cow<'a, str> {
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(path) }.to_string_lossy()
}

pub(super) unsafe extern "C" fn x_delete(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    sync_dir: c_int,
) -> c_int {
    // SAFETY: SQLite passes the VFS and a C string.
    let (tenant, path) = unsafe { (tenant(vfs), text(path)) };
    let Some(Tenant { world, process }) = tenant else {
        return ffi::SQLITE_IOERR_DELETE;
    };
    if let Some(fault) = world.fate(&process, VfsOp::Delete, &path) {
        return code_of_fault(fault, VfsOp::Delete);
    }
    match world.disk.unlink(&path) {
        Err(error) if error.raw_os_error() == Some(ENOENT) => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
        Ok(()) if sync_dir & 1 == 0 => ffi::SQLITE_OK,
        Ok(()) => match world.disk.sync_dir(parent(&path)) {
            Ok(()) => ffi::SQLITE_OK,
            Err(_) => ffi::SQLITE_IOERR_DIR_FSYNC,
        },
    }
}

pub(super) unsafe extern "C" fn x_access(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    found: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the VFS, a C string and a place for the answer.
    let (tenant, path) = unsafe { (tenant(vfs), text(path)) };
    let Some(Tenant { world, process }) = tenant else {
        return ffi::SQLITE_IOERR_ACCESS;
    };
    if let Some(fault) = world.fate(&process, VfsOp::Access, &path) {
        return code_of_fault(fault, VfsOp::Access);
    }
    // The unix VFS says that an empty file does not exist.
    let exists = world
        .disk
        .stat(&path)
        .is_ok_and(|stat| flags != ffi::SQLITE_ACCESS_EXISTS || stat.is_dir || stat.size > 0);
    // SAFETY: as above.
    unsafe { *found = c_int::from(exists) };
    ffi::SQLITE_OK
}

pub(super) unsafe extern "C" fn x_full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a C string.
    let given = unsafe { text(path) };
    let full = normalize(&given);
    if full.len() >= room as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: SQLite passes `room` writable bytes, more than `full` has; one is left for NUL.
    unsafe {
        out.copy_from_nonoverlapping(full.as_ptr().cast(), full.len());
        *out.add(full.len()) = 0;
    }
    ffi::SQLITE_OK
}

pub(super) unsafe extern "C" fn x_randomness(
    vfs: *mut ffi::sqlite3_vfs,
    count: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes `count` writable bytes, which it has initialised.
    let buf = unsafe { slice::from_raw_parts_mut(out.cast::<u8>(), count as usize) };
    // SAFETY: SQLite passes the VFS.
    match unsafe { tenant(vfs) } {
        Some(tenant) => tenant.world.host.random(buf),
        None => buf.fill(0),
    }
    count
}

pub(super) unsafe extern "C" fn x_sleep(vfs: *mut ffi::sqlite3_vfs, us: c_int) -> c_int {
    // SAFETY: SQLite passes the VFS.
    if let Some(tenant) = unsafe { tenant(vfs) } {
        let us = u64::try_from(us).unwrap_or(0);
        tenant.world.host.sleep_us(&tenant.process.name, us);
    }
    us
}

pub(super) unsafe extern "C" fn x_current_time(vfs: *mut ffi::sqlite3_vfs, days: *mut f64) -> c_int {
    let mut ms = 0;
    // SAFETY: SQLite passes the VFS and a place for the answer.
    unsafe {
        let code = x_current_time_ms(vfs, &raw mut ms);
        *days = ms as f64 / DAY_MS;
        code
    }
}

pub(super) unsafe extern "C" fn x_current_time_ms(vfs: *mut ffi::sqlite3_vfs, ms: *mut i64) -> c_int {
    // SAFETY: SQLite passes the VFS and a place for the answer.
    unsafe {
        let Some(tenant) = tenant(vfs) else {
            return ffi::SQLITE_ERROR;
        };
        *ms = JULIAN_EPOCH_MS + tenant.world.host.now_ms();
    }
    ffi::SQLITE_OK
}

pub(super) unsafe extern "C" fn x_get_last_error(
    _vfs: *mut ffi::sqlite3_vfs,
    _room: c_int,
    _out: *mut c_char,
) -> c_int {
    0
}
