//! Fifty databases are registered while they are written, and the process is killed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use driftless_tests::{Daemon, PATIENCE, TempDir, daemon, driftless, run, wait_for};

use super::{Place, bases, insert};

#[test]
fn fifty_are_there_after_a_kill_and_each_restores() {
    let place = Place::new("control-fifty");
    place.configure(&[], "");
    let names: Vec<String> = (0..50).map(|n| format!("{n}.db")).collect();
    let connections: Vec<_> = names.iter().map(|name| place.database(name)).collect();
    let daemon = place.start();
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rounds = 0;
            while !end.load(Ordering::Relaxed) {
                connections.iter().for_each(|connection| insert(connection, "a row"));
                rounds += 1;
            }
            (connections, rounds)
        });
        for name in &names {
            place.ask(&format!("register @{name} @replicas/{name}")).expect_ok();
        }
        daemon.kill9();
        let daemon = place.start();
        let listed: Vec<String> = place.listed().into_iter().map(|(name, _)| name).collect();
        assert_eq!(listed, names);
        end.store(true, Ordering::Relaxed);
        let (_connections, rounds) = writer.join().unwrap();
        assert!(rounds > 1, "nothing was written meanwhile");
        for name in &names {
            place.ask(&format!("sync -wait @{name}")).expect_ok();
            place.expect_restored(&format!("replicas/{name}"), name);
        }
        daemon.term().expect_code(0);
    });
    let file = fs::metadata(place.dir.join("state/registrations.json")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_same_pair_again_goes_on_without_a_base() {
    let place = Place::new("control-again");
    place.configure(&[], "");
    let a = place.database("a.db");
    let daemon = place.start();
    for round in 0..3 {
        place.ask("register @a.db @ra").expect_ok();
        insert(&a, &format!("round {round}"));
        place.ask("sync -wait @a.db").expect_ok();
        place.ask("unregister @a.db").expect_ok();
        place.expect_restored("ra", "a.db");
        insert(&a, "while it was forgotten");
    }
    place.ask("register @a.db @ra").expect_ok();
    place.ask("sync -wait @a.db").expect_ok();
    place.expect_restored("ra", "a.db");
    let log = daemon.term().expect_code(0).log;
    assert_eq!(bases(&log), 1, "{log}");
}

#[test]
fn the_configuration_wins_over_a_registration() {
    let place = Place::new("control-wins");
    place.configure(&[], "");
    let (_a, _b) = (place.database("a.db"), place.database("b.db"));
    let daemon = place.start();
    place.ask("register @a.db @ra").expect_ok();
    place.ask("register @b.db @rb").expect_ok();
    daemon.term().expect_code(0);
    place.configure(&[("a.db", "elsewhere"), ("c.db", "rb")], "");
    let mut daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    place.expect_restored("elsewhere", "a.db");
    daemon.wait_for("both warnings", PATIENCE, |log| {
        log.matches("registration of this database is not used").count() == 2
    });
    assert_eq!(place.listed().len(), 2, "b's replica is taken");
    assert_eq!(place.status()["databases"][0]["registered"], false);
    // What the configuration no longer names is what was registered again.
    daemon.term().expect_code(0);
    place.configure(&[], "");
    let daemon = place.start();
    assert_eq!(place.listed().len(), 2);
    assert_eq!(place.status()["databases"][0]["registered"], true);
    daemon.term().expect_code(0);
}

/// Without a socket in the configuration the state directory has one, and what is registered there
/// is replicated with the rest.
#[test]
fn a_process_of_the_command_line_takes_registrations_too() {
    let dir = TempDir::new("control-plain");
    let place = Place { config: dir.join("none.yml"), socket: dir.join(".a.db-driftless/socket"), dir };
    let (_a, b) = (place.database("a.db"), place.database("b.db"));
    let start = || Daemon::replicate(&place.dir.join("a.db"), &place.dir.join("ra"));
    let mut daemon = start();
    daemon.wait_until("a socket", PATIENCE, || place.socket.exists());
    place.ask("register @b.db @rb").expect_ok();
    daemon.kill9();
    let daemon = start();
    insert(&b, "more");
    wait_for("an answer", PATIENCE, || {
        let ran = std::process::Command::new(driftless()).args(place.words("sync -wait @b.db")).output();
        ran.is_ok_and(|ran| ran.status.success())
    });
    place.expect_restored("rb", "b.db");
    // The command line finds the socket beside the database.
    run(["stop".as_ref(), place.dir.join("a.db").as_os_str()]).expect_ok();
    assert_eq!(daemon::status(&place.dir.join("a.db"))["phase"], "stopped");
    daemon.term().expect_code(0);
}

#[test]
fn a_list_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    let place = Place::new("control-damaged");
    place.configure(&[], "");
    fs::create_dir(place.dir.join("state")).unwrap();
    fs::write(place.dir.join("state/registrations.json"), "{\"version\":1,\"databases\":[{\"database\"")
        .unwrap();
    let ran = run(["replicate".as_ref(), "-config".as_ref(), place.config.as_os_str()]);
    ran.expect_error(2, &["registrations.json"]).expect_hint();
}
