//! The process's own records: one journal for all its databases.
//!
//! The journal is append-only; each record carries its length, the database it is of, and a
//! CRC-64. A record that is cut short by a crash, or damaged, ends the journal: everything before
//! it stands, everything after counts as lost, which the core can always live with. A failed
//! append is cut off again at once, so that it cannot hide a later one that succeeds.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `DRFTJRN1`, once, at the start |
//! | 4 | length of the payload, big-endian |
//! | 4 | database, counting from 1; 0 names one: its payload is the number and the name |
//! | 8 | CRC-64/ISO of the eight bytes before and the payload |
//! | n | payload |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use driftless_adapters::fs::{Fs, FsError, FsErrorKind};
use driftless_core::checksum::FileDigest;
use driftless_core::machine::{Chunk, StateReply, StateRequest};

use super::Blocking;

const MAGIC: &[u8; 8] = b"DRFTJRN1";
const FRAME_BYTES: usize = 16;
/// A longer payload is damage: a table of 2^32 pages would be the largest record.
const PAYLOAD_BYTES_MAX: usize = 1 << 31;

/// Names a database within the journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DatabaseNo(u32);

/// The journal of one state directory.
pub struct StateJournal<F: Fs> {
    fs: F,
    directory: PathBuf,
    file: Option<F::File>,
    end: u64,
    names: BTreeMap<String, u32>,
    /// The highest number of a name.
    last: u32,
    /// Where the payloads of each database stand, in order: offset and length.
    places: BTreeMap<u32, Vec<(u64, u32)>>,
}

impl<F: Fs> StateJournal<F> {
    /// Reads the journal of `directory`, which is created if it is not there. A journal that
    /// cannot be read is not an error: its records count as lost.
    ///
    /// # Errors
    /// When the directory or the file cannot be made.
    pub fn open(fs: F, directory: PathBuf) -> Result<StateJournal<F>, FsError> {
        fs.create_dir_all(&directory)?;
        let path = directory.join("journal");
        let file = fs.open_write_or_create(&path)?;
        let mut journal = StateJournal {
            fs,
            directory,
            file: None,
            end: 0,
            names: BTreeMap::new(),
            last: 0,
            places: BTreeMap::new(),
        };
        journal.load(&file)?;
        journal.file = Some(file);
        Ok(journal)
    }

