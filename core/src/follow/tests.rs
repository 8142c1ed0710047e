//! Followers of histories made page by page, killed, troubled, and passed by retention.

use std::boxed::Box;
use std::vec::Vec;

use super::*;
use crate::ids::{Level, Now, TxidRange};
use crate::lease::LeaseEvent;
use crate::machine::{
    Action, Actions, CopyReply, CopyRequest, Event, Exit, Fact, Machine as _, OpId, OpIds, Outcome,
    ReplicaId, Request, StoreError, StoreErrorKind, StoreReply, StoreRequest,
};
use crate::restore::tests::{History, Host, object};

/// Events within which a follower without trouble has caught up and rests.
const ENOUGH: usize = 3_000;

/// What differs at the source and in a copy is left out.
fn masked(state: &[u8]) -> Vec<u8> {
    let mut state = state.to_vec();
    for range in [18..20, 24..28, 92..100] {
        state[range].fill(0);
    }
    state
}

/// Runs a follower that has the time to catch up, if nothing stops it before.
fn follow(host: &mut Host) -> (Exit, FollowStatus) {
    let config = FollowConfig::default();
    host.shutdown_after = Some(ENOUGH);
    host.version += 1;
    let mut follower = Follower::new(config, OpIds::new(ReplicaId(0), host.seed));
    let exit = host.run(&mut follower);
    (exit, follower.status())
}

/// The transaction that the copy shows; fails the test if it shows no state that ever was.
#[track_caller]
fn shown(host: &Host, history: &History) -> Option<u64> {
    let copy = masked(host.target.as_ref()?);
    let state = history.states.iter().rev().find(|(_, state)| masked(state) == copy);
    Some(*state.expect("a state that was committed").0)
}

#[track_caller]
fn catches_up(host: &mut Host, history: &History) -> FollowStatus {
    let (exit, status) = follow(host);
    assert_eq!(exit, Exit::Done);
    assert_eq!(shown(host, history), Some(history.last), "{:?}", host.facts);
    status
}

/// A host that has only what was there at `last`.
fn host_at(history: &History, last: u64) -> Host {
    let mut host = Host::new(history.store.clone());
    host.store.retain(|it, _| it.range.max().get() <= last);
    host
}

#[test]
fn each_step_of_a_history_is_followed() {
    for chained in [true, false] {
        let history = History::typical(512, chained);
        let mut host = host_at(&history, 5);
        for last in 5..=history.last {
            host.store = history.store.clone();
            host.store.retain(|it, _| it.range.max().get() <= last);
            let (exit, status) = follow(&mut host);
            assert_eq!((exit, shown(&host, &history)), (Exit::Done, Some(last)));
            assert_eq!(status.rebases, 0, "at {last}: {:?}", host.facts);
        }
    }
}

#[test]
fn files_that_do_not_grow_the_database_are_one_transaction() {
    let mut history = History::typical(512, true);
    let mut host = host_at(&history, 40);
    follow(&mut host);
    (0..20).for_each(|n| history.commit(560 - n, &[1, n * 9 + 2]));
    host.store = history.store.clone();
    assert_eq!(catches_up(&mut host, &history).commits, 1);
}

#[test]
fn killed_anywhere_it_shows_a_state_and_goes_on() {
    let history = History::typical(512, true);
    let mut host = host_at(&history, 25);
    follow(&mut host);
    let (target, position) = (host.target.clone(), host.position.clone());
    let (mut before, mut between, mut after) = (0, 0, 0);
    for n in 0.. {
        let mut host = Host::new(history.store.clone()).seeded(n as u64 + 1, 0);
        (host.target, host.position) = (target.clone(), position.clone());
        host.killed_after = Some(n);
        let (exit, _) = follow(&mut host);
        match shown(&host, &history) {
            Some(25) => before += 1,
            Some(40) => after += 1,
            Some(n) => between += u32::from(n > 25),
            None => panic!("killed after {n} events it shows nothing"),
        }
        host.killed_after = None;
        let status = catches_up(&mut host, &history);
        assert_eq!(status.rebases, 0, "killed after {n} events: {:?}", host.facts);
        if exit == Exit::Done || after > 20 {
            break;
        }
    }
    assert!(before > 20 && between > 20 && after > 20, "{before} before, {between}, {after} after");
}

#[test]
fn killed_while_it_is_restored_it_begins_again() {
    let history = History::typical(512, true);
    for n in 0..120 {
        let mut host = Host::new(history.store.clone()).seeded(n as u64 + 1, 0);
        host.killed_after = Some(n);
        follow(&mut host);
        host.killed_after = None;
        catches_up(&mut host, &history);
    }
}

