use alloc::vec;

use super::*;

const STANDBY: View = View { known: true, held: false, continues: false, news: Some((1, 4)) };
const HOLDER: View = View { held: true, ..STANDBY };

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
    let mut it = Succession::new(2, false);
    assert!(it.handle(Event::Lease(STANDBY)).is_empty(), "the store is tried first");
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
    assert_eq!(it.handle(Event::Lease(HOLDER)), [succeed(0), succeed(1)]);
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
    let continues = View { continues: true, ..HOLDER };
    let begin = [Action::Begin(vec![(0, false)])];
    let mut returns = Succession::new(1, true);
    assert!(returns.handle(Event::Lease(View::default())).is_empty());
    assert_eq!(returns.handle(Event::Lease(continues)), begin);
    let mut first = Succession::new(1, false);
    assert!(first.handle(Event::Lease(continues)).is_empty());
    assert_eq!(first.handle(Event::Tried(Ok(()))), begin);
    let mut refused = Succession::new(1, false);
    refused.handle(Event::Tried(Err(failed())));
    assert_eq!(refused.handle(Event::Lease(continues)), [Action::Fail(failed())]);
    assert!(refused.is_over());
}

/// The copy of a machine finds the lease of its own claim, and that the other has written since.
#[test]
fn whoever_goes_on_and_finds_that_others_have_written_becomes_a_copy_first() {
    let mut it = Succession::new(1, true);
    it.handle(Event::Tried(Ok(())));
    it.handle(Event::Lease(View { continues: true, ..HOLDER }));
    assert_eq!(it.handle(Event::Stands(0, overtaken())), [Action::Disclaim]);
    assert_eq!(it.handle(Event::Disclaimed(Ok(()))), [Action::Name(0)]);
    assert_eq!(it.handle(Event::Named(0, Ok(()))), [Action::Follow { database: 0, succeeds: true }]);
    it.handle(Event::Followed(0, ended(&[2])));
    assert_eq!(it.handle(Event::Inherited(0, Ok(()))), [Action::Begin(vec![(0, true)])]);
}

#[test]
fn an_empty_replica_is_looked_at_when_there_is_news_and_once_more_at_the_end() {
    let nothing = || followed(Exit::NothingToRestore { error: "nothing".into(), hint: "wait".into() }, None);
    let mut it = Succession::new(1, false);
    it.handle(Event::Tried(Ok(())));
    it.handle(Event::Lease(STANDBY));
    it.handle(Event::Disclaimed(Ok(())));
    it.handle(Event::Named(0, Ok(())));
    assert!(it.handle(Event::Followed(0, nothing())).is_empty());
    assert!(it.handle(Event::Lease(STANDBY)).is_empty(), "there is no news");
    let news = View { news: Some((1, 5)), ..STANDBY };
    assert_eq!(it.handle(Event::Lease(news)), [Action::Follow { database: 0, succeeds: false }]);
    it.handle(Event::Followed(0, nothing()));
    let holder = View { held: true, ..news };
    let mut looks = it.clone();
    looks.handle(Event::Lease(View { news: Some((1, 6)), ..STANDBY }));
    looks.handle(Event::Lease(holder));
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
