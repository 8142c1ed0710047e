//! A store that is late, throttles, fails, lies and loses answers.
//!
//! The stories of a kind are told side by side, each with a bucket, a proxy and a writer of its own:
//! they wait more than they work.

use std::time::Duration;

use driftless_tests::app::App;
use driftless_tests::place::Place as _;
use driftless_tests::proxy::{Answer, Fault, Proxy, Rule};
use driftless_tests::sidecar::{Sidecar, assert_equal_to_source};
use driftless_tests::{PATIENCE, wait_for};
use serde_json::json;

use super::{at_the_same_time, put_once, s3};
use crate::side_by_side::{KEEP, Scene, status, trouble_is_told};

/// More than a request may take until it counts as lost.
const LOST: Duration = Duration::from_secs(90);

/// Faults of the puts of segments.
fn of_segments(fault: Fault) -> Rule {
    Rule::new(fault).operation("PUT").path_ends(".ltx")
}

/// A writer at a moderate rate, some trouble, and the end: all is there, once.
fn story(name: &str, trouble: impl FnOnce(&Proxy, &Sidecar)) {
    let (proxy, scene) = s3(name);
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "rate": 100, "keep": KEEP }));
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("replicated txid=");
    trouble(&proxy, &sidecar);
    proxy.clear();
    scene.recovers_whole(app, sidecar);
    put_once(&proxy);
}

/// Some puts meet a fault, and replication goes on.
fn some_meet(name: &str, fault: Fault, times: u64) {
    story(name, |proxy, sidecar| {
        let rule = proxy.add(of_segments(fault).times(times));
        wait_for("the fault to happen", PATIENCE, || proxy.hits(rule) == times);
        goes_on(sidecar, 1);
    });
}

fn goes_on(sidecar: &Sidecar, more: u64) {
    let goal = sidecar.replicated().expect("it was told before") + more;
    wait_for("replication to go on", LOST, || sidecar.replicated() >= Some(goal));
}

/// The kind of an error and the wait are in the log, and the trouble in the status until it is over.
fn refused(name: &str, answer: Answer) {
    story(name, |proxy, sidecar| {
        let rule = proxy.add(of_segments(Fault::Answer(answer)));
        trouble_is_told(sidecar);
        wait_for("some refusals", PATIENCE, || proxy.hits(rule) >= 3);
        let before = sidecar.replicated();
        proxy.clear();
        wait_for("replication to go on", PATIENCE, || sidecar.replicated() > before);
    });
}

#[test]
fn answers_that_are_late_or_lost() {
    at_the_same_time(&[
        ("late", |name| {
            story(name, |proxy, sidecar| {
                proxy.add(of_segments(Fault::DelayAnswer(Duration::from_millis(1_500))));
                goes_on(sidecar, 3);
            });
        }),
        ("late-effect", |name| {
            story(name, |proxy, sidecar| {
                proxy.add(of_segments(Fault::DelayRequest(Duration::from_millis(1_500))));
                goes_on(sidecar, 3);
            });
        }),
        ("cut-before", |name| some_meet(name, Fault::CutBefore, 3)),
        ("cut-within", |name| some_meet(name, Fault::CutWithin(200), 3)),
        ("cut-after", |name| some_meet(name, Fault::CutAfter, 3)),
        ("twice", |name| some_meet(name, Fault::Twice, 3)),
    ]);
}

#[test]
fn refusals_and_failures_with_and_without_effect() {
    at_the_same_time(&[
        ("slow-down", |name| refused(name, Answer::slow_down())),
        ("too-many", |name| refused(name, Answer::too_many_requests(1))),
        ("500", |name| some_meet(name, Fault::Answer(Answer::internal_error()), 3)),
        ("500-after", |name| some_meet(name, Fault::AnswerAfter(Answer::internal_error()), 3)),
        ("503", |name| refused(name, Answer::unavailable())),
        ("503-after", |name| some_meet(name, Fault::AnswerAfter(Answer::unavailable()), 2)),
        // Not a server of S3: it may be anything that says yes to everything.
        ("200-of-a-stranger", |name| some_meet(name, Fault::Answer(Answer::status(200)), 2)),
        ("409", |name| some_meet(name, Fault::Answer(Answer::conflict()), 3)),
        ("409-after", |name| some_meet(name, Fault::AnswerAfter(Answer::conflict()), 2)),
        ("412-own", |name| some_meet(name, Fault::AnswerAfter(Answer::precondition_failed()), 3)),
        ("412-for-nothing", |name| some_meet(name, Fault::Answer(Answer::precondition_failed()), 2)),
    ]);
}

