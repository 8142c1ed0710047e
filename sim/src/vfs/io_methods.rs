//! The C entry points that concern one open file: pointers are made into slices and
//! references here, and [`OpenFile`] does the rest.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rusqlite::ffi;

use super::file::{Code, OpenFile, Usage, code_of_fault};
use super::host::VfsOp;
use super::locks::Level;
use super::slot::Tenant;
use super::vfs_methods::{tenant, text};
use crate::disk::DiskFile;

/// What SQLite allocates for each file.
#[repr(C)]
struct RawFile {
    base: ffi::sqlite3_file,
    /// From `Box::into_raw` in `x_open`, freed in `x_close`.
    open: *mut OpenFile,
}

pub(super) const RAW_FILE_BYTES: c_int = size_of::<RawFile>() as c_int;

const SECTOR_BYTES: c_int = 4096;

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// # Safety
/// `file` was opened by [`x_open`] and is not closed while the result is in use.
unsafe fn open_file<'a>(file: *mut ffi::sqlite3_file) -> &'a OpenFile {
    // SAFETY: by contract; SQLite calls no method of a file after its xClose.
    unsafe { &*(*file.cast::<RawFile>()).open }
}

fn code(result: Result<(), Code>) -> c_int {
    result.err().unwrap_or(ffi::SQLITE_OK)
}

pub(super) unsafe extern "C" fn x_open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let raw = file.cast::<RawFile>();
    // SAFETY: SQLite passes `szOsFile` bytes for the file, the VFS, a C string or null, and a
    // place for the flags or null. No methods means "not open": SQLite will not close it.
    unsafe {
        (*raw).base.pMethods = ptr::null();
        let Some(tenant) = tenant(vfs) else {
            return ffi::SQLITE_CANTOPEN;
        };
        let name = if name.is_null() { None } else { Some(text(name)) };
        match open(&tenant, name.as_deref(), flags) {
            Err(code) => code,
            Ok((open, flags)) => {
                (*raw).open = Box::into_raw(Box::new(open));
                if !out_flags.is_null() {
                    *out_flags = flags;
                }
                (*raw).base.pMethods = &METHODS;
                ffi::SQLITE_OK
            }
        }
    }
}

/// Open a file as the unix VFS does; a nameless one is temporary.
fn open(tenant: &Tenant, name: Option<&str>, flags: c_int) -> Result<(OpenFile, c_int), Code> {
    let Tenant { world, process } = tenant;
    if let Some(fault) = world.fate(process, VfsOp::Open, name.unwrap_or("")) {
        return Err(code_of_fault(fault, VfsOp::Open));
    }
    let has = |flag: c_int| flags & flag != 0;
    let create = has(ffi::SQLITE_OPEN_CREATE);
    let opened: std::io::Result<DiskFile> = match name {
        None => world.disk.create_unnamed(),
        Some(path) if create && has(ffi::SQLITE_OPEN_EXCLUSIVE) => world.disk.create_new(path),
        Some(path) if create => world.disk.create(path),
        Some(path) => world.disk.open(path),
    };
    let file = opened.map_err(|_| ffi::SQLITE_CANTOPEN)?;
    if let Some(path) = name.filter(|_| has(ffi::SQLITE_OPEN_DELETEONCLOSE)) {
        world.disk.unlink(path).map_err(|_| ffi::SQLITE_CANTOPEN)?;
    }
    let journal = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
    let usage = Usage {
        read_only: has(ffi::SQLITE_OPEN_READONLY),
        lockable: has(ffi::SQLITE_OPEN_MAIN_DB),
        sync_name: create && has(journal | ffi::SQLITE_OPEN_WAL),
    };
    Ok((OpenFile::new(world, process, file, usage), flags))
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    let raw = file.cast::<RawFile>();
    // SAFETY: `open` came from `Box::into_raw` in `x_open`, and SQLite closes a file once.
    unsafe {
        drop(Box::from_raw((*raw).open));
        (*raw).open = ptr::null_mut();
        (*raw).base.pMethods = ptr::null();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes an open file and `count` writable bytes.
    let (file, buf) =
        unsafe { (open_file(file), slice::from_raw_parts_mut(out.cast::<u8>(), count as usize)) };
    code(file.read(buf, offset as u64))
}

unsafe extern "C" fn x_write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes an open file and `count` readable bytes.
    let (file, bytes) =
        unsafe { (open_file(file), slice::from_raw_parts(bytes.cast::<u8>(), count as usize)) };
    code(file.write(bytes, offset as u64))
}

unsafe extern "C" fn x_truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    // SAFETY: SQLite passes an open file.
    code(unsafe { open_file(file) }.truncate(len as u64))
}

