use alloc::vec;

use super::*;

/// How a standby sees the holder once it has put so many segments, the last of them there.
fn news(progress: u64, put: &[u64]) -> View {
    let mut active = Active::default();
    let first = progress + 1 - put.len() as u64;
    put.iter().zip(first..).for_each(|(place, number)| active.put(PlaceId(*place), number));
    View { known: true, held: false, continues: false, news: Some(News { epoch: 1, progress, active }) }
}

fn standby() -> View {
    news(4, &[0])
}

fn holder() -> View {
    View { held: true, ..standby() }
}

fn succession(databases: u64, returns: bool) -> Succession {
    Succession::new((0..databases).map(PlaceId).collect(), false, returns)
}

fn overtaken() -> Stand {
    Stand::Ended(Exit::Overtaken { error: "one more".into() })
}

fn failed() -> Exit {
    Exit::Failed { error: "no".into(), hint: "none".into() }
}

fn followed(exit: Exit, bequest: Option<Vec<Chunk>>) -> Followed {
    Followed { exit, bequest, unknown: false }
}

fn ended(records: &[u8]) -> Followed {
    followed(Exit::Done, Some(vec![Chunk::from(records.to_vec())]))
}

/// Two databases whose copies follow.
fn standing_by() -> Succession {
    let mut it = succession(2, false);
    assert!(it.handle(Event::Lease(standby())).is_empty(), "the store is tried first");
    assert_eq!(it.handle(Event::Tried(Ok(()))), [Action::Disclaim]);
    assert_eq!(it.handle(Event::Disclaimed(Ok(()))), [Action::Name(0), Action::Name(1)]);
    for database in 0..2 {
        let follows = [Action::Follow { database, succeeds: false }];
        assert_eq!(it.handle(Event::Named(database, Ok(()))), follows);
    }
    it
}

/// The same once the lease is held and both have left a journal.
fn fencing() -> Succession {
    let mut it = standing_by();
    let succeed = |database| Action::Tell { database, succeeds: true };
    assert_eq!(it.handle(Event::Lease(holder())), [succeed(0), succeed(1)]);
    for n in 0..2 {
        let records = vec![Chunk::from(vec![n as u8])];
        assert_eq!(it.handle(Event::Followed(n, ended(&[n as u8]))), [Action::Inherit(n, records)]);
    }
    assert!(it.handle(Event::Inherited(1, Ok(()))).is_empty(), "all begin together");
    assert_eq!(it.handle(Event::Inherited(0, Ok(()))), [Action::Begin(vec![(0, true), (1, true)])]);
    it
}

#[test]
fn a_standby_follows_succeeds_fences_and_is_the_primary() {
    let mut it = fencing();
    assert!(it.handle(Event::Stands(0, Stand::Ready)).is_empty());
    assert_eq!(it.handle(Event::Stands(1, Stand::Ready)), [Action::Activate]);
    assert!(it.is_over() && it.handle(Event::Ends).is_empty());
}

#[test]
fn a_predecessor_that_was_faster_is_followed_once_more() {
    let mut it = fencing();
    it.handle(Event::Stands(0, Stand::Ready));
    let again = [Action::Follow { database: 1, succeeds: true }];
    assert_eq!(it.handle(Event::Stands(1, overtaken())), again);
    assert!(it.handle(Event::Stands(1, Stand::Ready)).is_empty(), "an old word counts for nothing");
    assert_eq!(it.handle(Event::Followed(1, ended(&[2]))).len(), 1);
    assert_eq!(it.handle(Event::Inherited(1, Ok(()))), [Action::Begin(vec![(1, true)])]);
    assert_eq!(it.handle(Event::Stands(1, Stand::Ready)), [Action::Activate]);
}

#[test]
fn whoever_continues_begins_at_once_and_tries_the_store_only_the_first_time() {
    let continues = View { continues: true, ..holder() };
    let begin = [Action::Begin(vec![(0, false)])];
    let mut returns = succession(1, true);
    assert!(returns.handle(Event::Lease(View::default())).is_empty());
    assert_eq!(returns.handle(Event::Lease(continues.clone())), begin);
    let mut first = succession(1, false);
    assert!(first.handle(Event::Lease(continues.clone())).is_empty());
    assert_eq!(first.handle(Event::Tried(Ok(()))), begin);
    let mut refused = succession(1, false);
    refused.handle(Event::Tried(Err(failed())));
    assert_eq!(refused.handle(Event::Lease(continues)), [Action::Fail(failed())]);
    assert!(refused.is_over());
}

