//! The application's files are what they would be without us.
//!
//! No byte of the database tells that we were there, no file beside it is another user's, and no
//! commit is refused or waits for long.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use driftless_tests::app::App;
use driftless_tests::sidecar::{Setup, Sidecar, assert_equal_to_source};
use driftless_tests::twin::{Fate, Twins};
use driftless_tests::{PATIENCE, TempDir, wait_for};
use serde_json::json;

/// Few rounds of what `tests/src/bin/soak.rs` does for hours: each fate of ours once or twice.
#[test]
fn a_twin_without_us_has_the_same_bytes() {
    let mut twins = Twins::new("twin", 11);
    for fate in Fate::ALL {
        twins.round(fate);
    }
    twins.compare();
    // What begins after a comparison begins on an empty WAL.
    for fate in [Fate::Killed, Fate::Frozen, Fate::Stopped] {
        twins.round(fate);
    }
    twins.compare();
    eprintln!("{}", twins.counts());
}

/// We run as root, the application as another user: what SQLite makes while we are there must be
/// the application's to use, and stay so when we have gone.
#[test]
fn files_made_beside_us_belong_to_the_owner() {
    const USER: u32 = 1_000;
    let dir = TempDir::new("owner");
    let home = dir.join("home");
    fs::create_dir(&home).expect("ours");
    std::os::unix::fs::chown(&home, Some(USER), Some(USER)).expect("this test runs as root");
    let (database, replica) = (home.join("app.db"), dir.join("replica"));
    let mut app = App::as_user(USER);
    app.prepare("a", &database);
    app.tx("a");
    app.close("a");
    assert!(!home.join("app.db-wal").exists(), "the last close removes it");
    // Nobody has it open: our own reading makes -wal and -shm.
    let sidecar = Setup::new(&database, &replica).state_dir(&dir.join("state")).start();
    sidecar.caught_up();
    let check = |when: &str| {
        for suffix in ["-wal", "-shm"] {
            let Ok(facts) = fs::metadata(home.join(format!("app.db{suffix}"))) else { continue };
            assert_eq!((facts.uid(), facts.gid()), (USER, USER), "{suffix} {when}");
            assert_eq!(facts.permissions().mode() & 0o600, 0o600, "{suffix} {when}");
        }
    };
    check("while we read");
    app.prepare("a", &database);
    app.tx("a");
    check("while both are there");
    sidecar.caught_up();
    sidecar.stop();
    check("after we left");
    app.tx("a");
    app.close("a");
    app.prepare("a", &database);
    app.tx("a");
    drop(app);
    let sidecar = Setup::new(&database, &replica).state_dir(&dir.join("state")).start();
    sidecar.caught_up();
    sidecar.stop();
    assert_equal_to_source(&database, &replica);
}

/// Counted at a moderate rate; the exact figures are the benchmark's. The bound is what we promise
/// to add, on top of what the same load shows alone.
#[test]
fn no_commit_fails_or_waits_because_of_us() {
    let load = json!({ "rate": 200, "busy_ms": 5_000, "keep": 500, "bytes": 400 });
    let dir = TempDir::new("commits");
    let mut measured = Vec::new();
    for with_us in [false, true] {
        let (database, replica) = (dir.join(&format!("{with_us}.db")), dir.join("replica"));
        let mut app = App::start();
        app.start_writer(&database, load.clone());
        let sidecar = with_us.then(|| Sidecar::of(&database, &replica));
        wait_for("a thousand commits", PATIENCE, || app.committed() >= 1_200);
        let counts = app.stop_writer();
        eprintln!("with us: {with_us}: {counts}");
        assert_eq!(counts["busy"], 0, "a commit was refused");
        measured.push(Duration::from_micros(counts["slowest_us"].as_u64().expect("a count")));
        if let Some(sidecar) = sidecar {
            sidecar.caught_up();
            sidecar.stop();
        }
    }
    // Other tests share these two cores: the baseline's own outliers count twice.
    let bound = Duration::from_millis(100) + measured[0] * 2 + Duration::from_millis(100);
    assert!(measured[1] <= bound, "slowest commit {:?} beside us, {:?} alone", measured[1], measured[0]);
}