    fn load(&mut self, file: &F::File) -> Result<(), FsError> {
        let len = self.fs.len(file)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(PAYLOAD_BYTES_MAX)];
        let mut read = 0;
        while read < bytes.len() {
            match self.fs.read_at(file, &mut bytes[read..], read as u64)? {
                0 => break,
                n => read += n,
            }
        }
        bytes.truncate(read);
        let mut at = 0;
        if bytes.starts_with(MAGIC) {
            at = MAGIC.len();
            while let Some((database, payload, next)) = parse(&bytes, at) {
                self.take(database, payload, next as u64);
                at = next;
            }
        }
        if at as u64 != len {
            self.fs.set_len(file, at as u64)?;
        }
        if at == 0 {
            self.fs.write_at(file, MAGIC, 0)?;
            at = MAGIC.len();
        }
        self.end = at as u64;
        Ok(())
    }

    /// Notes a record that ends at `end`.
    fn take(&mut self, database: u32, payload: &[u8], end: u64) {
        if database != 0 {
            let len = payload.len() as u32;
            self.places.entry(database).or_default().push((end - u64::from(len), len));
        } else if let Some((number, name)) = payload.split_first_chunk::<4>()
            && let Ok(name) = std::str::from_utf8(name)
        {
            let number = u32::from_be_bytes(*number);
            self.names.insert(name.to_string(), number);
            self.last = self.last.max(number);
        }
    }

    /// The number of a database, which is given one if it has none. `name` says which database
    /// on which replica.
    ///
    /// # Errors
    /// When the name cannot be written down; then it has no number, under which records of nobody
    /// would stand.
    pub fn number(&mut self, name: &str) -> Result<DatabaseNo, FsError> {
        if let Some(number) = self.names.get(name) {
            return Ok(DatabaseNo(*number));
        }
        let number = self.last + 1;
        self.append_frame(0, &name_payload(number, name))?;
        Ok(DatabaseNo(number))
    }

    /// What the journal knows of a database: the name with each replica it ever had, and the number.
    pub fn of_database(&self, database: &Path) -> Vec<(String, DatabaseNo)> {
        let start = format!("{}\n", database.display());
        let known = self.names.iter().filter(|(name, _)| name.starts_with(&start));
        known.map(|(name, number)| (name.clone(), DatabaseNo(*number))).collect()
    }

    /// The records of a database, read from the file.
    ///
    /// # Errors
    /// When the file cannot be read, or one is not as it was written.
    pub fn load_records(&mut self, database: DatabaseNo) -> Result<Vec<Chunk>, FsError> {
        let places = self.places.get(&database.0).cloned().unwrap_or_default();
        let path = self.directory.join("journal");
        let mut records = Vec::with_capacity(places.len());
        for (offset, len) in places {
            let mut bytes = vec![0; FRAME_BYTES + len as usize];
            self.read_at(&mut bytes, offset - FRAME_BYTES as u64)?;
            match parse(&bytes, 0) {
                Some((number, payload, _)) if number == database.0 => {
                    records.push(Chunk::from(payload.to_vec()));
                }
                // What stands behind it is of no use without it.
                _ => {
                    return Err(FsError::new(
                        FsErrorKind::Io,
                        &path,
                        "a record has changed since it was written",
                    ));
                }
            }
        }
        Ok(records)
    }

    /// Appends one record.
    ///
    /// # Errors
    /// When it is not written; the journal is as before.
    pub fn append(&mut self, database: DatabaseNo, payload: &[u8]) -> Result<(), FsError> {
        self.append_frame(database.0, payload)
    }

    fn append_frame(&mut self, database: u32, payload: &[u8]) -> Result<(), FsError> {
        let path = self.directory.join("journal");
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.fs.open_write_or_create(&path)?),
        };
        let frame = frame(database, payload);
        if let Err(error) = self.fs.write_at(file, &frame, self.end) {
            // What was written of it would hide a later record.
            if self.fs.set_len(file, self.end).is_err() {
                self.file = None;
            }
            return Err(error);
        }
        self.end += frame.len() as u64;
        self.take(database, payload, self.end);
        Ok(())
    }

    /// Makes all records durable.
    ///
    /// # Errors
    /// As the filesystem says; then nothing is known of what is durable.
    pub fn sync(&mut self) -> Result<(), FsError> {
        match &self.file {
            Some(file) => self.fs.sync(file)?,
            None => return Err(FsError::new(FsErrorKind::Io, &self.directory, "the journal is not open")),
        }
        self.fs.sync_dir(&self.directory)
    }

    /// Replaces the records of one database: the whole journal is written anew beside the old
    /// one, synced, and put in its place.
    ///
    /// # Errors
    /// As the filesystem says; the old journal stands.
    pub fn rewrite(&mut self, database: DatabaseNo, records: &[Chunk]) -> Result<(), FsError> {
        let mut bytes = MAGIC.to_vec();
        for (name, number) in &self.names {
            bytes.extend(frame(0, &name_payload(*number, name)));
        }
        self.each_record(|number, payload| {
            if number != 0 && number != database.0 {
                bytes.extend(frame(number, payload));
            }
        })?;
        for record in records {
            bytes.extend(frame(database.0, record));
        }
        let new = self.directory.join("journal.new");
        let path = self.directory.join("journal");
        match self.fs.remove(&new) {
            Err(error) if error.kind != FsErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.fs.create_new(&new)?;
        let written = self.fs.write_at(&file, &bytes, 0).and_then(|()| self.fs.sync(&file));
        if let Err(error) = written.and_then(|()| self.fs.rename(&new, &path)) {
            let _ = self.fs.remove(&new);
            return Err(error);
        }
        self.file = Some(file);
        self.end = bytes.len() as u64;
        self.places.clear();
        let mut at = MAGIC.len();
        while let Some((number, payload, next)) = parse(&bytes, at) {
            self.take(number, payload, next as u64);
            at = next;
        }
        self.fs.sync_dir(&self.directory)
    }

    /// Reads as many bytes as there are, up to `bytes`.
    fn read_at(&mut self, bytes: &mut [u8], offset: u64) -> Result<(), FsError> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.fs.open_write_or_create(&self.directory.join("journal"))?),
        };
        let mut read = 0;
        while read < bytes.len() {
            match self.fs.read_at(file, &mut bytes[read..], offset + read as u64)? {
                0 => break,
                n => read += n,
            }
        }
        Ok(())
    }

    /// Reads the file again, record by record.
    fn each_record(&mut self, mut take: impl FnMut(u32, &[u8])) -> Result<(), FsError> {
        let mut bytes = vec![0; self.end as usize];
        self.read_at(&mut bytes, 0)?;
        let mut at = MAGIC.len();
        while let Some((number, payload, next)) = parse(&bytes, at) {
            take(number, payload);
            at = next;
        }
        Ok(())
    }
}

