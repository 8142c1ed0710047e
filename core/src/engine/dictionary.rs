//! Which dictionary a database's pages are compressed with.
//!
//! Pages that leave for the replica are sampled until there are enough of them; a job makes a dictionary of
//! one half and tries it on the other ([`TrainJob`]). It is put on the replica only if it pays, and it
//! is used only once that put is known to have succeeded: a segment takes its dictionary from `ready`, and
//! nothing but a completed put, or a read of what stands there, fills it. A segment that names a dictionary
//! which is not there cannot be.
//!
//! All that fails here costs bytes and no time: segments leave without. When the gain has faded the pages
//! are sampled anew ([`Schedule`]). After a restart the dictionary that the newest segment names is read.

mod schedule;
mod train;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use self::schedule::Schedule;
pub use self::train::{Best, TrainJob, TrainOutput};
use super::Replicator;
use super::config::Compression;
use crate::ids::{Mono, Now, PageNo};
use crate::job::{Image, Job, JobOutput};
use crate::ltx::{Codec, DICTIONARY_BYTES_MAX, Dictionary, DictionaryId, Packing};
use crate::machine::{
    Action, Actions, Chunk, Fact, OpId, Outcome, PutCondition, Reason, Request, Severity, StoreErrorKind,
    StoreReply, StoreRequest,
};
use crate::mutant::{self, Mutant};

/// Bytes of pages that are enough for a dictionary, however few the pages are; what a database may hold on
/// to while there are not enough.
const SAMPLE_BYTES_ENOUGH: usize = 512 << 10;
/// Pages of one segment that go into a sample at the most, and their bytes.
const SAMPLE_PAGES_MAX: usize = 512;
const SAMPLE_BYTES_MAX: usize = 2 << 20;

/// What is under way.
#[derive(Clone, PartialEq, Debug, Default)]
enum Step {
    #[default]
    Idle,
    Train {
        op: OpId,
    },
    Put {
        op: OpId,
        since: Mono,
        dictionary: Box<Dictionary>,
        permille: u32,
    },
    /// Reading what stands there: it should be this.
    Read {
        op: OpId,
        since: Mono,
        id: DictionaryId,
        permille: Option<u32>,
    },
}

/// The dictionary of one database.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct DictionarySide {
    step: Step,
    /// On the replica, for certain.
    ready: Option<Dictionary>,
    /// The newest image of each page sampled; of pages that are kept for long, a copy.
    sample: BTreeMap<PageNo, Chunk>,
    schedule: Schedule,
    /// Whether the dictionary of the newest segment was looked for.
    recalled: bool,
}

impl DictionarySide {
    fn sample_bytes(&self) -> usize {
        self.sample.values().map(|page| page.len()).sum()
    }
}

impl Replicator {
    /// How the next segment is compressed.
    pub(super) fn packing(&self) -> Packing {
        match self.config.compression {
            Compression::Lz4 => Packing::Lz4,
            Compression::Zstd { level } => Packing::Zstd { level, dictionary: self.dictionary.ready.clone() },
        }
    }

    pub(super) fn dictionary_awaits(&self, op: OpId) -> bool {
        match self.dictionary.step {
            Step::Idle => false,
            Step::Train { op: awaited } | Step::Put { op: awaited, .. } | Step::Read { op: awaited, .. } => {
                awaited == op
            }
        }
    }

    /// Pages that are on their way into a segment.
    pub(super) fn sample(&mut self, images: &[Image], out: &mut Actions) {
        let Compression::Zstd { level } = self.config.compression else { return };
        let side = &mut self.dictionary;
        if side.step != Step::Idle || !side.schedule.is_due() {
            return;
        }
        let page_bytes = images.first().map_or(1, |(_, page)| page.len());
        let most = SAMPLE_PAGES_MAX.min(SAMPLE_BYTES_MAX / page_bytes).max(1);
        let stride = images.len().div_ceil(most).max(1);
        side.sample.extend(images.iter().step_by(stride).cloned());
        let enough =
            side.sample.len() >= self.config.sample_pages_min || side.sample_bytes() >= SAMPLE_BYTES_ENOUGH;
        if !enough {
            // A page that waits must not keep the memory of a whole capture.
            side.sample.values_mut().for_each(|page| *page = Chunk::from(page.to_vec()));
            return;
        }
        let pages: Vec<Chunk> = core::mem::take(&mut side.sample).into_values().collect();
        let job = TrainJob {
            pages,
            level,
            current: side.ready.clone(),
            permille_max: self.config.dictionary_permille_max,
        };
        let op = self.submit(Request::Compute(Job::Train(job)), out);
        self.dictionary.step = Step::Train { op };
    }

    /// A segment has left for the replica.
    pub(super) fn weigh_segment(&mut self, codec: Codec, pages: u32, page_bytes: usize, bytes: u64) {
        if let Codec::Zstd(dictionary) = codec {
            let with = dictionary.is_some() && dictionary == self.dictionary.ready.as_ref().map(|it| it.id());
            self.dictionary.schedule.wrote(pages, u64::from(pages) * page_bytes as u64, bytes, with);
        }
    }

