//! What an application does beyond plain transactions, in runs of the full generation.

use serde::{Deserialize, Serialize};

use super::{App, AppEnd, AppOp, PATH, Sql, Sqlite, Work};
use crate::disk::Disk;

/// Another process of the application, which opens the database for one transaction.
const OTHER_PROCESS: &str = "app2";
/// From so many rows on a transaction is huge: more than memory may hold.
const HUGE_ROWS: u32 = 600;

/// `PRAGMA synchronous`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Synchronous {
    /// Nothing is synced. After a power loss the application throws its database away.
    Off,
    /// Checkpoints are; commits are not.
    Normal,
    /// Commits are.
    Full,
}

impl Synchronous {
    /// As SQL has it.
    pub const fn sql(self) -> &'static str {
        match self {
            Synchronous::Off => "OFF",
            Synchronous::Normal => "NORMAL",
            Synchronous::Full => "FULL",
        }
    }
}

impl AppOp {
    /// Its name among the hits; plain transactions and rest have none.
    pub fn name(&self) -> Option<&'static str> {
        Some(match self {
            AppOp::Write(Work::Insert { rows: HUGE_ROWS.., .. }) => "app: huge transaction",
            AppOp::Rollback => "app: rollback",
            AppOp::Vacuum => "app: vacuum",
            AppOp::Checkpoint("PASSIVE") => "app: checkpoint PASSIVE",
            AppOp::Checkpoint("FULL") => "app: checkpoint FULL",
            AppOp::Checkpoint("RESTART") => "app: checkpoint RESTART",
            AppOp::Checkpoint("TRUNCATE") => "app: checkpoint TRUNCATE",
            AppOp::ReaderBegin => "app: pinned reader",
            AppOp::Kill => "app: killed",
            AppOp::DieInCommit(_) => "app: died in a commit",
            AppOp::FailCommit(_) => "app: commit failed",
            AppOp::Rollbackward => "app: journal mode switched",
            AppOp::PageSize(_) => "app: page size changed",
            AppOp::Recreate { .. } => "app: recreated",
            AppOp::RenameOver { .. } => "app: replaced by rename",
            AppOp::RestoreBackup => "app: restored from a backup",
            AppOp::Savepoint(_) => "app: savepoint",
            AppOp::Synchronous(Synchronous::Off) => "app: synchronous OFF",
            AppOp::Synchronous(Synchronous::Normal) => "app: synchronous NORMAL",
            AppOp::Synchronous(Synchronous::Full) => "app: synchronous FULL",
            AppOp::OtherWrite(_) => "app: several connections",
            AppOp::Delete => "app: deleted",
            _ => return None,
        })
    }
}

impl App {
    /// A transaction part of which is undone.
    pub(super) fn savepoint(&mut self, sqlite: &dyn Sqlite, work: Work) -> Sql {
        self.begin(sqlite, work)?;
        let undone = self.writer().undo_some();
        if undone.is_err() {
            self.in_transaction = false;
        }
        undone?;
        self.commit()
    }

    pub(super) fn set_synchronous(&mut self, mode: Synchronous) -> Sql {
        self.durable = mode == Synchronous::Full;
        self.careless |= mode == Synchronous::Off;
        self.synchronous = Some(mode);
        self.apply_synchronous()
    }

    pub(super) fn apply_synchronous(&mut self) -> Sql {
        if let (Some(mode), Some(writer)) = (self.synchronous, &mut self.writer) {
            writer.set_synchronous(mode)?;
        }
        Ok(AppEnd::Done)
    }

    /// A transaction of another process, which then closes its connection or is killed.
    pub(super) fn other_write(&mut self, sqlite: &dyn Sqlite, work: Work) -> Sql {
        if self.writer.is_none() {
            return Ok(AppEnd::Done);
        }
        let mut other = sqlite.open(OTHER_PROCESS, PATH)?;
        other.begin()?;
        let number = other.number()?;
        if number != self.acknowledged || work == Work::Nothing {
            // A commit is in doubt: who left it behind shall look for it.
            other.rollback()?;
            other.close()?;
            return Ok(AppEnd::Done);
        }
        other.work(work, number)?;
        other.commit()?;
        (self.acknowledged, self.in_doubt, self.unsynced) = (number + 1, Vec::new(), Vec::new());
        self.others = true;
        if matches!(work, Work::Update { .. }) {
            sqlite.kill_process(OTHER_PROCESS);
        } else {
            other.close()?;
        }
        Ok(AppEnd::Committed)
    }

    pub(super) fn delete(&mut self, sqlite: &dyn Sqlite) -> Sql {
        self.close()?;
        App::delete_files(sqlite.disk());
        (self.acknowledged, self.in_doubt, self.unsynced) = (0, Vec::new(), Vec::new());
        Ok(AppEnd::Done)
    }

    /// After a power loss a database that was never synced is worth nothing. Whether it was thrown
    /// away.
    pub fn throw_away(&mut self, disk: &Disk) -> bool {
        if !self.careless {
            return false;
        }
        self.careless = self.synchronous == Some(Synchronous::Off);
        App::delete_files(disk);
        (self.acknowledged, self.in_doubt, self.unsynced) = (0, Vec::new(), Vec::new());
        // A copy that was made meanwhile was not synced either.
        (self.anything_goes, self.kept) = (false, None);
        true
    }
}
