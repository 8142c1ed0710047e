//! The status tells the lag that there is.
//!
//! The harness knows how many transactions were committed; the replica itself says how many of
//! them it holds, by a restore. Within two seconds of a change the status must agree: behind when
//! something is missing there, and never "all replicated" while it is. What else a person should
//! know stands there too.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use driftless_tests::app::App;
use driftless_tests::daemon;
use driftless_tests::sidecar::{Sidecar, is_caught_up, restore_checked};
use driftless_tests::store_faults::Away;
use driftless_tests::{PATIENCE, TempDir, run, wait_for};
use serde_json::json;

/// How fast the status must follow the truth.
const PROMISE: Duration = Duration::from_secs(2);
/// What the test's own looking may take on two busy cores, on top.
const SLACK: Duration = Duration::from_secs(2);

fn promptly(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    wait_for(what, PATIENCE, &mut condition);
    assert!(begun.elapsed() <= PROMISE + SLACK, "{what} took {:?}", begun.elapsed());
}

#[test]
fn lag_agrees_with_the_harness_through_load_outage_and_quiet() {
    let dir = TempDir::new("lag");
    let (database, replica, copy) = (dir.join("app.db"), dir.join("replica"), dir.join("copy.db"));
    let mut app = App::start();
    app.start_writer(&database, json!({ "rate": 300, "keep": 200 }));
    let mut sidecar = Sidecar::of(&database, &replica);
    let held = || restore_checked(&replica, None, &copy, 200).map_or(0, |seen| seen.transactions);
    sidecar.wait_line("replicated txid=");

    // Load: what is reported as the lag is not there, what is not is.
    for _ in 0..3 {
        wait_for("load", PATIENCE, || sidecar.status().is_some_and(|status| status["lag_frames"] != 0));
        let committed = app.pause_writer();
        promptly("no lag after the load", || sidecar.status().is_some_and(|status| is_caught_up(&status)));
        assert_eq!(held(), committed, "the status says that all is replicated");
        app.resume_writer();
    }
    app.pause_writer();
    promptly("no lag before the outage", || sidecar.status().is_some_and(|status| is_caught_up(&status)));

    // Outage: the lag is every commit since, in frames and in time.
    let away = Away::take(&replica);
    let since = Instant::now();
    let before = app.committed();
    app.resume_writer();
    promptly("a lag in the outage", || sidecar.status().is_some_and(|status| status["lag_frames"] != 0));
    wait_for("an error in the status", PATIENCE, || {
        sidecar.status().is_some_and(|status| status["last_error"].is_string())
    });
    wait_for("commits in the outage", PATIENCE, || app.committed() > before + 600);
    let missing = app.pause_writer() - before;
    let mut status = json!(null);
    promptly("the whole lag", || {
        status = sidecar.status().unwrap_or_default();
        // Each transaction wrote at least three pages.
        status["lag_frames"].as_u64().is_some_and(|frames| frames >= missing * 3)
    });
    let seconds = status["lag_seconds"].as_f64().expect("a number");
    assert!((seconds - since.elapsed().as_secs_f64()).abs() < (PROMISE + SLACK).as_secs_f64(), "{status}");
    let frames = status["lag_frames"].as_u64().expect("a number");
    // A paused application: the lag stands still.
    wait_for("two looks alike", PATIENCE, || {
        sidecar.status().is_some_and(|again| again["lag_frames"] == frames)
    });
    let by_command = daemon::status(&database);
    assert_eq!(by_command["lag_frames"], frames, "{by_command}");
    away.bring_back();
    wait_for("recovery", PATIENCE, || sidecar.status().is_some_and(|status| is_caught_up(&status)));
    assert_eq!(held(), app.committed());
    assert!(sidecar.status().expect("it runs")["last_error"].is_null());

    // Quiet: nothing is open, nothing is behind; the next commit is seen at once.
    sidecar.wait_line("the database is quiet");
    let status = sidecar.status().expect("it runs");
    assert_eq!((&status["phase"], &status["lag_frames"]), (&json!("quiet"), &json!(0)), "{status}");
    app.resume_writer();
    promptly("a lag after quiet", || sidecar.status().is_some_and(|status| status["lag_frames"] != 0));
    let counts = app.stop_writer();
    promptly("no lag at the end", || sidecar.status().is_some_and(|status| is_caught_up(&status)));
    assert_eq!(held(), counts["committed"].as_u64().expect("a count"));
    sidecar.stop();
}

/// The header says which SQLite changed page 1 last, at 96.
fn write_version(database: &Path, version: u32) {
    let file = fs::File::options().write(true).open(database).expect("its application has closed it");
    file.write_all_at(&version.to_be_bytes(), 96).expect("it can be written");
}

#[test]
fn an_old_sqlite_of_the_application_is_told_of() {
    const WARNING: &str = "SQLite 3.40.1 has written the database";
    let dir = TempDir::new("old-sqlite");
    let (database, replica) = (dir.join("app.db"), dir.join("replica"));
    let mut app = App::start();
    app.prepare("a", &database);
    app.tx("a");
    app.close("a");
    write_version(&database, 3_040_001);
    let sidecar = Sidecar::of(&database, &replica);
    sidecar.caught_up();
    assert_eq!(sidecar.count(WARNING), 1, "{:?}", sidecar.lines());
    let told = daemon::status(&database);
    assert!(told["warning"].as_str().is_some_and(|text| text.contains(WARNING)), "{told}");
    assert_eq!((&told["status"], &told["last_error"]), (&json!("ok"), &json!(null)), "{told}");
    let printed = run(["status".as_ref(), database.as_os_str()]).expect_ok();
    assert!(printed.out.contains(WARNING), "{}", printed.out);

    // A newer one changes page 1, and it is seen at the next start.
    app.prepare("a", &database);
    app.sql("a", "CREATE TABLE newer(x)");
    sidecar.caught_up();
    app.close("a");
    sidecar.stop();
    let sidecar = Sidecar::of(&database, &replica);
    sidecar.caught_up();
    assert_eq!(sidecar.count("has written the database"), 0, "{:?}", sidecar.lines());
    assert_eq!(daemon::status(&database)["warning"], json!(null));
    sidecar.stop();
}
