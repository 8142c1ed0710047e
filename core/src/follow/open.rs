//! From a path to a copy whose state is proven: restoring it where there is none, and reading all of
//! its pages where there is one.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::machine::{Follower, Key, Phase, Then};
use super::table::Table;
use super::{Position, decode_positions, encode_positions, mask};
use crate::checksum::page_checksum;
use crate::ids::{Now, PageNo, PageSize};
use crate::job::Job;
use crate::ltx::{LTX_HEADER_BYTES, LtxHeader};
use crate::machine::{
    Action, Actions, ByteRange, Chunk, CopyRequest, Event, Exit, Listed, Machine as _, Outcome, OutputError,
    OutputRequest, PART_BYTES_MAX, Request, StoreRequest,
};
use crate::mutant::{self, Mutant};
use crate::restore::{Inventory, RestoreConfig, RestoreTarget, Restorer};

/// Reading all pages of the copy.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Survey {
    table: Table,
    pages: u32,
    /// Pages read so far.
    done: u32,
    masked: u64,
    first: u64,
}

impl Follower {
    pub(super) fn look(&mut self, out: &mut Actions) {
        self.phase = Phase::Look;
        self.copy(CopyRequest::Look, out);
    }

    pub(super) fn looked(&mut self, now: Now, database: bool, position: Option<Chunk>, out: &mut Actions) {
        self.named = position.as_ref().map_or_else(Vec::new, |bytes| decode_positions(bytes));
        self.ours = self.config.replace;
        match (database, position.is_some()) {
            (true, true) => self.open(out),
            (true, false) if !self.config.replace => {
                let exit = Exit::Failed {
                    error: "the file exists, and no position beside it says that it follows a replica".into(),
                    hint: "name another place with -o, or replace what is there with -force".into(),
                };
                self.stop(exit, out);
            }
            (_, known) => {
                // What is left of a database that was ours must not meet the next.
                self.config.replace |= known;
                self.restore(now, out);
            }
        }
    }

    pub(super) fn open(&mut self, out: &mut Actions) {
        self.phase = Phase::Open;
        self.copy(CopyRequest::Open, out);
    }

    pub(super) fn restore(&mut self, now: Now, out: &mut Actions) {
        let config = RestoreConfig { target: RestoreTarget::Latest, ..self.config.restore.clone() };
        let config = RestoreConfig { replace: config.replace || self.config.replace, ..config };
        let restorer = Restorer::new(config, self.flight.fork_ids());
        self.phase = Phase::Restore(Box::new(restorer), None);
        self.forward(now, Event::Start { entropy: now.mono.as_duration().as_nanos() as u64 }, out);
    }

    /// Hands an event to the restore.
    pub(super) fn forward(&mut self, now: Now, event: Event, out: &mut Actions) {
        let Phase::Restore(restorer, held) = &mut self.phase else { return };
        let mut actions = Actions::new();
        restorer.handle(now, event, &mut actions);
        for action in actions.drain() {
            match action {
                // Told beforehand, as of every other state: a kill must not leave a file that nobody knows.
                Action::Submit { op, request: request @ Request::Output(OutputRequest::Publish { .. }) } => {
                    *held = Some((op, Box::new(request)));
                    let status = restorer.status();
                    let (txid, page_size) = (status.target, status.page_size);
                    let (txid, page_size) = txid.zip(page_size).expect("what is put in place is known");
                    let (pages, stamp) = (status.pages, status.stamp.unwrap_or_default());
                    let state = restorer.built();
                    let doubtful = false;
                    let coming =
                        Position { txid, page_size, pages, state, first: 0, masked: 0, stamp, doubtful };
                    self.head = status.target;
                    self.named.push(coming);
                    return self.copy(CopyRequest::Save(Chunk::from(encode_positions(&self.named))), out);
                }
                Action::Stopped(Exit::Done) => {
                    // Whatever was replaced once is ours from now on.
                    (self.ours, self.config.replace, self.patient) = (true, false, true);
                    return match self.shutdown {
                        Some(_) => self.stop(Exit::Done, out),
                        None => self.open(out),
                    };
                }
                Action::Stopped(Exit::Failed { error, .. }) if self.patient && self.shutdown.is_none() => {
                    return self.trouble(error, out);
                }
                Action::Stopped(exit) => return self.stop(exit, out),
                action => out.push(action),
            }
        }
    }

    /// The position file cannot be told: the restore ends as if the file could not be put in place.
    pub(super) fn unpublished(&mut self, now: Now, text: String, out: &mut Actions) {
        let Phase::Restore(_, held) = &mut self.phase else { return };
        let Some((op, _)) = held.take() else { return };
        self.obstructed = true;
        let outcome = Outcome::Output(Err(OutputError { exists: false, text }));
        self.forward(now, Event::Completed { op, outcome }, out);
    }

    /// The position file is told: the file may take its place.
    pub(super) fn publish(&mut self, out: &mut Actions) {
        let Phase::Restore(_, held) = &mut self.phase else { return };
        if let Some((op, request)) = held.take() {
            out.push(Action::Submit { op, request: *request });
        }
    }

