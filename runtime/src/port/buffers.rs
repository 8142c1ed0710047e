//! Buffers for reading, used again and again.
//!
//! A fresh buffer is paid for twice: the allocator gives large ones back to the system, so that
//! each read faults in every page of it, and it is zeroed before it is overwritten. Under a
//! writer at full speed that was a quarter of all processor time (`docs/BENCHMARKS.md`). So a
//! few buffers go round: from here to a read, with its answer to the machine, and back from the
//! driver when the machine has let go of them.
//!
//! They belong to the process and not to a database, so that their number does not grow with
//! those, and an idle process keeps none ([`clear`]).

use std::sync::{Mutex, MutexGuard, PoisonError};

use driftless_core::machine::Chunk;

/// How many are kept. Those beyond it are freed; more are seldom read into at once.
const KEPT_MAX: usize = 2;

static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn free() -> MutexGuard<'static, Vec<Vec<u8>>> {
    // Every change is a single step, so a panic elsewhere leaves it usable.
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer of `len` bytes whose content means nothing.
pub fn take(len: usize) -> Vec<u8> {
    let mut buffer = free().pop().unwrap_or_default();
    buffer.resize(len, 0);
    buffer
}

/// Keeps the chunk's buffer for the next read, unless somebody still holds the chunk.
pub fn give(chunk: Chunk) {
    let Some(buffer) = chunk.into_buffer() else { return };
    let mut free = free();
    if free.len() < KEPT_MAX {
        free.push(buffer);
    }
}

/// Frees what is kept; for moments after which nothing happens for long.
pub fn clear() {
    *free() = Vec::new();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_only_when_nobody_holds_it() {
        clear();
        let chunk = Chunk::from(vec![7; 4096]);
        let (at, held) = (chunk.as_ptr(), chunk.slice(0, 1));
        give(chunk.clone());
        give(chunk);
        assert_eq!(*held, [7], "what is held stays as it is");
        give(held);
        let again = take(4096);
        assert_eq!((again.as_ptr(), again.len()), (at, 4096), "the same memory");
        assert_eq!(take(10), [0; 10]);
        (0..2 * KEPT_MAX).for_each(|_| give(Chunk::from(vec![0; 8])));
        assert_eq!(free().len(), KEPT_MAX);
        clear();
        assert!(free().is_empty());
    }
}
