//! An object store in memory, at the level of [`StoreRequest`].
//!
//! Objects come to exist whole and only if none of the name exists. Requests have an effect and
//! an answer, which a [`Fate`] takes apart: no effect, an effect whose answer is lost, no answer
//! at all. A body that was sent whole may land after the process that sent it has died.

use std::collections::BTreeMap;

use driftless_core::machine::{
    ByteRange, Chunk, Listed, Object, OpId, PutCondition, StoreError, StoreErrorKind, StoreReply,
    StoreRequest,
};

use super::mirror::Mirror;
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
}

impl Fate {
    /// Whether the request reaches the store.
    pub fn has_effect(self) -> bool {
        matches!(self, Fate::Works | Fate::Lost | Fate::Hangs)
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
    bodies: BTreeMap<OpId, Body>,
    /// Whether it refuses what it is asked to refuse; otherwise every put replaces.
    pub keeps_conditions: bool,
    /// A segment that a put without a condition has replaced by other bytes.
    overwritten: Option<Object>,
    /// A directory that is given the same bodies.
    pub mirror: Option<Mirror>,
    /// At most so many entries in one answer to a listing.
    pub page_max: usize,
    /// Requests that reached it.
    pub requests: u64,
}

#[derive(Debug)]
struct Body {
    object: Object,
    condition: PutCondition,
    bytes: Vec<u8>,
}

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
        let result = if fate.has_effect() { self.effect(op, request) } else { Ok(StoreReply::Done) };
        let says = |kind, text: &str| Err(StoreError::new(kind, text));
        match fate {
            Fate::Works => result,
            Fate::Refused => says(StoreErrorKind::Retry, "503 slow down"),
            Fate::Conflict => says(StoreErrorKind::Conflict, "409 conflict"),
            _ => says(StoreErrorKind::Ambiguous, "the connection was reset"),
        }
    }

    fn effect(&mut self, op: OpId, request: &StoreRequest) -> Result<StoreReply, StoreError> {
        let missing = || StoreError::new(StoreErrorKind::NotFound, "no such object");
        match request {
            StoreRequest::List { level, after, limit } => {
                let from = after.map(|after| (level.get(), after.min().get(), after.max().get()));
                let mut entries: Vec<Listed> = self
                    .objects
                    .iter()
                    .filter(|(key, _)| key.0 == level.get() && from.is_none_or(|from| **key > from))
                    .map(|(_, (object, body))| Listed {
                        object: *object,
                        len: body.len() as u64,
                        modified: None,
                    })
                    .collect();
                let max = self.page_max.min(*limit as usize);
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
            StoreRequest::PutOpen { object, condition } => {
                self.bodies.insert(op, Body { object: *object, condition: *condition, bytes: Vec::new() });
                Ok(StoreReply::Done)
            }
            StoreRequest::PutPart { put, bytes } => {
                self.bodies.get_mut(put).ok_or_else(missing)?.bytes.extend_from_slice(bytes);
                Ok(StoreReply::Done)
            }
            StoreRequest::PutCommit { put } => {
                let body = self.bodies.remove(put).ok_or_else(missing)?;
                self.commit(body)
            }
            StoreRequest::PutAbort { put } => {
                self.bodies.remove(put);
                Ok(StoreReply::Done)
            }
            StoreRequest::Delete { object } => {
                if let Some(mirror) = &mut self.mirror {
                    mirror.delete(object);
                }
                self.objects.remove(&key(object));
                Ok(StoreReply::Done)
            }
            // Bodies die with the process that sent them.
            StoreRequest::DropUnfinished { .. } => Ok(StoreReply::Dropped(0)),
        }
    }

    /// A body takes its name.
    fn commit(&mut self, body: Body) -> Result<StoreReply, StoreError> {
        let Body { object, condition, bytes } = body;
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
        let before = self.objects.insert(key(&object), (object, body.clone()));
        let replaced = before.is_some_and(|(_, before)| *before != *body);
        if replaced && condition == PutCondition::Always {
            self.overwritten = Some(object);
        }
        Ok(StoreReply::Done)
    }

    /// The name of what a request is about, for the dice.
    pub fn subject(&self, request: &StoreRequest) -> String {
        let body = |put: &OpId| self.bodies.get(put).map_or("gone".into(), |body| body.object.to_string());
        match request {
            StoreRequest::List { level, .. } => format!("list {level}"),
            StoreRequest::Get { object, .. } => format!("get {object}"),
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
        match self.overwritten {
            Some(object) => Err(Violation::new("overwrite", format!("{object} was replaced by another"))),
            None => self.mirror.as_ref().map_or(Ok(()), Mirror::check),
        }
    }

    /// Level 0 holds single transactions from 1 on, without a gap.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_contiguous(&self) -> Result<u64, Violation> {
        let mut expected = 1;
        for ((level, min, max), _) in self.objects.iter().filter(|((level, ..), _)| *level == 0) {
            if (*min, *max) != (expected, expected) {
                let text = format!("level {level}: {min:x}-{max:x} where {expected:x} comes next");
                return Err(Violation::new("contiguity", text));
            }
            expected += 1;
        }
        Ok(expected - 1)
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