/// The copy of a machine finds the lease of its own claim, and that the other has written since.
#[test]
fn whoever_goes_on_and_finds_that_others_have_written_becomes_a_copy_first() {
    let mut it = succession(1, true);
    it.handle(Event::Tried(Ok(())));
    it.handle(Event::Lease(View { continues: true, ..holder() }));
    assert_eq!(it.handle(Event::Stands(0, overtaken())), [Action::Disclaim]);
    assert_eq!(it.handle(Event::Disclaimed(Ok(()))), [Action::Name(0)]);
    assert_eq!(it.handle(Event::Named(0, Ok(()))), [Action::Follow { database: 0, succeeds: true }]);
    it.handle(Event::Followed(0, ended(&[2])));
    assert_eq!(it.handle(Event::Inherited(0, Ok(()))), [Action::Begin(vec![(0, true)])]);
}

#[test]
fn an_empty_replica_is_looked_at_when_there_is_news_and_once_more_at_the_end() {
    let nothing = || followed(Exit::NothingToRestore { error: "nothing".into(), hint: "wait".into() }, None);
    let mut it = succession(1, false);
    it.handle(Event::Tried(Ok(())));
    it.handle(Event::Lease(standby()));
    it.handle(Event::Disclaimed(Ok(())));
    it.handle(Event::Named(0, Ok(())));
    assert!(it.handle(Event::Followed(0, nothing())).is_empty());
    assert!(it.handle(Event::Lease(standby())).is_empty(), "there is no news");
    let more = news(5, &[0]);
    assert_eq!(it.handle(Event::Lease(more.clone())), [Action::Follow { database: 0, succeeds: false }]);
    it.handle(Event::Followed(0, nothing()));
    let mut told = it.clone();
    told.handle(Event::Lease(news(6, &[0])));
    told.handle(Event::Lease(news(7, &[0])));
    let follows = [Action::Follow { database: 0, succeeds: false }];
    assert_eq!(told.handle(Event::Followed(0, nothing())), follows, "it had looked before the news");
    assert!(told.handle(Event::Followed(0, nothing())).is_empty());
    let holder = View { held: true, ..more };
    let mut looks = it.clone();
    looks.handle(Event::Lease(news(6, &[0])));
    looks.handle(Event::Lease(holder.clone()));
    let again = [Action::Follow { database: 0, succeeds: true }];
    assert_eq!(looks.handle(Event::Followed(0, nothing())), again, "it had begun before");
    assert_eq!(it.handle(Event::Lease(holder)), again);
    assert_eq!(it.handle(Event::Followed(0, nothing())), [Action::Begin(vec![(0, false)])]);
}

#[test]
fn what_was_never_replicated_is_moved_aside_and_the_copy_begins_anew() {
    let mut it = standing_by();
    let unknown = Followed { exit: failed(), bequest: None, unknown: true };
    assert_eq!(it.handle(Event::Followed(0, unknown)), [Action::MoveAside(0)]);
    let again = [Action::Follow { database: 0, succeeds: false }];
    assert_eq!(it.handle(Event::MovedAside(0, Ok(()))), again);
    assert_eq!(
        it.handle(Event::Followed(0, followed(failed(), None))),
        [Action::End(1), Action::Fail(failed())],
        "other failures are the end"
    );
}

#[test]
fn a_failure_of_any_step_is_the_end() {
    for event in [
        Event::Disclaimed(Err(failed())),
        Event::Named(0, Err(failed())),
        Event::MovedAside(0, Err(failed())),
        Event::Inherited(0, Err(failed())),
    ] {
        let done = standing_by().handle(event);
        assert_eq!(done.last(), Some(&Action::Fail(failed())), "{done:?}");
    }
    let mut it = fencing();
    assert_eq!(it.handle(Event::Stands(0, Stand::Ended(failed()))), [Action::Fail(failed())]);
    assert_eq!(standing_by().handle(Event::Ends), [Action::End(0), Action::End(1)]);
}

#[test]
fn a_database_that_somebody_has_ended_is_not_waited_for() {
    let mut it = fencing();
    assert!(it.handle(Event::Stands(0, Stand::Ended(Exit::Done))).is_empty());
    assert_eq!(it.handle(Event::Stands(1, Stand::Ready)), [Action::Activate]);
    let mut it = fencing();
    it.handle(Event::Stands(0, Stand::Ended(Exit::Done)));
    assert!(it.handle(Event::Stands(1, Stand::Ended(Exit::Done))).is_empty(), "nobody is primary of nothing");
}