#[test]
fn a_request_to_the_copy_that_fails_is_made_up_for() {
    let history = History::typical(512, true);
    let mut host = host_at(&history, 25);
    follow(&mut host);
    let (target, position) = (host.target.clone(), host.position.clone());
    for n in 1..14 {
        let mut host = Host::new(history.store.clone());
        (host.target, host.position) = (target.clone(), position.clone());
        host.copy_fails_at = Some(n);
        let (exit, _) = follow(&mut host);
        if exit != Exit::Done {
            // At its very first steps it is for a person to look at.
            assert!(matches!(&exit, Exit::Failed { error, .. } if error == "no space left"), "{exit:?}");
            assert!(n <= 2, "the {n}th request ended it");
        }
        catches_up(&mut host, &history);
    }
}

#[test]
fn a_careless_store_delays_it_only() {
    let history = History::typical(512, true);
    for seed in 1..40 {
        let mut host = host_at(&history, 25);
        follow(&mut host);
        host.store = history.store.clone();
        host = host.seeded(seed, 200);
        catches_up(&mut host, &history);
    }
}

#[test]
fn what_retention_has_removed_is_gone_around() {
    let mut history = History::typical(512, true);
    let mut host = host_at(&history, 10);
    follow(&mut host);
    // A snapshot leads further than what is left: the pages that differ come from there.
    history.snapshot();
    history.commit(200, &[1, 7]);
    host.store = history.store.clone();
    host.store.retain(|it, _| it.level.get() == 9 || it.range.min().get() > 40);
    let status = catches_up(&mut host, &history);
    assert_eq!(status.rebases, 1);
    assert!(
        host.facts
            .iter()
            .any(|fact| matches!(fact, Fact::Base { why, .. } if why.contains("no files lead on")))
    );
}

#[test]
fn without_a_way_it_ends_loudly_and_leaves_the_copy() {
    let history = History::typical(512, true);
    let mut host = host_at(&history, 10);
    follow(&mut host);
    host.store = history.store.clone();
    host.store.retain(|it, _| it.range.min().get() > 30);
    let (exit, _) = follow(&mut host);
    assert_eq!(exit.code(), 4, "{exit:?}");
    assert_eq!(shown(&host, &history), Some(10));
}

#[test]
fn another_history_is_taken_over_page_by_page() {
    let history = History::typical(512, true);
    let mut host = host_at(&history, 20);
    follow(&mut host);
    // The same transactions of another database.
    let mut other = History::new(512, true);
    other.commit(120, &[]);
    (2..30).for_each(|n| other.commit(120 + n, &[n, 1]));
    other.snapshot();
    host.store = other.store.clone();
    let status = catches_up(&mut host, &other);
    assert_eq!(status.rebases, 1, "{:?}", host.facts);
}

#[test]
fn a_history_that_became_shorter_is_believed_after_a_second_look() {
    let history = History::typical(512, true);
    let mut host = Host::new(history.store.clone());
    follow(&mut host);
    let mut other = History::new(512, true);
    other.commit(50, &[]);
    other.commit(50, &[3]);
    host.store = other.store.clone();
    catches_up(&mut host, &other);
}

#[test]
fn a_page_size_that_changed_brings_another_file() {
    let mut history = History::typical(512, true);
    let mut host = Host::new(history.store.clone());
    follow(&mut host);
    history.change_page_size(1024, 90);
    let post = history.post;
    let all: Vec<u32> = (1..=90).collect();
    let base = history.encode(1, history.last, &all, None, post);
    history.store.remove(&object(0, history.last, history.last));
    history.store.insert(object(0, 1, history.last), base);
    history.commit(95, &[4]);
    host.store = history.store.clone();
    catches_up(&mut host, &history);
    history.commit(96, &[5]);
    host.store = history.store.clone();
    catches_up(&mut host, &history);
}

