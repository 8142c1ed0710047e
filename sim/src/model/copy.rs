//! A copy that follows a replica: whole pages, written through the model's pager as SQLite's table of its own
//! pages writes them, and the position file beside.

use std::rc::Rc;

use driftless_core::ids::PageNo;
use driftless_core::machine::{Chunk, CopyError, CopyReply, CopyRequest};

use super::code::Code;
use super::machine::{Machine, Process};
use super::pager::{Holds, Pager};

/// One copy of one process.
pub struct ModelCopy {
    machine: Rc<Machine>,
    process: Rc<Process>,
    path: String,
    pager: Option<Pager>,
}

impl ModelCopy {
    pub(super) fn new(machine: &Rc<Machine>, process: Rc<Process>, path: &str) -> ModelCopy {
        ModelCopy { machine: Rc::clone(machine), process, path: path.to_owned(), pager: None }
    }

    /// Carries out a request.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn perform(&mut self, request: &CopyRequest) -> Result<CopyReply, CopyError> {
        let text = |code: Code| code.text();
        match request {
            CopyRequest::Look => {
                let there = self.machine.disk.stat(&self.path).is_ok_and(|facts| facts.size > 0);
                let position = self.machine.disk.contents(&self.position()).map(Chunk::from);
                Ok(CopyReply::Found { database: there, position })
            }
            CopyRequest::Save(bytes) => {
                self.save(bytes).map(|()| CopyReply::Done).map_err(|error| error.to_string())
            }
            CopyRequest::Open => self.open().map_err(text),
            CopyRequest::Read { first, count } => self.read(*first, *count).map_err(text),
            CopyRequest::Begin => self.pager()?.begin_write().map(|()| CopyReply::Begun(1)).map_err(text),
            CopyRequest::Write(pages) => self.write(pages).map(|()| CopyReply::Done).map_err(text),
            CopyRequest::Finish { first, cut } => {
                let first: Vec<_> = first.iter().map(|page| (PageNo::FIRST, page.clone())).collect();
                let cut = |pager: &mut Pager| cut.map_or(Ok(()), |pages| pager.set_pages(pages));
                let done = self.write(&first).and_then(|()| cut(self.pager.as_mut().ok_or(NOT_OPEN)?));
                done.map(|()| CopyReply::Done).map_err(text)
            }
            CopyRequest::Commit => self.pager()?.commit().map(|()| CopyReply::Done).map_err(text),
            CopyRequest::Close => {
                if let Some(mut pager) = self.pager.take() {
                    // As with SQLite, nobody hears of a failure.
                    let _ = pager.close();
                }
                Ok(CopyReply::Done)
            }
        }
    }

    fn position(&self) -> String {
        format!("{}-txid", self.path)
    }

    fn pager(&mut self) -> Result<&mut Pager, CopyError> {
        self.pager.as_mut().ok_or_else(|| NOT_OPEN.text())
    }

    fn save(&self, bytes: &[u8]) -> std::io::Result<()> {
        let beside = format!("{}.new", self.position());
        let file = self.machine.disk.create(&beside)?;
        file.set_len(0)?;
        file.write_all_at(bytes, 0)?;
        file.sync()?;
        self.machine.disk.rename(&beside, &self.position())?;
        self.machine.disk.sync_dir("/")
    }

    fn open(&mut self) -> Result<CopyReply, Code> {
        let mut pager = Pager::open(&self.machine, &self.process, &self.path, false)?;
        pager.begin_read()?;
        pager.end_read();
        if !pager.wal_mode {
            pager.set_wal_mode(true)?;
        }
        pager.begin_read()?;
        let (page_size, pages) = (pager.page_bytes as u32, pager.pages());
        pager.end_read();
        self.pager = Some(pager);
        // No application of the same machine runs beside a copy.
        Ok(CopyReply::Opened { page_size, pages, version: 1 })
    }

    fn read(&mut self, first: PageNo, count: u32) -> Result<CopyReply, Code> {
        let pager = self.pager.as_mut().ok_or(NOT_OPEN)?;
        pager.begin_read()?;
        let mut bytes = Vec::new();
        let mut read = || {
            for no in first.get()..first.get() + count {
                bytes.extend_from_slice(pager.get(no)?);
            }
            Ok(())
        };
        let done = read();
        pager.end_read();
        done.map(|()| CopyReply::Pages(Chunk::from(bytes)))
    }

    fn write(&mut self, pages: &[(PageNo, Chunk)]) -> Result<(), Code> {
        let pager = self.pager.as_mut().ok_or(NOT_OPEN)?;
        if pager.holds != Holds::WriteLock {
            return Err(Code::Error("no transaction is open"));
        }
        for (no, data) in pages {
            if no.get() > pager.pages() {
                pager.set_pages(no.get())?;
            }
            pager.change(no.get())?.copy_from_slice(data);
        }
        Ok(())
    }
}

const NOT_OPEN: Code = Code::Error("the copy is not open");