/// Every request is at risk, also those of the start: reading back, listing, probing.
#[test]
fn a_storm_over_all_requests() {
    at_the_same_time(&[
        ("storm-429", |name| storm(name, Fault::Answer(Answer::too_many_requests(1)), 3)),
        ("storm-503", |name| storm(name, Fault::AnswerAfter(Answer::unavailable()), 5)),
        ("storm-cut", |name| storm(name, Fault::CutAfter, 7)),
    ]);
}

fn storm(name: &str, fault: Fault, seed: u64) {
    let (proxy, scene) = s3(name);
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "rate": 100, "keep": KEEP }));
    let rule = proxy.add(Rule::new(fault).probability(0.5, seed));
    for _ in 0..2 {
        let sidecar = scene.sidecar();
        wait_for("replication in a storm", LOST, || sidecar.replicated().is_some());
        goes_on(&sidecar, 2);
        sidecar.kill();
    }
    assert!(proxy.hits(rule) >= 8, "no storm: {}", proxy.hits(rule));
    proxy.remove(rule);
    let sidecar = scene.sidecar();
    scene.recovers_whole(app, sidecar);
    put_once(&proxy);
}

/// A list that hangs at the start is given up and asked for again.
pub(super) fn hanging_list(name: &str) {
    let (proxy, scene) = s3(name);
    let mut app = scene.app();
    app.tx("a");
    let hanging = proxy.add(Rule::new(Fault::HangBefore).operation("LIST").skip(3).times(1));
    let sidecar = scene.sidecar();
    wait_for("a list that hangs", PATIENCE, || proxy.hits(hanging) == 1);
    wait_for("it to be given up", LOST, || sidecar.count("no answer from the store") == 1);
    drop(app);
    scene.ends_well(sidecar);
    put_once(&proxy);
}

/// A put lands when it has been given up, the segment put again, and later ones behind it: it is
/// refused then.
pub(super) fn late_landing(name: &str) {
    story(name, |proxy, sidecar| {
        let rule = proxy.add(of_segments(Fault::DelayRequest(Duration::from_secs(64))).times(1));
        wait_for("a put that is late", PATIENCE, || proxy.hits(rule) == 1);
        goes_on(sidecar, 2);
        proxy.wait_for("the late put to land", LOST, |record| {
            record.faults == ["delay-request"] && record.server_status == Some(412)
        });
    });
}

/// A put that is never answered is given up, and what it did meanwhile is found.
pub(super) fn hanging_put(name: &str) {
    one_put_hangs(name, Fault::HangBefore);
}

/// The same when it had its effect.
pub(super) fn hanging_put_with_effect(name: &str) {
    one_put_hangs(name, Fault::HangAfter);
}

fn one_put_hangs(name: &str, fault: Fault) {
    story(name, |proxy, sidecar| {
        let hanging = proxy.add(of_segments(fault).times(1));
        wait_for("a put that hangs", PATIENCE, || proxy.hits(hanging) == 1);
        goes_on(sidecar, 2);
        assert_eq!(sidecar.count("no answer from the store"), 1, "{:?}", sidecar.lines());
    });
}

