//! The same puts once more, into the production directory store on a disk of its own.
//!
//! The store of a run is a map in memory, which forgets nothing. A directory may: a rename lives in
//! the directory above it, bytes in a cache, and power loss takes what nobody synced. So each body
//! that the store is given goes into a [`DirectoryStore`] as well, the two must agree on whether the
//! name was free, and when power fails everything that was acknowledged must be there, whole.

use std::collections::BTreeMap;

use driftless_adapters::directory::DirectoryStore;
use driftless_adapters::keys::{Key, ReplicaLayout, segment_key};
use driftless_adapters::store::{ByteRange, PutCondition, StoreError};
use driftless_core::machine::{Chunk, Object, PART_BYTES_MAX, StoreErrorKind};

use super::dice::Dice;
use super::plan::{Blow, Conditions, Plan};
use super::store::SimStore;
use super::violation::Violation;
use crate::disk::{Disk, DiskConfig, SimClock, SimFs, Unsynced};

const ROOT: &str = "/replica";

/// A directory that is given what the store is given.
pub struct Mirror {
    disk: Disk,
    store: DirectoryStore<SimFs>,
    process: u32,
    acknowledged: BTreeMap<(u8, u64, u64), (Key, Chunk)>,
    objection: Option<Violation>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mirror({} objects)", self.acknowledged.len())
    }
}

impl Mirror {
    /// An empty directory.
    pub fn new(clock: SimClock) -> Mirror {
        let disk = Disk::new(DiskConfig::default(), clock);
        let store = DirectoryStore::new(SimFs::new(disk.clone()), ROOT, 1);
        Mirror { disk, store, process: 1, acknowledged: BTreeMap::new(), objection: None }
    }

    /// A process that knows nothing of what the one before has synced.
    pub fn restart(&mut self) {
        self.process += 1;
        self.store = DirectoryStore::new(SimFs::new(self.disk.clone()), ROOT, self.process);
    }

    /// Gives it a body that the store has created, or refused because the name was taken.
    pub fn put(&mut self, object: &Object, body: &Chunk, created: bool) {
        let key = segment_key(ReplicaLayout::Directory, object.level, object.range);
        let found = match self.create(&key, body) {
            Ok(()) => true,
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => false,
            Err(error) => return self.object(format!("{key:?} cannot be put: {error}")),
        };
        if found != created {
            self.object(format!("{key:?} was there before: {}, and the directory says {}", !created, !found));
        }
        if created {
            let name = (object.level.get(), object.range.min().get(), object.range.max().get());
            self.acknowledged.insert(name, (key, body.clone()));
        }
    }

    fn create(&self, key: &Key, body: &[u8]) -> Result<(), StoreError> {
        let mut put = self.store.put_begin(key, PutCondition::IfAbsent)?;
        body.chunks(PART_BYTES_MAX).try_for_each(|part| self.store.put_write(&mut put, part))?;
        self.store.put_commit(put)
    }

    /// Takes an object away from both.
    pub fn delete(&mut self, object: &Object) {
        let key = segment_key(ReplicaLayout::Directory, object.level, object.range);
        self.acknowledged.remove(&(object.level.get(), object.range.min().get(), object.range.max().get()));
        if let Err(error) = self.store.delete(&key) {
            self.object(format!("{key:?} cannot be removed: {error}"));
        }
        // A directory may bring it back when power fails, and the store of the run does not.
        self.disk.sync_dir(&format!("{ROOT}/{}", key.directory())).expect("the disk has no faults here");
    }

    /// The machine that holds the directory loses power, and what was acknowledged is looked for.
    pub fn power_loss(&mut self, survives: impl FnMut(&Unsynced<'_>) -> bool) {
        self.disk.power_loss(survives);
        self.restart();
        let lost = self.acknowledged.values().find(|(key, body)| self.read(key).as_deref() != Some(body));
        if let Some((key, _)) = lost {
            let text = format!("{key:?} was acknowledged, and is gone or torn after power loss");
            self.object(text);
        }
    }

    fn read(&self, key: &Key) -> Option<Vec<u8>> {
        let mut get = self.store.get(key, ByteRange::ALL).ok()?;
        let mut bytes = Vec::new();
        while let Some(chunk) = self.store.get_next(&mut get).ok()? {
            bytes.extend(chunk);
        }
        Some(bytes)
    }

    fn object(&mut self, text: String) {
        self.objection.get_or_insert(Violation::new("directory", text));
    }

    /// What the directory did that the store of the run did not.
    ///
    /// # Errors
    /// When there is something.
    pub fn check(&self) -> Result<(), Violation> {
        self.objection.clone().map_or(Ok(()), Err)
    }
}

impl SimStore {
    /// The store of a plan.
    pub(super) fn of_plan(plan: &Plan, clock: &SimClock) -> SimStore {
        let mut store = SimStore::new(plan.store.page_max, plan.store.conditions == Conditions::Kept);
        store.tells_time = plan.levels.as_ref().is_some_and(|levels| levels.retain.is_some());
        // Only power loss can take something from a directory, and it refuses what is there.
        let dark = plan.crash_power || plan.blows.iter().any(|(_, it)| matches!(it, Blow::PowerLoss { .. }));
        store.mirror = (dark && store.keeps_conditions).then(|| Mirror::new(clock.clone()));
        store
    }

    /// The machine with the directory loses power as well.
    pub(super) fn power_loss(&mut self, dice: Dice, at: u64) {
        let mut n = 0;
        if let Some(mirror) = &mut self.mirror {
            mirror.power_loss(|_| {
                n += 1;
                dice.chance("mirror", "survives", at ^ n, 1, 2)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use driftless_core::ids::{Level, Txid, TxidRange};

    use super::*;

    fn object(txid: u64) -> Object {
        Object { level: Level::CAPTURES, range: TxidRange::single(Txid::new(txid).unwrap()) }
    }

    fn mirror() -> Mirror {
        let mut mirror = Mirror::new(SimClock::new(1_000_000_000_000));
        for txid in 1..4 {
            mirror.put(&object(txid), &Chunk::from(vec![txid as u8; 2_000]), true);
        }
        mirror
    }

    #[test]
    fn what_was_acknowledged_survives() {
        let mut mirror = mirror();
        mirror.put(&object(2), &Chunk::from(vec![9]), false);
        mirror.power_loss(|_| false);
        mirror.put(&object(4), &Chunk::from(vec![4]), true);
        mirror.delete(&object(1));
        mirror.power_loss(|_| true);
        assert_eq!(mirror.check(), Ok(()));
    }

    #[test]
    fn what_is_lost_or_replaced_is_found() {
        let mut lost = mirror();
        lost.disk.unlink("/replica/ltx/0/0000000000000002-0000000000000002.ltx").unwrap();
        lost.power_loss(|_| true);
        assert!(lost.check().unwrap_err().text.contains("is gone or torn"));
        let mut torn = mirror();
        assert!(torn.disk.flip("/replica/ltx/0/0000000000000003-0000000000000003.ltx", 700, 1));
        torn.power_loss(|_| true);
        assert!(torn.check().unwrap_err().text.contains("is gone or torn"));
        let mut taken = mirror();
        taken.put(&object(3), &Chunk::from(vec![9]), true);
        assert!(taken.check().unwrap_err().text.contains("the directory says"));
    }
}
