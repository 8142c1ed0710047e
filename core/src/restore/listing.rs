//! Listing a replica so that nothing can slip through.
//!
//! A compactor writes a higher level before it deletes from a lower one. So levels are listed
//! one after the other in ascending order: a file that is gone when its level is listed has been
//! covered before that, and what covers it is seen later. Listing them at once would be faster
//! and could show an older latest state without any gap.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::ids::{Level, TxidRange};
use crate::machine::{Listed, StoreRequest};

/// Entries asked for at once; what S3 gives at the most.
const PAGE_ENTRIES: u32 = 1000;

/// A listing under way.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Lister {
    level: u8,
    after: Option<TxidRange>,
    found: Vec<Listed>,
}

impl Lister {
    /// What to ask next; `None` once all is listed.
    pub(crate) fn request(&self) -> Option<StoreRequest> {
        let level = Level::new(self.level)?;
        Some(StoreRequest::List { level, after: self.after, limit: PAGE_ENTRIES })
    }

    /// Takes the answer.
    pub(crate) fn take(&mut self, entries: Vec<Listed>, more: bool) -> Result<(), String> {
        for entry in &entries {
            let range = entry.object.range;
            if entry.object.level.get() != self.level || self.after.is_some_and(|after| range <= after) {
                return Err(format!(
                    "the listing of level {} holds {} out of its order",
                    self.level, entry.object
                ));
            }
            self.after = Some(range);
        }
        if more && entries.is_empty() {
            return Err(format!("the listing of level {} promises more and gives none", self.level));
        }
        self.found.extend(entries);
        if !more {
            self.level += 1;
            self.after = None;
        }
        Ok(())
    }

    pub(crate) fn into_found(self) -> Vec<Listed> {
        self.found
    }
}
