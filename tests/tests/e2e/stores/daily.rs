//! A day with a store: replicated under a writer, restored by TXID and by time, looked at.

use driftless_tests::place::{Place as _, Remote};
use driftless_tests::servers::{Webdav, gcs};
use driftless_tests::{PATIENCE, TempDir, dump_digest, wait_for};
use serde_json::{Value, json};

use super::{azure, put_once, s3};
use crate::side_by_side::{KEEP, Scene};

/// States whose content is known.
const STATES: usize = 3;

/// A state that is on the replica.
struct State {
    txid: String,
    digest: String,
}

/// Everything that is done with a replica, done with this one. `findings` is what the probe finds.
fn tells_the_same_as_a_directory(scene: &Scene<Remote>, findings: &Value) {
    let place = &scene.replica;
    let database = scene.database.to_str().expect("a plain path");
    let mut app = scene.app();
    let mut sidecar = scene.setup().settings("sync-interval: 300ms").start();
    let mut states = Vec::new();
    for _ in 0..STATES {
        app.tx("a");
        let status = sidecar.caught_up();
        let txid = status["replicated_txid"].as_str().expect("caught up").to_owned();
        states.push(State { txid, digest: dump_digest(&scene.database) });
    }
    if !findings.is_null() {
        sidecar.wait_line("the store was probed");
    }
    let running = place.run(&["status", "-json", database]).expect_ok().json();
    assert_eq!(&running[0]["store"], findings, "{running}");
    assert_eq!(running[0]["replicated_txid"], states[STATES - 1].txid, "{running}");

    app.start_writer(&scene.database, json!({ "rate": 200, "keep": KEEP }));
    let goal = sidecar.replicated().expect("caught up") + 2;
    wait_for("two more captures under load", PATIENCE, || sidecar.replicated() >= Some(goal));
    app.stop_writer();
    drop(app);
    scene.ends_well(sidecar);

    // Looking at it from outside, with no process that could be asked.
    let rows = place.run(&["ltx", "-json"]).expect_ok().json();
    let rows = rows.as_array().expect("a list");
    let listed: Vec<u64> = rows.iter().map(|row| txid_of(&row["max_txid"])).collect();
    let there: Vec<u64> = place.ltx_files(0).into_iter().map(|(_, max)| max).collect();
    assert_eq!(listed, there);
    let last = &rows[rows.len() - 1]["max_txid"];
    let status = place.run(&["status", "-json", database]).expect_ok().json();
    assert_eq!((&status[0]["replicated_txid"], &status[0]["running"]), (last, &json!(false)), "{status}");
    let named = status[0]["replica"].as_str().expect("a replica");
    assert!(!named.contains('?'), "options do not belong there: {named}");
    place.run(&["verify"]).expect_ok();
    let copy = scene.dir.join("copy.db");
    let _ = std::fs::remove_file(&copy);
    let target = copy.to_str().expect("a plain path");
    let plan = place.run(&["restore", "-dry-run", "-o", target]).expect_ok().out;
    assert!(plan.contains(last.as_str().expect("a text")), "{plan}");
    assert!(!copy.exists(), "a dry run has written");

    for state in &states {
        let row = rows.iter().find(|row| row["max_txid"] == state.txid).expect("it was replicated");
        let time = row["timestamp"].as_str().expect("a time");
        for [flag, value] in [["-txid", &state.txid], ["-timestamp", time]] {
            let dir = TempDir::new("restored");
            let copy = dir.join("copy.db");
            place.run(&["restore", flag, value, "-o", copy.to_str().expect("a plain path")]).expect_ok();
            assert_eq!(dump_digest(&copy), state.digest, "{flag} {value}");
        }
    }
}

/// What the probe finds where every promise is kept.
fn all_held() -> Value {
    json!({ "create_if_absent": "holds", "swap": "holds", "remove": "holds" })
}

fn txid_of(text: &Value) -> u64 {
    u64::from_str_radix(text.as_str().expect("a text"), 16).expect("16 digits")
}

#[test]
fn a_day_with_s3() {
    let (proxy, scene) = s3("daily");
    tells_the_same_as_a_directory(&scene, &all_held());
    put_once(&proxy);
}

#[test]
fn a_day_with_azure() {
    let (proxy, scene) = azure("daily");
    tells_the_same_as_a_directory(&scene, &all_held());
    put_once(&proxy);
}

#[test]
fn a_day_with_google() {
    let bucket = gcs().bucket("daily");
    let remote = Remote::gcs(&bucket, gcs().address());
    tells_the_same_as_a_directory(&Scene::at("daily-gcs", remote), &all_held());
}

/// No server of WebDAV keeps the conditions, so that they are neither claimed nor probed.
#[test]
fn a_day_with_webdav() {
    let webdav = Webdav::start();
    let address = webdav.address();
    let remote = Remote::webdav(webdav, address);
    tells_the_same_as_a_directory(&Scene::at("daily-webdav", remote), &Value::Null);
}
