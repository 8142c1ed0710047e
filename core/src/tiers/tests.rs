use alloc::vec;

use super::*;

fn at(ms: u64) -> Mono {
    Mono::default().after(Duration::from_millis(ms))
}

fn limits(hot: usize, starting: usize) -> Limits {
    Limits { hot, starting, resting: 0, ..Limits::default() }
}

fn orders(tiers: &mut Tiers, ms: u64) -> Vec<Order> {
    let mut orders = Vec::new();
    tiers.orders(at(ms), &mut orders);
    orders
}

/// Files that were written so often.
fn files(written: u64) -> Fingerprint {
    Fingerprint::new(1, 2, written, 4, None)
}

fn rested(written: u64) -> Left {
    Left::Rested(Rest { fingerprint: files(written), due: None })
}

/// A run that was told to end has left its files so.
fn leave(tiers: &mut Tiers, database: u32, left: Left) {
    let now = match left {
        Left::Rested(rest) => Some(rest.fingerprint),
        Left::Finished | Left::Behind => None,
    };
    tiers.left(database, left, || now);
}

#[test]
fn few_start_at_once_and_the_rest_in_order() {
    let mut tiers = Tiers::new(limits(3, 2));
    (1..=5).for_each(|database| tiers.add(database));
    assert_eq!(orders(&mut tiers, 0), [Order::Start(1), Order::Start(2)]);
    assert_eq!(orders(&mut tiers, 1), []);
    tiers.stands(at(2), 2, Standing::Replicated);
    assert_eq!(orders(&mut tiers, 2), [Order::Start(3)]);
    tiers.stands(at(3), 1, Standing::Replicated);
    // No place is left until somebody's turn is over: that of the one that is quiet for longest.
    assert_eq!((orders(&mut tiers, 4), tiers.next_deadline()), (vec![], Some(at(1_000))));
    assert_eq!(orders(&mut tiers, 1_000), [Order::Finish(1), Order::Finish(2)]);
    leave(&mut tiers, 1, Left::Finished);
    assert_eq!(orders(&mut tiers, 1_001), [Order::Start(4)]);
    assert_eq!(
        (tiers.tier(1), tiers.tier(4), tiers.tier(5)),
        (Some(Tier::Cold), Some(Tier::Hot), Some(Tier::Waiting))
    );
}

#[test]
fn one_that_rests_is_cold_until_its_files_differ() {
    let mut tiers = Tiers::new(limits(1_000, 64));
    tiers.add(7);
    assert_eq!(orders(&mut tiers, 0), [Order::Start(7)]);
    tiers.stands(at(1), 7, Standing::Resting);
    assert_eq!(orders(&mut tiers, 1), [Order::Rest(7)]);
    leave(&mut tiers, 7, rested(99));
    let sweep = Some(at(2 + 15 * 60_000));
    assert_eq!((orders(&mut tiers, 2), tiers.next_deadline(), tiers.counts()), (vec![], sweep, (1, 0, 0)));
    assert_eq!(tiers.cold().collect::<Vec<_>>(), [7]);
    tiers.told(7, || Some(files(99)));
    assert_eq!(orders(&mut tiers, 3), []);
    tiers.told(7, || Some(files(100)));
    assert_eq!(orders(&mut tiers, 4), [Order::Start(7)]);
}

#[test]
fn one_whose_files_cannot_be_looked_at_has_changed() {
    let mut tiers = Tiers::new(limits(1_000, 64));
    tiers.add(7);
    orders(&mut tiers, 0);
    tiers.stands(at(1), 7, Standing::Resting);
    orders(&mut tiers, 1);
    leave(&mut tiers, 7, rested(99));
    tiers.told(7, || None);
    assert_eq!(orders(&mut tiers, 2), [Order::Start(7)]);
    // What has finished is not known to have seen the last change.
    leave(&mut tiers, 7, Left::Finished);
    tiers.told(7, || panic!("there is nothing to compare with"));
    assert_eq!(orders(&mut tiers, 3), [Order::Start(7)]);
}

