//! The bound of the WAL, as `docs/OPERATING.md` has it, at full speed and with a store in trouble.
//!
//! The bound is a formula, since a WAL holds what was written while a disk did something else. So
//! its terms are measured in the same run where they depend on the machine: what the application
//! writes by looking at the wal-index, what checkpoints take by the replicator's own log. A disk that
//! stalls raises them, and the bound with them; a WAL that grows for any other reason does not.

use std::fmt;
use std::time::{Duration, Instant};

use driftless_tests::app::App;
use driftless_tests::sidecar::Sidecar;
use driftless_tests::store_faults::{Away, FsyncFaults};
use driftless_tests::{PATIENCE, poll, wait_for};
use serde_json::json;

use crate::side_by_side::{Scene, recovers, trouble_is_told};

/// `min-checkpoint-page-count`, in frames.
const T: f64 = 1_000.0;
/// The write lock is tried for this long.
const LOCK_TRY: Duration = Duration::from_millis(20);
/// The longest time between two looks.
const LOOK_MAX: Duration = Duration::from_millis(250);
/// Passes before the lock.
const PASSES_MAX: f64 = 5.0;
/// How fast the application writes is told over at least this long.
const WINDOW: Duration = Duration::from_millis(250);

/// The terms of the formula, by their names there.
#[derive(Default)]
pub struct Terms {
    /// Frames a second, the most in any [`WINDOW`].
    r: f64,
    /// Frames of the largest transaction.
    s: f64,
    /// Seconds of the longest pass; reading from the page cache what it captures is in L.
    c: f64,
    /// Seconds of the passes before a lock, and of taking it.
    p: f64,
    /// Seconds of the lock's longest rest.
    d: f64,
    /// How often in a row the lock was not to be had. A single writer leaves it free between any two
    /// of its commits, so never.
    b: f64,
}

impl Terms {
    /// What they were in a run that is over: the application writes no more, and its connection
    /// `look` is open.
    pub fn measure(watch: &Watch, app: &mut App, sidecar: &Sidecar) -> Terms {
        let mut terms = Terms { r: watch.fastest(), s: largest_transaction(app), ..Terms::default() };
        measure_checkpoints(&mut terms, sidecar);
        terms
    }

    /// Frames that the WAL may hold.
    pub fn bound(&self) -> f64 {
        let Terms { r, s, c, p, d, b } = self;
        let l = LOOK_MAX.as_secs_f64();
        (5.0 * T).max(T + r * d) + s + r * (l + c + p) + b * ((T / 4.0).max(r * 0.01) + r * (l + p))
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms { r, s, c, p, d, b } = self;
        let ms = |seconds: &f64| seconds * 1e3;
        write!(
            f,
            "R = {r:.0}/s, S = {s:.0}, L = {:.1} ms, C = {:.1} ms, P = {:.1} ms, D = {:.1} ms, B = {b}: bound {:.0}",
            ms(&LOOK_MAX.as_secs_f64()),
            ms(c),
            ms(p),
            ms(d),
            self.bound()
        )
    }
}

/// Frames in the WAL, from time to time.
pub struct Watch {
    begun: Instant,
    /// When, frames in the WAL, frames written in all.
    samples: Vec<(Duration, u64, u64)>,
}

impl Watch {
    /// Nothing was seen yet.
    pub fn new() -> Watch {
        Watch { begun: Instant::now(), samples: Vec::new() }
    }

    /// Looks at the wal-index, which neither waits nor makes anybody wait.
    pub fn look(&mut self, app: &mut App) -> u64 {
        let frames = frames_now(app);
        let (before, written) = self.samples.last().map_or((frames, 0), |(_, frames, all)| (*frames, *all));
        // Fewer than before: the WAL began anew, and what was added before that was not seen.
        let more = if frames >= before { frames - before } else { frames };
        self.samples.push((self.begun.elapsed(), frames, written + more));
        frames
    }

