//! Listing the objects of this layout, page by page.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{LegacyListed, LegacyObject};
use crate::ids::Now;
use crate::machine::{Actions, Exit, Fact, Severity, StoreRequest};
use crate::reading::Flight;

/// Entries asked for at once; what S3 gives at the most.
const PAGE_ENTRIES: u32 = 1000;

/// How often a replica is listed again before that is given up.
const RELISTS_MAX: u32 = 5;

/// The listings of one replica: how many there were, and the one under way.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct LegacyListings {
    count: u32,
    after: Option<LegacyObject>,
    found: Vec<LegacyListed>,
}

impl LegacyListings {
    /// Begins a listing; `key` is what its requests are for.
    pub(super) fn begin<K: Copy>(&mut self, now: Now, key: K, flight: &mut Flight<K>, out: &mut Actions) {
        *self = LegacyListings { count: self.count + 1, ..LegacyListings::default() };
        flight.send(now, key, self.request(), out);
    }

    /// Takes a page and asks for the next one under `key`, or gives what was found once there is
    /// none.
    pub(super) fn take<K: Copy>(
        &mut self,
        now: Now,
        key: K,
        (entries, more): (Vec<LegacyListed>, bool),
        flight: &mut Flight<K>,
        out: &mut Actions,
    ) -> Result<Option<Vec<LegacyListed>>, Exit> {
        self.note(entries, more).map_err(|error| Exit::Failed {
            error,
            hint: "the store does not list names in order; see docs/STORAGE".into(),
        })?;
        if more {
            flight.send(now, key, self.request(), out);
            return Ok(None);
        }
        Ok(Some(core::mem::take(&mut self.found)))
    }

    /// Says that the replica is listed again because of `why`; the end, if that was done too often.
    pub(super) fn again(&self, why: &str, out: &mut Actions) -> Result<(), Exit> {
        if self.count > RELISTS_MAX {
            return Err(Exit::Failed {
                error: format!("{why}, after {} listings", self.count),
                hint: "something removes objects while they are read: stop Litestream, or its retention"
                    .into(),
            });
        }
        let text = format!("{why}; listing the replica again");
        out.notify(Severity::Info, Fact::Remark { text });
        Ok(())
    }

    /// How many have begun.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    fn request(&self) -> StoreRequest {
        StoreRequest::ListLegacy { after: self.after, limit: PAGE_ENTRIES }
    }

    /// Stores list in the order of names, which is not that of numbers.
    fn note(&mut self, entries: Vec<LegacyListed>, more: bool) -> Result<(), String> {
        if more && entries.is_empty() {
            return Err("the listing of generations promises more and gives none".into());
        }
        let mut last = self.after.map(|it| it.to_string());
        for entry in entries {
            let name = entry.object.to_string();
            if last.is_some_and(|last| name <= last) {
                return Err(format!("the listing of generations holds {name} out of its order"));
            }
            last = Some(name);
            self.after = Some(entry.object);
            self.found.push(entry);
        }
        Ok(())
    }
}