#[test]
fn a_change_while_it_leaves_is_not_forgotten() {
    for left in [rested(1), Left::Finished, Left::Behind] {
        let mut tiers = Tiers::new(limits(1_000, 64));
        tiers.add(1);
        orders(&mut tiers, 0);
        tiers.stands(at(0), 1, Standing::Resting);
        assert_eq!(orders(&mut tiers, 0), [Order::Rest(1)]);
        tiers.told(1, || panic!("what its files are is not known yet"));
        leave(&mut tiers, 1, left);
        assert_eq!(orders(&mut tiers, 1), [Order::Start(1)], "{left:?}");
    }
}

#[test]
fn what_is_behind_goes_on() {
    let mut tiers = Tiers::new(limits(1, 1));
    tiers.add(1);
    tiers.add(2);
    orders(&mut tiers, 0);
    tiers.stands(at(0), 1, Standing::Busy);
    assert_eq!((orders(&mut tiers, 9_999), tiers.next_deadline()), (vec![], Some(at(10_000))));
    assert_eq!(orders(&mut tiers, 10_000), [Order::Finish(1)]);
    leave(&mut tiers, 1, Left::Behind);
    assert_eq!(orders(&mut tiers, 10_001), [Order::Start(1)]);
    assert_eq!(tiers.tier(2), Some(Tier::Waiting));
}

#[test]
fn new_ones_get_every_fourth_place_beside_changes() {
    let mut tiers = Tiers::new(limits(1, 1));
    (0..10).for_each(|database| tiers.add(database));
    for database in 0..8 {
        orders(&mut tiers, 0);
        leave(&mut tiers, database, Left::Finished);
    }
    (0..8).for_each(|database| tiers.change(database));
    let mut served = Vec::new();
    for _ in 0..10 {
        let next = orders(&mut tiers, 1);
        let [Order::Start(database)] = next[..] else { panic!("{next:?}") };
        served.push(database);
        leave(&mut tiers, database, rested(0));
    }
    assert_eq!(served, [0, 1, 2, 8, 3, 4, 5, 9, 6, 7]);
}

#[test]
fn what_is_owed_wakes_it() {
    let mut tiers = Tiers::new(limits(1_000, 64));
    tiers.add(1);
    orders(&mut tiers, 0);
    tiers.stands(at(0), 1, Standing::Resting);
    orders(&mut tiers, 0);
    leave(&mut tiers, 1, Left::Rested(Rest { fingerprint: files(5), due: Some(at(60_000)) }));
    assert_eq!((orders(&mut tiers, 59_999), tiers.next_deadline()), (vec![], Some(at(60_000))));
    assert_eq!(orders(&mut tiers, 60_000), [Order::Start(1)]);
    assert_eq!(tiers.next_deadline(), None);
}

#[test]
fn an_engine_that_has_something_to_do_after_all_stays() {
    let mut tiers = Tiers::new(limits(1, 1));
    tiers.add(1);
    orders(&mut tiers, 0);
    tiers.stands(at(0), 1, Standing::Resting);
    assert_eq!(orders(&mut tiers, 0), [Order::Rest(1)]);
    tiers.stays(at(1), 1);
    assert_eq!((tiers.tier(1), tiers.counts()), (Some(Tier::Hot), (0, 0, 1)));
    tiers.stands(at(2), 1, Standing::Resting);
    assert_eq!(orders(&mut tiers, 2), [Order::Rest(1)]);
    tiers.remove(1);
    assert_eq!(tiers.counts(), (0, 0, 0));
}

#[test]
fn starts_that_get_nowhere_make_room_for_others() {
    let mut tiers = Tiers::new(limits(100, 2));
    (1..=4).for_each(|database| tiers.add(database));
    assert_eq!(orders(&mut tiers, 0), [Order::Start(1), Order::Start(2)]);
    assert_eq!(tiers.next_deadline(), Some(at(10_000)));
    assert_eq!(orders(&mut tiers, 10_000), [Order::Finish(1)]);
    leave(&mut tiers, 1, Left::Behind);
    assert_eq!(orders(&mut tiers, 10_001), [Order::Start(1), Order::Finish(2)]);
    leave(&mut tiers, 2, Left::Behind);
    assert_eq!(orders(&mut tiers, 10_002), [Order::Start(2)]);
    tiers.stands(at(10_003), 1, Standing::Replicated);
    tiers.stands(at(10_003), 2, Standing::Replicated);
    assert_eq!(orders(&mut tiers, 10_003), [Order::Start(3), Order::Start(4)]);
}

