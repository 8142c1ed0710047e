//! The commands that are not `replicate`, by what they print, leave and end with.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use driftless_tests::command::{finish, restore};
use driftless_tests::db::{content_lines, open_wal};
use driftless_tests::scene::{Scene, flip, names};
use driftless_tests::{Ran, TempDir, dump_digest, integrity_check, pages, run};
use serde_json::Value;

/// Runs `driftless COMMAND FLAGS… LAST`, flags divided by blanks.
#[track_caller]
fn driftless(line: &str, last: &Path) -> Ran {
    run(line.split_whitespace().map(OsStr::new).chain([last.as_os_str()]))
}

/// Runs `driftless restore -o TARGET FLAGS… REPLICA`.
#[track_caller]
fn restore_to(target: &Path, flags: &str, replica: &Path) -> Ran {
    let flags = flags.split_whitespace().map(OsStr::new);
    run(["restore".as_ref(), "-o".as_ref(), target.as_os_str()]
        .into_iter()
        .chain(flags)
        .chain([replica.as_os_str()]))
}

#[test]
fn version_prints_one_line() {
    let ran = run(["version"]).expect_ok();
    assert_eq!(ran.out.trim().split('.').count(), 3, "{}", ran.out);
    assert_eq!(ran.out.lines().count(), 1);
    assert!(run(["version", "-verbose"]).expect_ok().out.contains("sqlite:"));
}

#[test]
fn help_explains_each_command() {
    let overview = run(["help"]).expect_ok().out;
    for command in ["replicate", "restore", "status", "ltx", "verify", "databases", "demo", "version"] {
        assert!(overview.contains(command), "{command} is missing in:\n{overview}");
        let by_flag = run([command, "-h"]).expect_ok().out;
        assert_eq!(by_flag, run(["help", command]).expect_ok().out);
        assert!(by_flag.contains("exit codes:") && by_flag.contains("examples:"), "{by_flag}");
    }
}

#[test]
fn databases_lists_the_configuration() {
    let scene = Scene::fresh("databases");
    let text = driftless("databases -config", &scene.config).expect_ok().out;
    assert!(text.starts_with("path ") && text.contains(&scene.db.display().to_string()), "{text}");
    let list = driftless("databases -json -config", &scene.config).expect_ok().json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!(list[0]["path"], scene.db.display().to_string());
    assert_eq!(list[0]["replica"], "file");
}

