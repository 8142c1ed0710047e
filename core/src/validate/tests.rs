//! Validations of replicas that are sound, damaged, changing, or out of reach.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use super::*;
use crate::ids::{Mono, Now, Txid};
use crate::machine::{
    Action, Actions, Event, Exit, Fact, GrantRequest, Machine, Notice, Object, OpIds, Outcome, Reason,
    ReplicaId, Request, StoreError, StoreErrorKind, StoreRequest, Verdict,
};
use crate::restore::tests::Host;
use crate::restore::tests::history::{History, object};

const EVERY: Duration = Duration::from_secs(100);

/// Ends after so many verdicts, which the host's run needs.
struct Until {
    validator: Validator,
    verdicts: usize,
    /// The first event is followed by this.
    stored: Option<Txid>,
}

impl Machine for Until {
    type Status = ValidateStatus;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        let mut actions = Actions::new();
        self.validator.handle(now, event, &mut actions);
        if let Some(txid) = self.stored.take() {
            self.validator.handle(now, Event::Stored { txid, bytes: None }, &mut actions);
        }
        let mut granted = Vec::new();
        for action in actions.drain() {
            if let Action::Submit { op, request: Request::Grant(request) } = action {
                granted.extend(matches!(request, GrantRequest::Take(_)).then_some(op));
                continue;
            }
            let told = matches!(&action, Action::Notify(Notice { fact: Fact::Validated { .. }, .. }));
            self.verdicts -= usize::from(told);
            out.push(action);
        }
        if self.verdicts == 0 {
            out.push(Action::Stopped(Exit::Done));
        }
        for op in granted {
            self.handle(now, Event::Completed { op, outcome: Outcome::Granted }, out);
        }
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        self.validator.next_deadline()
    }

    fn status(&self) -> ValidateStatus {
        self.validator.status()
    }
}

fn validator() -> Validator {
    let config = ValidateConfig { interval: EVERY, ..ValidateConfig::default() };
    Validator::new(config, OpIds::new(ReplicaId(0), 5))
}

/// The verdicts of so many validations in a row, and how it stands then.
fn validate(host: &mut Host, verdicts: usize, stored: Option<u64>) -> (Vec<Verdict>, ValidateStatus) {
    let stored = stored.map(|txid| Txid::new(txid).unwrap());
    let mut until = Until { validator: validator(), verdicts, stored };
    assert_eq!(host.run(&mut until), Exit::Done);
    let told = host.facts.iter().filter_map(|fact| match fact {
        Fact::Validated { verdict, .. } => Some(verdict.clone()),
        _ => None,
    });
    (told.collect(), until.status())
}

fn fault_of(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Faulty { fault, .. } => fault.clone(),
        other => panic!("{other:?} tells of no fault"),
    }
}

#[test]
fn a_sound_replica_is_read_again_each_interval_with_few_reads_at_once() {
    for seed in 1..4 {
        let history = History::typical(512, true);
        let bytes: usize = history.store.values().map(Vec::len).sum();
        let mut host = Host::new(history.store).seeded(seed, 20 * seed);
        let (told, status) = validate(&mut host, 3, Some(history.last));
        assert_eq!(told, [Verdict::Sound, Verdict::Sound, Verdict::Sound]);
        let last = status.last.clone().unwrap();
        assert_eq!((last.objects, last.bytes), (42, bytes as u64));
        assert!(!status.is_faulty() && !status.validating && status.trouble.is_none());
        assert!(host.read_bytes >= 3 * bytes as u64, "nothing is passed over");
        assert!(host.reads_open_max <= 2, "{} reads at once", host.reads_open_max);
    }
}

#[test]
fn damage_is_told_until_it_is_mended() {
    let history = History::typical(512, true);
    let (victim, sound) = history.store.iter().nth(20).map(|(it, body)| (*it, body.clone())).unwrap();
    let mut host = Host::new(history.store);
    host.store.get_mut(&victim).unwrap()[150] ^= 1;
    // Read three times in each of two validations; by the third somebody has put it back.
    let mut reads = 0;
    host.hook = Some(Box::new(move |request, store| {
        if matches!(request, StoreRequest::Get { object, .. } if *object == victim) {
            reads += 1;
            if reads == 7 {
                store.insert(victim, sound.clone());
            }
        }
        None
    }));
    let (told, status) = validate(&mut host, 3, None);
    assert!(fault_of(&told[0]).starts_with(&victim.to_string()), "{:?}", told[0]);
    assert_eq!(told[0], told[1]);
    assert_eq!(told[2], Verdict::Sound);
    assert!(!status.is_faulty());
}

#[test]
fn bytes_that_changed_on_their_way_are_no_fault() {
    let history = History::typical(512, true);
    let (victim, sound) = history.store.iter().nth(20).map(|(it, body)| (*it, body.clone())).unwrap();
    let mut host = Host::new(history.store);
    host.store.get_mut(&victim).unwrap()[150] ^= 1;
    let mut reads = 0;
    host.hook = Some(Box::new(move |request, store| {
        if matches!(request, StoreRequest::Get { object, .. } if *object == victim) {
            reads += 1;
            if reads == 3 {
                store.insert(victim, sound.clone());
            }
        }
        None
    }));
    assert_eq!(validate(&mut host, 1, None).0, [Verdict::Sound]);
}

