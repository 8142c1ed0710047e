//! The oracles of a whole world, each with a world that breaks its promise.

use std::time::Duration;

use driftless_core::machine::{OpId, ReplicaId, StoreRequest};

use super::*;
use crate::ring0::image::Image;
use crate::ring0::scripts;

/// A world after its script, without faults, on its way to rest.
fn rested() -> World {
    let mut world = World::new(5, scripts::daily(), false);
    while !world.ended {
        world.step().unwrap();
    }
    world.heal();
    world.converge().unwrap();
    world
}

#[test]
fn a_world_comes_to_rest_and_stays_there() {
    let mut world = rested();
    world.check_idle().unwrap();
    world.finish().unwrap();
}

#[test]
fn a_replica_that_stays_behind_is_found() {
    let mut world = World::new(5, scripts::daily(), false);
    world.queue = Queue::new(world.dice);
    world.queue.push(1, Entry::App);
    while !world.ended {
        world.step().unwrap();
    }
    world.heal();
    assert_eq!(world.converge().unwrap_err().oracle, "liveness");
}

#[test]
fn a_request_of_an_idle_database_is_found() {
    let mut world = rested();
    let op = OpId { replica: ReplicaId(0), run: world.running.as_ref().unwrap().run, seq: 1 << 40 };
    let request = StoreRequest::List { level: Level::CAPTURES, after: None, limit: 1 };
    let run = op.run;
    world.later(Duration::from_secs(60), Entry::Store { run, op, request, fate: Fate::Works, late: false });
    assert_eq!(world.check_idle().unwrap_err().oracle, "idle");
}

/// Each attempt to let go asks for the write lock many times, and must come ever less often.
#[test]
fn a_transaction_that_stays_open_is_not_asked_after_for_ever() {
    let mut world = rested();
    let work = Work::Insert { rows: 1, bytes: 100 };
    world.app_acts(AppOp::Write(work)).unwrap();
    world.app_acts(AppOp::Begin(work)).unwrap();
    let run_for = |world: &mut World, seconds: u64| {
        let (until, before) = (world.now_ns() + seconds * 1_000_000_000, world.summary.actions);
        while world.queue.next_at().is_some_and(|at| at < until) {
            world.step().unwrap();
        }
        world.summary.actions - before
    };
    run_for(&mut world, 120);
    let actions = run_for(&mut world, 600);
    assert!(actions < 600 / 15 * 60, "{actions} actions in ten minutes");
}

#[test]
fn a_lost_commit_of_the_application_is_found() {
    let mut world = rested();
    let sqlite = world.sqlite.as_ref();
    let vandal = sqlite.library().unwrap().open("vandal", PATH).unwrap();
    vandal.execute_batch("CREATE TABLE _litestream_seq(x)").unwrap();
    assert_eq!(world.app.check_source(sqlite).unwrap_err().oracle, "source unharmed");
    vandal.execute_batch("DROP TABLE _litestream_seq; UPDATE m SET n=n-1").unwrap();
    assert_eq!(world.app.check_source(sqlite).unwrap_err().oracle, "source unharmed");
    let op = AppOp::Write(Work::Nothing);
    assert_eq!(world.app.perform(sqlite, op).unwrap_err().oracle, "source unharmed");
}

#[test]
fn what_became_of_the_source_in_the_silence_is_found() {
    let mut world = rested();
    world.check_last().unwrap();
    world.truth.pretend(Image::empty(512), true);
    assert_eq!(world.check_last().unwrap_err().oracle, "source unharmed");
}

#[test]
fn a_writer_that_is_kept_waiting_is_found() {
    let mut world = World::new(5, scripts::daily(), false);
    let op = AppOp::Write(Work::Nothing);
    world.note_blocked(op, &AppEnd::Busy).unwrap();
    world.clock.advance_ns(200_000_000);
    assert_eq!(world.note_blocked(op, &AppEnd::Busy).unwrap_err().oracle, "source unharmed");
}

/// The replicator says that a transaction is on the replica, and it is not.
#[test]
fn a_false_report_is_found() {
    use driftless_core::machine::{Action, Fact, Notice, Severity};
    let mut world = rested();
    let txid = world.restored.next();
    let fact = Fact::Replicated { txid, bytes: 1, pages: 1 };
    let run = world.running.as_ref().unwrap().run;
    let said = world.carry_out(run, Action::Notify(Notice { severity: Severity::Info, fact }));
    assert_eq!(said.unwrap_err().oracle, "replicated");
}

/// The replicator says that everything before a moment is on the replica, and one commit is not.
#[test]
fn a_false_claim_of_a_sync_is_found() {
    let mut world = rested();
    world.commits = Commits::default();
    world.commits.note(Mono::default(), world.truth.owed());
    world.check_synced().unwrap();
    world.commits = Commits::default();
    world.commits.note(Mono::default(), world.truth.owed() + 1);
    assert_eq!(world.check_synced().unwrap_err().oracle, "synced");
}
