//! The process's own records: one journal for all its databases.
//!
//! The journal is append-only; each record carries its length, the database it is of, and a
//! CRC-64. A record that is cut short by a crash, or damaged, ends the journal: everything before
//! it stands, everything after counts as lost, which the core can always live with. A failed
//! append is cut off again at once, so that it cannot hide a later one that succeeds.
//!
//! The records of a database are replaced by one frame that holds all that come in their place: so
//! a process with a hundred thousand databases writes the records of one anew and not those of all. What
//! was replaced is left behind when it is more than what stands: then the file is written anew.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `DRFTJRN1`, once, at the start |
//! | 4 | length of the payload, big-endian |
//! | 4 | database, counting from 1; 0 names one: its payload is the number and the name |
//! | 8 | CRC-64/ISO of the eight bytes before and the payload |
//! | n | payload |
//!
//! With the highest bit of the database set the payload takes the place of all records before, and
//! is a list of records, each behind its length.
//!
//! In memory there is where each stands, and of a name its checksum: some hundred bytes a database.

mod frames;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use driftless_adapters::fs::{Fs, FsError, FsErrorKind};
use driftless_core::checksum::FileDigest;
use driftless_core::machine::{Chunk, StateReply, StateRequest};

use self::frames::{FRAME_BYTES, Frame, MAGIC, REPLACES, encode, join, scan, split};
use super::Blocking;

/// So much may be left behind by replacements beyond as much as stands.
const LEFT_BYTES_MAX: u64 = 1 << 20;
/// The most bytes of frames that a new file is given at once.
const COPY_BYTES: usize = 1 << 20;

/// Names a database within the journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DatabaseNo(u32);

/// Where a frame begins, and how long its payload is.
#[derive(Clone, Copy)]
struct Place {
    at: u64,
    len: u32,
}

impl Place {
    const fn frame_bytes(self) -> u64 {
        FRAME_BYTES as u64 + self.len as u64
    }
}

/// What stands in the file of one database.
#[derive(Default)]
struct Known {
    name: Option<Place>,
    /// In order. The first may be one that replaced those before.
    records: Vec<Place>,
}

/// What stands in the file.
#[derive(Default)]
struct Index {
    /// The checksum of each name, and its number.
    names: BTreeSet<(u64, u32)>,
    databases: BTreeMap<u32, Known>,
    /// Bytes of all these frames.
    live: u64,
}

impl Index {
    /// Notes a frame that begins at `at`.
    fn take(&mut self, at: u64, frame: &Frame<'_>) {
        let place = Place { at, len: frame.payload.len() as u32 };
        if let Some((number, name)) = frame.name() {
            self.names.insert((checksum_of(name), number));
            let before = self.databases.entry(number).or_default().name.replace(place);
            self.live -= before.map_or(0, Place::frame_bytes);
        } else if frame.database & !REPLACES != 0 {
            let known = self.databases.entry(frame.database & !REPLACES).or_default();
            if frame.database & REPLACES != 0 {
                self.live -= known.records.drain(..).map(Place::frame_bytes).sum::<u64>();
            }
            if known.records.len() < 4 {
                // Most databases have no more.
                known.records.reserve_exact(1);
            }
            known.records.push(place);
        } else {
            return;
        }
        self.live += place.frame_bytes();
    }
}

/// The journal of one state directory.
pub struct StateJournal<F: Fs> {
    fs: F,
    directory: PathBuf,
    file: Option<F::File>,
    end: u64,
    index: Index,
    /// With so many bytes that do not count the file is written anew.
    left_max: u64,
    /// A sync of the file has failed: what it was to store may be forgotten, and a later one has nothing
    /// to store.
    doubtful: bool,
}

impl<F: Fs> StateJournal<F> {
    /// Reads the journal of `directory`, which is created if it is not there. A journal that
    /// cannot be read is not an error: its records count as lost.
    ///
    /// # Errors
    /// When the directory or the file cannot be made.
    pub fn open(fs: F, directory: PathBuf) -> Result<StateJournal<F>, FsError> {
        fs.create_dir_all(&directory)?;
        let file = fs.open_write_or_create(&directory.join("journal"))?;
        let (end, index, left_max, doubtful) = (0, Index::default(), 0, false);
        let mut journal = StateJournal { fs, directory, file: None, end, index, left_max, doubtful };
        journal.load(&file)?;
        journal.file = Some(file);
        Ok(journal)
    }