#[test]
fn the_last_that_rest_keep_their_places_while_nobody_needs_them() {
    let mut tiers = Tiers::new(Limits { resting: 2, ..limits(4, 4) });
    (1..=3).for_each(|database| tiers.add(database));
    orders(&mut tiers, 0);
    for database in [2, 3, 1] {
        tiers.stands(at(u64::from(database) * 10), database, Standing::Resting);
    }
    assert_eq!(orders(&mut tiers, 40), [Order::Rest(1)]);
    // It is written again before it has gone.
    tiers.stays(at(41), 1);
    tiers.stands(at(42), 2, Standing::Busy);
    tiers.stands(at(43), 1, Standing::Resting);
    assert_eq!(orders(&mut tiers, 44), []);
    (4..=6).for_each(|database| tiers.add(database));
    assert_eq!(orders(&mut tiers, 45), [Order::Rest(3), Order::Rest(1), Order::Start(4)]);
}

#[test]
fn a_change_since_its_rest_that_only_the_engine_was_told_of_is_seen() {
    let mut tiers = Tiers::new(limits(1_000, 64));
    tiers.add(7);
    orders(&mut tiers, 0);
    tiers.stands(at(1), 7, Standing::Resting);
    assert_eq!(orders(&mut tiers, 1), [Order::Rest(7)]);
    tiers.left(7, rested(99), || Some(files(100)));
    assert_eq!(orders(&mut tiers, 2), [Order::Start(7)]);
}

#[test]
fn the_end_of_a_run_tells_whether_something_may_be_left() {
    let rest = Some(Rest { fingerprint: files(1), due: None });
    let unreplicated = Exit::Unreplicated { from: crate::ids::Txid::FIRST, frames: 1, error: "late".into() };
    let fenced = Exit::Misconfigured { error: "not ours".into(), hint: "".into() };
    for (exit, rest, told, left) in [
        (None, rest, false, Some(rested(1))),
        (Some(&Exit::Done), rest, true, Some(rested(1))),
        (Some(&Exit::Done), None, false, Some(Left::Finished)),
        (Some(&Exit::Done), None, true, Some(Left::Behind)),
        (Some(&unreplicated), rest, false, Some(Left::Behind)),
        (Some(&fenced), rest, false, None),
    ] {
        assert_eq!(Left::of(exit, rest, told), left, "{exit:?} {rest:?} {told}");
    }
}

#[test]
fn those_that_are_cold_are_looked_at_although_nobody_tells_of_them() {
    let mut tiers = Tiers::new(Limits { sweep: Duration::from_secs(10), ..limits(1, 1) });
    tiers.add(7);
    assert_eq!(orders(&mut tiers, 60_000), [Order::Start(7)], "none is cold");
    leave(&mut tiers, 7, rested(1));
    assert_eq!((orders(&mut tiers, 61_000), tiers.next_deadline()), (vec![], Some(at(71_000))));
    assert_eq!(orders(&mut tiers, 70_999), []);
    assert_eq!(orders(&mut tiers, 71_000), [Order::Look]);
    assert_eq!((orders(&mut tiers, 71_001), tiers.next_deadline()), (vec![], Some(at(81_000))));
    tiers.told(7, || Some(files(2)));
    assert_eq!(orders(&mut tiers, 71_002), [Order::Start(7)]);
    assert_eq!(tiers.next_deadline(), None);
}