#[test]
fn ltx_lists_segments_by_level_with_litestreams_fields() {
    let scene = Scene::replicated("ltx", 3);
    let rows = driftless("ltx -json", &scene.replica).expect_ok().json();
    let rows = rows.as_array().expect("a list").clone();
    let ids: Vec<String> = (1..=3).map(|txid| format!("{txid:016x}")).collect();
    assert_eq!(rows.iter().map(|row| row["min_txid"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    for (row, txid) in rows.iter().zip(1..) {
        assert_eq!((&row["level"], &row["max_txid"]), (&Value::from(0), &row["min_txid"]));
        assert_eq!(row["size"], fs::metadata(scene.level0(txid)).unwrap().len());
        assert!(row["timestamp"].as_str().unwrap().ends_with('Z'), "{row}");
    }
    assert_eq!(driftless("ltx", &scene.replica).expect_ok().out.lines().count(), 4);
    assert_eq!(
        driftless("ltx -level all -json", &scene.replica).expect_ok().json().as_array().map(Vec::len),
        Some(3)
    );
    assert_eq!(
        driftless("ltx -level 9 -json", &scene.replica).expect_ok().json().as_array().map(Vec::len),
        Some(0)
    );
    driftless("ltx -level 12", &scene.replica).expect_error(2, &["12"]).expect_hint();
    // By the database's path, through the configuration; and by url.
    let by_path = run([
        "ltx".as_ref(),
        "-json".as_ref(),
        "-config".as_ref(),
        scene.config.as_os_str(),
        scene.db.as_os_str(),
    ]);
    assert_eq!(by_path.expect_ok().json().as_array(), Some(&rows));
    let url = format!("file://{}", scene.replica.display());
    assert_eq!(run(["ltx", "-json", &url]).expect_ok().json().as_array(), Some(&rows));
}

#[test]
fn restore_takes_flags_with_one_dash_or_two_before_or_after() {
    let scene = Scene::replicated("dashes", 2);
    let (target, replica) = (scene.dir.join("x.db"), scene.replica.as_os_str());
    let at = format!("-o={}", target.display());
    let lines: [Vec<&OsStr>; 4] = [
        vec!["restore".as_ref(), "-txid".as_ref(), "1".as_ref(), "-o".as_ref(), target.as_os_str(), replica],
        vec![
            "restore".as_ref(),
            "--txid".as_ref(),
            "0000000000000001".as_ref(),
            "--o".as_ref(),
            target.as_os_str(),
            replica,
        ],
        vec!["restore".as_ref(), "--txid=1".as_ref(), at.as_ref(), replica],
        vec!["restore".as_ref(), replica, "-txid=1".as_ref(), at.as_ref()],
    ];
    for line in lines {
        run(line).expect_ok();
        assert_eq!(dump_digest(&target), scene.digests[0]);
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn restore_rebuilds_each_transaction_and_the_newest() {
    let scene = Scene::replicated("restore", 3);
    for (txid, digest) in (1..).zip(&scene.digests) {
        let target = scene.dir.join(&format!("at-{txid}.db"));
        let ran = restore_to(&target, &format!("-json -integrity-check full -txid {txid:x}"), &scene.replica)
            .expect_ok();
        let told = ran.json();
        assert_eq!(told["txid"], format!("{txid:016x}"));
        assert_eq!((told["proven"].as_bool(), told["integrity_check"].as_str()), (Some(true), Some("full")));
        assert_eq!(told["pages"], pages(&target));
        assert_eq!(&dump_digest(&target), digest);
        integrity_check(&target);
    }
    // To where the configuration has it, after the database is lost.
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(scene.dir.join(&format!("app.db{suffix}")));
    }
    run(["restore".as_ref(), "-config".as_ref(), scene.config.as_os_str(), scene.db.as_os_str()]).expect_ok();
    assert_eq!(&dump_digest(&scene.db), scene.digests.last().unwrap());
    let missing = scene.dir.join("missing.db");
    restore_to(&missing, "-txid 4", &scene.replica)
        .expect_error(3, &["0000000000000004", "0000000000000003"])
        .expect_hint();
    assert!(!missing.exists());
}

#[test]
fn restore_by_time_takes_the_last_transaction_at_or_before_it() {
    let scene = Scene::replicated("time", 3);
    let rows = driftless("ltx -json", &scene.replica).expect_ok().json();
    let target = scene.dir.join("x.db");
    for (index, digest) in scene.digests.iter().enumerate() {
        let stamp = rows[index]["timestamp"].as_str().unwrap();
        restore_to(&target, &format!("-timestamp {stamp}"), &scene.replica).expect_ok();
        assert_eq!(&dump_digest(&target), digest, "{stamp}");
        fs::remove_file(&target).unwrap();
    }
    // Any time after the last commit gives the last state, on an idle database, too.
    restore_to(&target, "-timestamp 2999-12-31T23:59:59+02:00", &scene.replica).expect_ok();
    assert_eq!(&dump_digest(&target), &scene.digests[2]);
    fs::remove_file(&target).unwrap();
    restore_to(&target, "-timestamp 2001-01-01T00:00:00Z", &scene.replica).expect_error(3, &["2001-01-01"]);
    restore_to(&target, "-timestamp 2026-01-01T00:00:00", &scene.replica).expect_error(2, &[]).expect_hint();
    assert!(!target.exists());
}

#[test]
fn restore_does_not_replace_a_database_unasked() {
    let scene = Scene::replicated("exists", 1);
    let target = scene.dir.join("x.db");
    let app = open_wal(&target);
    app.execute_batch("create table precious(x); insert into precious values (1)").unwrap();
    let precious = dump_digest(&target);
    restore_to(&target, "", &scene.replica).expect_error(1, &["x.db exists"]).expect_hint();
    let ran = restore_to(&target, "-if-db-not-exists", &scene.replica).expect_ok();
    assert_eq!(ran.out, "");
    assert_eq!(dump_digest(&target), precious);
    drop(app);

    // A -wal and -shm of the old database must not be taken for the new one's.
    let kill = "
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('insert into precious values (2)')
os._exit(0)
";
    driftless_tests::python(kill, &[target.as_os_str()]);
    assert!(scene.dir.join("x.db-wal").exists());
    restore_to(&target, "-force", &scene.replica).expect_ok();
    assert_eq!(dump_digest(&target), scene.digests[0]);
    integrity_check(&target);

    let fresh = scene.dir.join("fresh.db");
    restore_to(&fresh, "-if-db-not-exists", &scene.replica).expect_ok();
    assert_eq!(dump_digest(&fresh), scene.digests[0]);
}

#[test]
fn restore_with_force_keeps_the_old_database_when_the_replica_is_bad() {
    let scene = Scene::replicated("force", 2);
    let target = scene.dir.join("x.db");
    restore(&scene.replica, &target, Some("1"));
    let before = fs::read(&target).unwrap();
    fs::remove_file(scene.level0(1)).unwrap();
    restore_to(&target, "-force", &scene.replica).expect_error(4, &["0000000000000001"]).expect_hint();
    assert_eq!(fs::read(&target).unwrap(), before);
    fs::remove_dir_all(&scene.replica).unwrap();
    fs::create_dir(&scene.replica).unwrap();
    restore_to(&target, "-force", &scene.replica).expect_error(3, &["no segments"]).expect_hint();
    assert_eq!(fs::read(&target).unwrap(), before);
    assert!(
        !names(scene.dir.path()).iter().any(|name| name.contains("-restore")),
        "{:?}",
        names(scene.dir.path())
    );
}

#[test]
fn restore_of_nothing_fails_unless_that_is_fine() {
    let dir = TempDir::new("nothing");
    let (empty, target) = (dir.join("empty"), dir.join("x.db"));
    fs::create_dir(&empty).unwrap();
    restore_to(&target, "", &empty).expect_error(3, &["no segments"]).expect_hint();
    restore_to(&target, "-if-replica-exists", &empty).expect_ok();
    let url = format!("file://{}/absent", dir.path().display());
    restore_to(&target, "-if-replica-exists", Path::new(&url)).expect_ok();
    restore_to(&target, "", Path::new(&url)).expect_error(3, &[]);
    assert_eq!(names(dir.path()), ["empty"]);
}

#[test]
fn restore_dry_run_tells_the_plan_and_writes_nothing() {
    let scene = Scene::replicated("dry", 3);
    let target = scene.dir.join("x.db");
    let before = names(scene.dir.path());
    let plan = restore_to(&target, "-dry-run -json -txid 2", &scene.replica).expect_ok().json();
    assert_eq!(plan["max_txid"], "0000000000000002");
    assert_eq!(plan["target_path"], target.display().to_string());
    assert_eq!(plan["files"].as_array().map(Vec::len), Some(2));
    let text = restore_to(&target, "-dry-run", &scene.replica).expect_ok().out;
    assert!(text.contains("0000000000000003-0000000000000003.ltx"), "{text}");
    assert_eq!(names(scene.dir.path()), before);
}

#[test]
fn verify_passes_a_sound_replica_and_names_what_is_wrong_with_others() {
    let scene = Scene::replicated("verify", 3);
    let sound = driftless("verify -json", &scene.replica).expect_ok().json();
    assert_eq!((sound["ok"].as_bool(), sound["checked"].as_u64()), (Some(true), Some(3)), "{sound}");
    assert!(driftless("verify", &scene.replica).expect_ok().out.contains("no fault"));

    // Wherever a byte is flipped: header, reserved bytes, a page, the index, the trailer.
    let file = scene.level0(2);
    let whole = fs::read(&file).unwrap();
    for at in [9, 70, 84, 90, 98, whole.len() / 2, whole.len() - 30, whole.len() - 12, whole.len() - 1] {
        flip(&file, at);
        let ran = driftless("verify -json", &scene.replica).expect_error(4, &[]);
        let told = ran.json();
        assert_eq!(told["ok"], false, "byte {at}");
        let faults: Vec<&str> =
            told["faults"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap()).collect();
        assert!(faults.iter().any(|fault| fault.contains(&Scene::object(2))), "byte {at}: {faults:?}");
        fs::write(&file, &whole).unwrap();
    }

    fs::remove_file(&file).unwrap();
    let ran = driftless("verify", &scene.replica).expect_error(4, &["0000000000000002"]);
    assert!(ran.out.contains("fault: "), "{}", ran.out);
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    driftless("verify", &scene.replica).expect_error(4, &[&Scene::object(2)]);
    fs::write(&file, &whole).unwrap();
    driftless("verify", &scene.replica).expect_ok();

    // A segment of another history at the right place, sound in itself.
    let other = Scene::replicated("verify-other", 2);
    fs::copy(other.level0(2), &file).unwrap();
    driftless("verify", &scene.replica).expect_error(4, &[]);
    restore_to(&scene.dir.join("x.db"), "", &scene.replica).expect_code(4);

    let empty = scene.dir.join("empty");
    fs::create_dir(&empty).unwrap();
    driftless("verify", &empty).expect_error(3, &["no segments"]).expect_hint();
}

#[test]
fn a_drill_restores_and_leaves_nothing_behind() {
    let scene = Scene::replicated("drill", 3);
    let scratch = scene.dir.join("scratch");
    fs::create_dir(&scratch).unwrap();
    let verify = |tmpdir: &Path, words: &str, replica: &Path| {
        let mut command = Command::new(driftless_tests::driftless());
        finish(command.env("TMPDIR", tmpdir).arg("verify").args(words.split(' ')).arg(replica))
    };
    let drill = |words: &str, replica: &Path| {
        let ran = verify(&scratch, words, replica);
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "{words}: something is left in the scratch");
        ran
    };
    let told = drill("-restore -json", &scene.replica).expect_ok().json();
    let restored = &told["restore"];
    assert_eq!(restored["txid"], "0000000000000003", "{told}");
    assert_eq!(
        (restored["proven"].as_bool(), restored["integrity_check"].as_str()),
        (Some(true), Some("quick"))
    );
    assert!(restored["pages"].as_u64().unwrap() > 1 && restored["timestamp"].is_string(), "{told}");
    let told = drill("-restore -integrity-check full", &scene.replica).expect_ok();
    assert!(told.out.contains("restored to txid 0000000000000003 and removed again"), "{}", told.out);
    assert!(drill("-json", &scene.replica).expect_ok().json()["restore"].is_null());
    drill("-integrity-check full", &scene.replica).expect_error(2, &["without -restore"]).expect_hint();
    drill("-restore -integrity-check half", &scene.replica)
        .expect_error(2, &["unknown integrity check"])
        .expect_hint();

    // What is damaged is not restored.
    flip(&scene.level0(2), 90);
    assert!(drill("-restore -json", &scene.replica).expect_error(4, &[]).json()["restore"].is_null());
    flip(&scene.level0(2), 90);
    // The chain vouches for a state that SQLite finds damaged: the source was, before it was replicated.
    let (db, replica) = (scene.dir.join("damaged.db"), scene.dir.join("damaged"));
    let app = open_wal(&db);
    app.execute_batch("create table t(x); insert into t values (1); pragma wal_checkpoint(truncate)")
        .unwrap();
    drop(app);
    flip(&db, 4096 + 3);
    run([OsStr::new("replicate"), OsStr::new("-once"), db.as_os_str(), replica.as_os_str()]).expect_ok();
    drill("-restore", &replica).expect_error(4, &["quick integrity check failed"]).expect_hint();
    // And where there is no place for it, that is said.
    let nowhere = scene.dir.join("nowhere");
    fs::write(&nowhere, "a file").unwrap();
    verify(&nowhere, "-restore", &scene.replica).expect_error(1, &["beside the target"]).expect_hint();
}

#[test]
fn all_databases_of_a_configuration_are_restored_whatever_one_of_them_does() {
    let (one, two) = (Scene::replicated("all-one", 2), Scene::replicated("all-two", 3));
    let (then, config) = (one.dir.join("then"), one.dir.join("all.yml"));
    let (lost, empty) = (one.dir.join("lost.db"), one.dir.join("empty"));
    fs::create_dir(&empty).unwrap();
    let other = one.dir.join("two.db");
    fs::rename(&two.db, &other).unwrap();
    let line = |db: &Path, replica: &Path| {
        format!("  - {{path: {}, url: file://{}}}\n", db.display(), replica.display())
    };
    let lines = [line(&one.db, &one.replica), line(&lost, &empty), line(&other, &two.replica)];
    fs::write(&config, format!("dbs:\n{}", lines.concat())).unwrap();
    let all = |words: &str| {
        let words = words.split_whitespace().map(OsStr::new);
        run(["restore".as_ref(), "-all".as_ref(), "-config".as_ref(), config.as_os_str()]
            .into_iter()
            .chain(words))
    };
    let to = format!("-o {}", then.display());

    let ran = all(&format!("{to} -json")).expect_error(3, &["1 of 3 databases were not restored"]);
    let told = ran.json();
    let field = |n: usize, name: &str| told[n][name].clone();
    assert_eq!((field(0, "txid"), field(2, "txid")), ("0000000000000002".into(), "0000000000000003".into()));
    assert_eq!((field(1, "exit_code"), field(0, "proven")), (3.into(), true.into()), "{told}");
    assert_eq!(dump_digest(&then.join(one.db.file_name().unwrap())), dump_digest(&one.db));
    assert_eq!(dump_digest(&then.join("two.db")), dump_digest(&other));
    assert!(!then.join("lost.db").exists());

    // They exist now, here and where the configuration has them.
    let ran = all(&to).expect_error(3, &["3 of 3 databases"]);
    assert_eq!(ran.out.matches("exists").count(), 2, "{}", ran.out);
    let ran = all("-if-db-not-exists -if-replica-exists").expect_ok();
    assert_eq!(ran.out.matches("exists, nothing is restored").count(), 2, "{}", ran.out);
    assert!(ran.out.contains("there is nothing to restore from"), "{}", ran.out);
    let ran = all(&format!("{to} -force -if-replica-exists")).expect_ok();
    assert_eq!(ran.out.matches("proven by the checksum of the whole state").count(), 2, "{}", ran.out);
    let ran = all("-dry-run -if-replica-exists").expect_ok();
    assert!(ran.out.contains("txid 0000000000000003") && ran.out.contains("from 3 files of"), "{}", ran.out);
    // A time that none of them reaches back to.
    fs::remove_dir_all(&then).unwrap();
    let past = one.dir.join("past");
    let words = ["restore", "-all", "-timestamp", "100 years ago", "-o"].map(OsStr::new);
    let config_flag = [OsStr::new("-config"), config.as_os_str()];
    run(words.into_iter().chain([past.as_os_str()]).chain(config_flag)).expect_error(3, &["3 of 3"]);

    all("-txid 1").expect_error(2, &["-all and -txid"]).expect_hint();
    all("-generation 0123456789abcdef").expect_error(2, &["-all and -generation"]).expect_hint();
    all(one.db.to_str().unwrap()).expect_error(2, &["-all and a database"]).expect_hint();
    all(&format!("-o {}", config.display())).expect_error(2, &["is a file"]).expect_hint();
    let twice =
        [line(&one.db, &one.replica), line(&one.dir.join("b").join(one.db.file_name().unwrap()), &empty)];
    fs::write(&config, format!("dbs:\n{}", twice.concat())).unwrap();
    all(&to).expect_error(2, &["would both be"]).expect_hint();
    fs::write(&config, "dbs: []").unwrap();
    all(&to).expect_error(2, &["names no database"]);
}

#[test]
fn replicate_once_ends_also_where_there_is_nothing_new() {
    let mut scene = Scene::replicated("once", 1);
    // Let go by its last user, held open with a WAL, and emptied under us.
    scene.replicate_once();
    let app = open_wal(&scene.db);
    app.execute_batch("insert into t(x) values ('held')").unwrap();
    scene.replicate_once();
    scene.replicate_once();
    app.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
    scene.replicate_once();
    scene.replicate_once();
    drop(app);
    scene.replicate_once();
    let target = scene.dir.join("x.db");
    restore(&scene.replica, &target, None);
    assert_eq!(content_lines(&target, "select count(*) from t where x = 'held'"), ["Integer(1)"]);
    assert_eq!(&dump_digest(&target), scene.digests.last().unwrap());
}

#[test]
fn the_demo_kills_restores_and_compares() {
    let ran = run(["demo", "-seconds", "6"]).expect_ok();
    assert!(ran.out.contains("kill -9") && ran.out.contains("equal: every page"), "{}", ran.out);
    let place = ran
        .out
        .split_whitespace()
        .find(|word| word.contains("driftless-demo"))
        .expect("its directory is named");
    assert!(!Path::new(place).exists(), "{place} is left behind");
}
