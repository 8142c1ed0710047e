//! Litestream's commands with our process, and ours with Litestream's.

use std::os::unix::net::UnixStream;

use driftless_tests::command::run_litestream;
use driftless_tests::{Daemon, PATIENCE};
use serde_json::Value;

use super::{Place, insert};

#[test]
fn litestreams_commands_talk_to_our_process() {
    let place = Place::new("socket-theirs-ours");
    place.configure(&[("a.db", "ra")], "");
    let a = place.database("a.db");
    place.database("b.db");
    let daemon = place.start();
    let ask = |line: &str| run_litestream(place.words(line));
    assert_eq!(ask("info -json").expect_ok().json()["pid"], daemon.id());
    insert(&a, "by their command");
    let synced = ask("sync -wait -json @a.db").expect_ok().json();
    assert_eq!((&synced["txid"], synced["replica_txid"].as_u64() > Some(0)), (&synced["replica_txid"], true));
    place.expect_restored("ra", "a.db");
    let replica = format!("file://{}", place.dir.join("rb").display());
    let line = format!("register -json -replica {replica} @b.db");
    assert_eq!(ask(&line).expect_ok().json()["status"], "registered");
    assert_eq!(ask(&line).expect_ok().json()["status"], "already_registered");
    assert_eq!(ask("stop -json @b.db").expect_ok().json()["state"], "stopped");
    let listed = ask("list -json").expect_ok().json();
    assert_eq!(listed["databases"][1]["status"], "stopped", "{listed}");
    assert_eq!(listed["databases"][0]["status"], "replicating");
    assert_eq!(ask("start -json @b.db").expect_ok().json()["state"], "running");
    assert_eq!(ask("unregister -json @b.db").expect_ok().json()["status"], "unregistered");
    let failed = ask("sync @b.db");
    assert!(failed.code == 1 && failed.err.contains("database not found"), "{}", failed.err);
    daemon.term().expect_code(0);
}

/// Both print the same fields of the same things.
#[test]
fn our_commands_talk_to_litestreams_process() {
    let place = Place::new("socket-ours-theirs");
    place.configure(&[("a.db", "ra")], "");
    let a = place.database("a.db");
    place.database("b.db");
    // Of our file, what Litestream knows.
    let text = std::fs::read_to_string(&place.config).unwrap();
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("state-dir")).collect();
    std::fs::write(&place.config, text.join("\n").replace("replica: ", "replica:\n      path: ")).unwrap();
    let args = ["-config".as_ref(), place.config.as_os_str()];
    let mut daemon = Daemon::litestream(&place.dir.join("process"), &args);
    daemon.wait_until("its socket", PATIENCE, || UnixStream::connect(&place.socket).is_ok());
    insert(&a, "by our command");
    let replica = format!("file://{}", place.dir.join("rb").display());
    for line in [
        "info -json".to_owned(),
        "list -json".to_owned(),
        "sync -wait -json @a.db".to_owned(),
        format!("register -json -replica {replica} @b.db"),
        format!("register -json -replica {replica} @b.db"),
        "stop -json @b.db".to_owned(),
        "stop -json @b.db".to_owned(),
        "start -json @b.db".to_owned(),
        "unregister -json @b.db".to_owned(),
        "unregister -json @b.db".to_owned(),
    ] {
        let (ours, theirs) = match line.contains("list") || line.contains("info") || line.contains("sync") {
            true => (place.ask(&line), run_litestream(place.words(&line))),
            // What changes something is done once.
            false => (place.ask(&line), place.ask("list -json")),
        };
        let (ours, theirs) = (ours.expect_ok().json(), theirs.expect_ok().json());
        if let (Value::Object(ours), Value::Object(theirs)) = (&ours, &theirs)
            && !theirs.contains_key("databases")
        {
            let missing: Vec<&String> = theirs.keys().filter(|key| !ours.contains_key(*key)).collect();
            assert!(missing.is_empty(), "{line}: {missing:?} in {ours:?}");
        }
    }
    place.ask("sync @z.db").expect_error(1, &["database not found"]);
    drop(daemon.term());
}
