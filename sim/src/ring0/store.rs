//! An object store in memory, at the level of [`StoreRequest`].
//!
//! Objects come to exist whole and only if none of the name exists. Requests have an effect and
//! an answer, which a [`Fate`] takes apart: no effect, an effect whose answer is lost, no answer
//! at all. A body that was sent whole may land after the process that sent it has died.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use driftless_core::ids::Wall;
use driftless_core::ltx::{Dictionaries, Dictionary};
use driftless_core::machine::{
    ByteRange, Chunk, Listed, Object, OpId, PutCondition, StoreError, StoreErrorKind, StoreReply,
    StoreRequest,
};

use super::mirror::Mirror;
use super::oracles::retention::Aged;
use super::oracles::{contiguous, fork};
use super::summary::Held;
use super::violation::Violation;

/// What becomes of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It works and is answered.
    Works,
    /// It has no effect and says so.
    Refused,
    /// It met another: try again.
    Conflict,
    /// It has its effect and its answer is lost.
    Lost,
    /// It has no effect and nobody can tell.
    Unclear,
    /// It has its effect late and is never answered.
    Hangs,
    /// It has no effect and is never answered.
    Swallowed,
    /// It has no effect: too many requests.
    Throttled,
    /// It has no effect: nobody may.
    Denied,
    /// It has no effect: there is no room.
    Full,
    /// It has its effect, is sent again on its way, and answered as the second one is.
    Taken,
    /// The connection breaks within the body: of a put nothing stays, of an answer nothing comes.
    Reset,
    /// A listing, or a read, as it would have been so many milliseconds ago.
    Stale(u32),
    /// A listing of so many entries, which says that there are more.
    Cut(u32),
    /// The answer's body has another bit at a place that this number gives.
    Flipped(u64),
    /// The answer's body is somebody else's.
    Foreign,
    /// It has its effect, and has it again later.
    Twice,
}

impl Fate {
    /// Whether the request reaches the store.
    pub fn has_effect(self) -> bool {
        !matches!(
            self,
            Fate::Refused
                | Fate::Conflict
                | Fate::Unclear
                | Fate::Swallowed
                | Fate::Throttled
                | Fate::Denied
                | Fate::Full
                | Fate::Reset
        )
    }

    /// Its name among the hits; a request that works is none.
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Works => "store: works",
            Fate::Refused => "store: refused",
            Fate::Conflict => "store: conflict",
            Fate::Lost => "store: answer lost after the effect",
            Fate::Unclear => "store: reset before the effect",
            Fate::Hangs => "store: effect late, no answer",
            Fate::Swallowed => "store: no effect, no answer",
            Fate::Throttled => "store: 429 storm",
            Fate::Denied => "store: credentials expired",
            Fate::Full => "store: full",
            Fate::Taken => "store: 412 of our own put",
            Fate::Reset => "store: reset within a body",
            Fate::Stale(_) => "store: stale answer",
            Fate::Cut(_) => "store: truncated list page",
            Fate::Flipped(_) => "store: corrupt body",
            Fate::Foreign => "store: foreign body",
            Fate::Twice => "store: put carried out twice",
        }
    }

    /// Whether the sender hears of it at all.
    pub fn is_answered(self) -> bool {
        !matches!(self, Fate::Hangs | Fate::Swallowed)
    }
}

