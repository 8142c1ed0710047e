//! What Litestream 0.3 wrote, restored by us: the fixture, from a directory and from S3, and a
//! replica that 0.3.13 writes while we watch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use driftless_tests::command::finish;
use driftless_tests::db::open_wal;
use driftless_tests::dir::copy_dir;
use driftless_tests::objects::Objects as _;
use driftless_tests::place::{Place, Remote};
use driftless_tests::programs::litestream_legacy;
use driftless_tests::servers::{Webdav, azurite, gcs, moto};
use driftless_tests::{
    Daemon, PATIENCE, Ran, TempDir, driftless_command, dump_digest, fixtures, integrity_check, pages,
    wait_for,
};
use serde_json::Value;

const GENERATION: &str = "0ccf80b8acbd45e4";

fn fixture() -> PathBuf {
    fixtures().join("wal-0.3.13-4k-plain")
}

/// A copy of the fixture's replica that may be written.
fn copy(dir: &TempDir) -> PathBuf {
    let replica = dir.join("replica");
    copy_dir(&fixture().join("replica"), &replica);
    let made = Command::new("chmod").args(["-R", "u+w"]).arg(&replica).status().expect("there is a chmod");
    assert!(made.success());
    replica
}

/// The files of a replica below `generations/`, by name.
fn files(replica: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut directories = vec![replica.join("generations")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => directories.push(path),
                false => {
                    let name =
                        path.strip_prefix(replica).expect("it is below").to_string_lossy().into_owned();
                    found.insert(name, path);
                }
            }
        }
    }
    found
}

fn restore(replica: &(impl Place + ?Sized), to: &Path, args: &[&str]) -> Ran {
    let mut command = driftless_command();
    command.arg("restore").args(args).arg("-o").arg(to);
    finish(replica.equip(&mut command).arg(replica.argument()))
}

/// The newest state is the one that Litestream 0.3.13 replicated, by the digest of its content.
#[track_caller]
fn check_newest(replica: &(impl Place + ?Sized), to: &Path) {
    let expected = fs::read_to_string(fixture().join("expected.json")).expect("the fixture's expectations");
    let expected: Value = serde_json::from_str(&expected).expect("valid JSON");
    let ran = restore(replica, to, &["-json"]).expect_ok();
    let told = ran.json();
    assert_eq!(told["generation"], GENERATION, "{told}");
    assert_eq!(told["index"], "00000001", "{told}");
    let latest = &expected["restores"]["latest"];
    assert_eq!(dump_digest(to), latest["dump_sha256"]);
    assert_eq!(expected["source_dump_sha256"], latest["dump_sha256"]);
    assert_eq!(pages(to), latest["pages"]);
    integrity_check(to);
}

#[test]
fn the_fixture_restores_from_a_directory() {
    let dir = TempDir::new("legacy-directory");
    let replica = copy(&dir);
    check_newest(&replica, &dir.join("latest.db"));
    // From the older snapshot, by all segments.
    let names = files(&replica);
    let newer = names.keys().find(|name| name.contains("snapshots/00000001")).expect("there are two");
    fs::remove_file(&names[newer]).expect("our own");
    check_newest(&replica, &dir.join("by-wal.db"));
    // A state of the past, which exists once more by index.
    let past = dir.join("past.db");
    restore(&replica, &past, &["-generation", GENERATION, "-index", "0"]).expect_ok();
    integrity_check(&past);
    assert_ne!(dump_digest(&past), dump_digest(&dir.join("latest.db")));
}

/// Puts the fixture's replica there, by other code than ours.
fn upload(remote: Remote) -> Remote {
    for (name, path) in files(&fixture().join("replica")) {
        remote.objects().put(&format!("app/{name}"), &fs::read(path).expect("a fixture is readable"));
    }
    remote
}

#[test]
fn the_fixture_restores_from_azure_gcs_and_webdav() {
    let dir = TempDir::new("legacy-stores");
    let (container, bucket, webdav) =
        (azurite().container("legacy"), gcs().bucket("legacy"), Webdav::start());
    let address = webdav.address();
    for (name, remote) in [
        ("azure", Remote::azure(&container, azurite().address())),
        ("gcs", Remote::gcs(&bucket, gcs().address())),
        ("webdav", Remote::webdav(webdav, address)),
    ] {
        check_newest(&upload(remote), &dir.join(name));
    }
}

