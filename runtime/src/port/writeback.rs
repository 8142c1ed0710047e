//! Beginning to write a file to the disk before it is synced.
//!
//! A restore ends with a sync for which it has nothing else to do. So as soon as a stretch of the file is
//! complete the kernel is asked to begin with it, and the sync finds little left.

/// Lets the kernel begin to write these bytes to the disk. A hint: whoever does not take it loses nothing.
///
/// Not `posix_fadvise` with `DONTNEED`, which begins the same and then tries to drop the pages: it finds
/// them dirty, and waits for every processor to empty its lists before it tries again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn begin(file: &impl std::os::fd::AsFd, offset: u64, len: u64) {
    use std::os::fd::AsRawFd;
    unsafe extern "C" {
        fn sync_file_range(
            fd: core::ffi::c_int,
            offset: i64,
            len: i64,
            flags: core::ffi::c_uint,
        ) -> core::ffi::c_int;
    }
    const SYNC_FILE_RANGE_WRITE: core::ffi::c_uint = 2;
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: no memory is passed, and the descriptor is open for as long as it is borrowed.
    unsafe {
        sync_file_range(file.as_fd().as_raw_fd(), offset, len, SYNC_FILE_RANGE_WRITE);
    }
}

/// The same, with what other systems have.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn begin(file: &impl std::os::fd::AsFd, offset: u64, len: u64) {
    use rustix::fs::{Advice, fadvise};
    let _ = fadvise(file, offset, std::num::NonZeroU64::new(len), Advice::DontNeed);
}
