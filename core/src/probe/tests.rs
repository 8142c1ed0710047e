use alloc::vec::Vec;

use super::*;
use crate::ids::Wall;
use crate::machine::ReplicaId;

/// A store of cells with one thing wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Defect {
    None,
    /// Every write takes effect.
    IgnoresAll,
    /// Refuses, and takes it all the same.
    RefusesAndTakes,
    /// Two creations that overlap both win.
    RacyCreate,
    /// A stale version is as good as the right one.
    IgnoresVersions,
    /// Names no versions.
    NoVersions,
    /// Says that it knows no conditions.
    NoConditions,
    /// Nothing may be removed.
    KeepsAll,
    /// The answer to the nth request is lost, its effect is not.
    Loses(usize),
    /// The first three requests are refused for lack of credentials.
    DeniesThree,
    /// Takes one creation of a name in a second, and answers the others with 429.
    LimitsRate,
    /// In the first race every creation is told that another is under way, and none is made.
    RefusesAllOnce,
}

struct Cells {
    defect: Defect,
    cells: BTreeMap<String, (Vec<u8>, u64)>,
    requests: usize,
    racers: usize,
}

impl Cells {
    fn perform(&mut self, request: CellRequest) -> Result<CellReply, StoreError> {
        self.requests += 1;
        let lost = self.defect == Defect::Loses(self.requests);
        if self.defect == Defect::DeniesThree && self.requests <= 3 {
            return Err(StoreError::new(StoreErrorKind::Denied, "403"));
        }
        let result = self.effect(request);
        match lost {
            true => Err(StoreError::new(StoreErrorKind::Ambiguous, "reset")),
            false => result,
        }
    }

    fn effect(&mut self, request: CellRequest) -> Result<CellReply, StoreError> {
        let refuse = || Err(StoreError::new(StoreErrorKind::AlreadyExists, "412"));
        match request {
            CellRequest::Write { cell, bytes, condition } => {
                if self.defect == Defect::NoConditions {
                    return Err(StoreError::new(StoreErrorKind::Unsupported, "501"));
                }
                let there = self.cells.get(&cell).map(|(_, version)| *version);
                if cell.ends_with("-race") {
                    self.racers += 1;
                    match self.defect {
                        Defect::LimitsRate if there.is_some() => {
                            return Err(StoreError::new(StoreErrorKind::Retry, "429"));
                        }
                        Defect::RefusesAllOnce if self.racers <= usize::from(RACERS) => {
                            return Err(StoreError::new(StoreErrorKind::Conflict, "409"));
                        }
                        _ => {}
                    }
                }
                let holds = match &condition {
                    CellCondition::Absent => there.is_none(),
                    CellCondition::Version(version) => {
                        there.map(|version| version.to_string()).as_ref() == Some(version)
                            || self.defect == Defect::IgnoresVersions
                    }
                };
                let racy = self.defect == Defect::RacyCreate && cell.ends_with("-race") && there < Some(2);
                let takes = holds || racy || self.defect == Defect::IgnoresAll;
                if takes || self.defect == Defect::RefusesAndTakes {
                    self.cells.insert(cell, (bytes.to_vec(), there.unwrap_or(0) + 1));
                }
                if takes { Ok(CellReply::Written { version: None }) } else { refuse() }
            }
            CellRequest::Read { cell } => match self.cells.get(&cell) {
                Some((bytes, version)) => Ok(CellReply::Content {
                    bytes: Chunk::from(bytes.clone()),
                    version: (self.defect != Defect::NoVersions).then(|| version.to_string()),
                }),
                None => Err(StoreError::new(StoreErrorKind::NotFound, "404")),
            },
            CellRequest::Remove { .. } if self.defect == Defect::KeepsAll => {
                Err(StoreError::new(StoreErrorKind::Denied, "403"))
            }
            CellRequest::Remove { cell } => {
                self.cells.remove(&cell);
                Ok(CellReply::Done)
            }
        }
    }
}

/// Runs a probe to its end; `later` answers the last request of several first.
fn probe(defect: Defect, later: bool) -> (Findings, Cells) {
    let mut store = Cells { defect, cells: BTreeMap::new(), requests: 0, racers: 0 };
    let mut probe = Probe::new(OpIds::new(ReplicaId(0), 7));
    let mut now = Now { mono: Mono::default(), wall: Wall(0) };
    let mut out = Actions::new();
    let mut open = Vec::new();
    probe.handle(now, Event::Start { entropy: 99 }, &mut out);
    for _ in 0..1_000 {
        for action in out.drain() {
            match action {
                Action::Submit { op, request: Request::Cell(request) } => {
                    open.push((op, store.perform(request)));
                }
                Action::Stopped(exit) => {
                    assert_eq!(exit, Exit::Done);
                    return (probe.status(), store);
                }
                Action::Cancel { op } => open.retain(|(awaited, _)| *awaited != op),
                other => panic!("{other:?}"),
            }
        }
        let event = match open.is_empty() {
            false => {
                let (op, result) = if later { open.pop().unwrap() } else { open.remove(0) };
                Event::Completed { op, outcome: Outcome::Cell(result) }
            }
            true => {
                now.mono = probe.next_deadline().expect("it waits for nothing").0;
                Event::Tick
            }
        };
        probe.handle(now, event, &mut out);
    }
    panic!("{defect:?}: the probe does not end");
}

#[test]
fn each_defect_is_found_and_nothing_stays() {
    use Finding::{Denied, Holds, Ignored, Unknown, Unsupported};
    for (defect, create_if_absent, swap, remove) in [
        (Defect::None, Holds, Holds, Holds),
        (Defect::IgnoresAll, Ignored, Ignored, Holds),
        (Defect::RefusesAndTakes, Ignored, Holds, Holds),
        (Defect::RacyCreate, Ignored, Holds, Holds),
        (Defect::IgnoresVersions, Holds, Ignored, Holds),
        (Defect::NoVersions, Holds, Unsupported, Holds),
        (Defect::NoConditions, Unsupported, Unsupported, Unknown),
        (Defect::KeepsAll, Holds, Holds, Denied),
        (Defect::DeniesThree, Holds, Holds, Holds),
        (Defect::LimitsRate, Holds, Holds, Holds),
        (Defect::RefusesAllOnce, Holds, Holds, Holds),
    ] {
        for later in [false, true] {
            let (findings, store) = probe(defect, later);
            assert_eq!(findings, Findings { create_if_absent, swap, remove }, "{defect:?} {later}");
            if remove == Holds {
                assert!(store.cells.is_empty(), "{defect:?}: {:?}", store.cells);
            }
        }
    }
}

#[test]
fn a_lost_answer_is_never_taken_for_a_finding() {
    use Finding::Holds;
    let (_, whole) = probe(Defect::None, false);
    for lost in 1..=whole.requests {
        for later in [false, true] {
            let (found, store) = probe(Defect::Loses(lost), later);
            assert_eq!(
                (found.create_if_absent, found.swap),
                (Holds, Holds),
                "request {lost} of {}",
                whole.requests
            );
            assert!(store.cells.is_empty(), "{:?}", store.cells.keys());
        }
    }
}