/// Objects and open bodies.
#[derive(Debug, Default)]
pub struct SimStore {
    objects: BTreeMap<(u8, u64, u64), (Object, Chunk)>,
    /// What was deleted, for those who judge.
    deleted: BTreeMap<(u8, u64, u64), (Object, Chunk)>,
    /// What was deleted last, until somebody has looked.
    just_deleted: Option<Object>,
    /// Whether it says when objects were written.
    pub tells_time: bool,
    dictionaries: Dictionaries,
    bodies: BTreeMap<OpId, Body>,
    /// Whether it refuses what it is asked to refuse; otherwise every put replaces.
    pub keeps_conditions: bool,
    /// A segment that a put without a condition has replaced by other bytes.
    overwritten: Option<Object>,
    /// A directory that is given the same bodies.
    pub mirror: Option<Mirror>,
    /// Puts of the dead that wait until another of the same name is about to come.
    pub waiting: Vec<(Object, OpId, StoreRequest)>,
    /// At most so many entries in one answer to a listing.
    pub page_max: usize,
    /// Requests that reached it.
    pub requests: u64,
    /// Those of them that brought a part of a body.
    pub parts: u64,
    /// How much each level holds.
    held: [Held; 10],
    /// The most that each level held at a time.
    pub held_max: [Held; 10],
    /// When each object came to be.
    born: BTreeMap<(u8, u64, u64), u64>,
    /// The same by its own clock.
    stamped: BTreeMap<(u8, u64, u64), u64>,
    /// What time it is.
    pub now_ns: u64,
    /// How far its own clock is ahead.
    pub ahead: Duration,
    /// How many objects the last stale answer did not know of.
    pub hidden: usize,
    /// The run and number of the request that had its effect last.
    pub last_seq: (u64, u64),
    /// Whether bodies outlive the process that sent them.
    pub limbo: bool,
}

#[derive(Clone, Debug)]
struct Body {
    object: Object,
    condition: PutCondition,
    bytes: Vec<u8>,
    /// By the store's own clock.
    began_ns: u64,
}

/// When the store's clock began, in milliseconds since 1970: as that of the machines did.
const STORE_EPOCH_MS: i64 = 1_800_000_000_000;

/// What a proxy has to say where an object was asked for.
const FOREIGN: &[u8] = b"<!DOCTYPE html><html><head><title>Sign in to the network</title></head><body>\
    <p>This network asks you to sign in before you go on to the page that you wanted.</p></body></html>";

fn key(object: &Object) -> (u8, u64, u64) {
    (object.level.get(), object.range.min().get(), object.range.max().get())
}

