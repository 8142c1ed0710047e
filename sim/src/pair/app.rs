//! The application of a host.

use super::node::{APP, PENDING};
use super::world::{Entry, MS, World};
use crate::ring0::Violation;
use crate::ring0::app::{PATH, Work};
use crate::ring0::sqlite::{SqlErrorKind, SqlResult, Sqlite as _};
use crate::trace::Kind;

impl World {
    /// The first host's application has written before anybody replicates, and has ended.
    pub(super) fn has_written_before(&mut self) -> Result<(), Violation> {
        let node = &mut self.nodes[0];
        let write = || {
            let mut connection = node.model.open(APP, PATH)?;
            connection.prepare(512, true)?;
            connection.begin()?;
            let number = connection.number()?;
            connection.work(Work::Insert { rows: 20, bytes: 180 }, number + 1)?;
            connection.commit()?;
            connection.close()
        };
        let written: SqlResult<()> = write();
        written.map_err(|error| Violation::new("application", error.to_string()))?;
        node.truth.committed(&node.disk(), PATH, PENDING);
        node.end_application();
        Ok(())
    }

    /// One transaction of the application.
    pub(super) fn app_step(&mut self, host: usize) -> Result<(), Violation> {
        let n = self.number();
        let (dice, rests, shrinks) = (self.dice, self.rests(), self.shrinks);
        let node = &mut self.nodes[host];
        if !node.active || self.now >= rests {
            return Ok(());
        }
        let work = match dice.draw("app", "work", n) % 5 {
            0 => Work::Update { of: 3 },
            1 => Work::Delete { of: 5 },
            _ => Work::Insert { rows: dice.range("app", "rows", n, 1, 5) as u32, bytes: 180 },
        };
        let mode = *dice.pick("app", "mode", n, &["PASSIVE", "RESTART", "TRUNCATE"]);
        let mut step = || {
            if node.connection.is_none() {
                let mut connection = node.model.open(APP, PATH)?;
                connection.prepare(512, true)?;
                node.connection = Some(connection);
            }
            let connection = node.connection.as_mut().expect("opened above");
            if !connection.is_autocommit() {
                connection.rollback()?;
            }
            connection.begin()?;
            let number = connection.number()?;
            connection.work(work, number + 1)?;
            connection.commit()?;
            if shrinks && dice.chance("app", "vacuum", n, 1, 12) {
                let _ = connection.vacuum();
            }
            if dice.chance("app", "checkpoint", n, 1, 12) {
                let _ = connection.checkpoint(mode);
            }
            if dice.chance("app", "closes", n, 1, 30)
                && let Some(connection) = node.connection.take()
            {
                let _ = connection.close();
            }
            Ok(())
        };
        let done: SqlResult<()> = step();
        let (run, disk) = (node.run, node.disk());
        let wait = match &done {
            Ok(()) => {
                node.truth.committed(&disk, PATH, PENDING);
                self.summary.commits += 1;
                if !self.is_troubled() {
                    self.writes_since_heal.get_or_insert(self.now);
                }
                self.draw_wait("app", 2_000, 3_000_000)
            }
            Err(error) if error.kind == SqlErrorKind::Busy => 2 * MS,
            Err(error) => return Err(Violation::new("application", error.to_string())),
        };
        self.note(host, Kind::Commit, format_args!("{work:?}: {done:?}"));
        self.later(wait, Entry::App(host, run));
        let told = self.draw_wait("event", 100, 2_000);
        self.later(told, Entry::Changed(host, run));
        Ok(())
    }
}