    fn load(&mut self, file: &F::File) -> Result<(), FsError> {
        let len = self.fs.len(file)?;
        let index = &mut self.index;
        self.end = scan(&self.fs, file, len, |at, frame| index.take(at, &frame))?;
        if self.end != len {
            self.fs.set_len(file, self.end)?;
        }
        if self.end == 0 {
            self.fs.write_at(file, MAGIC, 0)?;
            self.end = MAGIC.len() as u64;
        }
        self.left_max = self.index.live + LEFT_BYTES_MAX;
        Ok(())
    }

    /// The number of a database, which is given one if it has none. `name` says which database
    /// on which replica.
    ///
    /// # Errors
    /// When the name cannot be written down; then it has no number, under which records of nobody
    /// would stand. When it cannot be told from another of the same checksum.
    pub fn number(&mut self, name: &str) -> Result<DatabaseNo, FsError> {
        if let Some(number) = self.find(name)? {
            return Ok(number);
        }
        let number = self.index.databases.last_key_value().map_or(0, |(last, _)| *last) + 1;
        self.append_frame(0, &frames::name_payload(number, name))?;
        Ok(DatabaseNo(number))
    }

    /// The number of a database that has one.
    ///
    /// # Errors
    /// When its name cannot be told from another of the same checksum.
    pub fn find(&self, name: &str) -> Result<Option<DatabaseNo>, FsError> {
        let checksum = checksum_of(name);
        for &(_, number) in self.index.names.range((checksum, 0)..=(checksum, u32::MAX)) {
            if self.name_of(number)?.as_deref() == Some(name) {
                return Ok(Some(DatabaseNo(number)));
            }
        }
        Ok(None)
    }

    fn name_of(&self, number: u32) -> Result<Option<String>, FsError> {
        let Some(place) = self.index.databases.get(&number).and_then(|known| known.name) else {
            return Ok(None);
        };
        let bytes = self.read(place)?;
        let frame = Frame::parse(&bytes).ok_or_else(|| self.changed())?;
        Ok(frame.name().map(|(_, name)| name.to_owned()))
    }