#[test]
fn a_standby_looks_where_the_holder_has_put_and_everywhere_if_it_cannot_tell() {
    let told = |databases: &[usize]| -> Vec<Action> {
        databases.iter().map(|n| Action::Tell { database: *n, succeeds: false }).collect()
    };
    let mut it = standing_by();
    assert_eq!(it.handle(Event::Lease(news(6, &[1, 1]))), told(&[1]));
    assert_eq!(it.handle(Event::Lease(news(8, &[1, 0]))), told(&[0, 1]));
    assert_eq!(it.handle(Event::Lease(news(9, &[0]))), told(&[0]));
    assert_eq!(it.handle(Event::Lease(news(10, &[7]))), told(&[0, 1]), "a place that nobody here knows");
    assert_eq!(it.handle(Event::Lease(news(11, &[]))), told(&[0, 1]), "a count that nobody accounts for");
    let mut next = news(12, &[0]);
    next.news.as_mut().unwrap().epoch = 2;
    assert_eq!(it.handle(Event::Lease(next)), told(&[0, 1]), "another holder");
}

#[test]
fn the_most_active_are_warmed_first() {
    let mut it = succession(3, false);
    it.handle(Event::Tried(Ok(())));
    assert_eq!(it.handle(Event::Lease(news(9, &[1, 2]))), [Action::Disclaim]);
    let warmed = [Action::Name(2), Action::Name(1), Action::Name(0)];
    assert_eq!(it.handle(Event::Disclaimed(Ok(()))), warmed);
}

#[test]
fn a_standby_whose_copies_cannot_be_written_leaves_the_lease_to_others() {
    let mut it = standing_by();
    assert_eq!(it.handle(Event::Obstructed(0, true)), [Action::Contend(false)]);
    assert!(it.handle(Event::Obstructed(1, true)).is_empty());
    assert!(it.handle(Event::Obstructed(0, false)).is_empty());
    assert!(it.handle(Event::Obstructed(0, true)).is_empty());
    assert!(it.handle(Event::Obstructed(1, false)).is_empty());
    let unknown = Followed { exit: failed(), bequest: None, unknown: true };
    let done = [Action::Contend(true), Action::MoveAside(0)];
    assert_eq!(it.handle(Event::Followed(0, unknown)), done, "what ends obstructs nothing");
}

/// A standby of a directory that knows of no database yet.
fn searching() -> Succession {
    let mut it = Succession::new(vec![], true, false);
    it.handle(Event::Tried(Ok(())));
    let search = Action::Search { wait: Duration::ZERO };
    assert_eq!(it.handle(Event::Lease(standby())), [Action::Disclaim, search]);
    it
}

#[test]
fn what_is_found_is_followed_and_the_last_search_begins_when_the_lease_is_held() {
    let search = || Action::Search { wait: Duration::ZERO };
    let mut it = searching();
    assert!(it.handle(Event::Found(Ok(vec![PlaceId(0)]))).is_empty(), "the claim is not forgotten yet");
    assert_eq!(it.handle(Event::Disclaimed(Ok(()))), [Action::Name(0)]);
    it.handle(Event::Named(0, Ok(())));
    let mut early = it.clone();
    assert_eq!(it.handle(Event::Lease(holder())), [Action::Tell { database: 0, succeeds: true }, search()]);
    it.handle(Event::Followed(0, ended(&[0])));
    assert!(it.handle(Event::Inherited(0, Ok(()))).is_empty(), "there may be more");
    assert_eq!(it.handle(Event::Found(Ok(vec![PlaceId(1)]))), [Action::Name(1)]);
    assert_eq!(it.handle(Event::Named(1, Ok(()))), [Action::Follow { database: 1, succeeds: true }]);
    it.handle(Event::Followed(1, ended(&[1])));
    assert_eq!(it.handle(Event::Inherited(1, Ok(()))), [Action::Begin(vec![(0, true), (1, true)])]);

    // One that began before may have looked too early.
    assert_eq!(early.handle(Event::Lease(news(5, &[7]))), [search()], "a place that nobody here knows");
    early.handle(Event::Lease(holder()));
    early.handle(Event::Followed(0, ended(&[0])));
    early.handle(Event::Inherited(0, Ok(())));
    assert_eq!(early.handle(Event::Found(Ok(vec![]))), [search()]);
    assert_eq!(early.handle(Event::Found(Ok(vec![]))), [Action::Begin(vec![(0, true)])]);
}

