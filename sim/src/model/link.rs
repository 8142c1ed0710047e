//! The replicator's link to a database of the model: what `runtime/src/port/source.rs` and
//! `runtime/src/sqlite/link.rs` do with SQLite, request by request.

use std::rc::Rc;

use driftless::port::source::SourceFiles;
use driftless_core::machine::{
    Chunk, LinkReply, Slot, SourceError, SourceErrorKind, SourceReply, SourceRequest,
};

use super::code::Code;
use super::machine::{Machine, Process};
use super::pager::{Holds, Pager};
use super::wal::Mode;
use crate::ring0::files::SimFiles;
use crate::ring0::sqlite::Source;

/// One of the two connections.
struct LinkConnection {
    pager: Pager,
    begun: bool,
}

/// The port of one process to one database.
pub(super) struct ModelSource {
    machine: Rc<Machine>,
    process: Rc<Process>,
    path: String,
    files: SimFiles,
    /// Slots A and B, while the link is open.
    slots: Option<[LinkConnection; 2]>,
    /// Whether slot A has found the wal-index.
    mapped: bool,
}

impl ModelSource {
    pub(super) fn new(machine: &Rc<Machine>, process: Rc<Process>, path: &str) -> ModelSource {
        let files = SimFiles::new(machine.disk.clone(), path);
        let machine = Rc::clone(machine);
        ModelSource { machine, process, path: path.to_owned(), files, slots: None, mapped: false }
    }

    fn open(&mut self) -> Result<SourceReply, Code> {
        let connect = || {
            let mut pager = Pager::open(&self.machine, &self.process, &self.path, false)?;
            (pager.autocheckpoint, pager.checkpoints_at_close) = (0, false);
            Ok(LinkConnection { pager, begun: false })
        };
        self.slots = Some([connect()?, connect()?]);
        self.mapped = false;
        Ok(SourceReply::Link(LinkReply { index: None, bytes: None, moved: false, read_only: false }))
    }

    fn close(&mut self, leave_wal: bool) {
        if let Some(mut slots) = self.slots.take() {
            slots.iter_mut().for_each(|slot| slot.pager.checkpoints_at_close = !leave_wal);
        }
    }

    fn on_link(&mut self, request: &SourceRequest) -> Result<SourceReply, SourceError> {
        let Some(slots) = self.slots.as_mut() else {
            let text = "the link is not open".into();
            return Err(SourceError { kind: SourceErrorKind::Io, text, index: None });
        };
        let (mut bytes, mut moved) = (None, false);
        let done = match request {
            SourceRequest::BeginRead(slot) => begin_read(&mut slots[at(*slot)]),
            SourceRequest::EndRead(slot) => end(&mut slots[at(*slot)]),
            SourceRequest::BeginImmediate(slot) => begin_immediate(&mut slots[at(*slot)]),
            SourceRequest::Rollback(slot) => end(&mut slots[at(*slot)]),
            SourceRequest::CheckpointPassive(slot) => checkpoint(&mut slots[at(*slot)], Mode::Passive),
            SourceRequest::CheckpointTruncate(slot) => checkpoint(&mut slots[at(*slot)], Mode::Truncate),
            SourceRequest::Look => Ok(()),
            SourceRequest::ReadWal { offset, len, .. } => {
                let wal = slots[0].pager.wal.as_ref();
                let read = wal.map_or(Ok(Vec::new()), |wal| read(&wal.file, *offset, *len));
                read.map(|read| bytes = Some(Chunk::from(read)))
            }
            SourceRequest::ReadWalParts { parts, .. } => {
                let wal = slots[0].pager.wal.as_ref();
                let read = wal.map_or(Ok(Vec::new()), |wal| read_parts(&wal.file, parts));
                read.map(|read| bytes = Some(Chunk::from(read)))
            }
            SourceRequest::FramePages { first, count } => {
                let pager = &slots[0].pager;
                let pages =
                    pager.wal.as_ref().map(|_| pager.db.index(|index| index.frame_pages(*first, *count)));
                bytes = Some(Chunk::from(pages.unwrap_or_default()));
                Ok(())
            }
            SourceRequest::ReadDatabase { offset, len, .. } => {
                read(&slots[0].pager.db, *offset, *len).map(|read| bytes = Some(Chunk::from(read)))
            }
            SourceRequest::HasMoved => {
                moved = slots[0].pager.has_moved();
                Ok(())
            }
            request => unreachable!("{request:?} needs no link"),
        };
        let index = self.index();
        match done {
            Ok(()) => Ok(SourceReply::Link(LinkReply { index, bytes, moved, read_only: false })),
            Err(code) => Err(sorted(code, index)),
        }
    }