/// The records of one machine in the journal of its process.
pub struct Records<F: Fs> {
    journal: Arc<Mutex<StateJournal<F>>>,
    name: Arc<str>,
}

impl<F: Fs> Records<F> {
    /// Those that stand under `name`. The journal is not touched yet: its lock may be held by a
    /// thread whose disk does not answer.
    pub fn new(journal: Arc<Mutex<StateJournal<F>>>, name: Arc<str>) -> Records<F> {
        Records { journal, name }
    }
}

impl<F: Fs + Send> Blocking<StateRequest> for Records<F>
where
    F::File: Send,
{
    type Answer = Result<StateReply, String>;

    fn perform(&mut self, request: &StateRequest) -> Self::Answer {
        let mut journal = self.journal.lock().expect("no holder panics");
        let database = journal.number(&self.name).map_err(|error| error.to_string())?;
        let done = match request {
            StateRequest::Load => {
                let records = journal.load_records(database).map_err(|error| error.to_string())?;
                return Ok(StateReply::Records(records));
            }
            StateRequest::Append(record) => journal.append(database, record),
            StateRequest::Rewrite(records) => journal.rewrite(database, records),
            StateRequest::Sync => journal.sync(),
        };
        done.map(|()| StateReply::Done).map_err(|error| error.to_string())
    }
}

fn name_payload(number: u32, name: &str) -> Vec<u8> {
    [&number.to_be_bytes()[..], name.as_bytes()].concat()
}

fn sum(head: &[u8], payload: &[u8]) -> u64 {
    let mut digest = FileDigest::new();
    digest.update(head);
    digest.update(payload);
    digest.finish()
}

fn frame(database: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload.len());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(database.to_be_bytes());
    bytes.extend(sum(&bytes[..8], payload).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The record at `at`: its database, its payload, and where the next one begins.
fn parse(bytes: &[u8], at: usize) -> Option<(u32, &[u8], usize)> {
    let head = bytes.get(at..at + FRAME_BYTES)?;
    let len = u32::from_be_bytes(head[..4].try_into().ok()?) as usize;
    let database = u32::from_be_bytes(head[4..8].try_into().ok()?);
    let stored = u64::from_be_bytes(head[8..16].try_into().ok()?);
    let start = at + FRAME_BYTES;
    let payload = bytes.get(start..start.checked_add(len)?)?;
    (sum(&head[..8], payload) == stored).then_some((database, payload, start + len))
}

#[cfg(test)]
mod tests {
    use driftless_adapters::fs::RealFs;

    use super::*;

    fn records(texts: &[&[u8]]) -> Vec<Chunk> {
        texts.iter().map(|text| Chunk::from(text.to_vec())).collect()
    }

    /// A database that is stopped and started again in one process reads what its last run wrote.
    #[test]
    fn records_can_be_read_more_than_once() {
        let directory = std::env::temp_dir().join(format!("driftless-journal-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let open = || StateJournal::open(RealFs, directory.clone()).unwrap();
        let mut journal = open();
        let (a, b) = (journal.number("/a\n/ra").unwrap(), journal.number("/b\n/rb").unwrap());
        assert_eq!(journal.load_records(a).unwrap(), []);
        journal.append(a, b"one").unwrap();
        journal.append(b, b"other").unwrap();
        journal.append(a, b"two").unwrap();
        assert_eq!(journal.load_records(a).unwrap(), records(&[b"one", b"two"]));
        let mut journal = open();
        assert_eq!(journal.number("/a\n/ra").unwrap(), a);
        journal.rewrite(a, &records(&[b"three"])).unwrap();
        // Rewritten before they were asked for: what was read at the start counts no more.
        assert_eq!(journal.load_records(a).unwrap(), records(&[b"three"]));
        assert_eq!(journal.load_records(b).unwrap(), records(&[b"other"]));
        assert_eq!(journal.load_records(b).unwrap(), records(&[b"other"]));
        assert_eq!(journal.of_database(Path::new("/b")), [("/b\n/rb".to_owned(), b)]);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
