//! The two lock tables of a database: the five levels on the file, the eight slots on the
//! wal-index.
//!
//! Locks belong to connections, which is what SQLite's unix VFS makes of POSIX locks that
//! belong to processes. Its weakness is not modelled: here a stray `close` drops nothing.
//! Tables are short lists, for a database rarely has more than a few connections.

/// Who holds a lock: a connection of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) process: u64,
    pub(crate) handle: u64,
}

/// How much of a database file a connection holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    None,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

#[derive(Debug, Default)]
pub(crate) struct FileLocks {
    held: Vec<(Owner, Level)>,
}

impl FileLocks {
    pub(crate) fn level(&self, owner: Owner) -> Level {
        self.held.iter().find(|(who, _)| *who == owner).map_or(Level::None, |(_, level)| *level)
    }

    /// Whether any connection intends to write.
    pub(crate) fn is_reserved(&self) -> bool {
        self.held.iter().any(|(_, level)| *level >= Level::Reserved)
    }

    /// Raise the level of `owner`; false means busy. A writer that cannot get EXCLUSIVE for
    /// the readers in its way keeps PENDING, which lets no new reader in.
    pub(crate) fn acquire(&mut self, owner: Owner, want: Level) -> bool {
        let mine = self.level(owner);
        if mine >= want {
            return true;
        }
        let others = self.held.iter().filter(|(who, _)| *who != owner);
        let highest = others.map(|(_, level)| *level).max().unwrap_or(Level::None);
        let granted = match want {
            Level::None => true,
            Level::Shared => highest < Level::Pending,
            Level::Reserved | Level::Pending => highest < Level::Reserved,
            Level::Exclusive => {
                if highest < Level::Reserved && mine >= Level::Reserved {
                    self.set(owner, Level::Pending);
                }
                highest == Level::None
            }
        };
        if granted {
            self.set(owner, want);
        }
        granted
    }

    /// Lower the level of `owner`.
    pub(crate) fn release(&mut self, owner: Owner, to: Level) {
        if self.level(owner) > to {
            self.set(owner, to);
        }
    }

    pub(crate) fn drop_process(&mut self, process: u64) {
        self.held.retain(|(who, _)| who.process != process);
    }

    fn set(&mut self, owner: Owner, level: Level) {
        self.held.retain(|(who, _)| *who != owner);
        if level > Level::None {
            self.held.push((owner, level));
        }
    }
}

/// The slots of read marks: everything from `WAL_READ_LOCK(0)` on.
const READ_SLOTS: u8 = 0b1111_1000;

#[derive(Debug)]
struct Slots {
    owner: Owner,
    shared: u8,
    exclusive: u8,
}

#[derive(Debug, Default)]
pub(crate) struct ShmLocks {
    held: Vec<Slots>,
}

impl ShmLocks {
    /// Take the slots in `mask`; false means busy, and nothing was taken. A connection stands
    /// in its own way, too: there is no going from shared to exclusive or back.
    pub(crate) fn acquire(&mut self, owner: Owner, mask: u8, exclusive: bool) -> bool {
        let in_the_way = self.held.iter().any(|slots| {
            let blocking = if exclusive { slots.exclusive | slots.shared } else { slots.exclusive };
            blocking & mask != 0
        });
        if in_the_way {
            return false;
        }
        let index = match self.held.iter().position(|slots| slots.owner == owner) {
            Some(index) => index,
            None => {
                self.held.push(Slots { owner, shared: 0, exclusive: 0 });
                self.held.len() - 1
            }
        };
        let mine = &mut self.held[index];
        if exclusive {
            mine.exclusive |= mask;
        } else {
            mine.shared |= mask;
        }
        true
    }

    pub(crate) fn release(&mut self, owner: Owner, mask: u8) {
        if let Some(mine) = self.held.iter_mut().find(|slots| slots.owner == owner) {
            mine.shared &= !mask;
            mine.exclusive &= !mask;
        }
    }

    /// Forget a connection that unmaps the wal-index.
    pub(crate) fn drop_handle(&mut self, owner: Owner) {
        self.held.retain(|slots| slots.owner != owner);
    }

    pub(crate) fn drop_process(&mut self, process: u64) {
        self.held.retain(|slots| slots.owner.process != process);
    }

    /// Whether another process holds a read mark.
    pub(crate) fn has_external_reader(&self, process: u64) -> bool {
        self.held
            .iter()
            .any(|slots| slots.owner.process != process && (slots.shared | slots.exclusive) & READ_SLOTS != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(handle: u64) -> Owner {
        Owner { process: handle, handle }
    }

    #[test]
    fn a_writer_waits_for_readers_behind_pending() {
        let mut locks = FileLocks::default();
        let (reader, writer, late) = (owner(1), owner(2), owner(3));
        assert!(locks.acquire(reader, Level::Shared));
        assert!(locks.acquire(writer, Level::Shared));
        assert!(locks.acquire(writer, Level::Reserved));
        assert!(!locks.acquire(reader, Level::Reserved));
        assert!(!locks.acquire(writer, Level::Exclusive));
        assert_eq!(locks.level(writer), Level::Pending);
        assert!(!locks.acquire(late, Level::Shared), "pending keeps new readers out");
        locks.release(reader, Level::None);
        assert!(locks.acquire(writer, Level::Exclusive));
        locks.drop_process(writer.process);
        assert!(!locks.is_reserved());
    }

    #[test]
    fn exclusive_from_shared_takes_no_pending_when_it_fails() {
        let mut locks = FileLocks::default();
        assert!(locks.acquire(owner(1), Level::Shared));
        assert!(locks.acquire(owner(2), Level::Shared));
        assert!(!locks.acquire(owner(1), Level::Exclusive));
        assert_eq!(locks.level(owner(1)), Level::Shared);
    }

    #[test]
    fn slots_exclude_each_other_one_by_one() {
        let mut locks = ShmLocks::default();
        assert!(locks.acquire(owner(1), 0b1000, false));
        assert!(locks.acquire(owner(2), 0b1000, false));
        assert!(!locks.acquire(owner(3), 0b11000, true));
        assert!(locks.acquire(owner(3), 0b10000, true), "a refused lock took nothing");
        assert!(locks.has_external_reader(3));
        assert!(!locks.acquire(owner(1), 0b1000, true), "not even its own");
        locks.release(owner(1), 0b1000);
        locks.drop_process(2);
        assert!(locks.acquire(owner(3), 0b1000, true));
        assert!(!locks.has_external_reader(3));
    }
}
