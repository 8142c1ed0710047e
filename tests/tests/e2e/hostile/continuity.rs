//! What the application does between our end and our next start.
//!
//! The header's salt and sequence advance by one in each of the first three stories, as if nothing
//! had been lost, and a row was lost by every rule that trusted them
//! (`../shared/spikes/continuity_counterexamples.py`).

use std::fs;
use std::path::Path;

use driftless_tests::app::App;
use driftless_tests::daemon::level0;

use super::beside;
use crate::side_by_side::Scene;

/// Runs one story with us stopped and with us killed, and expects `transactions` at the end.
fn check(name: &str, transactions: u64, story: impl Fn(&Scene, App, &mut dyn FnMut()) + Sync) {
    let run = |stopped: bool| {
        let (scene, mut app) = Scene::with_app(name);
        for _ in 0..3 {
            app.tx("a");
        }
        let mut sidecar = Some(scene.sidecar());
        sidecar.as_ref().expect("just started").caught_up();
        let mut end = || match sidecar.take() {
            Some(sidecar) if stopped => sidecar.stop(),
            Some(sidecar) => drop(sidecar.kill()),
            None => panic!("a story ends us once"),
        };
        story(&scene, app, &mut end);
        let seen = scene.ends_equal(scene.sidecar(), u64::MAX);
        assert_eq!(seen, transactions, "{name}, stopped: {stopped}");
    };
    // Each waits most of the time: both at once.
    std::thread::scope(|scope| {
        scope.spawn(|| run(true));
        run(false);
    });
}

#[test]
fn a_reader_on_a_mark_at_our_seal() {
    check("ce1", 5, |scene, mut a, end| {
        let mut b = App::start();
        b.open("b", &scene.database);
        b.sql("b", "BEGIN");
        b.sql("b", "SELECT count(*) FROM tx");
        end();
        a.tx("a");
        b.sql("b", "COMMIT");
        a.sql("a", "PRAGMA wal_checkpoint(PASSIVE)");
        a.tx("a");
        a.kill();
    });
}

#[test]
fn a_deferred_transaction_begun_before_our_seal() {
    check("ce2", 5, |scene, mut a, end| {
        let mut b = App::start();
        b.open("b", &scene.database);
        b.sql("b", "BEGIN");
        b.sql("b", "SELECT count(*) FROM tx");
        end();
        b.sql("b", "INSERT INTO tx(n) VALUES(0)");
        b.sql("b", "COMMIT");
        a.sql("a", "PRAGMA wal_checkpoint(PASSIVE)");
        a.tx("a");
        a.kill();
    });
}

#[test]
fn a_recovery_after_everyone_died() {
    check("ce3", 5, |scene, a, end| {
        end();
        a.kill();
        let mut a = App::start();
        a.prepare("a", &scene.database);
        a.tx("a");
        a.sql("a", "PRAGMA wal_checkpoint(PASSIVE)");
        a.tx("a");
        a.kill();
    });
}

#[test]
fn a_truncate_by_one_process_and_a_commit_by_another() {
    check("ce4", 6, |scene, mut a, end| {
        let mut b = App::python();
        b.open("b", &scene.database);
        b.sql("b", "SELECT count(*) FROM tx");
        end();
        a.tx("a");
        a.sql("a", "PRAGMA wal_checkpoint(TRUNCATE)");
        b.sql("b", "INSERT INTO tx(n) VALUES(0)");
        b.sql("b", "PRAGMA wal_checkpoint(TRUNCATE)");
        a.tx("a");
        a.kill();
    });
}

#[test]
fn the_wal_restarts_shorter_equal_and_longer_than_it_was() {
    for more in [1, 3, 4, 6_u64] {
        check("restart", 3 + more, |_, mut a, end| {
            end();
            a.sql("a", "PRAGMA wal_checkpoint(TRUNCATE)");
            for _ in 0..more {
                a.tx("a");
            }
            a.kill();
        });
    }
}

#[test]
fn a_touch_and_a_copy_over_the_file_in_place() {
    check("touch", 4, |scene, mut a, end| {
        end();
        a.close("a");
        // The same bytes with another time, twice: nothing may be taken for proven by mistake.
        let bytes = fs::read(&scene.database).expect("it is closed");
        fs::write(&scene.database, &bytes).expect("it can be written");
        a.prepare("a", &scene.database);
        a.tx("a");
        a.kill();
    });
}

#[test]
fn an_older_copy_in_its_place() {
    let (scene, mut app) = Scene::with_app("older-copy");
    app.tx("a");
    app.close("a");
    let old = fs::read(&scene.database).expect("it is closed");
    app.prepare("a", &scene.database);
    let sidecar = scene.sidecar();
    app.tx("a");
    app.tx("a");
    sidecar.caught_up();
    app.close("a");
    sidecar.stop();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", scene.database.display()));
    }
    fs::write(&scene.database, &old).expect("it can be written");
    assert_eq!(scene.ends_equal(scene.sidecar(), u64::MAX), 1);
}

/// Sealed and let go; the application comes and goes without a write, which takes the `-wal` away.
/// Then we start, in the same boot of the machine or in another. Whether the database was compared
/// with what had been replicated.
fn started_after_a_seal(reboot: bool, writes: u64) -> bool {
    let scene = Scene::new("boot");
    let boots = ["one", "two"].map(|name| scene.dir.join(name));
    fs::write(&boots[0], "11111111-1111-4111-8111-111111111111\n").expect("ours");
    fs::write(&boots[1], "22222222-2222-4222-8222-222222222222\n").expect("ours");
    let start = |boot: &Path| scene.setup().boot_id(boot).start();
    let mut app = App::start();
    app.prepare("a", &scene.database);
    for _ in 0..3 {
        app.tx("a");
    }
    let mut sidecar = start(&boots[0]);
    sidecar.caught_up();
    sidecar.wait_line("position sealed");
    sidecar.kill();
    app.close("a");
    assert!(!beside(&scene.database, "-wal"), "its last close takes it away");
    let before = level0(&scene.replica);
    app.prepare("a", &scene.database);
    for _ in 0..writes {
        app.tx("a");
    }
    app.close("a");
    let sidecar = start(&boots[usize::from(reboot)]);
    sidecar.caught_up();
    let compared = sidecar.count(NOT_WATCHED) > 0;
    if writes == 0 {
        assert_eq!(level0(&scene.replica), before, "nothing was written, reboot: {reboot}");
    }
    drop(app);
    assert_eq!(scene.ends_equal(sidecar, u64::MAX), 3 + writes, "reboot: {reboot}");
    compared
}

/// Why a source is compared with what was replicated of it.
const NOT_WATCHED: &str = "the database changed while it was not watched";

/// A seal is a set of facts that one run of the kernel vouches for: times may go back over a
/// reboot, and then a file that has changed can look as it did.
#[test]
fn a_seal_is_worth_nothing_after_a_reboot() {
    std::thread::scope(|scope| {
        let rebooted = scope.spawn(|| started_after_a_seal(true, 0));
        let written = scope.spawn(|| started_after_a_seal(true, 2));
        assert!(!started_after_a_seal(false, 0), "the seal holds, in the same boot");
        assert!(rebooted.join().expect("told above"), "the seal was believed after a reboot");
        assert!(written.join().expect("told above"));
    });
}