#[test]
fn writers_and_bit_rot_are_noticed() {
    let history = History::typical(512, true);
    for at in [19, 20, 101, 512 * 30 + 5] {
        let mut host = Host::new(history.store.clone());
        follow(&mut host);
        host.target.as_mut().unwrap()[at] ^= 4;
        if at == 19 {
            assert_eq!(catches_up(&mut host, &history).rebases, 0);
            continue;
        }
        let before = host.target.clone();
        let (exit, _) = follow(&mut host);
        assert!(matches!(&exit, Exit::Failed { error, .. } if error.contains("another program")), "{exit:?}");
        assert_eq!(host.target, before, "it may be somebody's");
        let config = FollowConfig { replace: true, ..FollowConfig::default() };
        let mut follower = Follower::new(config, OpIds::new(ReplicaId(0), 3));
        assert_eq!((host.run(&mut follower), follower.status().rebases), (Exit::Done, 1));
        assert_eq!(shown(&host, &history), Some(history.last), "byte {at}");
    }
}

#[test]
fn a_damaged_file_is_gone_around_or_named() {
    let mut history = History::typical(512, true);
    let mut host = host_at(&history, 30);
    follow(&mut host);
    let damage = |host: &mut Host| {
        let file = host.store.get_mut(&object(0, 33, 33)).unwrap();
        let at = file.len() / 2;
        file[at] ^= 0x10;
    };
    host.store = history.store.clone();
    damage(&mut host);
    let (exit, _) = follow(&mut host);
    let Exit::Corrupt { error, .. } = &exit else { panic!("{exit:?}") };
    assert!(error.contains("0/0000000000000021-0000000000000021.ltx"), "{error}");
    assert_eq!(shown(&host, &history), Some(32), "what comes before it");
    history.snapshot();
    history.commit(200, &[2]);
    host.store = history.store.clone();
    damage(&mut host);
    catches_up(&mut host, &history);
}

#[test]
fn a_wrong_page_under_a_right_file_checksum_never_shows() {
    let history = History::typical(512, true);
    let mut host = host_at(&history, 30);
    follow(&mut host);
    let mut forged = History::typical(512, true);
    forged.pages[6][9] ^= 1;
    let file = forged.encode(40, 40, &[7], None, history.post);
    host.store = history.store.clone();
    host.store.insert(object(0, 40, 40), file);
    let (exit, _) = follow(&mut host);
    assert_eq!(exit.code(), 4, "{exit:?}");
    assert!(shown(&host, &history) < Some(40));
}

#[test]
fn the_lock_page_is_passed_over() {
    let mut history = History::new(512, true);
    history.pending_byte = 20 * 512;
    history.commit(10, &[]);
    let mut host = Host::new(history.store.clone());
    let config = || {
        let mut config = FollowConfig::default();
        config.restore.pending_byte = 20 * 512;
        config
    };
    let run = |host: &mut Host| {
        host.shutdown_after = Some(ENOUGH);
        let mut follower = Follower::new(config(), OpIds::new(ReplicaId(0), 5));
        assert_eq!(host.run(&mut follower), Exit::Done);
    };
    run(&mut host);
    for size in [25, 19, 22] {
        history.commit(size, &[1, 3]);
        host.store = history.store.clone();
        run(&mut host);
        assert_eq!(shown(&host, &history), Some(history.last), "{size} pages");
    }
}

/// A former writer was killed in a put: whether its state is on the replica, the file that ends there says.
#[test]
fn the_state_of_a_put_under_way_counts_once_the_replica_shows_it() {
    let history = History::typical(512, true);
    let mut host = host_at(&history, 30);
    follow(&mut host);
    let named = decode_positions(host.position.as_ref().unwrap());
    let doubtful: Vec<Position> = named.iter().map(|it| Position { doubtful: true, ..*it }).collect();
    host.position = Some(encode_positions(&doubtful));
    let left = (host.target.clone(), host.position.clone());

    let mut never_arrived = Host::new(history.store.clone());
    never_arrived.store.retain(|it, _| it.range.max().get() < 30);
    let mut another = Host::new(history.store.clone());
    let other = another.store[&object(0, 29, 29)].clone();
    another.store.insert(object(0, 30, 30), other);
    for mut gone in [never_arrived, another] {
        (gone.target, gone.position) = left.clone();
        gone.shutdown_after = Some(ENOUGH);
        let mut follower = Follower::new(FollowConfig::default(), OpIds::new(ReplicaId(0), 11));
        let exit = gone.run(&mut follower);
        assert!(matches!(exit, Exit::Failed { .. }) && follower.is_unknown(), "{exit:?}");
        assert_eq!((gone.target, gone.position), left, "it is kept as it is");
    }

    host.store = history.store.clone();
    assert_eq!(catches_up(&mut host, &history).rebases, 0);
    assert!(decode_positions(host.position.as_ref().unwrap()).iter().all(|it| !it.doubtful));
}