impl SimStore {
    /// An empty store.
    pub fn new(page_max: usize, keeps_conditions: bool) -> SimStore {
        SimStore { page_max, keeps_conditions, ..SimStore::default() }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// An object's body.
    pub fn get(&self, object: &Object) -> Option<&Chunk> {
        self.objects.get(&key(object)).map(|(_, body)| body)
    }

    /// How many objects there are or were.
    pub fn len_ever(&self) -> usize {
        self.objects.len() + self.deleted.len()
    }

    /// The body of an object that is there, or was until it was deleted.
    pub fn ever(&self, object: &Object) -> Option<&Chunk> {
        let deleted = || self.deleted.get(&key(object)).map(|(_, body)| body);
        self.get(object).or_else(deleted)
    }

    /// What was deleted since somebody looked, what is left with its age in milliseconds, and the highest
    /// transaction that ever was there.
    pub fn take_deleted(&mut self) -> Option<(Object, Vec<Aged>, u64)> {
        let gone = self.just_deleted.take()?;
        // By the true time: a clock that was wrong deletes nothing early.
        let age = |key| (self.now_ns - self.born.get(key).copied().unwrap_or(0)) / 1_000_000;
        let left = self.objects.iter().map(|(key, (object, _))| (*object, age(key))).collect();
        let end = self.objects.keys().chain(self.deleted.keys()).map(|key| key.2).max();
        Some((gone, left, end.unwrap_or(0)))
    }

    /// All objects.
    pub fn objects(&self) -> impl Iterator<Item = (&Object, &Chunk)> {
        self.objects.values().map(|(object, body)| (object, body))
    }

    /// What a request of this fate is answered, after its effect.
    pub fn perform(
        &mut self,
        op: OpId,
        request: &StoreRequest,
        fate: Fate,
    ) -> Result<StoreReply, StoreError> {
        self.requests += 1;
        self.parts += u64::from(matches!(request, StoreRequest::PutPart { .. }));
        let kept = match (fate, request) {
            (Fate::Twice, StoreRequest::PutCommit { put }) => {
                self.bodies.get(put).cloned().map(|b| (*put, b))
            }
            (Fate::Reset, StoreRequest::PutPart { put, .. }) => self.bodies.remove(put).and(None),
            _ => None,
        };
        let result = match fate {
            Fate::Stale(ms) => self.stale(op, request, u64::from(ms) * 1_000_000),
            _ if fate.has_effect() => self.effect(op, request),
            _ => Ok(StoreReply::Done),
        };
        self.bodies.extend(kept);
        let says = |kind, text: &str| Err(StoreError::new(kind, text));
        match fate {
            Fate::Works | Fate::Stale(_) | Fate::Twice => result,
            Fate::Taken if result.is_ok() => says(StoreErrorKind::AlreadyExists, "412 precondition failed"),
            Fate::Taken => result,
            Fate::Cut(_) | Fate::Flipped(_) | Fate::Foreign => result.map(|reply| spoil(reply, fate)),
            Fate::Throttled => says(StoreErrorKind::Retry, "429 too many requests"),
            Fate::Denied => says(StoreErrorKind::Denied, "403 the token has expired"),
            Fate::Full => says(StoreErrorKind::NoSpace, "507 insufficient storage"),
            Fate::Reset => says(StoreErrorKind::Retry, "the connection was reset within the body"),
            Fate::Refused => says(StoreErrorKind::Retry, "503 slow down"),
            Fate::Conflict => says(StoreErrorKind::Conflict, "409 conflict"),
            _ => says(StoreErrorKind::Ambiguous, "the connection was reset"),
        }
    }

    /// What a read would have been answered a while ago.
    fn stale(&mut self, op: OpId, request: &StoreRequest, age_ns: u64) -> Result<StoreReply, StoreError> {
        let then = self.now_ns.saturating_sub(age_ns);
        let young: Vec<_> = self.born.iter().filter(|(_, born)| **born > then).map(|(key, _)| *key).collect();
        let hidden: Vec<_> = young.iter().filter_map(|key| Some((*key, self.objects.remove(key)?))).collect();
        let result = self.effect(op, request);
        let asked = |key: &(u8, u64, u64)| match request {
            StoreRequest::List { level, .. } => level.get() == key.0,
            StoreRequest::Get { object, .. } => key == &self::key(object),
            _ => false,
        };
        self.hidden = hidden.iter().filter(|(key, _)| asked(key)).count();
        self.objects.extend(hidden);
        result
    }

    /// Loses so many of the newest objects, as if they had never been acknowledged. How many went.
    pub fn lose_newest(&mut self, count: usize) -> usize {
        let newest: Vec<_> = self.objects.keys().rev().take(count).copied().collect();
        // What follows from them would land in another history.
        self.waiting.clear();
        if let Some(mirror) = &mut self.mirror {
            newest.iter().for_each(|key| mirror.delete(&self.objects[key].0));
        }
        for (object, body) in newest.iter().filter_map(|key| self.objects.remove(key)).collect::<Vec<_>>() {
            self.count(&object, Some(body.len()), None);
        }
        newest.len()
    }

    /// How many bodies there are that a run other than `run` has begun and not finished.
    pub fn unfinished(&self, run: u64) -> usize {
        self.bodies.keys().filter(|op| op.run != run).count()
    }

    /// When an object was written, by the store's own clock.
    fn modified(&self, object: &Object) -> Option<Wall> {
        let stamped = self.stamped.get(&key(object)).filter(|_| self.tells_time)?;
        Some(Wall(STORE_EPOCH_MS + (stamped / 1_000_000) as i64))
    }

    fn clock_ns(&self) -> u64 {
        self.now_ns + self.ahead.as_nanos() as u64
    }

    fn drop_unfinished(&mut self, older_than: Duration) -> u64 {
        if !self.limbo {
            return 0; // Bodies die with the process that sent them.
        }
        let (now, before) = (self.clock_ns(), self.bodies.len());
        self.bodies.retain(|_, body| now - body.began_ns.min(now) < older_than.as_nanos() as u64);
        (before - self.bodies.len()) as u64
    }

    fn effect(&mut self, op: OpId, request: &StoreRequest) -> Result<StoreReply, StoreError> {
        let missing = || StoreError::new(StoreErrorKind::NotFound, "no such object");
        match request {
            StoreRequest::List { level, after, limit } => {
                let level = level.get();
                let from = after.map(|after| (level, after.min().get(), after.max().get()));
                let from = from.map_or(Bound::Included((level, 0, 0)), Bound::Excluded);
                let max = self.page_max.min(*limit as usize);
                let mut entries: Vec<Listed> = self
                    .objects
                    .range((from, Bound::Included((level, u64::MAX, u64::MAX))))
                    .take(max.saturating_add(1))
                    .map(|(_, (object, body))| Listed {
                        object: *object,
                        len: body.len() as u64,
                        modified: self.modified(object),
                    })
                    .collect();
                let more = entries.len() > max;
                entries.truncate(max);
                Ok(StoreReply::Listing { entries, more })
            }
            StoreRequest::Get { object, range } => {
                let body = self.get(object).ok_or_else(missing)?;
                let len = body.len() as u64;
                let (start, end) = match range {
                    ByteRange::At { offset, len: want } => {
                        ((*offset).min(len), offset.saturating_add(*want).min(len))
                    }
                    ByteRange::Tail(want) => (len.saturating_sub(*want), len),
                };
                Ok(StoreReply::Bytes { bytes: body.slice(start as usize, end as usize), object_len: len })
            }
            StoreRequest::ListLegacy { .. } | StoreRequest::GetLegacy { .. } => no_legacy(request),
            StoreRequest::GetDictionary { .. } | StoreRequest::PutDictionary { .. } => {
                self.dictionary(request)
            }
            StoreRequest::PutOpen { object, condition } => {
                let began_ns = self.clock_ns();
                let body = Body { object: *object, condition: *condition, bytes: Vec::new(), began_ns };
                self.bodies.insert(op, body);
                Ok(StoreReply::Done)
            }
            StoreRequest::PutPart { put, bytes } => {
                self.bodies
                    .get_mut(put)
                    .ok_or_else(|| gone(StoreErrorKind::Retry))?
                    .bytes
                    .extend_from_slice(bytes);
                Ok(StoreReply::Done)
            }
            StoreRequest::PutCommit { put } => {
                let body = self.bodies.remove(put).ok_or_else(|| gone(StoreErrorKind::Ambiguous))?;
                self.commit(body)
            }
            StoreRequest::PutAbort { put } => {
                self.bodies.remove(put);
                Ok(StoreReply::Done)
            }
            StoreRequest::Delete { object } => Ok(self.delete(object)),
            StoreRequest::DropUnfinished { older_than } => {
                Ok(StoreReply::Dropped(self.drop_unfinished(*older_than)))
            }
        }
    }

    fn dictionary(&mut self, request: &StoreRequest) -> Result<StoreReply, StoreError> {
        let missing = || StoreError::new(StoreErrorKind::NotFound, "no such object");
        match request {
            StoreRequest::GetDictionary { id } => {
                let bytes = self.dictionaries.get(*id).map_err(|_| missing())?.bytes().clone();
                let object_len = bytes.len() as u64;
                Ok(StoreReply::Bytes { bytes, object_len })
            }
            StoreRequest::PutDictionary { id, bytes, condition } => {
                let refuses = self.keeps_conditions && *condition == PutCondition::IfAbsent;
                if refuses && self.dictionaries.has(*id) {
                    let text = "412 precondition failed";
                    return Err(StoreError::new(StoreErrorKind::AlreadyExists, text));
                }
                let dictionary = Dictionary::read(*id, bytes);
                self.dictionaries.add(dictionary.expect("a dictionary has the name that its bytes make"));
                Ok(StoreReply::Done)
            }
            other => unreachable!("{other:?} is about no dictionary"),
        }
    }

    fn delete(&mut self, object: &Object) -> StoreReply {
        if let Some(mirror) = &mut self.mirror {
            mirror.delete(object);
        }
        if let Some(gone) = self.objects.remove(&key(object)) {
            self.count(object, Some(gone.1.len()), None);
            self.deleted.insert(key(object), gone);
            self.just_deleted = Some(*object);
        }
        StoreReply::Done
    }

    /// An object of this length has gone, or been replaced, or come.
    fn count(&mut self, object: &Object, gone: Option<usize>, come: Option<usize>) {
        let level = usize::from(object.level.get());
        let held = &mut self.held[level];
        held.files = held.files + u64::from(come.is_some()) - u64::from(gone.is_some());
        held.bytes = held.bytes + come.unwrap_or(0) as u64 - gone.unwrap_or(0) as u64;
        let most = &mut self.held_max[level];
        *most = Held { files: most.files.max(held.files), bytes: most.bytes.max(held.bytes) };
    }

    /// Where the files of higher levels end that have come to be within so many milliseconds.
    pub fn ends_within(&self, ms: u64) -> BTreeSet<u64> {
        let since = self.now_ns.saturating_sub(ms * 1_000_000);
        let made = self.born.iter().filter(|((level, ..), born)| *level > 0 && **born >= since);
        made.map(|((_, _, max), _)| *max).collect()
    }

    /// A body takes its name.
    fn commit(&mut self, body: Body) -> Result<StoreReply, StoreError> {
        let Body { object, condition, bytes, .. } = body;
        let refuses = self.keeps_conditions && condition == PutCondition::IfAbsent;
        let taken = refuses && self.objects.contains_key(&key(&object));
        let body = Chunk::from(bytes);
        if let Some(mirror) = &mut self.mirror {
            mirror.put(&object, &body, !taken);
        }
        if taken {
            let text = "412 precondition failed";
            return Err(StoreError::new(StoreErrorKind::AlreadyExists, text));
        }
        self.born.insert(key(&object), self.now_ns);
        self.stamped.insert(key(&object), self.clock_ns());
        let before = self.objects.insert(key(&object), (object, body.clone()));
        self.count(&object, before.as_ref().map(|(_, before)| before.len()), Some(body.len()));
        let replaced = before.is_some_and(|(_, before)| *before != *body);
        if replaced && condition == PutCondition::Always {
            self.overwritten = Some(object);
        }
        Ok(StoreReply::Done)
    }

    /// All dictionaries.
    pub const fn dictionaries(&self) -> &Dictionaries {
        &self.dictionaries
    }

    /// The object that a body is for.
    pub fn object_of(&self, put: &OpId) -> Option<Object> {
        self.bodies.get(put).map(|body| body.object)
    }

    /// The name of what a request is about, for the dice.
    pub fn subject(&self, request: &StoreRequest) -> String {
        let body = |put: &OpId| self.bodies.get(put).map_or("gone".into(), |body| body.object.to_string());
        match request {
            StoreRequest::List { level, .. } => format!("list {level}"),
            StoreRequest::Get { object, .. } => format!("get {object}"),
            StoreRequest::ListLegacy { .. } => "list generations".into(),
            StoreRequest::GetLegacy { object, .. } => format!("get {object}"),
            StoreRequest::GetDictionary { id } => format!("get dictionary {id}"),
            StoreRequest::PutDictionary { id, .. } => format!("put dictionary {id}"),
            StoreRequest::PutOpen { object, .. } => format!("open {object}"),
            StoreRequest::PutPart { put, .. } => format!("part {}", body(put)),
            StoreRequest::PutCommit { put } => format!("commit {}", body(put)),
            StoreRequest::PutAbort { put } => format!("abort {}", body(put)),
            StoreRequest::Delete { object } => format!("delete {object}"),
            StoreRequest::DropUnfinished { .. } => "drop unfinished".into(),
        }
    }

    /// Where nothing is refused, the engine looks before it puts: no segment becomes another.
    ///
    /// # Errors
    /// When one did.
    pub fn check_kept(&self) -> Result<(), Violation> {
        fork::kept(self.overwritten)?;
        self.mirror.as_ref().map_or(Ok(()), Mirror::check)
    }

    /// Level 0 holds, or held, single transactions from 1 on, without a gap, and each other level has none.
    ///
    /// # Errors
    /// When that is not so.
    pub fn check_contiguous(&self) -> Result<u64, Violation> {
        let ever: BTreeMap<_, _> = self.deleted.iter().chain(&self.objects).collect();
        contiguous::check(ever.values().map(|(object, _)| object))
    }
}

/// A body that somebody has removed; of a commit nobody can tell whether it came to its end before.
fn gone(kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind, "404 no such upload")
}

