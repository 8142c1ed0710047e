//! Each command with a live process, and what is left of it after a SIGKILL.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use driftless_tests::{PATIENCE, daemon, run, wait_for};
use serde_json::json;

use super::{Place, bases, insert};

#[test]
fn list_info_and_status_tell_what_runs() {
    let place = Place::new("control-info");
    place.configure(&[("a.db", "ra")], "");
    let _a = place.database("a.db");
    let daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    let info = place.ask("info -json").expect_ok().json();
    assert_eq!(info["pid"], daemon.id());
    assert_eq!((&info["database_count"], &info["program"]), (&json!(1), &json!("driftless")));
    assert!(info["uptime_seconds"].is_u64() && info["started_at"].is_string(), "{info}");
    let text = place.ask("info").expect_ok().out;
    assert!(text.contains(&format!("PID:        {}", daemon.id())), "{text}");
    let list = place.ask("list -json").expect_ok().json();
    let one = &list["databases"][0];
    assert_eq!(one["path"], place.dir.join("a.db").display().to_string());
    assert_eq!((&one["status"], &one["registered"]), (&json!("replicating"), &json!(false)));
    assert!(one["last_sync_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{list}");
    let text = place.ask("list").expect_ok().out;
    assert!(text.contains("a.db [replicating] (last sync: 2"), "{text}");
    // The same process is found by its configuration, and by its state directory.
    for named in [["-config", "driftless.yml"], ["-state-dir", "state"]] {
        let value = place.dir.join(named[1]).display().to_string();
        let found = run(["info", "-json", named[0], &value]).expect_ok().json();
        assert_eq!(found["pid"], daemon.id());
        let rows = run(["status", "-json", named[0], &value]).expect_ok().json();
        assert_eq!((&rows[0]["status"], &rows[0]["running"]), (&json!("ok"), &json!(true)), "{rows}");
    }
    for (line, words) in [
        ("list extra", "too many arguments"),
        ("sync", "no database was given"),
        ("sync -timeout 0 @a.db", "-timeout is not a time"),
        ("register @b.db", "no replica was given"),
        ("register -replica @x @b.db @y", "given twice"),
        ("register @b.db flie:///x", "flie"),
    ] {
        place.ask(line).expect_error(2, &[words]);
    }
    daemon.term().expect_code(0);
    place.ask("list").expect_error(1, &["no process answers", "control.sock"]).expect_hint();
    assert!(!place.socket.exists() && !place.dir.join("state/socket").exists(), "sockets go with it");
}

#[test]
fn register_and_unregister_survive_a_kill_and_stop_does_not() {
    let place = Place::new("control-kill");
    place.configure(&[("a.db", "ra")], "");
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    let daemon = place.start();
    let done = place.ask("register -json @b.db @rb").expect_ok().json();
    assert_eq!(done["status"], "registered");
    assert_eq!(done["replica"], format!("file://{}", place.dir.join("rb").display()));
    daemon.kill9();
    let daemon = place.start();
    assert_eq!(place.ask("register -json @b.db @rb").expect_ok().json()["status"], "already_registered");
    place.ask("sync -wait @b.db").expect_ok();
    place.expect_restored("rb", "b.db");

    let stopped = place.ask("stop -json @a.db").expect_ok().json();
    assert_eq!((&stopped["status"], &stopped["state"]), (&json!("stopped"), &json!("stopped")));
    assert_eq!(place.ask("stop -json @a.db").expect_ok().json()["status"], "already_stopped");
    place.ask("sync -wait @a.db").expect_error(1, &["not being replicated"]).expect_hint();
    let row = run(["status".as_ref(), "-json".as_ref(), "-config".as_ref(), place.config.as_os_str()]);
    let row = row.expect_ok().json();
    assert_eq!((&row[0]["status"], &row[0]["phase"]), (&json!("stopped"), &json!("stopped")), "{row}");
    daemon.kill9();
    let daemon = place.start();
    assert_eq!(
        place.listed(),
        [("a.db".into(), "replicating".into()), ("b.db".into(), "replicating".into())]
    );

    insert(&b, "before it is forgotten");
    let gone = place.ask("unregister -json @b.db").expect_ok().json();
    assert_eq!((&gone["status"], gone["final_txid"].as_u64()), (&json!("unregistered"), Some(2)), "{gone}");
    place.expect_restored("rb", "b.db");
    daemon.kill9();
    let daemon = place.start();
    assert_eq!(place.listed(), [("a.db".into(), "replicating".into())]);
    assert_eq!(place.ask("unregister -json @b.db").expect_ok().json()["status"], "already_unregistered");

    // One that the configuration names is back after a restart.
    place.ask("unregister @a.db").expect_ok();
    assert_eq!(place.listed(), []);
    insert(&a, "while it was forgotten");
    daemon.term().expect_code(0);
    let daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    place.expect_restored("ra", "a.db");
    daemon.term().expect_code(0);
}

#[test]
fn a_preview_changes_nothing() {
    let place = Place::new("control-preview");
    place.configure(&[("a.db", "ra")], "");
    let _a = place.database("a.db");
    let daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    let text = place.ask("unregister -dry-run @a.db").expect_ok().out;
    assert!(text.contains("would be synced to file://"), "{text}");
    let preview = place.ask("unregister -dry-run -json @b.db").expect_ok().json();
    assert_eq!((&preview["registered"], &preview["dry_run"]), (&json!(false), &json!(true)));
    let text = place.ask("reset -dry-run @a.db").expect_ok().out;
    assert!(text.contains("would be reset"), "{text}");
    assert_eq!(place.listed(), [("a.db".into(), "replicating".into())]);
    let log = daemon.term().expect_code(0).log;
    assert_eq!(bases(&log), 1, "{log}");
}

#[test]
fn what_is_committed_while_it_rests_is_replicated_afterwards() {
    let place = Place::new("control-rest");
    place.configure(&[("a.db", "ra")], "");
    let a = place.database("a.db");
    let daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    for round in 0..3 {
        insert(&a, "before");
        place.ask("stop @a.db").expect_ok();
        place.expect_restored("ra", "a.db");
        insert(&a, "meanwhile");
        a.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
        insert(&a, &format!("after a checkpoint in round {round}"));
        assert_eq!(place.ask("start -json @a.db").expect_ok().json()["status"], "started");
        place.ask("sync -wait @a.db").expect_ok();
        place.expect_restored("ra", "a.db");
    }
    assert_eq!(place.ask("start -json @a.db").expect_ok().json()["status"], "already_running");
    let txids = daemon::level0(&place.dir.join("ra"));
    let expected: Vec<u64> = (1..=txids.len() as u64).collect();
    assert_eq!(txids, expected);
    let log = daemon.term().expect_code(0).log;
    assert_eq!(log.matches("writing the whole database").count(), 1, "only the first: {log}");
}

#[test]
fn a_file_and_a_replica_are_taken_once_whatever_their_names() {
    let place = Place::new("control-twins");
    place.configure(&[("a.db", "ra")], "");
    let (_a, _b) = (place.database("a.db"), place.database("b.db"));
    symlink(place.dir.join("a.db"), place.dir.join("other.db")).unwrap();
    symlink(place.dir.path(), place.dir.join("here")).unwrap();
    let daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    for (line, words) in [
        ("register @a.db @rx", "is replicated already, to"),
        ("register @other.db @rx", "is replicated already, to"),
        ("register @here/a.db @rx", "is replicated already, to"),
    ] {
        place.ask(line).expect_error(1, &[words]).expect_hint();
    }
    for line in ["register @b.db @ra", "register @b.db @here/ra"] {
        place.ask(line).expect_error(2, &["has the replica of"]).expect_hint();
    }
    place.ask("register @b.db @b.db").expect_error(2, &["is a file"]);
    place.ask("register @state @rx").expect_error(2, &["is a directory"]);
    assert_eq!(place.listed().len(), 1, "nothing was added");
    assert!(!place.dir.join("state/registrations.json").exists());
    // By another name it is the same database all the same.
    place.ask("sync -wait @here/a.db").expect_ok();
    daemon.term().expect_code(0);
    for twins in [[("a.db", "ra"), ("other.db", "rx")], [("a.db", "ra"), ("b.db", "here/ra")]] {
        place.configure(&twins, "");
        let ran = run(["replicate".as_ref(), "-config".as_ref(), place.config.as_os_str()]);
        ran.expect_code(2).expect_hint();
    }
}

#[test]
fn an_end_by_itself_is_told_and_can_be_mended() {
    let place = Place::new("control-ended");
    place.configure(&[("a.db", "ra")], "");
    let _a = place.database("a.db");
    fs::write(place.dir.join("b.db"), vec![7; 4096]).unwrap();
    let mut daemon = place.start();
    place.ask("register @b.db @rb").expect_ok();
    wait_for("its end", PATIENCE, || place.listed()[1].1 == "ended");
    assert!(daemon.is_running(), "one that cannot work does not end the others");
    place.ask("sync -wait @b.db").expect_error(1, &["not being replicated", "not a SQLite database"]);
    let status = place.status();
    assert_eq!(status["databases"][1]["exit_code"], 2, "{status}");
    fs::remove_file(place.dir.join("b.db")).unwrap();
    place.database("b.db");
    // Registered once more it is started again; one that a person has stopped is not.
    assert_eq!(place.ask("register -json @b.db @rb").expect_ok().json()["status"], "registered");
    place.ask("sync -wait @b.db").expect_ok();
    place.expect_restored("rb", "b.db");
    place.ask("stop @b.db").expect_ok();
    place.ask("register @b.db @rb").expect_error(1, &["was stopped", "driftless start"]);
    place.ask("start @b.db").expect_ok();
    place.ask("sync -wait @b.db").expect_ok();
    daemon.term().expect_code(0);
}

#[test]
fn sockets_are_the_owners_alone() {
    let place = Place::new("control-mode");
    place.configure(&[], "");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let daemon = place.start();
    assert_eq!((mode(&place.socket), mode(&place.dir.join("state/socket"))), (0o600, 0o600));
    daemon.kill9();
    // What a killed process left is replaced, and another mode is set.
    let text = fs::read_to_string(&place.config).unwrap();
    fs::write(&place.config, text.replace("  enabled: true\n", "  enabled: true\n  permissions: 0660\n"))
        .unwrap();
    assert!(place.socket.exists());
    let args = ["-config".as_ref(), place.config.as_os_str()];
    let mut daemon = driftless_tests::Daemon::replicate_with(&place.dir.join("process"), &args);
    daemon.wait_until("another mode", PATIENCE, || mode(&place.socket) == 0o660);
    // A second process leaves a living one's socket alone.
    let second = format!(
        "{}state-dir: {}\n",
        fs::read_to_string(&place.config).unwrap().replace("state-dir", "#"),
        place.dir.join("second").display()
    );
    let config = place.dir.join("second.yml");
    fs::write(&config, second).unwrap();
    let ran = run(["replicate".as_ref(), "-config".as_ref(), config.as_os_str()]);
    ran.expect_error(2, &["control socket", "another process listens there"]).expect_hint();
    place.ask("list").expect_ok();
    daemon.term().expect_code(0);
    fs::write(&place.socket, "a file of somebody's").unwrap();
    let ran = run(["replicate".as_ref(), "-config".as_ref(), place.config.as_os_str()]);
    ran.expect_error(2, &["no socket stands there"]);
    assert_eq!(fs::read_to_string(&place.socket).unwrap(), "a file of somebody's");
}