    /// The wal-index as it lies in memory, once slot A has a WAL.
    fn index(&mut self) -> Option<Box<[u8; 136]>> {
        let a = &self.slots.as_ref()?[0].pager;
        if !self.mapped {
            a.wal.as_ref()?;
            self.mapped = a.db.shm_map(false).ok()?;
        }
        self.mapped.then(|| Box::new(a.db.index(|index| index.bytes())))
    }
}

impl Source for ModelSource {
    fn perform(&mut self, request: &SourceRequest) -> Result<SourceReply, SourceError> {
        match request {
            SourceRequest::Stat => Ok(SourceReply::Facts(self.files.facts()?.map(Box::new))),
            SourceRequest::ReadHeader => Ok(SourceReply::Header(self.files.header()?)),
            SourceRequest::LitestreamHead => Ok(SourceReply::Litestream(self.files.litestream_head()?)),
            SourceRequest::Open => self.open().map_err(|code| sorted(code, None)),
            SourceRequest::Close { leave_wal } => {
                self.close(*leave_wal);
                Ok(SourceReply::Closed)
            }
            request => self.on_link(request),
        }
    }
}

const fn at(slot: Slot) -> usize {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

fn begin_read(slot: &mut LinkConnection) -> Result<(), Code> {
    if slot.begun {
        return Err(Code::Error("cannot start a transaction within a transaction"));
    }
    slot.pager.begin_read()?;
    slot.begun = true;
    Ok(())
}

fn begin_immediate(slot: &mut LinkConnection) -> Result<(), Code> {
    if slot.begun {
        return Err(Code::Error("cannot start a transaction within a transaction"));
    }
    slot.pager.begin_write()?;
    slot.begun = true;
    Ok(())
}

/// `COMMIT` of what has read, `ROLLBACK` of what has written nothing.
fn end(slot: &mut LinkConnection) -> Result<(), Code> {
    if !std::mem::take(&mut slot.begun) {
        return Err(Code::Error("no transaction is active"));
    }
    match slot.pager.holds {
        Holds::WriteLock => slot.pager.rollback(),
        _ => slot.pager.end_read(),
    }
    Ok(())
}

fn checkpoint(slot: &mut LinkConnection, mode: Mode) -> Result<(), Code> {
    match slot.pager.checkpoint(mode)? {
        counts if counts.busy => Err(Code::Busy),
        _ => Ok(()),
    }
}

fn read(file: &super::machine::File, offset: u64, len: u32) -> Result<Vec<u8>, Code> {
    let there = file.len()?.saturating_sub(offset);
    let mut bytes = vec![0; u64::from(len).min(there) as usize];
    let there = file.read_some(&mut bytes, offset)?;
    bytes.truncate(there);
    Ok(bytes)
}

fn read_parts(file: &super::machine::File, parts: &[(u64, u32)]) -> Result<Vec<u8>, Code> {
    let mut bytes = Vec::new();
    for (offset, len) in parts {
        let part = read(file, *offset, *len)?;
        let cut = part.len() < *len as usize;
        bytes.extend_from_slice(&part);
        if cut {
            break;
        }
    }
    Ok(bytes)
}

fn sorted(code: Code, index: Option<Box<[u8; 136]>>) -> SourceError {
    let kind = match code {
        Code::Busy | Code::Locked => SourceErrorKind::Busy,
        Code::NotADb => SourceErrorKind::NotADatabase,
        _ => SourceErrorKind::Io,
    };
    SourceError { kind, text: code.text(), index }
}