/// A restore whose answers end early, or not at all, is whole or an error, and here it is whole.
#[test]
fn a_restore_whose_answers_end_early() {
    let (proxy, scene) = s3("truncated");
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "rate": 300, "keep": KEEP, "bytes": 2_000 }));
    let sidecar = scene.sidecar();
    wait_for("some captures", PATIENCE, || sidecar.replicated() >= Some(4));
    app.stop_writer();
    drop(app);
    sidecar.caught_up();
    sidecar.stop();
    let faults = [
        Fault::Truncate(0),
        Fault::Truncate(1_000),
        Fault::CutAfter,
        Fault::Answer(Answer::internal_error()),
        Fault::Answer(Answer::slow_down()),
    ];
    for fault in faults {
        let name = format!("{fault:?}");
        // Some at the first request, some in the middle; the listing is not spared.
        let gets = proxy.add(Rule::new(fault.clone()).operation("GET").every(2).times(6));
        let lists = proxy.add(Rule::new(fault).operation("LIST").every(3).times(3));
        scene.held();
        assert_equal_to_source(&scene.database, &scene.replica);
        assert!(proxy.remove(gets) >= 3 && proxy.remove(lists) >= 2, "{name} did not happen");
    }
    put_once(&proxy);
}

/// A store that says yes and keeps nothing: the hole has a name, and no older state is passed off as
/// the newest.
#[test]
fn a_put_that_was_acknowledged_and_is_not_there() {
    let (proxy, scene) = s3("lying");
    let mut app = scene.app();
    app.tx("a");
    let sidecar = scene.sidecar();
    sidecar.caught_up();
    let lie = Answer::status(200).header("ETag", "\"0123456789abcdef0123456789abcdef\"");
    let lie = proxy.add(of_segments(Fault::Answer(lie)).times(1));
    for _ in 0..2 {
        app.tx("a");
        sidecar.caught_up();
    }
    assert_eq!((proxy.hits(lie), sidecar.replicated()), (1, Some(3)));
    sidecar.stop();
    assert_eq!(scene.replica.ltx_files(0), [(1, 1), (3, 3)]);
    let copy = scene.dir.join("copy.db");
    let target = copy.to_str().expect("a plain path");
    scene.replica.run(&["restore", "-o", target]).expect_error(4, &["0000000000000002"]).expect_hint();
    assert!(!copy.exists());
    let verified = scene.replica.run(&["verify"]).expect_code(4);
    assert!(verified.out.contains("0000000000000002"), "{}", verified.out);
    scene.replica.run(&["restore", "-txid", "1", "-o", target]).expect_ok();
}

/// Stopped while the store is away: exit 6, the first transaction that is missing is named, and
/// nobody has to do anything but start it again.
fn stopped_while_away(name: &str, go_away: fn(&Proxy)) {
    let (proxy, scene): (Proxy, Scene<_>) = s3(name);
    let mut app = scene.app();
    app.tx("a");
    let mut sidecar = scene.setup().settings("shutdown-sync-timeout: 2s").start();
    sidecar.caught_up();
    let next = sidecar.replicated().expect("caught up") + 1;
    go_away(&proxy);
    app.tx("a");
    wait_for("a lag in the status", PATIENCE, || status(&sidecar)["lag_frames"] != 0);
    sidecar.ask_to_stop();
    assert_eq!(sidecar.wait(PATIENCE).code(), Some(6), "{:?}", sidecar.lines());
    let named = format!("{next:016x}");
    assert!(sidecar.lines().iter().rev().take(6).any(|line| line.contains(&named)), "{:?}", sidecar.lines());
    proxy.heal();
    proxy.clear();
    drop(app);
    scene.ends_well(scene.sidecar());
    assert_eq!(scene.held(), 2);
    put_once(&proxy);
}

#[test]
fn a_shutdown_while_the_store_is_away_names_what_is_left() {
    at_the_same_time(&[
        ("stop-refused", |name| stopped_while_away(name, |proxy| proxy.refuse(None))),
        ("stop-silent", |name| stopped_while_away(name, |proxy| proxy.silence(None))),
        ("stop-denied", |name| {
            stopped_while_away(name, |proxy| {
                proxy.add(of_segments(Fault::Answer(Answer::access_denied())));
            });
        }),
        // It has its effect after all: the next run finds its own segment there.
        ("stop-late", |name| {
            stopped_while_away(name, |proxy| {
                proxy.add(of_segments(Fault::HangAfter));
            });
        }),
    ]);
}