unsafe extern "C" fn x_sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    code(unsafe { open_file(file) }.sync())
}

unsafe extern "C" fn x_file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: SQLite passes an open file and a place for the answer.
    unsafe { code(open_file(file).size().map(|len| *size = len as i64)) }
}

fn level(raw: c_int) -> Level {
    match raw {
        ffi::SQLITE_LOCK_NONE => Level::None,
        ffi::SQLITE_LOCK_SHARED => Level::Shared,
        ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
        ffi::SQLITE_LOCK_PENDING => Level::Pending,
        _ => Level::Exclusive,
    }
}

unsafe extern "C" fn x_lock(file: *mut ffi::sqlite3_file, want: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    code(unsafe { open_file(file) }.lock(level(want)))
}

unsafe extern "C" fn x_unlock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    code(unsafe { open_file(file) }.unlock(level(to)))
}

unsafe extern "C" fn x_check_reserved_lock(file: *mut ffi::sqlite3_file, reserved: *mut c_int) -> c_int {
    // SAFETY: SQLite passes an open file and a place for the answer.
    unsafe { code(open_file(file).is_reserved().map(|yes| *reserved = c_int::from(yes))) }
}

unsafe extern "C" fn x_file_control(file: *mut ffi::sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: SQLite passes an open file, and for each of these operations an int to read or
    // to write; VFSNAME, which passes a pointer to a pointer, is not among them.
    let (file, arg) = unsafe { (open_file(file), arg.cast::<c_int>()) };
    let answer = match op {
        ffi::SQLITE_FCNTL_HAS_MOVED => c_int::from(file.has_moved()),
        ffi::SQLITE_FCNTL_EXTERNAL_READER => c_int::from(file.has_external_reader()),
        ffi::SQLITE_FCNTL_LOCKSTATE => match file.level() {
            Level::None => ffi::SQLITE_LOCK_NONE,
            Level::Shared => ffi::SQLITE_LOCK_SHARED,
            Level::Reserved => ffi::SQLITE_LOCK_RESERVED,
            Level::Pending => ffi::SQLITE_LOCK_PENDING,
            Level::Exclusive => ffi::SQLITE_LOCK_EXCLUSIVE,
        },
        ffi::SQLITE_FCNTL_LAST_ERRNO => 0,
        // SAFETY: as above.
        ffi::SQLITE_FCNTL_PERSIST_WAL => mode_bit(file.persist_wal(), unsafe { *arg }),
        // SAFETY: as above.
        ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE => mode_bit(file.powersafe(), unsafe { *arg }),
        // Hints about growth change nothing here.
        ffi::SQLITE_FCNTL_SIZE_HINT | ffi::SQLITE_FCNTL_CHUNK_SIZE => return ffi::SQLITE_OK,
        _ => return ffi::SQLITE_NOTFOUND,
    };
    // SAFETY: as above.
    unsafe { *arg = answer };
    ffi::SQLITE_OK
}

/// Set a mode if the argument is 0 or 1, and answer what it is.
fn mode_bit(mode: &AtomicBool, arg: c_int) -> c_int {
    if arg >= 0 {
        mode.store(arg > 0, Ordering::SeqCst);
    }
    c_int::from(mode.load(Ordering::SeqCst))
}

unsafe extern "C" fn x_sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

unsafe extern "C" fn x_device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite passes an open file.
    let powersafe = unsafe { open_file(file) }.powersafe().load(Ordering::SeqCst);
    let overwrite = if powersafe { ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE } else { 0 };
    overwrite | ffi::SQLITE_IOCAP_SUBPAGE_READ
}

unsafe extern "C" fn x_shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    region_bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes an open file and a place for the answer.
    unsafe {
        *out = ptr::null_mut();
        let mapped = open_file(file).shm_map(region as usize, region_bytes as usize, extend != 0);
        code(mapped.map(|address| *out = address.map_or(ptr::null_mut(), |at| at.as_ptr())))
    }
}

unsafe extern "C" fn x_shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite passes an open file.
    let file = unsafe { open_file(file) };
    assert!(first >= 0 && count > 0 && first + count <= ffi::SQLITE_SHM_NLOCK, "eight slots");
    let mask = (((1_u16 << count) - 1) << first) as u8;
    code(if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        file.shm_unlock(mask)
    } else {
        file.shm_lock(mask, flags & ffi::SQLITE_SHM_EXCLUSIVE != 0)
    })
}

unsafe extern "C" fn x_shm_barrier(_file: *mut ffi::sqlite3_file) {
    fence(Ordering::SeqCst);
}

unsafe extern "C" fn x_shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    unsafe { open_file(file) }.shm_unmap(delete != 0);
    ffi::SQLITE_OK
}