/// A store that is away at first ends whoever asks for a copy, and not a standby.
#[test]
fn a_standby_outlives_a_store_that_is_away() {
    let history = History::typical(512, true);
    for (patient, away) in [(true, 400), (false, 400), (false, 5)] {
        let mut host = Host::new(history.store.clone());
        let mut asked = 0;
        host.hook = Some(Box::new(move |_, _| {
            asked += 1;
            (asked <= away).then(|| StoreError::new(StoreErrorKind::Retry, "503"))
        }));
        host.shutdown_after = Some(ENOUGH);
        let config = FollowConfig { patient, ..FollowConfig::default() };
        let mut follower = Follower::new(config, OpIds::new(ReplicaId(0), 1));
        let exit = host.run(&mut follower);
        if patient || away < 10 {
            assert_eq!((exit, shown(&host, &history)), (Exit::Done, Some(history.last)));
        } else {
            assert!(matches!(&exit, Exit::Failed { error, .. } if error.contains("503")), "{exit:?}");
        }
    }
}

/// SQLite cuts only what was there when the transaction began, and a base is one: what its first file has beyond
/// the size that its last file leads to must not stay behind.
#[test]
fn a_base_that_grows_and_shrinks_leaves_nothing_behind() {
    let mut history = History::typical(512, true);
    let mut host = host_at(&history, history.last);
    catches_up(&mut host, &history);
    let small = history.pages.len() as u32;
    history.commit(small + 60, &[1]);
    history.snapshot();
    let snapshot = history.last;
    history.commit(small + 20, &[1, 3]);
    history.commit(small + 30, &[1, small + 25]);
    host.store = history.store.clone();
    // Retention has passed what leads on from the copy.
    host.store.retain(|it, _| it.level.get() == 9 || it.range.min().get() > snapshot);
    let status = catches_up(&mut host, &history);
    assert_eq!(status.rebases, 1);
}

/// A follower that rests, with everything applied, and when that is.
fn resting(host: &mut Host) -> (Follower, Now) {
    for events in ENOUGH.. {
        let mut follower = Follower::new(FollowConfig::default(), OpIds::new(ReplicaId(0), host.seed));
        host.killed_after = Some(events);
        host.run(&mut follower);
        if matches!(follower.phase, machine::Phase::Rest { .. }) {
            let at = follower.next_deadline().expect("it looks again").0;
            return (follower, Now { mono: at, wall: Wall(0) });
        }
    }
    unreachable!("it rests at some time")
}

/// The one request that an event leads to.
fn asks(follower: &mut Follower, now: Now, event: Event) -> (OpId, Request) {
    let mut out = Actions::new();
    follower.handle(now, event, &mut out);
    let asked = out.drain().filter_map(|action| match action {
        Action::Submit { op, request } => Some((op, request)),
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    <[_; 1]>::try_from(asked).expect("one request").into_iter().next().expect("of one")
}

/// What a look has found that began before somebody else could be kept from writing is not the end.
#[test]
fn a_successor_looks_once_more_on_level_0_only() {
    let history = History::typical(512, true);
    for under_way in [false, true] {
        let mut host = Host::new(history.store.clone());
        follow(&mut host);
        let (mut follower, now) = resting(&mut host);
        let succeed = Event::Lease(LeaseEvent::Succeed);
        let nothing = || Outcome::Store(Ok(StoreReply::Listing { entries: Vec::new(), more: false }));
        let (op, asked) = if under_way {
            let (op, _) = asks(&mut follower, now, Event::Tick);
            follower.handle(now, succeed, &mut Actions::new());
            asks(&mut follower, now, Event::Completed { op, outcome: nothing() })
        } else {
            asks(&mut follower, now, succeed)
        };
        let after = Some(TxidRange::single(Txid::new(history.last).unwrap()));
        let level = Level::CAPTURES;
        assert!(
            matches!(&asked, Request::Store(StoreRequest::List { level: at, after: from, .. }) if (*at, *from) == (level, after)),
            "{asked:?}"
        );
        let (op, asked) = asks(&mut follower, now, Event::Completed { op, outcome: nothing() });
        assert_eq!(asked, Request::Copy(CopyRequest::Close));
        let mut out = Actions::new();
        follower.handle(now, Event::Completed { op, outcome: Outcome::Copy(Ok(CopyReply::Done)) }, &mut out);
        assert!(out.drain().any(|action| action == Action::Stopped(Exit::Done)));
        assert!(follower.bequest().is_some());
    }
}
