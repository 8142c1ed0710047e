//! More objects in one level than a store lists in one answer.

use std::fs;
use std::path::Path;
use std::thread;

use driftless_tests::app::App;
use driftless_tests::place::{Place as _, Remote};
use driftless_tests::proxy::Proxy;
use driftless_tests::sidecar::{Setup, assert_same_bytes, restore};
use driftless_tests::{PATIENCE, dump_digest, wait_for};
use serde_json::json;

use super::{azure, s3};
use crate::side_by_side::Scene;

/// Stores list 1,000 objects at a time.
const MANY: u64 = 1_200;
/// A state whose file is behind the first page.
const DEEP: u64 = 1_150;

/// Copies all of level 0 from a directory to a store.
fn upload(directory: &Path, remote: &Remote) {
    for (min, max) in directory.ltx_files(0) {
        let file = directory.join(format!("ltx/0/{min:016x}-{max:016x}.ltx"));
        remote.objects().put(&remote.key(0, min, max), &fs::read(file).expect("just written"));
    }
}

/// Looks at a replica in every way that lists it, before anybody writes there.
fn is_seen_whole(scene: &Scene, remote: &Remote, name: &str) {
    let files = scene.replica.ltx_files(0);
    let rows = remote.run(&["ltx", "-json"]).expect_ok().json();
    let seen: Vec<String> = rows
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| format!("{}-{}", row["min_txid"].as_str().unwrap(), row["max_txid"].as_str().unwrap()))
        .collect();
    let there: Vec<String> = files.iter().map(|(min, max)| format!("{min:016x}-{max:016x}")).collect();
    assert_eq!(seen, there, "{name}");
    let verified = remote.run(&["verify"]).expect_ok().out;
    assert!(verified.contains(&format!("{} of {}", group(files.len()), group(files.len()))), "{verified}");
    for txid in [None, Some(DEEP)] {
        let (here, there) =
            (scene.dir.join(&format!("{name}-here.db")), scene.dir.join(&format!("{name}.db")));
        restore(remote, txid, &there).expect("the store's copy restores");
        restore(&scene.replica, txid, &here).expect("the directory restores");
        assert_same_bytes(&here, &there);
        fs::remove_file(here).expect("just written");
        fs::remove_file(there).expect("just written");
    }
}

/// As people count: `1,200`.
fn group(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}

/// Makes more than a page of captures, in a directory, since that is quick.
fn captured(scene: &Scene) -> App {
    let mut app = scene.app();
    let sidecar = scene.setup().settings("sync-interval: 10ms").start();
    app.start_writer(&scene.database, json!({ "rate": 400, "rows": 1, "bytes": 20, "keep": 50 }));
    wait_for("many captures", PATIENCE * 3, || sidecar.replicated() >= Some(MANY));
    app.stop_writer();
    sidecar.caught_up();
    sidecar.stop();
    app
}

#[test]
fn more_than_a_page_of_objects_on_s3_and_azure() {
    let scene = Scene::new("many");
    let mut app = captured(&scene);
    let ((by_s3, s3), (by_azure, azure)) = (s3("many"), azure("many"));
    let remotes: [(&str, &Proxy, &Remote); 2] =
        [("s3", &by_s3, &s3.replica), ("azure", &by_azure, &azure.replica)];
    thread::scope(|scope| {
        for (name, _, remote) in remotes {
            let scene = &scene;
            scope.spawn(move || {
                upload(&scene.replica, remote);
                is_seen_whole(scene, remote, name);
            });
        }
    });
    // A replicator that finds the end behind the first page goes on there.
    let last = scene.replica.ltx_files(0).last().expect("many").1;
    let sidecars = remotes.map(|(name, proxy, remote)| {
        let mark = proxy.mark();
        let log = scene.dir.join(&format!("{name}.log"));
        let setup = Setup::new(&scene.database, remote).log(&log);
        (setup.state_dir(&scene.dir.join(name)).start(), mark)
    });
    for (sidecar, _) in &sidecars {
        sidecar.caught_up();
    }
    app.tx("a");
    let digest = dump_digest(&scene.database);
    for ((sidecar, mark), (name, proxy, remote)) in sidecars.into_iter().zip(remotes) {
        sidecar.caught_up();
        assert_eq!(sidecar.replicated(), Some(last + 1), "{name}: {:?}", sidecar.lines());
        let lists = proxy.since(mark).into_iter().filter(|record| record.operation() == "LIST");
        // Ten levels; Amazon's lists end at 1,000 objects, Azure's at 5,000.
        assert_eq!(lists.count(), if name == "s3" { 11 } else { 10 }, "{name}");
        sidecar.stop();
        let copy = scene.dir.join(&format!("{name}.db"));
        restore(remote, None, &copy).expect("it restores");
        assert_eq!(dump_digest(&copy), digest, "{name}");
    }
}

/// A store may answer with as few objects as it likes: no page is taken for the last one.
#[test]
fn pages_of_two_objects() {
    use driftless_tests::proxy::{Fault, Rule};
    let (proxy, scene) = s3("pages");
    let tiny = proxy.add(Rule::new(Fault::Query("max-keys", "2".into())).operation("LIST"));
    let mut app = scene.app();
    for _ in 0..2 {
        let sidecar = scene.sidecar();
        for _ in 0..3 {
            app.tx("a");
            sidecar.caught_up();
        }
        sidecar.stop();
        let state = scene.dir.join(".app.db-driftless");
        fs::remove_dir_all(&state).expect("it was there");
    }
    drop(app);
    let asked = proxy.hits(tiny);
    scene.ends_well(scene.sidecar());
    assert_eq!(scene.held(), 6);
    assert!(proxy.hits(tiny) > asked + 12, "ten levels, and pages of two: {}", proxy.hits(tiny));
}