#[test]
fn what_was_stored_must_be_there() {
    let mut history = History::typical(512, true);
    let last = history.last;
    let mut host = Host::new(history.store.clone());
    let (told, status) = validate(&mut host, 1, Some(last + 1));
    assert!(fault_of(&told[0]).contains("ends with transaction"), "{told:?}");
    assert!(status.is_faulty());
    history.store.clear();
    let (told, _) = validate(&mut Host::new(history.store.clone()), 1, Some(last));
    assert!(fault_of(&told[0]).contains("the replica is empty"), "{told:?}");
    assert_eq!(validate(&mut Host::new(history.store), 1, None).0, [Verdict::Sound], "nothing was written");
}

#[test]
fn what_goes_meanwhile_is_no_fault() {
    let history = History::typical(512, true);
    let mut host = Host::new(history.store.clone());
    let mut gets = 0;
    host.hook = Some(Box::new(move |request, store: &mut BTreeMap<Object, Vec<u8>>| {
        if let StoreRequest::Get { .. } = request {
            gets += 1;
            if gets == 5 {
                store.retain(|it, _| it.level.get() == 9 || it.range.min().get() > 20);
            }
        }
        None
    }));
    assert_eq!(validate(&mut host, 1, Some(history.last)).0, [Verdict::Sound]);
}

/// A listing that is a moment old shows level 0 without what has left it, and the levels above without
/// what has taken it up.
#[test]
fn an_old_listing_is_looked_at_again() {
    let history = History::typical(512, true);
    let hidden: Vec<Object> = history.store.keys().filter(|it| it.range.max().get() > 20).copied().collect();
    let all = history.store.clone();
    let mut host = Host::new(history.store);
    let mut first = true;
    host.hook = Some(Box::new(move |request, store: &mut BTreeMap<Object, Vec<u8>>| {
        match request {
            StoreRequest::List { level, after: None, .. } if level.get() == 0 && first => {
                hidden.iter().for_each(|it| drop(store.remove(it)));
                first = false;
            }
            StoreRequest::List { level, after: None, .. } if level.get() == 0 => store.clone_from(&all),
            _ => {}
        }
        None
    }));
    assert_eq!(validate(&mut host, 1, Some(history.last)).0, [Verdict::Sound]);
}

#[test]
fn a_store_out_of_reach_is_no_fault_and_does_not_unsay_one() {
    let history = History::typical(512, true);
    let mut host = Host::new(history.store);
    host.store.get_mut(&object(9, 1, 1)).unwrap()[150] ^= 1;
    let mut lists = 0;
    host.hook = Some(Box::new(move |request, _| {
        lists +=
            u64::from(matches!(request, StoreRequest::List { level, after: None, .. } if level.get() == 0));
        // The first validation lists once: what is damaged shows without another.
        (lists > 1 && lists < 4).then(|| StoreError::new(StoreErrorKind::Denied, "403"))
    }));
    let (told, status) = validate(&mut host, 4, None);
    assert!(fault_of(&told[0]).starts_with("9/"), "{told:?}");
    for (undone, longest) in told[1..3].iter().zip([60_000, 100_000]) {
        let Verdict::Undone { error, hint, wait_ms } = undone else { panic!("{undone:?}") };
        assert!(error.contains("403") && hint.contains("credentials"), "{error} {hint}");
        assert!((1..=longest).contains(wait_ms), "{wait_ms}");
    }
    assert!(status.is_faulty() && status.trouble.is_none());
}

#[test]
fn it_waits_for_its_time_and_its_turn_and_gives_it_back_at_the_end() {
    let at = |seconds: u64| {
        let mono = Duration::from_secs(1_000 + seconds);
        Now { mono: Mono::from_duration(mono), wall: Wall(30_000 + 1_000 * seconds as i64) }
    };
    let mut validator = validator();
    let mut out = Actions::new();
    validator.handle(at(0), Event::Start { entropy: 1 }, &mut out);
    // The next multiple of 100 s by the wall clock, which stands at 30 s.
    assert_eq!(validator.next_deadline(), Some((at(70).mono, Reason::Validate)));
    validator.handle(at(69), Event::Tick, &mut out);
    assert!(out.is_empty(), "{out:?}");
    validator.handle(at(70), Event::Tick, &mut out);
    let asked: Vec<Action> = out.drain().collect();
    let [Action::Submit { op, request: Request::Grant(GrantRequest::Take(_)) }] = asked[..] else {
        panic!("{asked:?}");
    };
    assert!(validator.status().validating && validator.next_deadline().is_none());
    validator.clone().let_go(&mut out);
    assert_eq!(out.drain().collect::<Vec<_>>(), [Action::Cancel { op }]);
    validator.handle(at(71), Event::Completed { op, outcome: Outcome::Granted }, &mut out);
    assert!(matches!(out.drain().next(), Some(Action::Submit { request: Request::Store(_), .. })));
    validator.let_go(&mut out);
    let ended: Vec<Action> = out.drain().collect();
    assert!(matches!(ended[0], Action::Cancel { .. }), "{ended:?}");
    let given = GrantRequest::Return { grant: op };
    assert!(matches!(&ended[1], Action::Submit { request: Request::Grant(back), .. } if *back == given));
    assert_eq!(validator.next_deadline(), None);
}