    pub(super) fn opened(&mut self, (page_size, pages, version): (u32, u32, u32), out: &mut Actions) {
        self.version = version;
        let Some(page_size) = PageSize::new(page_size) else {
            return self.trouble(format!("the copy has pages of {page_size} bytes"), out);
        };
        let mut table = Table::new(page_size, self.config.restore.pending_byte);
        table.resize(pages);
        self.phase = Phase::Survey(Box::new(Survey { table, pages, done: 0, masked: 0, first: 0 }));
        self.survey(out);
    }

    /// Reads on, or ends the survey.
    pub(super) fn survey(&mut self, out: &mut Actions) {
        let Phase::Survey(survey) = &self.phase else { return };
        let most = (PART_BYTES_MAX / survey.table.page_size().bytes()) as u32;
        match PageNo::new(survey.done + 1).filter(|_| survey.done < survey.pages) {
            Some(first) => {
                let count = most.min(survey.pages - survey.done);
                self.copy(CopyRequest::Read { first, count }, out);
            }
            None => self.surveyed(out),
        }
    }

    pub(super) fn took_pages(&mut self, bytes: Chunk, out: &mut Actions) {
        let Phase::Survey(survey) = &mut self.phase else { return };
        let page_size = survey.table.page_size();
        if survey.done == 0
            && let Some(page) = bytes.get(..page_size.bytes())
        {
            survey.masked = mask(page);
            survey.first = page_checksum(PageNo::FIRST, page);
        }
        let first = PageNo::new(survey.done + 1).expect("pages count from 1");
        self.compute(Job::Checksums { first, page_size, bytes }, out);
    }

    pub(super) fn summed(&mut self, sums: &[u64], out: &mut Actions) {
        let Phase::Survey(survey) = &mut self.phase else { return };
        for (&sum, no) in sums.iter().zip(survey.done + 1..) {
            survey.table.set(PageNo::new(no).expect("pages count from 1"), sum);
        }
        survey.done += sums.len() as u32;
        self.survey(out);
    }

    /// All pages are known: which state is that?
    pub(super) fn surveyed(&mut self, out: &mut Actions) {
        let Phase::Survey(survey) = core::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let Survey { mut table, pages, masked, first, .. } = *survey;
        let page_size = table.page_size();
        let known = self.named.iter().find_map(|it| {
            // What a restore has built is there byte by byte.
            let exact = it.first == 0;
            table.set(PageNo::FIRST, if exact { first } else { it.first });
            let same = (it.page_size, it.pages, it.state) == (page_size, pages, table.state());
            let named = Position { first: if exact { first } else { it.first }, masked, ..*it };
            (same && (exact || it.masked == masked)).then_some(named)
        });
        if known.is_none() && pages > 0 {
            table.set(PageNo::FIRST, first);
        }
        self.position = known;
        self.table = Some(table);
        (self.wide, self.suspicion) = (true, None);
        match known {
            Some(position) => {
                (self.ours, self.config.replace) = (false, false);
                self.settle(position, out);
            }
            None => self.unknown(out),
        }
    }

    /// The copy shows this: the position file is to name nothing else.
    fn settle(&mut self, position: Position, out: &mut Actions) {
        self.position = Some(position);
        self.named = [position].into();
        self.phase = Phase::Settle;
        self.copy(CopyRequest::Save(Chunk::from(encode_positions(&self.named))), out);
    }

    /// The replica is to show that it has the state that this host has put last, if it was put: by the file that
    /// ends there. Where none does, the state is here alone, or there is no telling.
    pub(super) fn confirm(&mut self, now: Now, position: Position, all: &Inventory, out: &mut Actions) {
        let ends_there = |it: &&Listed| it.object.range.max() == position.txid && !self.is_bad(&it.object);
        match all.objects().iter().filter(ends_there).min_by_key(|it| it.object.level) {
            Some(file) => {
                self.phase = Phase::Confirm;
                let range = ByteRange::At { offset: 0, len: LTX_HEADER_BYTES as u64 };
                let request = StoreRequest::Get { object: file.object, range };
                self.flight.send(now, Key::Header, request, out);
            }
            None => {
                let text = format!("no file on the replica ends with transaction {}", position.txid);
                if self.suspicion.as_ref() == Some(&text) {
                    self.unknown(out)
                } else {
                    self.suspect(text, out)
                }
            }
        }
    }

    /// The header of the file that ends with our transaction.
    pub(super) fn took_header(&mut self, bytes: &[u8], out: &mut Actions) {
        let Some(position) = self.position else { return };
        let header = bytes.first_chunk().and_then(|bytes| LtxHeader::decode(bytes).ok());
        let same = header.is_some_and(|header| {
            let there = (header.chain.post, header.commit, header.page_size);
            there == (Some(position.state), position.pages, position.page_size)
        });
        if same { self.settle(Position { doubtful: false, ..position }, out) } else { self.unknown(out) }
    }

    /// The copy is in none of the states that it was left in.
    pub(super) fn unknown(&mut self, out: &mut Actions) {
        let why = "the copy is not as it was left: another program has written to it, or part of it was lost";
        if self.ours || mutant::on(Mutant::UnknownOverwritten) {
            self.rebase = Some(why.into());
            return self.rest_until(self.polled);
        }
        self.unknown = true;
        // It may be somebody's database by now, with transactions that are nowhere else.
        let hint = "keep it if it is in use; -force brings it back to what the replica holds";
        self.close(Then::Exit(Exit::Failed { error: why.into(), hint: hint.into() }), out);
    }
}