    /// Whether the dictionary of the newest segment is still being looked for. The first segment waits: were it
    /// made without, a whole level would be compressed again as it is.
    pub(super) fn dictionary_rests(&self) -> bool {
        self.dictionary.step == Step::Idle
    }

    /// Whether the dictionary of the newest segment is still being looked for.
    pub(super) fn recalls_dictionary(&self) -> bool {
        let side = &self.dictionary;
        let reads = matches!(side.step, Step::Read { permille: None, .. });
        self.config.compression != Compression::Lz4 && (!side.recalled || reads)
    }

    /// Looks for the dictionary that the newest segment names, once.
    pub(super) fn dictionary_pump(&mut self, now: Now, out: &mut Actions) -> bool {
        if self.dictionary.recalled || !self.boot.is_done() || self.config.compression == Compression::Lz4 {
            return false;
        }
        self.dictionary.recalled = true;
        let header = self.head.as_ref().map(|head| head.header);
        if let Some(Codec::Zstd(Some(id))) = header.map(|header| header.codec) {
            self.read_dictionary(now, id, None, out);
        }
        true
    }

    fn read_dictionary(&mut self, now: Now, id: DictionaryId, permille: Option<u32>, out: &mut Actions) {
        let op = self.submit(Request::Store(StoreRequest::GetDictionary { id }), out);
        self.dictionary.step = Step::Read { op, since: now.mono, id, permille };
    }

    fn put_dictionary(&mut self, now: Now, dictionary: Dictionary, permille: u32, out: &mut Actions) {
        if mutant::on(Mutant::SegmentBeforeDictionary) {
            self.dictionary.ready = Some(dictionary.clone());
        }
        let condition = match self.config.create_if_absent {
            true => PutCondition::IfAbsent,
            false => PutCondition::Always,
        };
        let (id, bytes) = (dictionary.id(), dictionary.bytes().clone());
        let op = self.submit(Request::Store(StoreRequest::PutDictionary { id, bytes, condition }), out);
        self.dictionary.step = Step::Put { op, since: now.mono, dictionary: Box::new(dictionary), permille };
    }

    pub(super) fn dictionary_completed(&mut self, now: Now, outcome: Outcome, out: &mut Actions) {
        match (core::mem::take(&mut self.dictionary.step), outcome) {
            (Step::Train { .. }, Outcome::Compute(JobOutput::Train(TrainOutput { best, permille }))) => {
                match best {
                    Best::New(dictionary) => self.put_dictionary(now, dictionary, permille, out),
                    Best::Current => self.dictionary.schedule.chose(Some(permille)),
                    Best::None => {
                        self.dictionary.ready = None;
                        self.dictionary.schedule.chose(None);
                    }
                }
            }
            (Step::Put { dictionary, permille, .. }, Outcome::Store(Ok(_))) => {
                let text = format!("pages are compressed with dictionary {} from now on", dictionary.id());
                out.notify(Severity::Info, Fact::Remark { text });
                self.dictionary.ready = Some(*dictionary);
                self.dictionary.schedule.chose(Some(permille));
            }
            // The name says what it holds; whether it does is worth a look.
            (Step::Put { dictionary, permille, .. }, Outcome::Store(Err(error)))
                if matches!(error.kind, StoreErrorKind::AlreadyExists | StoreErrorKind::Ambiguous) =>
            {
                self.read_dictionary(now, dictionary.id(), Some(permille), out);
            }
            (Step::Read { id, permille, .. }, Outcome::Store(Ok(StoreReply::Bytes { bytes, .. }))) => {
                match Dictionary::read(id, &bytes) {
                    Ok(dictionary) => {
                        self.dictionary.ready = Some(dictionary);
                        self.dictionary.schedule.chose(permille.or(Some(1_000)));
                    }
                    Err(text) => self.dictionary_failed(&text, out),
                }
            }
            (Step::Put { .. } | Step::Read { .. }, Outcome::Store(Err(error))) => {
                self.dictionary_failed(&error.text, out);
            }
            (step, outcome) => unreachable!("{step:?} does not end in {outcome:?}"),
        }
    }

    /// What is in use stays so; another is made later.
    fn dictionary_failed(&mut self, text: &str, out: &mut Actions) {
        self.dictionary.schedule.chose(None);
        let text: String = format!("segments go on without a new dictionary for now: {text}");
        out.notify(Severity::Warn, Fact::Remark { text });
    }

    pub(super) fn dictionary_deadline(&self) -> Option<(Mono, Reason)> {
        let (Step::Put { since, .. } | Step::Read { since, .. }) = &self.dictionary.step else { return None };
        Some((since.after(self.config.put_deadline(DICTIONARY_BYTES_MAX as u64)), Reason::Deadline))
    }

    pub(super) fn dictionary_tick(&mut self, now: Now, out: &mut Actions) {
        if self.dictionary_deadline().is_none_or(|(at, _)| at > now.mono) {
            return;
        }
        if let Step::Put { op, .. } | Step::Read { op, .. } = core::mem::take(&mut self.dictionary.step) {
            out.push(Action::Cancel { op });
            self.dictionary_failed("no answer from the store", out);
        }
    }
}
