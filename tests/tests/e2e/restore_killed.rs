//! Restores that are killed: the target is what it was or what it shall be, and the next call ends well and
//! fetches nothing twice.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use driftless_tests::command::restore;
use driftless_tests::db::open_wal;
use driftless_tests::{TempDir, driftless, dump_digest, integrity_check, run};

const KILLS: u32 = 50;

/// A database of some 30 MB in a few segments.
fn replicate(db: &Path, replica: &Path) {
    let app = open_wal(db);
    app.execute_batch("create table t(id integer primary key, body blob)").unwrap();
    for n in 0..4 {
        app.execute_batch(&format!(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000)
             insert into t(body) select randomblob(1800) from n;
             update t set body = randomblob(1800) where id % 7 = {n}"
        ))
        .unwrap();
        run(["replicate".as_ref(), "-once".as_ref(), db.as_os_str(), replica.as_os_str()]).expect_ok();
    }
}

fn start(words: &[&str], target: &Path, replica: &Path) -> Child {
    let mut command = Command::new(driftless());
    command.args(words).args([target, replica]).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// What may stand beside a target for longer than a restore runs: nothing.
fn leftovers(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name != "target.db").collect()
}

#[test]
fn fifty_kills_leave_the_target_whole_and_the_next_call_ends_well() {
    let dir = TempDir::new("restore-killed");
    let (db, replica, place) = (dir.join("app.db"), dir.join("replica"), dir.join("place"));
    replicate(&db, &replica);
    fs::create_dir(&place).unwrap();
    let target = place.join("target.db");
    let begun = Instant::now();
    restore(&replica, &target, None);
    let mut whole = begun.elapsed();
    let new = fs::read(&target).unwrap();
    assert_eq!(dump_digest(&target), dump_digest(&db));
    restore(&replica, &dir.join("old.db"), Some("1"));
    let old = fs::read(dir.join("old.db")).unwrap();

    fs::write(&target, &old).unwrap();
    let (mut caught, mut unfinished, mut replaced) = (0, 0, 0);
    for n in 0..KILLS {
        let mut child = start(&["restore", "-force", "-o"], &target, &replica);
        // Spread over all of it, and a little more.
        thread::sleep(whole.mul_f64(1.1 * f64::from(n) / f64::from(KILLS)));
        if child.try_wait().unwrap().is_none() {
            caught += 1;
        } else {
            // The machine was busier when it was timed.
            whole = whole.mul_f64(0.8);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left = leftovers(&place);
        assert!(left.iter().all(|name| name.starts_with("target.db")), "{left:?}");
        unfinished += u32::from(left.iter().any(|name| name == "target.db.driftless-restore"));
        let found = fs::read(&target).unwrap();
        if found == new {
            replaced += 1;
            fs::write(&target, &old).unwrap();
        } else {
            assert!(found == old, "kill {n}: the target is neither what it was nor what it shall be");
        }
    }
    eprintln!("{caught} killed on the way, {unfinished} left something, {replaced} had ended");
    assert!(caught >= KILLS / 2 && unfinished >= KILLS / 4, "{caught} caught, {unfinished} unfinished");

    run(["restore".as_ref(), "-force".as_ref(), "-o".as_ref(), target.as_os_str(), replica.as_os_str()])
        .expect_ok();
    assert!(fs::read(&target).unwrap() == new, "the last call restores the newest state");
    assert_eq!(leftovers(&place), [""; 0], "nothing is left of those that were killed");
    integrity_check(&target);
    in_a_free_place(&replica, &target, whole, &new);
}

/// Where nothing stands, nobody has to force it, and what was written before the kill is kept.
fn in_a_free_place(replica: &Path, target: &Path, whole: Duration, new: &[u8]) {
    let mut kept = 0;
    for n in 0..10_u32 {
        fs::remove_file(target).unwrap();
        let mut child = start(&["restore", "-o"], target, replica);
        thread::sleep(whole.mul_f64(f64::from(n) / 10.0) + Duration::from_millis(1));
        child.kill().unwrap();
        child.wait().unwrap();
        if !target.exists() {
            let words = ["restore".as_ref(), "-json".as_ref(), "-o".as_ref(), target.as_os_str()];
            let report = run(words.into_iter().chain([replica.as_os_str()])).expect_ok().json();
            let pages = |name: &str| report[name].as_u64().unwrap();
            assert_eq!(pages("pages_fetched") + pages("pages_kept"), pages("pages"), "{report}");
            assert_eq!(report["proven"], true);
            kept += pages("pages_kept");
        }
        assert!(fs::read(target).unwrap() == new, "{n}");
    }
    assert!(kept > 0, "some were killed after they had written");
}