    /// Looks every 10 ms.
    pub fn look_for(&mut self, app: &mut App, time: Duration) {
        let end = self.begun.elapsed() + time;
        while self.begun.elapsed() < end {
            self.look(app);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The most frames that were seen.
    pub fn largest(&self) -> u64 {
        self.samples.iter().map(|(_, frames, _)| *frames).max().expect("there was a look")
    }

    fn fastest(&self) -> f64 {
        let mut from = 0;
        let mut fastest = 0_f64;
        for (at, _, written) in &self.samples {
            while self.samples.get(from + 1).is_some_and(|(next, ..)| at.saturating_sub(*next) >= WINDOW) {
                from += 1;
            }
            let (since, _, before) = self.samples[from];
            if *at - since >= WINDOW {
                fastest = fastest.max((written - before) as f64 / (*at - since).as_secs_f64());
            }
        }
        fastest
    }
}

fn frames_now(app: &mut App) -> u64 {
    // Busy, with no number, while a writer is in the middle of publishing a new index.
    let look = |app: &mut App| app.sql("look", "PRAGMA wal_checkpoint(NOOP)")[0][1].as_u64();
    poll(PATIENCE, || look(app)).expect("a wal-index that is not torn")
}

/// The largest of some transactions on a database that nobody else writes to.
fn largest_transaction(app: &mut App) -> f64 {
    let sizes = (0..40).filter_map(|_| {
        let before = frames_now(app);
        app.tx("look");
        // It may have begun the WAL anew.
        frames_now(app).checked_sub(before)
    });
    sizes.max().expect("one of forty did not") as f64
}

/// The number behind `name` in a log line.
fn field(line: &str, name: &str) -> Option<f64> {
    let (_, rest) = line.split_once(name)?;
    rest.split(' ').next()?.parse().ok()
}

/// What checkpoints took, by the log: copying back, and holding the write lock.
fn measure_checkpoints(terms: &mut Terms, sidecar: &Sidecar) {
    let lines = sidecar.lines();
    let mut checkpoints = 0;
    for line in lines.iter().filter(|line| line.contains(" checkpoint frames=")) {
        checkpoints += 1;
        let took = field(line, "took_us=").expect("it is logged") / 1e6;
        terms.c = terms.c.max(took);
        if let Some(held) = field(line, "held_us=").map(|us| us / 1e6) {
            let times = if held > 0.100 { 20.0 } else { 3.0 };
            terms.d = terms.d.max(if held > 0.033 { times * held } else { 0.0 });
        }
    }
    assert!(checkpoints > 20, "few checkpoints at full speed: {checkpoints}");
    terms.p = PASSES_MAX * terms.c + LOCK_TRY.as_secs_f64();
}

#[test]
fn the_wal_keeps_its_bound_at_full_speed_while_the_store_is_late_and_then_away() {
    let scene = Scene::new("full-speed");
    let faults = FsyncFaults::new(scene.dir.path());
    let mut app = App::start();
    app.prepare("look", &scene.database);
    let sidecar = scene.setup().environment(&faults.variables()).start();
    // A base would hold the WAL: this one is behind us.
    sidecar.caught_up();
    app.start_writer(&scene.database, json!({ "keep": 2_000 }));

    let mut watch = Watch::new();
    faults.delay(".tmp", 1_500);
    watch.look_for(&mut app, Duration::from_secs(6));
    let held = sidecar.replicated();
    faults.heal();
    wait_for("replication to go on", PATIENCE, || {
        watch.look(&mut app);
        sidecar.replicated() > held
    });
    let away = Away::take(&scene.replica);
    watch.look_for(&mut app, Duration::from_secs(20));
    trouble_is_told(&sidecar);
    let counts = app.counts();
    let bases = sidecar.count("writing the ");

    away.bring_back();
    app.stop_writer();
    recovers(&sidecar);
    let terms = Terms::measure(&watch, &mut app, &sidecar);
    drop(app);
    scene.ends_well(sidecar);

    let largest = watch.largest();
    eprintln!("{counts}; {terms} frames, largest WAL {largest} frames, {bases} base(s)");
    assert_eq!(bases, 1, "a base held the WAL while it was measured");
    assert!(largest as f64 <= terms.bound(), "the WAL grew to {largest} frames; {terms}");
}

/// Scenario 55: the first base takes ten seconds to send, in which the application writes more than
/// the WAL may hold many times over.
#[test]
fn the_wal_keeps_its_bound_while_a_base_takes_long() {
    let scene = Scene::new("long-base");
    let faults = FsyncFaults::new(scene.dir.path());
    let mut app = App::start();
    app.prepare("look", &scene.database);
    for _ in 0..40 {
        app.try_tx("look", 1_000, 900).expect("nothing else writes");
    }
    app.sql("look", "PRAGMA wal_checkpoint(TRUNCATE)");
    faults.slow(".tmp", 250);
    let sidecar = scene.setup().environment(&faults.variables()).start();
    app.start_writer(&scene.database, json!({ "keep": 2_000 }));
    let mut watch = Watch::new();
    let begun = Instant::now();
    wait_for("the base", PATIENCE, || {
        watch.look(&mut app);
        sidecar.replicated() >= Some(1)
    });
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(8), "the base took {took:?} only");
    let counts = app.counts();
    faults.heal();
    app.stop_writer();
    recovers(&sidecar);
    let terms = Terms::measure(&watch, &mut app, &sidecar);
    drop(app);
    let again = sidecar.count("writing the whole database");
    scene.ends_well(sidecar);

    let largest = watch.largest();
    let written = watch.samples.last().map_or(0, |(_, _, written)| *written);
    eprintln!("{counts}; {terms} frames, largest WAL {largest} of {written} frames in {took:?}");
    assert_eq!(again, 1, "the base was begun again");
    assert!(written as f64 > 3.0 * terms.bound(), "{written} frames would fit a pinned WAL: {terms}");
    assert!(largest as f64 <= terms.bound(), "the WAL grew to {largest} frames; {terms}");
}
