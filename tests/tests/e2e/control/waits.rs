//! `sync -wait` ends when it is true, and keeps nobody waiting.

use std::process::{Command, Stdio};
use std::time::Instant;

use driftless_tests::app::App;
use driftless_tests::command::finish;
use driftless_tests::sidecar::restore_checked;
use driftless_tests::store_faults::Away;
use driftless_tests::{driftless, run};
use serde_json::json;

use super::{PROMPT, Place, insert};

#[test]
fn what_was_committed_before_is_there_under_load() {
    let place = Place::new("control-load");
    // Without the request, nothing would leave for an hour.
    place.configure(&[("a.db", "ra")], "sync-interval: 1h");
    let database = place.dir.join("a.db");
    let mut app = App::start();
    app.start_writer(&database, json!({ "rate": 400, "keep": 200 }));
    let daemon = place.start();
    let copy = place.dir.join("copy.db");
    let mut rounds = 0;
    // A fast machine is done with eight before there is any load.
    while rounds < 8 || app.committed() <= 100 {
        rounds += 1;
        let before = app.committed();
        let synced = place.ask("sync -wait -json @a.db").expect_ok().json();
        let txid = |name: &str| synced[name].as_u64().unwrap_or_else(|| panic!("no {name}: {synced}"));
        assert!(txid("replica_txid") <= txid("txid"), "{synced}");
        let held = restore_checked(&place.dir.join("ra"), None, &copy, 200).unwrap().transactions;
        assert!(held >= before, "{before} were committed, {held} are on the replica: {synced}");
    }
    assert!(app.stop_writer()["committed"].as_u64() > Some(100));
    daemon.term().expect_code(0);
}

#[test]
fn two_that_wait_do_not_hold_up_a_status() {
    let place = Place::new("control-waits");
    place.configure(&[("a.db", "ra"), ("b.db", "rb")], "");
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    let daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    place.ask("sync -wait @b.db").expect_ok();
    let away = [Away::take(&place.dir.join("ra")), Away::take(&place.dir.join("rb"))];
    insert(&a, "in the outage");
    insert(&b, "in the outage");
    let late = place.ask("sync -wait -timeout 2 @a.db");
    late.expect_error(1, &["not on its replica after 2 s", "failed for now"]);
    let waiting: Vec<_> = ["a.db", "b.db"]
        .map(|name| {
            let words = place.words(&format!("sync -wait -timeout 60 @{name}"));
            let mut command = Command::new(driftless());
            command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
            std::thread::spawn(move || finish(&mut command))
        })
        .into_iter()
        .collect();
    for _ in 0..20 {
        let begun = Instant::now();
        let status = place.status();
        assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
        assert!(status["databases"][0]["lag_frames"].as_u64() > Some(0), "{status}");
    }
    assert!(waiting.iter().all(|one| !one.is_finished()), "they end before it is true");
    away.into_iter().for_each(Away::bring_back);
    for one in waiting {
        one.join().unwrap().expect_ok();
    }
    place.expect_restored("ra", "a.db");
    place.expect_restored("rb", "b.db");
    daemon.term().expect_code(0);
}

#[test]
fn a_stop_that_cannot_finish_is_told() {
    let place = Place::new("control-stop");
    place.configure(&[("a.db", "ra")], "");
    let a = place.database("a.db");
    let daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    let away = Away::take(&place.dir.join("ra"));
    insert(&a, "in the outage");
    let ran = place.ask("stop -timeout 1 @a.db");
    ran.expect_error(6, &["cannot stop", "not on the replica"]).expect_hint();
    assert_eq!(place.listed(), [("a.db".into(), "stopped".into())]);
    // The application has its database for itself.
    a.execute_batch("pragma journal_mode = delete; pragma journal_mode = wal").unwrap();
    away.bring_back();
    place.ask("start @a.db").expect_ok();
    place.ask("sync -wait @a.db").expect_ok();
    place.expect_restored("ra", "a.db");
    daemon.term().expect_code(0);
}

#[test]
fn a_database_that_is_not_there_is_no_success() {
    let place = Place::new("control-missing");
    place.configure(&[("a.db", "ra")], "");
    let daemon = place.start();
    let ran = place.ask("sync -wait -timeout 1 @a.db");
    ran.expect_error(1, &["the database does not exist"]).expect_hint();
    place.ask("sync -wait @z.db").expect_error(1, &["database not found"]);
    place.database("a.db");
    place.ask("sync -wait @a.db").expect_ok();
    place.expect_restored("ra", "a.db");
    daemon.term().expect_code(0);
}

/// Signals end the process whatever is being waited for, and requests meanwhile are refused.
#[test]
fn an_end_of_the_process_waits_for_no_request() {
    let place = Place::new("control-end");
    place.configure(&[("a.db", "ra")], "");
    let a = place.database("a.db");
    let daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    let away = Away::take(&place.dir.join("ra"));
    insert(&a, "in the outage");
    let words = place.words("sync -wait -timeout 60 @a.db");
    let waiting = std::thread::spawn(move || run(words));
    let ended = daemon.term().expect_code(6);
    assert!(ended.log.contains("unreplicated"), "{}", ended.log);
    assert_ne!(waiting.join().unwrap().code, 0);
    away.bring_back();
}
