//! SIGHUP: the configuration is read again.

use std::fs;

use driftless_tests::{PATIENCE, daemon};
use rustix::process::Signal;
use serde_json::json;

use super::{Place, bases, insert, wait_for_reloads};

#[test]
fn databases_come_go_and_move() {
    let place = Place::new("reload");
    place.configure(&[("a.db", "ra"), ("b.db", "rb"), ("c.db", "rc")], "");
    let (a, b, c) = (place.database("a.db"), place.database("b.db"), place.database("c.db"));
    let _d = place.database("d.db");
    let daemon = place.start();
    place.ask("register @r.db @rr").expect_ok();
    for name in ["a.db", "b.db", "c.db"] {
        place.ask(&format!("sync -wait @{name}")).expect_ok();
    }
    place.ask("stop @c.db").expect_ok();
    insert(&a, "last of a");
    insert(&b, "before b moves");
    insert(&c, "while c rests");
    // a goes, b moves, c stays as it is, d comes, r is registered.
    place.configure(&[("b.db", "rb2"), ("c.db", "rc"), ("d.db", "rd")], "");
    daemon.signal(Signal::HUP);
    let status = wait_for_reloads(&place, 1);
    assert_eq!(status["reload_error"], json!(null), "{status}");
    let mut listed = place.listed();
    listed.sort();
    let running = |name: &str| (name.to_owned(), "replicating".to_owned());
    assert_eq!(
        listed,
        [running("b.db"), ("c.db".into(), "stopped".into()), running("d.db"), running("r.db")]
    );
    place.expect_restored("ra", "a.db");
    place.expect_restored("rb", "b.db");
    for (name, replica) in [("b.db", "rb2"), ("d.db", "rd")] {
        place.ask(&format!("sync -wait @{name}")).expect_ok();
        place.expect_restored(replica, name);
    }
    // Nothing new: nothing happens.
    let log = daemon.log();
    daemon.signal(Signal::HUP);
    wait_for_reloads(&place, 2);
    assert_eq!(bases(&daemon.log()), bases(&log));
    daemon.term().expect_code(0);
}

#[test]
fn a_wrong_file_changes_nothing() {
    let place = Place::new("reload-wrong");
    place.configure(&[("a.db", "ra")], "");
    let (a, _b) = (place.database("a.db"), place.database("b.db"));
    let mut daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    let good = fs::read_to_string(&place.config).unwrap();
    let twins = good.replace("dbs:\n", "dbs:\n  - path: /nowhere/../nowhere/x.db\n    replica: /nowhere/r\n");
    let twins =
        twins.clone() + &twins[twins.find("  - path: /nowhere").unwrap()..].replace("/../nowhere", "");
    for (n, text) in
        [good.replace("dbs:", "dbz:"), "dbs: [".to_owned(), String::new(), twins].iter().enumerate()
    {
        fs::write(&place.config, text).unwrap();
        daemon.signal(Signal::HUP);
        let status = wait_for_reloads(&place, n as u64 + 1);
        // An empty file is right in itself, and names no socket: the process stays, with nothing.
        if text.is_empty() {
            assert_eq!(status["reload_error"], json!(null), "{status}");
            assert_eq!(place.listed(), []);
            continue;
        }
        assert!(status["reload_error"].is_string(), "{text}\n{status}");
    }
    daemon.wait_for_line("nothing was changed");
    insert(&a, "after the mistakes");
    fs::write(&place.config, good).unwrap();
    daemon.signal(Signal::HUP);
    let status = wait_for_reloads(&place, 5);
    assert_eq!(status["reload_error"], json!(null), "{status}");
    place.ask("sync -wait @a.db").expect_ok();
    place.expect_restored("ra", "a.db");
    daemon.term().expect_code(0);
}

#[test]
fn settings_and_the_level_of_the_log_change() {
    let place = Place::new("reload-settings");
    place.configure(&[("a.db", "ra")], "sync-interval: 1h\nlogging:\n  level: warn");
    let a = place.database("a.db");
    let args = ["-config".as_ref(), place.config.as_os_str()];
    let mut daemon = driftless_tests::Daemon::replicate_with(&place.dir.join("process"), &args);
    daemon.wait_until("a first segment", PATIENCE, || !daemon::level0(&place.dir.join("ra")).is_empty());
    assert_eq!(daemon.log().matches(" INFO ").count(), 0, "{}", daemon.log());
    insert(&a, "an hour would pass");
    place.configure(&[("a.db", "ra")], "sync-interval: 50ms\nlogging:\n  level: debug");
    daemon.signal(Signal::HUP);
    wait_for_reloads(&place, 1);
    insert(&a, "now it does not");
    daemon.wait_for_line("replicated txid=0000000000000003");
    daemon.wait_for_line(" DEBUG ");
    place.expect_restored("ra", "a.db");
    daemon.term().expect_code(0);
}