#[test]
fn a_base_is_written_to_its_end_however_many_wait() {
    let mut tiers = Tiers::new(limits(2, 1));
    (1..=3).for_each(|database| tiers.add(database));
    assert_eq!(orders(&mut tiers, 0), [Order::Start(1)]);
    tiers.stands(at(1), 1, Standing::Base);
    assert_eq!((orders(&mut tiers, 3_600_000), tiers.next_deadline()), (vec![], None));
    // It fails, so that it gets nowhere.
    tiers.stands(at(3_600_000), 1, Standing::Starting);
    assert_eq!(orders(&mut tiers, 3_600_000), [Order::Finish(1)]);
}

#[test]
fn what_an_earlier_run_has_left_at_rest_begins_cold_beyond_the_first() {
    let mut tiers = Tiers::new(Limits { hot: 100, starting: 100, resting: 2, ..Limits::default() });
    (0..5).for_each(|database| tiers.add_at_rest(at(0), database, files(1)));
    assert_eq!((tiers.counts(), orders(&mut tiers, 0).len()), ((3, 2, 0), 2));
    // As it was left, and then not.
    tiers.told(2, || Some(files(1)));
    tiers.told(3, || Some(files(2)));
    assert_eq!(orders(&mut tiers, 1), [Order::Start(3)]);
    // Within a day each of the others asks its store, not all at one moment.
    let first = tiers.next_deadline().unwrap();
    assert!(first > at(0) && first < at(24 * 3_600_000));
    let day = orders(&mut tiers, 24 * 3_600_000);
    assert_eq!(day, [Order::Start(2), Order::Start(4)]);
    assert_eq!(tiers.next_deadline(), None);
    // Removed before that, it owes nothing.
    tiers.add_at_rest(at(0), 9, files(1));
    tiers.remove(9);
    assert_eq!(tiers.next_deadline(), None);
}

#[test]
fn a_change_before_the_directories_are_in_view_is_seen() {
    let mut tiers = Tiers::new(Limits { hot: 100, starting: 100, resting: 0, ..Limits::default() });
    tiers.in_view();
    assert_eq!(orders(&mut tiers, 0), []);
    (1..3).for_each(|database| tiers.add_at_rest(at(0), database, files(1)));
    // Not before: between that look and the view there would be a gap again.
    assert_eq!(orders(&mut tiers, 1), []);
    tiers.in_view();
    assert_eq!(orders(&mut tiers, 2), [Order::Look]);
    tiers.told(1, || Some(files(1)));
    tiers.told(2, || Some(files(2)));
    assert_eq!(orders(&mut tiers, 3), [Order::Start(2)]);
    tiers.in_view();
    assert_eq!(orders(&mut tiers, 4), []);
}

#[test]
fn a_wal_that_has_gone_or_is_empty_tells_nothing_of_sealed_files() {
    let wal = |inode, size, mtime_ns| Some(WalFacts { inode, size, mtime_ns });
    let of = |wal| Fingerprint::new(1, 2, 3, 4, wal);
    let left = of(wal(5, 6, 7));
    for same in [wal(5, 6, 7), wal(9, 0, 9), None] {
        assert!(of(same).is_as_left(left), "{same:?}");
    }
    for other in [wal(9, 6, 7), wal(5, 9, 7), wal(5, 6, 9)] {
        assert!(!of(other).is_as_left(left), "{other:?}");
        assert!(!of(other).is_as_left(of(None)), "{other:?}");
    }
    for (device, inode, size, ctime_ns) in [(9, 2, 3, 4), (1, 9, 3, 4), (1, 2, 9, 4), (1, 2, 3, 9)] {
        assert!(!Fingerprint::new(device, inode, size, ctime_ns, None).is_as_left(left));
    }
}

/// A database beside the tiers: how often it was written, and how much of that is on the replica.
#[derive(Clone, Copy, Default)]
struct Db {
    written: u64,
    engine: bool,
    /// The engine was told of a change that it has not looked into.
    told: bool,
    /// What the engine has brought to the replica.
    replicated: u64,
}

/// The same number twice in a row never (splitmix64).
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

