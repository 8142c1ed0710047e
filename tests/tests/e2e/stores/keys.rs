//! Access keys that end while they are in use.

use std::fs;
use std::path::Path;

use driftless_tests::app::App;
use driftless_tests::place::Place as _;
use driftless_tests::sidecar::assert_equal_to_source;
use driftless_tests::{PATIENCE, wait_for};
use serde_json::json;

use super::{put_once, s3};
use crate::side_by_side::{KEEP, status};

const OLD: (&str, &str, &str) = ("AKIAOLD", "old+secret/key", "old-session-token");
const NEW: (&str, &str, &str) = ("AKIANEW", "new+secret/key", "new-session-token");

/// Writes the file of profiles as a program that renews keys does: in one step.
fn write_profile(file: &Path, (id, secret, token): (&str, &str, &str)) {
    let beside = file.with_extension("new");
    let text = format!(
        "[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\naws_session_token = {token}\n"
    );
    fs::write(&beside, text).expect("the test's directory");
    fs::rename(&beside, file).expect("in one directory");
}

#[test]
fn expired_credentials_are_told_and_new_ones_are_found_while_running() {
    let (proxy, mut scene) = s3("keys");
    let file = scene.dir.join("credentials");
    write_profile(&file, OLD);
    proxy.allow_key_with_token(OLD.0, OLD.2);
    scene.replica = scene.replica.profile(&file);
    let mut app = App::start();
    app.start_writer(&scene.database, json!({ "rate": 100, "keep": KEEP }));
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("replicated txid=");
    proxy.expire_key(OLD.0);
    wait_for("the expired key in the status", PATIENCE, || {
        status(&sidecar)["last_error"].as_str().is_some_and(|error| error.contains("ExpiredToken"))
    });
    let told = status(&sidecar);
    assert!(told["hint"].as_str().is_some_and(|hint| hint.contains("token has ended")), "{told}");
    assert_eq!(told["phase"], "following", "{told}");
    // A command that is started now says the same, and ends.
    let copy = scene.dir.join("none.db");
    let restored = scene.replica.run(&["restore", "-o", copy.to_str().expect("a plain path")]);
    let restored = restored.expect_error(1, &["ExpiredToken"]).expect_hint();

    let held = sidecar.replicated();
    write_profile(&file, NEW);
    proxy.allow_key_with_token(NEW.0, NEW.2);
    wait_for("the new key to be found", PATIENCE, || sidecar.replicated() > held);
    let committed = app.pause_writer();
    wait_for("all on the replica", PATIENCE, || driftless_tests::sidecar::is_caught_up(&status(&sidecar)));
    assert_eq!(scene.held(), committed);
    let last = proxy.records().into_iter().rev().find(|record| record.operation() == "PUT");
    assert_eq!(last.expect("there were puts").key(), Some(NEW.0));
    app.stop_writer();
    drop(app);
    let said = format!("{:?}{told}{}{}", sidecar.lines(), restored.out, restored.err);
    for secret in [OLD.1, OLD.2, NEW.1, NEW.2] {
        assert!(!said.contains(secret), "{secret} is told to everybody");
    }
    sidecar.stop();
    assert_equal_to_source(&scene.database, &scene.replica);
    put_once(&proxy);
}
