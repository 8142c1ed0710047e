//! One contender, one store, every turn that a conversation between them can take.

use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use super::*;
use crate::ids::{Now, Wall};
use crate::machine::{
    Action, Actions, CellCondition, CellReply, CellRequest, Chunk, Event, Exit, Machine, OpId, OpIds,
    Outcome, ReplicaId, Request, StoreError, StoreErrorKind,
};

const TTL: Duration = Duration::from_secs(9);

fn at(ms: u64) -> Now {
    Now { mono: Mono::from_duration(Duration::from_millis(ms)), wall: Wall(1_700_000_000_000) }
}

fn body(nonce: u64, state: State) -> Body {
    let (epoch, holder, term, since) = (6, 77, Term(5), Wall(3));
    let mut active = Active::default();
    active.put(PlaceId(8), 1);
    Body { epoch, holder, term, nonce, ttl: TTL, state, progress: 1, active, since, address: "a:1".into() }
}

/// A contender in a conversation.
struct Talk {
    lease: Lease,
    out: Actions,
    asked: Option<(OpId, CellRequest)>,
    end: Option<Exit>,
}

impl Talk {
    fn new(config: LeaseConfig) -> Talk {
        let mut talk = Talk::untried(config);
        talk.tell(0, Event::Lease(LeaseEvent::Tried(true)));
        talk
    }

    /// One whose store was not tried yet.
    fn untried(config: LeaseConfig) -> Talk {
        let lease = Lease::new(LeaseConfig { ttl: TTL, holder: 1, ..config }, OpIds::new(ReplicaId(0), 9));
        let mut talk = Talk { lease, out: Actions::new(), asked: None, end: None };
        talk.tell(0, Event::Start { entropy: 4 });
        talk
    }

