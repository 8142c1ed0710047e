//! Keeping the process small.
//!
//! glibc gives each thread an arena of its own and keeps freed memory in it; a process that
//! encodes a segment on whichever thread is free would hold the largest segment many times over.

/// Uses one arena and returns large freed blocks to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_small() {
    unsafe extern "C" {
        fn mallopt(parameter: core::ffi::c_int, value: core::ffi::c_int) -> core::ffi::c_int;
    }
    const M_TRIM_THRESHOLD: core::ffi::c_int = -1;
    const M_MMAP_THRESHOLD: core::ffi::c_int = -3;
    const M_ARENA_MAX: core::ffi::c_int = -8;
    // SAFETY: mallopt only sets parameters of the allocator and may be called at any time.
    unsafe {
        mallopt(M_ARENA_MAX, 2);
        mallopt(M_TRIM_THRESHOLD, 1 << 20);
        mallopt(M_MMAP_THRESHOLD, 8 << 20);
    }
}

/// Returns everything that is free to the system; for moments after which nothing happens for
/// long.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> core::ffi::c_int;
    }
    // SAFETY: malloc_trim takes the allocator's own locks and may be called at any time.
    unsafe {
        malloc_trim(0);
    }
}

/// Nothing to set here.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_small() {}

/// Nothing to give back here.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
