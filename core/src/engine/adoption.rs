//! An adoption that is not finished: its base does not stand on the replica yet.
//!
//! A person said that this database owns the replica from now on. What still lands there from an
//! earlier run, or from a process that is about to be fenced, does not change that: the base goes
//! behind it. It happens a bounded number of times, since a process that goes on writing there is
//! something to be told of.

use alloc::boxed::Box;
use alloc::format;

use super::Replicator;
use super::standing::Head;
use super::upload::{Segment, Streamed, Upload};
use crate::ids::Now;
use crate::ltx::LtxHeader;
use crate::machine::{Actions, Fact, Object, Severity};

/// How many segments an adoption goes behind before it is fenced.
const BEHIND_MAX: u32 = 3;

/// What an adoption has met.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Adoption {
    /// What stands where the base was to go, as it was last read.
    found: Option<LtxHeader>,
    /// Segments that it went behind.
    behind: u32,
}

/// What was to go where another's segment stands.
pub(super) enum Refused {
    Segment(Box<Segment>),
    Streamed(Box<Streamed>),
}

impl Replicator {
    /// Another's segment stands where ours was to go.
    pub(super) fn meet_foreign(
        &mut self,
        now: Now,
        mut refused: Refused,
        found: &LtxHeader,
        out: &mut Actions,
    ) {
        let (object, given_up, retry) = match &mut refused {
            Refused::Segment(segment) => (segment.object, segment.given_up, &mut segment.retry),
            Refused::Streamed(put) => (put.object, Some(put.given_up), &mut put.retry),
        };
        let Some(adoption) = self
            .adoption
            .as_mut()
            .filter(|adoption| adoption.behind < BEHIND_MAX && found.lineage != self.history.lineage)
        else {
            return self.fence(object, found, out);
        };
        // A header has no checksum of its own: it counts once two readings agree.
        let agreed = adoption.found.replace(*found) == Some(*found);
        if agreed && !self.may_land(now, given_up) {
            return self.adopt_behind(object, found, out);
        }
        if agreed {
            self.wait_for_ours(now, retry, out);
        }
        self.upload = match refused {
            Refused::Segment(segment) => Upload::AwaitRetry { segment, read_back: true },
            Refused::Streamed(put) => Upload::Settle { op: None, since: now.mono, put },
        };
    }

    fn adopt_behind(&mut self, object: Object, found: &LtxHeader, out: &mut Actions) {
        let why = format!("{object} came while the replica was being adopted");
        out.notify(Severity::Warn, Fact::Remark { text: format!("{why}: beginning behind it") });
        if let Some(adoption) = &mut self.adoption {
            adoption.behind += 1;
        }
        self.head = Some(Head { object, header: *found });
        self.stand_at_head();
        self.tried.clear();
        // The intent that the journal has is of a base that nobody will confirm.
        self.journal.bytes = u64::MAX / 4;
        self.want_base(why, true, false, false);
        self.frames_captured = self.frames_replicated;
    }
}