/// Nobody writes Litestream 0.3's layout any more: here it is empty.
fn no_legacy(request: &StoreRequest) -> Result<StoreReply, StoreError> {
    match request {
        StoreRequest::ListLegacy { .. } => Ok(StoreReply::LegacyListing { entries: Vec::new(), more: false }),
        _ => Err(StoreError::new(StoreErrorKind::NotFound, "404 no such key")),
    }
}

/// What comes of an answer on its way.
fn spoil(reply: StoreReply, fate: Fate) -> StoreReply {
    match (reply, fate) {
        (StoreReply::Listing { mut entries, more }, Fate::Cut(keep)) => {
            let cut = entries.len() > keep as usize;
            entries.truncate(keep as usize);
            StoreReply::Listing { entries, more: more || cut }
        }
        (StoreReply::Bytes { bytes, object_len }, Fate::Flipped(at)) if !bytes.is_empty() => {
            let mut bytes = bytes.to_vec();
            let place = (at >> 3) as usize % bytes.len();
            bytes[place] ^= 1 << (at & 7);
            StoreReply::Bytes { bytes: Chunk::from(bytes), object_len }
        }
        (StoreReply::Bytes { bytes, .. }, Fate::Foreign) => {
            let len = bytes.len().min(FOREIGN.len());
            let object_len = FOREIGN.len() as u64;
            StoreReply::Bytes { bytes: Chunk::from(FOREIGN[..len].to_vec()), object_len }
        }
        (reply, _) => reply,
    }
}

