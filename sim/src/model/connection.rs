//! A connection of the application to a database of the model.

use std::rc::Rc;

use super::code::Code;
use super::machine::{Machine, Process};
use super::pager::{Holds, Pager};
use super::rows;
use super::wal::{Mode, Synchronous};
use crate::ring0::app::{self, Work};
use crate::ring0::sqlite::{Connection, Counts, SqlResult};

/// One connection.
pub(super) struct ModelConnection {
    process: Rc<Process>,
    pager: Pager,
    in_transaction: bool,
    /// Whether it has read the schema since it was opened, or since its last `VACUUM`. Most
    /// pragmas read it first, and so take a snapshot for an instant.
    knows_schema: bool,
}

impl ModelConnection {
    pub(super) fn open(machine: &Rc<Machine>, process: Rc<Process>, path: &str) -> Result<Self, Code> {
        let pager = Pager::open(machine, &process, path, true)?;
        Ok(ModelConnection { process, pager, in_transaction: false, knows_schema: false })
    }

    /// Does something in the snapshot that is held, or in one of its own.
    fn read<T>(&mut self, what: impl FnOnce(&mut Pager) -> Result<T, Code>) -> Result<T, Code> {
        let own = self.pager.holds == Holds::Nothing;
        self.pager.begin_read()?;
        let done = what(&mut self.pager);
        if own {
            self.pager.end_read();
        }
        done
    }

    fn read_schema(&mut self) -> Result<(), Code> {
        if !self.knows_schema {
            self.read(|_| Ok(()))?;
            self.knows_schema = true;
        }
        Ok(())
    }

    /// A whole write transaction.
    fn write(&mut self, what: impl FnOnce(&mut Pager) -> Result<(), Code>) -> Result<(), Code> {
        if self.in_transaction {
            return Err(Code::Error("cannot start a transaction within a transaction"));
        }
        self.pager.begin_write()?;
        let done = what(&mut self.pager).and_then(|()| self.pager.commit());
        if done.is_err() && self.pager.holds == Holds::WriteLock {
            self.pager.rollback();
        }
        done
    }
}

impl Connection for ModelConnection {
    fn prepare(&mut self, page_bytes: u32, durable: bool) -> SqlResult<()> {
        let pages = self.read(|pager| Ok(pager.pages()))?;
        if pages == 0 {
            self.pager.page_bytes = page_bytes as usize;
        }
        if !self.pager.wal_mode {
            self.enter_wal_mode()?;
        }
        self.knows_schema = true;
        self.pager.synchronous = if durable { Synchronous::Extra } else { Synchronous::Normal };
        Ok(self.write(rows::create)?)
    }

    fn set_autocheckpoint(&mut self, pages: u32) -> SqlResult<()> {
        self.pager.autocheckpoint = pages;
        Ok(())
    }

    fn begin(&mut self) -> SqlResult<()> {
        if self.in_transaction {
            return Err(Code::Error("cannot start a transaction within a transaction").into());
        }
        self.pager.begin_write()?;
        self.in_transaction = true;
        Ok(())
    }

    fn begin_snapshot(&mut self) -> SqlResult<()> {
        self.in_transaction = true;
        self.pager.begin_read()?;
        rows::number(&mut self.pager)?;
        Ok(())
    }

    fn number(&mut self) -> SqlResult<i64> {
        self.knows_schema = true;
        Ok(self.read(rows::number)?)
    }

    fn work(&mut self, work: Work, n: i64) -> SqlResult<()> {
        let done = rows::work(&mut self.pager, work, n);
        if done.is_err() {
            self.pager.rollback();
            self.in_transaction = false;
        }
        Ok(done?)
    }

    fn fill(&mut self, number: i64) -> SqlResult<()> {
        self.write(|pager| rows::insert(pager, 2, 700))?;
        Ok(self.write(|pager| rows::set_number(pager, number))?)
    }

    fn undo_some(&mut self) -> SqlResult<()> {
        unreachable!("no plan of the model has a savepoint")
    }

    fn set_synchronous(&mut self, mode: app::Synchronous) -> SqlResult<()> {
        self.pager.synchronous = match mode {
            app::Synchronous::Off => Synchronous::Off,
            app::Synchronous::Normal => Synchronous::Normal,
            app::Synchronous::Full => Synchronous::Full,
        };
        Ok(())
    }

    fn commit(&mut self) -> SqlResult<()> {
        if !self.in_transaction {
            return Err(Code::Error("cannot commit - no transaction is active").into());
        }
        let done = self.pager.commit();
        self.in_transaction = self.pager.holds == Holds::WriteLock;
        Ok(done?)
    }

    fn rollback(&mut self) -> SqlResult<()> {
        if !std::mem::take(&mut self.in_transaction) {
            return Err(Code::Error("cannot rollback - no transaction is active").into());
        }
        self.pager.rollback();
        Ok(())
    }

    fn vacuum(&mut self) -> SqlResult<()> {
        self.knows_schema = false;
        Ok(self.write(|pager| {
            let (total, number) = (rows::total(pager)?, rows::number(pager)?);
            rows::build(pager, total, number)
        })?)
    }

    fn vacuum_into(&mut self, path: &str) -> SqlResult<()> {
        self.knows_schema = false;
        let page_bytes = self.pager.page_bytes;
        let (total, number) = self.read(|pager| Ok((rows::total(pager)?, rows::number(pager)?)))?;
        let mut copy = Pager::open(&self.pager.machine, &self.process, path, true)?;
        copy.begin_write()?;
        if copy.pages() > 0 {
            return Err(Code::Error("output file already exists").into());
        }
        copy.page_bytes = page_bytes;
        let built = copy.lay_out().and_then(|()| rows::build(&mut copy, total, number));
        Ok(built.and_then(|()| copy.commit())?)
    }

    fn checkpoint(&mut self, mode: &str) -> SqlResult<Counts> {
        self.read_schema()?;
        match self.pager.checkpoint(Mode::named(mode)) {
            Err(Code::Busy) => Ok(Counts { busy: true, log: -1, backfilled: -1 }),
            done => Ok(done?),
        }
    }

    fn leave_wal_mode(&mut self) -> SqlResult<bool> {
        self.read_schema()?;
        self.pager.synchronous = Synchronous::Extra;
        if self.pager.wal_mode {
            self.pager.set_wal_mode(false)?;
        }
        Ok(true)
    }

    fn enter_wal_mode(&mut self) -> SqlResult<()> {
        self.read_schema()?;
        if !self.pager.wal_mode {
            self.pager.set_wal_mode(true)?;
        }
        Ok(())
    }

    fn set_page_size(&mut self, page_bytes: u32) -> SqlResult<()> {
        self.knows_schema = false;
        Ok(self.write(|pager| {
            let (total, number) = (rows::total(pager)?, rows::number(pager)?);
            if pager.wal.is_none() && pager.page_bytes != page_bytes as usize {
                pager.set_page_bytes(page_bytes as usize)?;
            }
            rows::build(pager, total, number)
        })?)
    }

    fn is_autocommit(&self) -> bool {
        !self.in_transaction
    }

    fn integrity(&mut self) -> SqlResult<String> {
        Ok(self.read(rows::integrity)?)
    }

    fn total(&mut self) -> SqlResult<u64> {
        Ok(self.read(rows::total)?)
    }

    fn traces(&mut self) -> SqlResult<i64> {
        Ok(self.read(rows::traces)?)
    }

    fn close(mut self: Box<Self>) -> SqlResult<()> {
        // As with SQLite, a checkpoint that fails at the end does not make the close fail.
        let _ = self.pager.close();
        Ok(())
    }
}
