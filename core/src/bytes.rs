//! Reading big-endian fields at fixed places.
//!
//! Both formats, SQLite's WAL and LTX, are big-endian. Callers hold arrays or slices whose
//! length they have checked, so an index out of range here is a bug and panics.

/// The big-endian u16 at `at`.
pub(crate) fn be_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The big-endian u32 at `at`.
pub(crate) fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The big-endian u64 at `at`.
pub(crate) fn be_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be_u32(bytes, at)) << 32 | u64::from(be_u32(bytes, at + 4))
}