#[cfg(test)]
mod tests {
    use driftless_core::ids::{Level, Txid, TxidRange};
    use driftless_core::machine::ReplicaId;

    use super::*;

    fn put(store: &mut SimStore, txid: u64, seq: u64, fate: Fate) -> Result<StoreReply, StoreError> {
        let range = TxidRange::single(Txid::new(txid).unwrap());
        let open = OpId { replica: ReplicaId(0), run: 1, seq };
        store.perform(
            open,
            &StoreRequest::PutOpen {
                object: Object { level: Level::CAPTURES, range },
                condition: PutCondition::IfAbsent,
            },
            Fate::Works,
        )?;
        let bytes = Chunk::from(seq.to_be_bytes().to_vec());
        store.perform(open, &StoreRequest::PutPart { put: open, bytes }, Fate::Works)?;
        store.perform(OpId { seq: seq + 1, ..open }, &StoreRequest::PutCommit { put: open }, fate)
    }

    #[test]
    fn an_object_is_created_once() {
        let mut store = SimStore::new(10, true);
        assert_eq!(put(&mut store, 1, 10, Fate::Lost).unwrap_err().kind, StoreErrorKind::Ambiguous);
        assert_eq!(put(&mut store, 1, 20, Fate::Works).unwrap_err().kind, StoreErrorKind::AlreadyExists);
        let (_, body) = store.objects().next().unwrap();
        assert_eq!(**body, 10_u64.to_be_bytes());
        assert_eq!(put(&mut store, 2, 30, Fate::Unclear).unwrap_err().kind, StoreErrorKind::Ambiguous);
        assert_eq!(store.check_contiguous(), Ok(1));
    }

