//! The wal-index: memory that several simulated processes map, and that one of them can lose.
//!
//! Heap memory would be shared by all connections, the dead ones too: a connection of a
//! killed process that is closed later rolls back its transaction, and clears hash slots of a
//! wal-index that the living depend on. So each process maps a real shared memory object by
//! itself, at its own addresses. When it is killed, private copies are put in place of its
//! mappings: what the ghost still writes reaches nobody.
//!
//! An object lives as long as any process maps it. The unix VFS finds out who comes first by
//! a lock on the "dead man's switch" byte and then truncates the `-shm` file; a new object,
//! which is all zero, says the same. The `-shm` file on the disk is only a name: it stays
//! empty.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::locks::ShmLocks;
use crate::disk::{DiskFile, lock};

/// The size of a region of the wal-index, in bytes. SQLite asks for no other.
pub(super) const REGION_BYTES: usize = 32 * 1024;

/// A region mapped into one process.
struct Mapping(NonNull<c_void>);

// SAFETY: a mapping is an address range owned by this value. Its bytes are only accessed by
// SQLite, through raw pointers, under the locking protocol of the wal-index.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives out no reference to the bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn shared(memory: &OwnedFd, region: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let offset = (region * REGION_BYTES) as u64;
        // SAFETY: a null hint lets the kernel choose addresses that nothing else uses.
        let address =
            unsafe { mmap(ptr::null_mut(), REGION_BYTES, protection, MapFlags::SHARED, memory, offset)? };
        Ok(Self(NonNull::new(address).expect("mmap returns no null")))
    }

    /// Cut the region off from the other processes; the bytes stay as they are now.
    fn isolate(&self) -> io::Result<()> {
        let mut copy = vec![0_u8; REGION_BYTES];
        // SAFETY: `self.0` is a mapping of `REGION_BYTES` readable bytes owned by `self`, and
        // `copy` is as long. Other threads may write meanwhile, as they may while SQLite reads.
        unsafe { ptr::copy_nonoverlapping(self.0.as_ptr().cast(), copy.as_mut_ptr(), REGION_BYTES) };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: FIXED replaces exactly the range that `self` owns; pointers that SQLite kept
        // into it stay valid. The copy back stays within the same range.
        unsafe {
            mmap_anonymous(self.0.as_ptr(), REGION_BYTES, protection, flags)?;
            ptr::copy_nonoverlapping(copy.as_ptr(), self.0.as_ptr().cast(), REGION_BYTES);
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `shared` and is unmapped once, here. Connections
        // that know its address hold the `ProcessMap` that owns it until they unmap or close.
        let unmapped = unsafe { munmap(self.0.as_ptr(), REGION_BYTES) };
        debug_assert!(unmapped.is_ok(), "a mapping was unmapped twice");
    }
}

/// The regions that one process has mapped; each of its connections holds this.
#[derive(Default)]
pub(super) struct ProcessMap {
    regions: Mutex<Vec<Mapping>>,
}

/// The wal-index of one database, for all processes.
pub(super) struct ShmNode {
    /// Held open, so that the inode number by which processes meet is not used again.
    _file: DiskFile,
    memory: OwnedFd,
    regions: usize,
    pub(super) locks: ShmLocks,
    /// By process: its mapping and how many connections use it.
    maps: BTreeMap<u64, (Arc<ProcessMap>, u32)>,
}

impl ShmNode {
    pub(super) fn new(file: DiskFile) -> io::Result<Self> {
        let memory = memfd_create("driftless-sim-shm", MemfdFlags::CLOEXEC)?;
        Ok(Self { _file: file, memory, regions: 0, locks: ShmLocks::default(), maps: BTreeMap::new() })
    }

    /// A connection of `process` begins to use the wal-index.
    pub(super) fn join(&mut self, process: u64) -> Arc<ProcessMap> {
        let (map, users) = self.maps.entry(process).or_default();
        *users += 1;
        Arc::clone(map)
    }

    /// A connection ends its use; true if it was the last one of its process.
    pub(super) fn leave(&mut self, process: u64) -> bool {
        let Some((_, users)) = self.maps.get_mut(&process) else {
            return false;
        };
        *users -= 1;
        let last = *users == 0;
        if last {
            self.maps.remove(&process);
        }
        last
    }

    pub(super) fn is_mapped(&self) -> bool {
        !self.maps.is_empty()
    }

    /// The address of a region in a process; `None` if it does not exist and `extend` is off.
    pub(super) fn region(
        &mut self,
        map: &ProcessMap,
        region: usize,
        extend: bool,
    ) -> io::Result<Option<NonNull<c_void>>> {
        if region >= self.regions {
            if !extend {
                return Ok(None);
            }
            ftruncate(&self.memory, ((region + 1) * REGION_BYTES) as u64)?;
            self.regions = region + 1;
        }
        let mut mapped = lock(&map.regions);
        while mapped.len() <= region {
            let next = Mapping::shared(&self.memory, mapped.len())?;
            mapped.push(next);
        }
        Ok(Some(mapped[region].0))
    }

    /// The process is dead: its locks go, and what it still writes reaches nobody.
    pub(super) fn drop_process(&mut self, process: u64) {
        self.locks.drop_process(process);
        if let Some((map, _)) = self.maps.remove(&process) {
            for mapping in lock(&map.regions).iter() {
                mapping.isolate().expect("anonymous memory is to be had");
            }
        }
    }
}
