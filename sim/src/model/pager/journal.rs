//! The rollback journal: the old content of what is overwritten, outside of WAL mode.
//!
//! Header of one sector, then records of page number, page and checksum, as SQLite lays them out.
//! The transaction is committed when the journal is deleted; a journal that is found by the next
//! opener is played back.

use std::collections::BTreeSet;

use super::Pager;
use crate::model::code::Code;
use crate::model::machine::{File, Usage};
use crate::model::wal::Synchronous;
use crate::ring0::reading::be32;
use crate::vfs::locks::Level;

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const SECTOR_BYTES: u64 = 512;

/// An open journal.
pub(super) struct Journal {
    file: File,
    nonce: u32,
    noted: BTreeSet<u32>,
    /// Pages in the database before, of a size of their own.
    pages: u32,
    page_bytes: usize,
    synced: u32,
}

impl Journal {
    fn header(&self) -> [u8; 28] {
        let mut head = [0; 28];
        head[..8].copy_from_slice(&MAGIC);
        let records = self.noted.len() as u32;
        let fields = [records, self.nonce, self.pages, SECTOR_BYTES as u32, self.page_bytes as u32];
        for (n, field) in fields.iter().enumerate() {
            head[8 + 4 * n..12 + 4 * n].copy_from_slice(&field.to_be_bytes());
        }
        head
    }
}

fn record_sum(nonce: u32, page: &[u8]) -> u32 {
    page.iter().rev().step_by(200).fold(nonce, |sum, byte| sum.wrapping_add(u32::from(*byte)))
}

impl Pager {
    fn journal_path(&self) -> String {
        format!("{}-journal", self.path)
    }

    /// Keeps what a page holds, before its first change in a transaction outside of WAL mode.
    pub(super) fn note_in_journal(&mut self, no: u32) -> Result<(), Code> {
        let known = self.journal.as_ref().is_some_and(|journal| journal.noted.contains(&no));
        if self.wal.is_some() || known {
            return Ok(());
        }
        if self.journal.is_none() {
            let usage = Usage { create: true, sync_name: true, lockable: false };
            let file = File::open(&self.machine, &self.process, &self.journal_path(), usage)?;
            self.journal = Some(Journal {
                file,
                nonce: self.machine.random() as u32,
                noted: BTreeSet::new(),
                pages: self.pages_before,
                page_bytes: self.page_bytes,
                synced: 0,
            });
            let journal = self.journal.as_ref().expect("just set");
            // Until the records are durable it must not look like a journal.
            let mut head = journal.header();
            head[..12].fill(0);
            journal.file.write(&head, 0)?;
        }
        let journal = self.journal.as_mut().expect("set above");
        if no > journal.pages {
            return Ok(());
        }
        let mut record = no.to_be_bytes().to_vec();
        record.resize(4 + journal.page_bytes, 0);
        self.db.read(&mut record[4..], u64::from(no - 1) * journal.page_bytes as u64)?;
        record.extend(record_sum(journal.nonce, &record[4..]).to_be_bytes());
        let offset = SECTOR_BYTES + journal.noted.len() as u64 * record.len() as u64;
        journal.file.write(&record, offset)?;
        journal.noted.insert(no);
        Ok(())
    }

    /// Makes the records durable, then how many there are.
    pub(super) fn sync_journal(&mut self) -> Result<(), Code> {
        let journal = self.journal.as_mut().expect("a page was changed");
        let records = journal.noted.len() as u32;
        if journal.synced == records && records > 0 {
            return Ok(());
        }
        journal.file.sync()?;
        journal.file.write(&journal.header(), 0)?;
        journal.file.sync()?;
        journal.synced = records;
        Ok(())
    }

    pub(super) fn delete_journal(&mut self) -> Result<(), Code> {
        self.journal = None;
        let sync = self.synchronous == Synchronous::Extra;
        self.machine.delete(&self.process, &self.journal_path(), sync)
    }

    /// At an opener's first look: what a process left behind that died in a transaction.
    pub(super) fn roll_back_hot_journal(&mut self) -> Result<(), Code> {
        if !self.machine.access(&self.process, &self.journal_path())? || self.db.is_reserved() {
            return Ok(());
        }
        if self.db.len()? == 0 {
            return self.machine.delete(&self.process, &self.journal_path(), false);
        }
        let file = File::open(&self.machine, &self.process, &self.journal_path(), Usage::default())?;
        let mut first = [0];
        file.read(&mut first, 0)?;
        if first == [0] {
            return Ok(()); // Nothing was written beside it.
        }
        self.raise(Level::Exclusive)?;
        self.play_back()?;
        self.db.unlock(Level::Shared);
        Ok(())
    }

    /// Puts back what the journal holds, and deletes it.
    pub(super) fn play_back(&mut self) -> Result<(), Code> {
        let path = self.journal_path();
        if !self.machine.access(&self.process, &path)? {
            return Ok(());
        }
        let file = File::open(&self.machine, &self.process, &path, Usage::default())?;
        file.sync()?;
        let mut head = [0; 28];
        let sound = file.read(&mut head, 0)? && head[..8] == MAGIC;
        let records = if sound { be32(&head, 8) } else { 0 };
        let (nonce, pages, page_bytes) = (be32(&head, 12), be32(&head, 16), be32(&head, 24) as usize);
        let mut record = vec![0; 8 + page_bytes];
        for n in 0..u64::from(records) {
            let offset = SECTOR_BYTES + n * record.len() as u64;
            if !file.read(&mut record, offset)? {
                break;
            }
            let (no, page) = (be32(&record, 0), &record[4..4 + page_bytes]);
            if no == 0 || be32(&record, 4 + page_bytes) != record_sum(nonce, page) {
                break;
            }
            self.db.write(page, u64::from(no - 1) * page_bytes as u64)?;
        }
        if sound {
            self.db.truncate(u64::from(pages) * page_bytes as u64)?;
            self.db.sync()?;
        }
        self.cache.clear();
        self.delete_journal()
    }
}