    #[test]
    fn a_segment_that_becomes_another_is_found() {
        let mut store = SimStore::new(10, false);
        let always = |store: &mut SimStore, seq: u64, byte: u8| {
            let object = Object { level: Level::CAPTURES, range: TxidRange::single(Txid::FIRST) };
            let open = OpId { replica: ReplicaId(0), run: 1, seq };
            let request = StoreRequest::PutOpen { object, condition: PutCondition::Always };
            store.perform(open, &request, Fate::Works).unwrap();
            let bytes = Chunk::from(vec![byte]);
            store.perform(open, &StoreRequest::PutPart { put: open, bytes }, Fate::Works).unwrap();
            store.perform(open, &StoreRequest::PutCommit { put: open }, Fate::Works).unwrap();
            store.check_kept()
        };
        assert_eq!(always(&mut store, 1, 7), Ok(()));
        assert_eq!(always(&mut store, 2, 7), Ok(()), "the same again is no harm");
        assert_eq!(always(&mut store, 3, 8).unwrap_err().oracle, "overwrite");
    }

    #[test]
    fn a_gap_is_found() {
        let mut store = SimStore::new(10, true);
        for txid in [1, 2, 4] {
            put(&mut store, txid, txid * 10, Fate::Works).unwrap();
        }
        assert_eq!(store.check_contiguous().unwrap_err().oracle, "contiguity");
    }
}
