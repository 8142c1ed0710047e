//! What a database costs in requests.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use driftless_tests::place::Place as _;
use driftless_tests::proxy::counts;
use driftless_tests::{PATIENCE, wait_for};

use super::s3;

/// Longer than the quiet after which a database is let go.
const IDLE: Duration = Duration::from_secs(40);
const WRITES: u32 = 20;

/// An idle database asks for nothing, also when it is let go of.
pub(super) fn idle(name: &str) {
    let (proxy, scene) = s3(name);
    let mut app = scene.app();
    app.tx("a");
    let mut sidecar = scene.sidecar();
    sidecar.caught_up();
    sidecar.wait_line("the store was probed");
    let started = proxy.counts();
    let mark = proxy.mark();
    thread::sleep(IDLE);
    assert_eq!(counts(&proxy.since(mark)), BTreeMap::new(), "requests of an idle database");
    assert_eq!(sidecar.count("the database is quiet"), 1, "{:?}", sidecar.lines());
    // And it wakes.
    app.tx("a");
    sidecar.caught_up();
    assert_eq!(counts(&proxy.since(mark)), BTreeMap::from([("PUT", 1)]));
    drop(app);
    scene.ends_well(sidecar);
    eprintln!("requests of a start on an empty replica: {started:?}");
}

/// Levels are made of what is written, and then an idle database asks for nothing again.
pub(super) fn levels_come_to_rest(name: &str) {
    let (proxy, scene) = s3(name);
    let mut app = scene.app();
    let levels = "levels: [{interval: 1s}, {interval: 3s}]\nsnapshot: {interval: 5s}\n";
    let sidecar = scene.setup().settings(levels).start();
    for _ in 0..WRITES {
        app.tx("a");
        thread::sleep(Duration::from_millis(300));
    }
    sidecar.caught_up();
    let files = |level| scene.replica.ltx_files(level).into_iter();
    let reached = |level| files(level).map(|(_, max)| max).max();
    // Where a merge holds all from the first transaction on, no snapshot is due: the writes fell between
    // two of its instants.
    let holds_all = |level| files(level).any(|(min, max)| min == 1 && Some(max) == reached(0));
    let all_are_made = || (1..3).all(|level| reached(level) == reached(0)) && (holds_all(9) || holds_all(2));
    wait_for("the levels of all that was written", PATIENCE, all_are_made);
    // A put that shows its object has yet to be answered.
    thread::sleep(Duration::from_secs(1));
    let mark = proxy.mark();
    thread::sleep(IDLE);
    assert_eq!(counts(&proxy.since(mark)), BTreeMap::new(), "requests of an idle database");
    drop(app);
    scene.ends_well(sidecar);
}

/// One write a second costs a put a second.
pub(super) fn one_write_a_second(name: &str) {
    let (proxy, scene) = s3(name);
    let mut app = scene.app();
    app.tx("a");
    let mut sidecar = scene.sidecar();
    sidecar.caught_up();
    sidecar.wait_line("the store was probed");
    let mark = proxy.mark();
    let begun = Instant::now();
    for n in 0..WRITES {
        let due = Duration::from_secs(1) * n;
        thread::sleep(due.saturating_sub(begun.elapsed()));
        app.tx("a");
    }
    sidecar.caught_up();
    let asked = counts(&proxy.since(mark));
    assert_eq!(asked.keys().copied().collect::<Vec<_>>(), ["PUT"], "{asked:?}");
    assert!(asked["PUT"] <= WRITES as usize + 1, "{asked:?} in {:?}", begun.elapsed());
    drop(app);
    scene.ends_well(sidecar);
    assert_eq!(scene.held(), u64::from(WRITES) + 1);
}