#[test]
fn the_fixture_restores_from_s3() {
    let dir = TempDir::new("legacy-s3");
    let bucket = moto().bucket("legacy");
    let remote = upload(Remote::s3(&bucket, bucket.server()));
    check_newest(&remote, &dir.join("latest.db"));
    let planned = restore(&remote, &dir.join("none.db"), &["-dry-run", "-json"]).expect_ok().json();
    assert_eq!(planned["files"].as_array().map(Vec::len), Some(2), "{planned}");
    let missing = format!("app/generations/{GENERATION}/wal/00000001_00000000.wal.lz4");
    let body = bucket.get(&missing).expect("it was put");
    let flipped: Vec<u8> = body.iter().rev().copied().collect();
    bucket.put(&missing, &flipped);
    restore(&remote, &dir.join("none.db"), &[])
        .expect_error(4, &["00000001_00000000.wal.lz4", "lz4 frame magic"])
        .expect_hint();
    assert!(!dir.join("none.db").exists());
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let dir = TempDir::new("legacy-dry-run");
    let target = dir.join("none.db");
    let replica = fixture().join("replica");
    let ran = restore(&replica, &target, &["-dry-run"]).expect_ok();
    for word in ["restore plan", GENERATION, "index 00000001", "snapshot", "250694", "00000000"] {
        assert!(ran.out.contains(word), "{word} is not shown:\n{}", ran.out);
    }
    assert!(!target.exists());
    let plan = restore(&replica, &target, &["-dry-run", "-json", "-generation", GENERATION, "-index", "0"]);
    let plan = plan.expect_ok().json();
    let rows = plan["files"].as_array().expect("files").clone();
    assert_eq!((rows.len(), rows[0]["kind"].as_str()), (24, Some("snapshot")), "{plan}");
    assert_eq!(rows[2]["offset"], "000080e0");
}

#[test]
fn what_is_missing_or_damaged_is_named_and_the_target_stays() {
    let dir = TempDir::new("legacy-damage");
    let target = dir.join("target.db");
    fs::write(&target, b"what was there").expect("our own");
    let check = |name: &str, spoil: &dyn Fn(&Path), words: &[&str]| {
        let own = TempDir::new(&format!("legacy-damage-{name}"));
        let replica = copy(&own);
        let names = files(&replica);
        for snapshot in names.keys().filter(|name| name.contains("snapshots/00000001")) {
            fs::remove_file(&names[snapshot]).expect("our own");
        }
        spoil(&replica.join("generations").join(GENERATION));
        restore(&replica, &target, &["-force"]).expect_error(4, words).expect_hint();
        assert_eq!(fs::read(&target).expect("it is there"), b"what was there", "{name}");
    };
    let segment = "wal/00000000_00037548.wal.lz4";
    let remove = |it: &Path| fs::remove_file(it.join(segment)).expect("our own");
    check("missing", &remove, &[segment, "is missing", "00000000_00041638.wal.lz4"]);
    let flip = |it: &Path| {
        let mut bytes = fs::read(it.join(segment)).expect("our own");
        bytes[9000] ^= 0x10;
        fs::write(it.join(segment), bytes).expect("our own");
    };
    check("flipped", &flip, &[segment, "lz4"]);
    let cut = |it: &Path| {
        let bytes = fs::read(it.join(segment)).expect("our own");
        fs::write(it.join(segment), &bytes[..bytes.len() / 2]).expect("our own");
    };
    check("cut", &cut, &[segment, "ends at byte"]);
    let index = |it: &Path| {
        for (name, path) in files(it.parent().and_then(Path::parent).expect("it is below")) {
            if name.contains("/wal/00000000_") {
                fs::remove_file(path).expect("our own");
            }
        }
    };
    check("index", &index, &["wal/00000000_00000000.wal.lz4", "is missing"]);
}

#[test]
fn flags_of_0_3_that_do_not_fit_are_refused() {
    let dir = TempDir::new("legacy-flags");
    let (replica, target) = (fixture().join("replica"), dir.join("none.db"));
    let refused = |args: &[&str], code, word: &str| {
        restore(&replica, &target, args).expect_error(code, &[word]).expect_hint();
        assert!(!target.exists(), "{args:?}");
    };
    refused(&["-index", "1"], 2, "without -generation");
    refused(&["-generation", "xyz"], 2, "not a generation");
    refused(&["-generation", GENERATION, "-index", "-1"], 2, "not an index");
    refused(&["-generation", GENERATION, "-txid", "1"], 2, "-generation and -txid");
    refused(
        &["-generation", GENERATION, "-index", "1", "-timestamp", "2026-01-31T12:00:00Z"],
        2,
        "-index and",
    );
    refused(&["-generation", "0000000000000000"], 3, "no generation");
    refused(&["-generation", GENERATION, "-index", "7f"], 3, "0000007f");
    refused(&["-timestamp", "2001-01-31T12:00:00Z"], 3, "no snapshot was written at or before 2001-01-31");
    restore(&replica, &target, &["-timestamp", "2199-01-31T12:00:00Z"]).expect_ok();
    assert_eq!(pages(&target), 97);
}