    /// What the journal knows of a database: the name with each replica it ever had, and the number.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_database(&self, database: &Path) -> Result<Vec<(String, DatabaseNo)>, FsError> {
        let start = format!("{}\n", database.display());
        let mut known = Vec::new();
        for number in self.index.databases.keys() {
            if let Some(name) = self.name_of(*number)?.filter(|name| name.starts_with(&start)) {
                known.push((name, DatabaseNo(*number)));
            }
        }
        Ok(known)
    }

    /// The records of a database, read from the file.
    ///
    /// # Errors
    /// When the file cannot be read, or one is not as it was written.
    pub fn load_records(&self, database: DatabaseNo) -> Result<Vec<Chunk>, FsError> {
        let Some(known) = self.index.databases.get(&database.0) else { return Ok(Vec::new()) };
        let mut records = Vec::with_capacity(known.records.len());
        for place in &known.records {
            let bytes = self.read(*place)?;
            // What stands behind one that has changed is of no use without it.
            match Frame::parse(&bytes) {
                Some(frame) if frame.database == database.0 => {
                    records.push(Chunk::from(frame.payload.to_vec()));
                }
                Some(frame) if frame.database == database.0 | REPLACES => {
                    let parts = split(frame.payload).ok_or_else(|| self.changed())?;
                    records.extend(parts.into_iter().map(|part| Chunk::from(part.to_vec())));
                }
                _ => return Err(self.changed()),
            }
        }
        Ok(records)
    }

    fn changed(&self) -> FsError {
        let path = self.directory.join("journal");
        FsError::new(FsErrorKind::Io, &path, "a record has changed since it was written")
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
        let frame = encode(database, payload);
        if let Err(error) = self.fs.write_at(file, &frame, self.end) {
            // What was written of it would hide a later record.
            if self.fs.set_len(file, self.end).is_err() {
                self.file = None;
            }
            return Err(error);
        }
        self.index.take(self.end, &Frame { database, payload });
        self.end += frame.len() as u64;
        Ok(())
    }

    /// Makes all records durable; after a failure by writing the file anew.
    ///
    /// # Errors
    /// As the filesystem says; then nothing is known of what is durable.
    pub fn sync(&mut self) -> Result<(), FsError> {
        if self.doubtful {
            return self.leave_behind();
        }
        let synced = match &self.file {
            Some(file) => self.fs.sync(file).and_then(|()| self.fs.sync_dir(&self.directory)),
            None => Err(FsError::new(FsErrorKind::Io, &self.directory, "the journal is not open")),
        };
        self.doubtful = synced.is_err();
        synced
    }

    /// Replaces the records of one database, durably.
    ///
    /// # Errors
    /// As the filesystem says. Those before stand if it was the write that failed; if it was the sync,
    /// these do, and nothing is known of what is durable.
    pub fn rewrite(&mut self, database: DatabaseNo, records: &[Chunk]) -> Result<(), FsError> {
        self.append_frame(database.0 | REPLACES, &join(records))?;
        self.sync()?;
        let left = self.end - self.index.live;
        if left > self.left_max {
            // The records are safe where they are: if this fails, it is tried again with twice as much.
            self.left_max = left * 2;
            let _ = self.leave_behind();
        }
        Ok(())
    }

    /// Writes what counts beside the journal, syncs it, and puts it in the journal's place.
    fn leave_behind(&mut self) -> Result<(), FsError> {
        let (new, path) = (self.directory.join("journal.new"), self.directory.join("journal"));
        match self.fs.remove(&new) {
            Err(error) if error.kind != FsErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.fs.create_new(&new)?;
        let copied = self.copy_to(&file).and_then(|copied| self.fs.sync(&file).map(|()| copied));
        match copied.and_then(|copied| self.fs.rename(&new, &path).map(|()| copied)) {
            Ok((databases, end)) => {
                (self.index.databases, self.end) = (databases, end);
                self.index.live = end - MAGIC.len() as u64;
                self.file = Some(file);
                // Until the name is durable as well, what stands under it is the old file.
                self.doubtful = true;
                self.fs.sync_dir(&self.directory)?;
                self.doubtful = false;
                self.left_max = self.index.live + LEFT_BYTES_MAX;
                Ok(())
            }
            Err(error) => {
                let _ = self.fs.remove(&new);
                Err(error)
            }
        }
    }

    /// Copies all frames that count. Says where they stand then, and where the file ends. Of a database
    /// with a damaged frame those before it are copied: what stands behind is of no use without it.
    fn copy_to(&self, file: &F::File) -> Result<(BTreeMap<u32, Known>, u64), FsError> {
        let (mut buffer, mut written) = (MAGIC.to_vec(), 0);
        let mut databases = BTreeMap::new();
        for (number, known) in &self.index.databases {
            let mut moved = Known::default();
            for (nth, place) in known.name.iter().chain(&known.records).enumerate() {
                let bytes = self.read(*place)?;
                if Frame::parse(&bytes).is_none() {
                    break;
                }
                let place = Place { at: written + buffer.len() as u64, len: place.len };
                match known.name.is_some() && nth == 0 {
                    true => moved.name = Some(place),
                    false => moved.records.push(place),
                }
                buffer.extend(bytes);
                if buffer.len() >= COPY_BYTES {
                    self.fs.write_at(file, &buffer, written)?;
                    written += buffer.len() as u64;
                    buffer.clear();
                }
            }
            moved.records.shrink_to_fit();
            databases.insert(*number, moved);
        }
        self.fs.write_at(file, &buffer, written)?;
        Ok((databases, written + buffer.len() as u64))
    }

    /// Reads a frame; short if the file ends before it.
    fn read(&self, place: Place) -> Result<Vec<u8>, FsError> {
        let path = self.directory.join("journal");
        let opened;
        let file = match &self.file {
            Some(file) => file,
            None => {
                opened = self.fs.open_write_or_create(&path)?;
                &opened
            }
        };
        let mut bytes = vec![0; place.frame_bytes() as usize];
        let mut read = 0;
        while read < bytes.len() {
            match self.fs.read_at(file, &mut bytes[read..], place.at + read as u64)? {
                0 => break,
                n => read += n,
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// What a name is found by. Two names may have one: whoever finds one reads it.
fn checksum_of(name: &str) -> u64 {
    let mut digest = FileDigest::new();
    digest.update(name.as_bytes());
    digest.finish()
}

/// The records of one machine in the journal of its process.
pub struct Records<F: Fs> {
    journal: Arc<Mutex<StateJournal<F>>>,
    name: Arc<str>,
    number: Option<DatabaseNo>,
}

impl<F: Fs> Records<F> {
    /// Those that stand under `name`. The journal is not touched yet: its lock may be held by a
    /// thread whose disk does not answer.
    pub fn new(journal: Arc<Mutex<StateJournal<F>>>, name: Arc<str>) -> Records<F> {
        Records { journal, name, number: None }
    }
}

impl<F: Fs + Send> Blocking<StateRequest> for Records<F>
where
    F::File: Send,
{
    type Answer = Result<StateReply, String>;

    fn perform(&mut self, request: &StateRequest) -> Self::Answer {
        let mut journal = self.journal.lock().expect("no holder panics");
        let database = match self.number {
            Some(number) => number,
            None => journal.number(&self.name).map_err(|error| error.to_string())?,
        };
        self.number = Some(database);
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
        assert_eq!(journal.of_database(Path::new("/b")).unwrap(), [("/b\n/rb".to_owned(), b)]);
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// Replaced, cut short at every byte, and written anew: the records of each database are those
    /// before the cut.
    #[test]
    fn what_is_replaced_is_left_behind() {
        let directory = std::env::temp_dir().join(format!("driftless-journal-left-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let open = || StateJournal::open(RealFs, directory.clone()).unwrap();
        let mut journal = open();
        let (a, b) = (journal.number("/a\n/ra").unwrap(), journal.number("/b\n/rb").unwrap());
        journal.append(a, b"one").unwrap();
        journal.append(b, b"other").unwrap();
        let before = journal.end;
        journal.rewrite(a, &records(&[b"two", b"", b"three"])).unwrap();
        journal.append(a, b"four").unwrap();
        let path = directory.join("journal");
        let whole = std::fs::read(&path).unwrap();
        for cut in before as usize..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let journal = open();
            let found = journal.load_records(a).unwrap();
            let known = [records(&[b"one"]), records(&[b"two", b"", b"three"])];
            assert!(known.contains(&found), "{found:?} of {cut} bytes");
            assert_eq!(journal.load_records(b).unwrap(), records(&[b"other"]));
        }
        std::fs::write(&path, &whole).unwrap();
        let mut journal = open();
        let large = vec![7; 300 << 10];
        for _ in 0..8 {
            journal.rewrite(a, &records(&[&large])).unwrap();
            assert!(journal.end < 3 << 20, "{} bytes", journal.end);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), journal.end);
        }
        journal.append(a, b"last").unwrap();
        for journal in [&mut journal, &mut open()] {
            assert_eq!(journal.load_records(a).unwrap(), records(&[&large, b"last"]));
            assert_eq!(journal.load_records(b).unwrap(), records(&[b"other"]));
            assert_eq!(journal.number("/b\n/rb").unwrap(), b);
        }
        assert_eq!(journal.number("/c\n/rc").unwrap(), DatabaseNo(3));
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// A record that the disk has spoilt costs its database that and what follows, and the others nothing.
    #[test]
    fn a_damaged_record_is_left_behind_with_those_after_it() {
        let directory = std::env::temp_dir().join(format!("driftless-journal-rot-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let open = || StateJournal::open(RealFs, directory.clone()).unwrap();
        let mut journal = open();
        let (a, b) = (journal.number("/a\n/ra").unwrap(), journal.number("/b\n/rb").unwrap());
        for record in [&b"one"[..], b"two", b"three"] {
            journal.append(a, record).unwrap();
            journal.append(b, record).unwrap();
        }
        let path = directory.join("journal");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(3).position(|bytes| bytes == b"two").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(journal.load_records(a).is_err());
        journal.leave_behind().unwrap();
        for journal in [&journal, &open()] {
            assert_eq!(journal.load_records(a).unwrap(), records(&[b"one"]));
            assert_eq!(journal.load_records(b).unwrap(), records(&[b"one", b"two", b"three"]));
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
