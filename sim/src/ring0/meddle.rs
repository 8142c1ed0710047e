//! What the application does, and what it does in between.
//!
//! The script's operations come at their times, which seldom are those that matter: just after the
//! files were looked at and before they are opened, between the seal and the end of closing. So in
//! some runs the application also acts right before a request of ours to the source, and does what
//! makes the answer before it an old one.

use driftless_core::machine::SourceRequest;

use super::app::{AppEnd, AppOp, PATH, Work};
use super::violation::Violation;
use super::world::World;
use crate::trace::{Kind, node};

/// The application acts between two steps of ours.
pub(super) const MEDDLES: &str = "application: acts between two steps";

/// What it may do before a request, and once in how many of them it does.
fn temptation(request: &SourceRequest) -> (&'static [AppOp], u64) {
    const INSERT: AppOp = AppOp::Write(Work::Insert { rows: 2, bytes: 300 });
    match request {
        SourceRequest::Stat | SourceRequest::ReadHeader | SourceRequest::Open | SourceRequest::HasMoved => (
            &[
                AppOp::RenameOver { page_bytes: 512 },
                AppOp::Recreate { page_bytes: 1_024 },
                AppOp::PageSize(4_096),
                AppOp::PageSize(512),
                AppOp::Rollbackward,
                INSERT,
            ],
            8,
        ),
        SourceRequest::Close { .. } => (
            &[
                INSERT,
                AppOp::FailCommit(Work::Insert { rows: 1, bytes: 100 }),
                AppOp::RenameOver { page_bytes: 512 },
                AppOp::RenameOver { page_bytes: 512 },
            ],
            3,
        ),
        SourceRequest::BeginRead(_) | SourceRequest::EndRead(_) | SourceRequest::CheckpointPassive(_) => {
            (&[AppOp::Checkpoint("RESTART"), AppOp::Checkpoint("TRUNCATE"), INSERT, INSERT], 16)
        }
        _ => (&[INSERT, INSERT, INSERT, AppOp::Vacuum], 24),
    }
}

impl World {
    /// One operation of the application, and what is to be recorded of it.
    pub(super) fn app_acts(&mut self, op: AppOp) -> Result<AppEnd, Violation> {
        self.app_steps += 1;
        let end = self.app.perform(self.sqlite.as_ref(), op)?;
        let kind = match (&end, op) {
            (_, AppOp::Kill | AppOp::DieInCommit(_)) => Kind::Crash,
            (AppEnd::Committed, _) => Kind::Commit,
            (_, AppOp::Checkpoint(_)) => Kind::Checkpoint,
            _ => Kind::Operation,
        };
        self.note(node::APP, kind, format_args!("{op:?}: {end:?}"));
        self.plant_after_app(op, &end);
        self.hit_by_app(op, &end);
        let pending_byte = self.plan.config.pending_byte;
        let disk = self.sqlite.disk().clone();
        match &end {
            AppEnd::Committed => self.truth.committed(&disk, PATH, pending_byte),
            AppEnd::Perhaps | AppEnd::Done | AppEnd::Busy => self.truth.perhaps(&disk, PATH, pending_byte),
            AppEnd::Failed(_) => self.truth.failed(&disk, PATH, pending_byte),
        }
        self.commits.note(self.now().mono, self.truth.owed());
        // Whoever removes a database after a stop was asked for takes away what was owed.
        if self.nothing_is_owed() {
            self.owed = 0;
        }
        self.look_for_cold();
        self.note_changes(true);
        Ok(end)
    }

    /// Before a request to the source: perhaps the application acts. Once all faults have ended it
    /// still may, for a moment and where nothing but an event tells of it.
    pub(super) fn meddle(&mut self, request: &SourceRequest) -> Result<(), Violation> {
        let (ops, of) = temptation(request);
        let n = self.summary.actions;
        // Its place in a scenario tells what it does.
        let op = *self.dice.pick("meddles", "op", n, ops);
        let at = format!("before {}", format!("{request:?}").split([' ', '(']).next().unwrap_or_default());
        let calm = self.healed_at.is_none_or(|healed| {
            let closes = matches!(request, SourceRequest::Close { .. }) && matches!(op, AppOp::Write(_));
            closes && !self.is_watched && self.now_ns() < healed + 60_000_000_000
        });
        let drawn = self.plan.faults.has(MEDDLES) && self.dice.chance("meddles", "", n, 1, of);
        if calm && self.sites.strikes(&at, MEDDLES, drawn) {
            self.app_acts(op)?;
        }
        Ok(())
    }

    /// Before we are told to stop: perhaps another file has just taken the place.
    pub(super) fn meddle_before_stop(&mut self) -> Result<(), Violation> {
        let drawn = self.may(MEDDLES) && self.dice.chance("meddles", "stop", self.summary.actions, 1, 3);
        if self.healed_at.is_none() && self.sites.strikes("before a stop", MEDDLES, drawn) {
            self.app_acts(AppOp::RenameOver { page_bytes: 1_024 })?;
        }
        Ok(())
    }
}