/// Of a replica with both layouts the one that was written last counts, and `-restore-if-db-not-exists`
/// finds what 0.3 wrote as well.
#[test]
fn a_replica_of_0_3_is_taken_over_and_what_is_newer_counts() {
    let dir = TempDir::new("legacy-upgrade");
    let (replica, db) = (copy(&dir), dir.join("app.db"));
    let mut command = driftless_command();
    command.args(["replicate", "-once", "-restore-if-db-not-exists"]).arg(&db).arg(&replica);
    finish(&mut command).expect_ok();
    assert_eq!(pages(&db), 97);
    let app = open_wal(&db);
    app.execute_batch("create table after_the_upgrade(a)").expect("it is ours now");
    let mut command = driftless_command();
    finish(command.args(["replicate", "-once"]).arg(&db).arg(&replica)).expect_ok();
    let newest = dir.join("newest.db");
    restore(&replica, &newest, &[]).expect_ok();
    assert_eq!(dump_digest(&newest), dump_digest(&db));
    let before = dir.join("before.db");
    restore(&replica, &before, &["-generation", GENERATION]).expect_ok();
    assert_ne!(dump_digest(&before), dump_digest(&db));
    assert_eq!(pages(&before), 97);
}

/// Litestream 0.3.13 itself writes, checkpoints and begins new WALs; at each index our restore and its
/// own come to the same.
#[test]
fn what_litestream_0_3_13_writes_restores_at_each_index_as_by_itself() {
    let dir = TempDir::new("legacy-live");
    let (db, replica, config) = (dir.join("app.db"), dir.join("replica"), dir.join("litestream.yml"));
    let app = open_wal(&db);
    app.execute_batch("create table t(id integer primary key, body blob)").expect("an empty database");
    let text = format!(
        "dbs:\n  - path: {}\n    monitor-interval: 100ms\n    checkpoint-interval: 1s\n    min-checkpoint-page-count: 20\n    \
         replicas:\n      - type: file\n        path: {}\n        sync-interval: 100ms\n",
        db.display(),
        replica.display()
    );
    fs::write(&config, text).expect("our own");
    let mut command = Command::new(litestream_legacy());
    command.arg("replicate").arg("-config").arg(&config);
    let mut daemon = Daemon::spawn(&mut command, &dir.join("litestream.log"));
    let indexes = || -> Vec<String> {
        let names = files(&replica).into_keys();
        let begun = names
            .filter_map(|name| Some(name.rsplit_once('/')?.1.strip_suffix("_00000000.wal.lz4")?.to_owned()));
        begun.collect()
    };
    daemon.wait_until("several indexes", 3 * PATIENCE, || {
        app.execute_batch(
            "insert into t(body) select randomblob(3000) from (values (1), (2), (3), (4), (5));
             update t set body = randomblob(2000) where id % 7 = 0;
             delete from t where id % 5 = 0",
        )
        .expect("nobody holds a lock for long");
        indexes().len() >= 4
    });
    app.execute_batch("insert into t(body) values ('the last')").expect("nobody holds a lock for long");
    let (digest, newest) = (dump_digest(&db), dir.join("newest.db"));
    wait_for("the last commit on the replica", PATIENCE, || {
        let _ = fs::remove_file(&newest);
        restore(&replica, &newest, &[]).code == 0 && dump_digest(&newest) == digest
    });
    daemon.term();
    integrity_check(&newest);
    let generation = files(&replica).into_keys().next().expect("there are files");
    let generation = generation.split('/').nth(1).expect("its generation").to_owned();
    for index in indexes() {
        let (ours, theirs) = (dir.join(&format!("ours-{index}.db")), dir.join(&format!("theirs-{index}.db")));
        restore(&replica, &ours, &["-generation", &generation, "-index", &index]).expect_ok();
        let mut command = Command::new(litestream_legacy());
        command.args(["restore", "-generation", &generation, "-index", &index, "-o"]).arg(&theirs);
        finish(command.arg(replica.url())).expect_ok();
        assert_eq!(dump_digest(&ours), dump_digest(&theirs), "index {index}");
        assert_eq!(pages(&ours), pages(&theirs), "index {index}");
        integrity_check(&ours);
    }
}
