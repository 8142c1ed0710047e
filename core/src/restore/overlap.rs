//! Fetching while the survey goes on.
//!
//! The survey reads headers and page indexes from the newest file to the oldest, and a claim is final: what
//! a file provides no older file can change. So its pages need not wait until the last index has been
//! read, and a small file that was read whole for its index is decoded at once and let go of: it is read
//! once, and the disk has something to do from the beginning.
//!
//! The output is created as soon as the newest header tells that there is something to build. Where a
//! killed restore has left something in it ([`resume`](super::resume)), or a copy stands in the target's
//! place ([`present`](super::present)), which of the pages are wanted is known only after the survey, and
//! nothing is fetched before its end.
//!
//! Should the survey end badly, or find a damaged file to go around, the output is discarded as it is after
//! any other failure.

use super::fetch::Fetch;
use super::machine::{Phase, Restorer, Work};
use super::present::Presence;
use crate::ids::Now;
use crate::ltx::{Codec, DictionaryId};
use crate::machine::{Actions, OutputRequest, Request};

/// How far the output is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Early {
    /// It is not created before the survey has ended.
    Unasked,
    Creating,
    /// It is there; whether anything was left in it is asked.
    Looking,
    /// It is empty, or what is in it is being used: pages may be fetched.
    Open,
    /// A killed restore has left something, which is as it was.
    Left,
}

impl Restorer {
    /// Creates the output, if pages may be fetched while the survey goes on.
    pub(super) fn begin_early(&mut self, out: &mut Actions) {
        if self.config.dry_run || self.presence != Presence::Useless || self.early != Early::Unasked {
            return;
        }
        self.early = Early::Creating;
        self.ask_create(out);
    }

    /// The output was created.
    pub(super) fn output_created(&mut self, now: Now, out: &mut Actions) {
        match self.early {
            Early::Creating if self.resumes() => {
                self.early = Early::Looking;
                let request = OutputRequest::ReadBuilt { offset: 0, len: 1 };
                self.submit(Work::Recall, Request::Output(request), out);
            }
            Early::Creating => self.open_early(now, out),
            _ => self.begin_recall(now, out),
        }
    }

    /// Whether anything was left in it.
    pub(super) fn looked_early(&mut self, now: Now, anything: bool, out: &mut Actions) {
        if !anything {
            return self.open_early(now, out);
        }
        self.early = Early::Left;
        if self.phase == Phase::Create {
            self.begin_recall(now, out);
        }
    }

    fn open_early(&mut self, now: Now, out: &mut Actions) {
        self.early = Early::Open;
        let header = self.target_header().expect("the output is created when the newest header is known");
        self.fetch = Some(Fetch::new(header.commit.into(), self.files.len()));
        match self.phase {
            Phase::Create => self.begin_fetch(now, out),
            _ => self.fetch_claimed(now, out),
        }
    }

    /// Fetches what files have claimed since.
    pub(super) fn fetch_claimed(&mut self, now: Now, out: &mut Actions) {
        let Phase::Survey(survey) = &self.phase else { return };
        let lowest = survey.claimed_down_to();
        if self.fetch.is_none() {
            return;
        }
        if let Some(lacking) = self.add_claimed(lowest) {
            self.ask_dictionary(now, lacking, out);
        }
        self.pump_fetch(now, out);
    }

    /// Adds the tasks of all files from `lowest` on. Ends before one whose dictionary is not at hand.
    pub(super) fn add_claimed(&mut self, lowest: usize) -> Option<DictionaryId> {
        let fetch = self.fetch.as_mut().expect("files are fetched into an output");
        let newest = self.files.len() - 1;
        while fetch.down_to > lowest {
            let at = fetch.down_to - 1;
            let file = &mut self.files[at];
            if let Some(Codec::Zstd(Some(id))) = file.header.map(|header| header.codec)
                && !self.dictionaries.has(id)
            {
                return Some(id);
            }
            let tasks = file.tasks(at, at == newest);
            file.pending = tasks.len();
            if file.body.is_some() && file.ranged {
                fetch.at_hand += tasks.len();
            }
            fetch.tasks.extend(tasks);
            fetch.down_to = at;
        }
        None
    }

    /// Whether enough has been read to be decoded.
    pub(super) fn is_sated(&self) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| fetch.at_hand >= 2 * self.config.decodes())
    }

    /// Lets go of a file's body with its last task.
    pub(super) fn task_ended(&mut self, at: usize) {
        let file = &mut self.files[at];
        file.pending = file.pending.saturating_sub(1);
        if file.pending == 0 && file.body.take().is_some() {
            let len = file.listed.len;
            if let Phase::Survey(survey) = &mut self.phase {
                survey.release(len);
            }
        }
    }
}