#[test]
fn a_search_that_fails_is_begun_again_and_one_that_finds_nothing_means_another_name() {
    let mut it = searching();
    let mut waits = vec![];
    for _ in 0..7 {
        match it.handle(Event::Found(Err("503".into()))).as_slice() {
            [Action::Search { wait }] => waits.push(wait.as_millis()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [500, 1_000, 2_000, 4_000, 4_000, 4_000, 4_000]);
    it.handle(Event::Found(Ok(vec![PlaceId(0), PlaceId(1)])));
    it.handle(Event::Disclaimed(Ok(())));
    (0..2).for_each(|n| drop(it.handle(Event::Named(n, Ok(())))));
    let tell = |database| Action::Tell { database, succeeds: false };
    let search = Action::Search { wait: Duration::ZERO };
    assert_eq!(it.handle(Event::Lease(news(6, &[7, 1]))), [tell(1), search]);
    assert_eq!(it.handle(Event::Found(Ok(vec![]))), [tell(0), tell(1)], "one of these, by another name");
}

#[test]
fn whoever_continues_searches_nothing_until_others_have_written() {
    let mut it = Succession::new(vec![PlaceId(0)], true, true);
    let continues = View { continues: true, ..holder() };
    assert_eq!(it.handle(Event::Lease(continues)), [Action::Begin(vec![(0, false)])]);
    let mut lone = it.clone();
    assert_eq!(lone.handle(Event::Stands(0, Stand::Ready)), [Action::Activate]);
    let search = Action::Search { wait: Duration::ZERO };
    assert_eq!(it.handle(Event::Stands(0, overtaken())), [Action::Disclaim, search]);
    it.handle(Event::Disclaimed(Ok(())));
    it.handle(Event::Named(0, Ok(())));
    it.handle(Event::Followed(0, ended(&[2])));
    it.handle(Event::Inherited(0, Ok(())));
    assert!(it.handle(Event::Stands(0, Stand::Ready)).is_empty(), "there may be more");
    assert_eq!(it.handle(Event::Found(Ok(vec![]))), [Action::Activate]);
    // Of a directory in which nothing is, nothing is waited for.
    let mut empty = Succession::new(vec![], true, true);
    let done = empty.handle(Event::Lease(View { continues: true, held: true, ..news(0, &[]) }));
    assert_eq!(done, [Action::Begin(vec![]), Action::Activate]);
}

/// The machine was set back to a snapshot from before a database began.
#[test]
fn whoever_continues_and_lacks_what_the_lease_names_finds_it_first() {
    let mut it = Succession::new(vec![PlaceId(0)], true, true);
    let continues = View { continues: true, held: true, ..news(4, &[0, 1]) };
    let search = Action::Search { wait: Duration::ZERO };
    assert_eq!(it.handle(Event::Lease(continues)), [Action::Begin(vec![(0, false)]), search]);
    assert!(it.handle(Event::Stands(0, Stand::Ready)).is_empty());
    assert_eq!(it.handle(Event::Found(Ok(vec![PlaceId(1)]))), [Action::Disclaim]);
    assert_eq!(it.handle(Event::Disclaimed(Ok(()))), [Action::Name(1)]);
    assert_eq!(it.handle(Event::Named(1, Ok(()))), [Action::Follow { database: 1, succeeds: true }]);
    it.handle(Event::Followed(1, ended(&[1])));
    assert_eq!(it.handle(Event::Inherited(1, Ok(()))), [Action::Begin(vec![(1, true)])]);
    assert_eq!(it.handle(Event::Stands(1, Stand::Ready)), [Action::Activate]);
}

/// Two that go on and were overtaken at once become copies, each by one follower.
#[test]
fn a_claim_is_forgotten_once_for_all() {
    let mut it = succession(2, true);
    it.handle(Event::Lease(View { continues: true, ..holder() }));
    assert_eq!(it.handle(Event::Stands(0, overtaken())), [Action::Disclaim]);
    assert!(it.handle(Event::Stands(1, overtaken())).is_empty());
    assert_eq!(it.handle(Event::Disclaimed(Ok(()))), [Action::Name(0), Action::Name(1)]);
}