/// A crowd of databases with engines that are slow, fail, change their mind and leave late, in any
/// order. Nobody has two engines, no more than allowed have one, and whatever was written is on the
/// replica once nobody writes any more.
#[test]
fn a_crowd_finds_its_places_and_loses_nothing() {
    for seed in 0..400 {
        let mut dice = seed;
        let count = 1 + draw(&mut dice, 40) as u32;
        let limits = limits(1 + draw(&mut dice, 6) as usize, 1 + draw(&mut dice, 4) as usize);
        let mut crowd = Crowd {
            tiers: Tiers::new(limits),
            databases: vec![Db::default(); count as usize],
            told: Vec::new(),
            limits,
        };
        (0..count).for_each(|database| crowd.tiers.add(database));
        for step in 0..2_000 {
            crowd.step(seed, step * 50, &mut dice, step < 1_000);
        }
        for step in 2_000..2_000 + 200 * u64::from(count) {
            crowd.step(seed, step * 50, &mut dice, false);
        }
        for (database, db) in crowd.databases.iter().enumerate() {
            assert_eq!(db.replicated, db.written, "seed {seed}: database {database} was forgotten");
        }
        let (cold, waiting, hot) = crowd.tiers.counts();
        assert_eq!((cold, waiting, hot), (count as usize, 0, 0), "seed {seed}");
    }
}

struct Crowd {
    tiers: Tiers,
    databases: Vec<Db>,
    /// Told to go, and how.
    told: Vec<(u32, bool)>,
    limits: Limits,
}

impl Crowd {
    fn step(&mut self, seed: u64, ms: u64, dice: &mut u64, writes: bool) {
        let database = draw(dice, self.databases.len() as u64) as u32;
        if writes && draw(dice, 3) == 0 {
            let db = &mut self.databases[database as usize];
            db.written += 1;
            // Who has an engine has it told, and it alone.
            db.told = db.engine;
            let now = db.written;
            if !db.engine {
                self.tiers.told(database, || Some(files(now)));
            }
        }
        let engines = self.databases.iter_mut().enumerate().filter(|(_, db)| db.engine);
        for (database, db) in engines {
            let standing = match draw(dice, 16) {
                0 | 1 => Standing::Busy,
                2 | 3 if db.replicated == db.written => Standing::Resting,
                4 | 5 if db.replicated == db.written => Standing::Replicated,
                6 => {
                    (db.replicated, db.told) = (db.written, false);
                    continue;
                }
                // It takes its time, so that it may leave before it has looked.
                _ => continue,
            };
            self.tiers.stands(at(ms), database as u32, standing);
        }
        if !self.told.is_empty() && draw(dice, 2) == 0 {
            let (database, rest) = self.told.swap_remove(draw(dice, self.told.len() as u64) as usize);
            self.leave(ms, database, rest, dice);
        }
        let mut orders = Vec::new();
        self.tiers.orders(at(ms), &mut orders);
        for order in orders {
            match order {
                Order::Start(database) => {
                    let db = &mut self.databases[database as usize];
                    assert!(!db.engine, "seed {seed}: two engines for {database}");
                    db.engine = true;
                }
                Order::Rest(database) => self.told.push((database, true)),
                Order::Finish(database) => self.told.push((database, false)),
                Order::Look => unreachable!("none of them began cold"),
            }
        }
        let engines = self.databases.iter().filter(|db| db.engine).count();
        assert!(engines <= self.limits.hot, "seed {seed}: {engines} engines");
    }

    fn leave(&mut self, ms: u64, database: u32, rest: bool, dice: &mut u64) {
        let db = &mut self.databases[database as usize];
        if rest && db.told {
            return self.tiers.stays(at(ms), database);
        }
        // Its last look may have been before the last write, and it may have sealed or not.
        let seal = Rest { fingerprint: files(db.replicated), due: None };
        let rest = (rest || draw(dice, 2) == 0).then_some(seal);
        let unreplicated = Exit::Unreplicated { from: crate::ids::Txid::FIRST, frames: 1, error: "".into() };
        let exit = if draw(dice, 4) == 0 { unreplicated } else { Exit::Done };
        let left = Left::of(Some(&exit), rest, db.told).expect("it goes on");
        (db.engine, db.told) = (false, false);
        let now = db.written;
        self.tiers.left(database, left, || Some(files(now)));
    }
}