    fn tell(&mut self, ms: u64, event: Event) {
        self.lease.handle(at(ms), event, &mut self.out);
        for action in self.out.drain() {
            match action {
                Action::Submit { op, request: Request::Cell(request) } => {
                    assert!(self.asked.replace((op, request)).is_none(), "one thing at a time");
                }
                Action::Cancel { .. } => self.asked = None,
                Action::Stopped(exit) => self.end = Some(exit),
                Action::Notify(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn answer(&mut self, ms: u64, result: Result<CellReply, StoreErrorKind>) {
        let (op, _) = self.asked.take().expect("something is asked for");
        let outcome = Outcome::Cell(result.map_err(|kind| StoreError::new(kind, "no")));
        self.tell(ms, Event::Completed { op, outcome });
    }

    /// Answers a look.
    fn shows(&mut self, ms: u64, body: &Body, version: &str) {
        assert!(matches!(self.asked, Some((_, CellRequest::Read { .. }))), "{:?}", self.asked);
        let version = Some(version.to_string());
        self.answer(ms, Ok(CellReply::Content { bytes: Chunk::from(body.encode()), version }));
    }

    /// What is being written, and on which condition.
    fn writes(&self) -> (Body, CellCondition) {
        match &self.asked {
            Some((_, CellRequest::Write { bytes, condition, .. })) => {
                (Body::decode(bytes).unwrap(), condition.clone())
            }
            other => panic!("{other:?}"),
        }
    }

    fn role(&self) -> Role {
        self.lease.status().role
    }

    /// A holder of the lease that nobody had held, whose write was sent at 0 and read back.
    fn holding() -> Talk {
        let mut talk = Talk::new(LeaseConfig::default());
        talk.answer(10, Err(StoreErrorKind::NotFound));
        let (first, condition) = talk.writes();
        assert_eq!((first.epoch, first.state, condition), (1, State::Claiming, CellCondition::Absent));
        talk.answer(20, Ok(CellReply::Written { version: None }));
        talk.shows(30, &first, "v1");
        talk
    }

    fn held(&self) -> Body {
        self.lease.status().body.unwrap()
    }
}

#[test]
fn what_is_written_is_read_and_nothing_else_is() {
    let body = Body { address: "host:1\nstate released".into(), ..body(7, State::Leaving) };
    let bytes = body.encode();
    assert_eq!(Body::decode(&bytes).unwrap(), Body { address: "host:1state released".into(), ..body });
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        Body::decode(&changed).unwrap_err();
        Body::decode(&bytes[..at]).unwrap_err();
    }
    let later = String::from_utf8(bytes).unwrap().replace("lease 1", "lease 2");
    assert!(Body::decode(later.as_bytes()).unwrap_err().contains("another version"));
}

#[test]
fn nobody_waits_for_a_lease_that_was_never_held_but_a_standby() {
    let mut talk = Talk::holding();
    assert_eq!(talk.role(), Role::Claimant);
    talk.tell(40, Event::Lease(LeaseEvent::Activate));
    let (active, condition) = talk.writes();
    assert_eq!((active.state, condition), (State::Active, CellCondition::Version("v1".into())));
    talk.answer(50, Ok(CellReply::Written { version: None }));
    assert_eq!(talk.role(), Role::Primary);

    let mut talk = Talk::new(LeaseConfig { begins: false, ..LeaseConfig::default() });
    talk.answer(10, Err(StoreErrorKind::NotFound));
    assert!(talk.asked.is_none());
    talk.tell(60_000, Event::Tick);
    assert!(matches!(talk.asked, Some((_, CellRequest::Read { .. }))));
}

#[test]
fn whoever_waits_counts_from_what_it_saw_and_takes_the_next_epoch() {
    let mut talk = Talk::new(LeaseConfig::default());
    talk.shows(100, &body(1, State::Active), "v");
    for ms in (200..9_100).step_by(50) {
        talk.tell(ms, Event::Tick);
        if talk.asked.is_some() {
            assert!(matches!(talk.asked, Some((_, CellRequest::Read { .. }))), "at {ms}");
            talk.shows(ms, &body(1, State::Active), "v");
        }
    }
    talk.tell(9_100, Event::Tick);
    if matches!(talk.asked, Some((_, CellRequest::Read { .. }))) {
        talk.shows(9_100, &body(1, State::Active), "v");
    }
    let (claim, condition) = talk.writes();
    assert_eq!((claim.epoch, claim.holder, condition), (7, 1, CellCondition::Version("v".into())));
    assert_ne!(claim.nonce, 1);

    // Any sign of life begins the wait anew.
    let mut talk = Talk::new(LeaseConfig::default());
    for n in 0..40 {
        if talk.asked.is_some() {
            talk.shows(n * 3_000, &body(n, State::Active), &format!("v{n}"));
        }
        talk.tell(n * 3_000 + 3_000, Event::Tick);
    }
    assert_eq!(talk.role(), Role::Standby);
}

#[test]
fn what_was_given_up_is_taken_at_once_and_so_is_ones_own() {
    let mut talk = Talk::new(LeaseConfig { begins: false, ..LeaseConfig::default() });
    talk.shows(5, &body(1, State::Released), "v");
    assert_eq!(talk.writes().0.epoch, 7);

    let own = LeaseConfig { term: Some(Term(5)), ..LeaseConfig::default() };
    let mut talk = Talk::new(own.clone());
    talk.shows(5, &body(1, State::Active), "v");
    assert!(talk.asked.is_none() || matches!(talk.asked, Some((_, CellRequest::Read { .. }))), "a copy's");
    let mut talk = Talk::new(own);
    talk.shows(5, &Body { holder: 1, ..body(1, State::Active) }, "v");
    let (claim, _) = talk.writes();
    talk.answer(6, Ok(CellReply::Written { version: None }));
    assert!(talk.lease.status().continues);
    assert_ne!(claim.term, Term(5));
}

#[test]
fn whoever_could_not_begin_leaves_it_to_others_until_it_can() {
    let mut talk = Talk::new(LeaseConfig { begins: false, ..LeaseConfig::default() });
    talk.tell(1, Event::Lease(LeaseEvent::Contend(false)));
    talk.shows(5, &body(1, State::Released), "v");
    talk.tell(10_000, Event::Tick);
    talk.shows(10_005, &body(1, State::Released), "v");
    assert!(talk.asked.is_none());
    talk.tell(10_010, Event::Lease(LeaseEvent::Contend(true)));
    talk.shows(10_015, &body(1, State::Released), "v");
    assert_eq!(talk.writes().0.epoch, 7);
    // It keeps what it holds.
    let mut talk = Talk::holding();
    talk.tell(3_100, Event::Lease(LeaseEvent::Contend(false)));
    assert_eq!(talk.writes().0.state, State::Claiming);
}

#[test]
fn a_lost_answer_and_a_refusal_of_ones_own_write_are_read_back() {
    for kind in [StoreErrorKind::Ambiguous, StoreErrorKind::AlreadyExists, StoreErrorKind::Conflict] {
        let mut talk = Talk::holding();
        talk.tell(3_100, Event::Tick);
        let (renewal, _) = talk.writes();
        talk.answer(3_200, Err(kind));
        talk.tell(4_000, Event::Tick);
        talk.shows(4_100, &renewal, "v2");
        let status = talk.lease.status();
        assert_eq!(status.until, Some(at(3_100 + 9_000).mono), "from when it was sent");
        assert_eq!(status.role, Role::Claimant);
    }
    // Refused, and another's.
    let mut talk = Talk::holding();
    talk.tell(3_100, Event::Tick);
    talk.answer(3_200, Err(StoreErrorKind::AlreadyExists));
    talk.shows(3_300, &body(99, State::Claiming), "v2");
    assert_eq!(talk.role(), Role::Deposed);
    assert!(matches!(&talk.end, Some(Exit::Fenced { error, .. }) if error.contains("epoch 6")));
}

#[test]
fn a_holder_that_cannot_renew_ends_in_time() {
    let mut talk = Talk::holding();
    for ms in (3_000..=9_100).step_by(100) {
        talk.tell(ms, Event::Tick);
        if talk.asked.is_some() && talk.role() == Role::Claimant {
            talk.answer(ms, Err(StoreErrorKind::Retry));
        }
        assert_eq!(talk.role() == Role::Deposed, ms >= 9_010, "at {ms}");
    }
    assert_eq!(talk.lease.status().proves(0), Some(false));
    assert!(talk.lease.status().lost.unwrap().contains("not renewed for 9 s"));
}

/// With many databases there is always a put whose proof is wanted.
#[test]
fn a_holder_renews_however_many_proofs_are_wanted() {
    let mut talk = Talk::holding();
    talk.tell(100, Event::Lease(LeaseEvent::Prove(1)));
    let mut renewals = 0;
    for n in 2..=100 {
        let ms = n * 200;
        // While what was asked for is under way, and so never satisfied by it.
        talk.tell(ms - 10, Event::Lease(LeaseEvent::Prove(n)));
        if matches!(talk.asked, Some((_, CellRequest::Write { .. }))) {
            renewals += 1;
            talk.answer(ms, Ok(CellReply::Written { version: Some(format!("v{n}")) }));
        } else {
            talk.shows(ms, &talk.held(), "v");
        }
        assert_eq!((talk.role(), talk.lease.status().proves(n - 1)), (Role::Claimant, Some(true)), "at {ms}");
    }
    assert!((6..=7).contains(&renewals), "{renewals} in 20 s");
}

#[test]
fn a_request_without_an_answer_counts_as_lost() {
    let mut talk = Talk::holding();
    talk.tell(3_100, Event::Tick);
    let (renewal, _) = talk.writes();
    talk.tell(6_200, Event::Tick);
    talk.tell(6_700, Event::Tick);
    // It had arrived.
    talk.shows(6_800, &renewal, "v2");
    assert_eq!(talk.lease.status().until, Some(at(12_100).mono));
}

#[test]
fn a_proof_is_a_look_that_began_after_it_was_asked_for() {
    let mut talk = Talk::holding();
    let held = talk.held();
    talk.tell(100, Event::Lease(LeaseEvent::Prove(1)));
    assert_eq!(talk.lease.status().proves(1), None);
    // Asked for while that look is under way: it says nothing of this one.
    talk.tell(101, Event::Lease(LeaseEvent::Prove(2)));
    talk.shows(150, &held, "v1");
    assert_eq!((talk.lease.status().proves(1), talk.lease.status().proves(2)), (Some(true), None));
    talk.shows(200, &held, "v1");
    assert_eq!(talk.lease.status().proves(2), Some(true));
    // Another has it.
    talk.tell(300, Event::Lease(LeaseEvent::Prove(3)));
    talk.shows(400, &body(5, State::Claiming), "v2");
    assert_eq!(talk.lease.status().proves(3), Some(false));
}

#[test]
fn whoever_ends_gives_it_up_first() {
    let mut talk = Talk::holding();
    talk.tell(100, Event::Shutdown { deadline: at(5_000).mono });
    let (last, _) = talk.writes();
    assert_eq!(last.state, State::Released);
    talk.answer(200, Ok(CellReply::Written { version: None }));
    assert_eq!((talk.role(), talk.end), (Role::Released, Some(Exit::Done)));

    let mut talk = Talk::new(LeaseConfig::default());
    talk.shows(10, &body(1, State::Active), "v");
    talk.tell(100, Event::Shutdown { deadline: at(5_000).mono });
    assert_eq!((talk.asked, talk.end), (None, Some(Exit::Done)));
}

#[test]
fn a_lease_that_is_gone_is_not_held() {
    let mut talk = Talk::holding();
    talk.tell(100, Event::Lease(LeaseEvent::Prove(1)));
    talk.answer(200, Err(StoreErrorKind::NotFound));
    assert_eq!(talk.role(), Role::Deposed);
}

#[test]
fn a_store_without_versions_gives_nobody_a_lease() {
    let mut talk = Talk::new(LeaseConfig::default());
    let bytes = Chunk::from(body(1, State::Released).encode());
    talk.answer(10, Ok(CellReply::Content { bytes, version: None }));
    assert!(talk.lease.status().last_error.unwrap().contains("no version"));
    assert_eq!(talk.role(), Role::Standby);
}

#[test]
fn a_version_that_the_store_names_at_once_is_not_asked_for() {
    let mut talk = Talk::new(LeaseConfig::default());
    talk.answer(10, Err(StoreErrorKind::NotFound));
    talk.answer(20, Ok(CellReply::Written { version: Some("v1".into()) }));
    assert!(talk.asked.is_none());
    // Each renewal is one request.
    for n in 1..10 {
        talk.tell(n * 4_000, Event::Tick);
        let (_, condition) = talk.writes();
        assert_eq!(condition, CellCondition::Version(format!("v{n}")));
        talk.answer(n * 4_000 + 10, Ok(CellReply::Written { version: Some(format!("v{}", n + 1)) }));
        assert!(talk.asked.is_none());
    }
    // One whose answer was lost is looked for.
    talk.tell(40_000, Event::Tick);
    let (lost, _) = talk.writes();
    talk.answer(40_010, Err(StoreErrorKind::Ambiguous));
    talk.tell(41_000, Event::Tick);
    talk.shows(41_010, &lost, "v11");
    assert!(talk.asked.is_none());
    talk.tell(44_000, Event::Tick);
    assert_eq!(talk.writes().1, CellCondition::Version("v11".into()));
}

/// Whoever does not know yet whether the store keeps conditions leaves the lease to those who do.
#[test]
fn nobody_takes_a_lease_before_the_store_was_tried() {
    for first in [None, Some(body(1, State::Released)), Some(body(1, State::Active))] {
        let mut talk = Talk::untried(LeaseConfig::default());
        let mut looks = 0;
        for ms in (0..40_000).step_by(50) {
            talk.tell(ms, Event::Tick);
            match (&talk.asked, &first) {
                (None, _) => continue,
                (Some((_, CellRequest::Write { .. })), _) => panic!("it was not tried"),
                (_, Some(body)) => talk.shows(ms + 10, body, "v"),
                (_, None) => talk.answer(ms + 10, Err(StoreErrorKind::NotFound)),
            }
            looks += 1;
        }
        assert!((8..=100).contains(&looks), "{looks} looks");
        // Whoever is to begin a history is not told to follow one.
        assert_eq!((talk.role(), talk.lease.status().settled), (Role::Standby, first.is_some()));
        talk.tell(40_000, Event::Lease(LeaseEvent::Tried(true)));
        match &first {
            None => talk.answer(40_010, Err(StoreErrorKind::NotFound)),
            Some(body) => talk.shows(40_010, body, "v"),
        }
        assert_eq!(talk.writes().0.epoch, first.map_or(1, |body| body.epoch + 1));
    }

    // Where the store does not keep it, nobody waits for it.
    let mut talk = Talk::untried(LeaseConfig::default());
    talk.answer(10, Err(StoreErrorKind::NotFound));
    assert!(!talk.lease.status().settled);
    talk.tell(20, Event::Lease(LeaseEvent::Tried(false)));
    assert!(matches!(talk.asked, Some((_, CellRequest::Read { .. }))));
    talk.answer(30, Err(StoreErrorKind::NotFound));
    assert!(talk.lease.status().settled && talk.asked.is_none());

    // Its own it goes on with.
    let own = Body { holder: 1, ..body(1, State::Active) };
    let mut talk = Talk::untried(LeaseConfig { term: Some(own.term), ..LeaseConfig::default() });
    talk.shows(10, &own, "v");
    assert_eq!(talk.writes().0.epoch, own.epoch + 1);
}
