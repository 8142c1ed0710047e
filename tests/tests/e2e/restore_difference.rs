//! Restores over a database that is there: an older copy is brought up to date by what has changed since,
//! and whatever else it is, the result is the newest state.

use std::fs;
use std::path::Path;

use driftless_tests::command::{Ran, restore};
use driftless_tests::db::open_wal;
use driftless_tests::{TempDir, dump_digest, integrity_check, run};
use serde_json::Value;

/// A database of some 12 MB, and four TXIDs that change a few rows each.
fn replicate(db: &Path, replica: &Path) {
    let app = open_wal(db);
    app.execute_batch("create table t(id integer primary key, body blob)").unwrap();
    for n in 0..5 {
        let sql = match n {
            0 => "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000)
                  insert into t(body) select randomblob(3500) from n"
                .into(),
            n => format!("update t set body = randomblob(3500) where id % 100 = {n}"),
        };
        app.execute_batch(&sql).unwrap();
        run(["replicate".as_ref(), "-once".as_ref(), db.as_os_str(), replica.as_os_str()]).expect_ok();
    }
}

fn over(target: &Path, replica: &Path, flags: &[&str]) -> Ran {
    let flags = flags.iter().map(AsRef::as_ref);
    let words =
        ["restore".as_ref(), "-force".as_ref(), "-o".as_ref(), target.as_os_str(), replica.as_os_str()];
    run(words.into_iter().chain(flags)).expect_ok()
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} is a number in {report}"))
}

#[test]
fn an_older_copy_costs_what_has_changed_since() {
    let dir = TempDir::new("difference");
    let (db, replica, target) = (dir.join("app.db"), dir.join("replica"), dir.join("target.db"));
    replicate(&db, &replica);
    restore(&replica, &dir.join("new.db"), None);
    let new = fs::read(dir.join("new.db")).unwrap();
    assert_eq!(dump_digest(&dir.join("new.db")), dump_digest(&db));
    restore(&replica, &dir.join("old.db"), Some("3"));
    let old = fs::read(dir.join("old.db")).unwrap();
    let size = new.len() as u64;
    let check = |present: &[u8], what: &str| {
        fs::write(&target, present).unwrap();
        let report = over(&target, &replica, &["-json"]).json();
        assert!(fs::read(&target).unwrap() == new, "{what}: it is the newest state, byte by byte");
        assert_eq!(report["proven"], true, "{what}");
        assert_eq!(
            number(&report, "pages_fetched") + number(&report, "pages_kept"),
            number(&report, "pages")
        );
        (number(&report, "bytes_fetched"), number(&report, "pages_kept"))
    };

    fs::write(&target, &old).unwrap();
    let plan = over(&target, &replica, &["-json", "-dry-run"]).json();
    assert!(number(&plan, "fetch_bytes") < size / 20 && plan["at_most"] == false, "{plan}");
    assert!(fs::read(&target).unwrap() == old, "a dry run leaves it");
    let (bytes, kept) = check(&old, "an older state");
    assert!(bytes < size / 20 && kept > 2900, "{bytes} bytes, {kept} pages kept");
    let (bytes, _) = check(&new, "the newest state");
    assert!(bytes < 1000, "{bytes}");

    // Whoever changes the journal mode has written nothing but SQLite's own bytes.
    let mode = dir.join("mode.db");
    fs::write(&mode, &old).unwrap();
    open_wal(&mode).execute_batch("pragma journal_mode = delete").unwrap();
    let changed = fs::read(&mode).unwrap();
    assert!(changed != old);
    let (bytes, kept) = check(&changed, "a changed journal mode");
    assert!(bytes < size / 4 && kept > 2800, "{bytes} bytes, {kept} pages kept");

    // One with transactions of its own.
    open_wal(&mode)
        .execute_batch("insert into t(body) values ('ours'); delete from t where id % 7 = 0")
        .unwrap();
    check(&fs::read(&mode).unwrap(), "written to by another program");

    let other = dir.join("other.db");
    let app = open_wal(&other);
    app.execute_batch("create table u(x); insert into u values (randomblob(3000000))").unwrap();
    drop(app);
    let (_, kept) = check(&fs::read(&other).unwrap(), "another database");
    assert_eq!(kept, 0);
    let app = open_wal(&other);
    app.execute_batch("pragma journal_mode = delete; pragma page_size = 1024; vacuum").unwrap();
    drop(app);
    let (_, kept) = check(&fs::read(&other).unwrap(), "another page size");
    assert_eq!(kept, 0);
    check(&new[..new.len() / 2 + 77], "half of it");
    check(b"not a database", "a text");
    integrity_check(&target);
}

/// A file whose last transactions are in its `-wal` is not the database: nothing is taken from it, and
/// the `-wal` goes with it.
#[test]
fn a_copy_with_a_wal_is_replaced_whole() {
    let dir = TempDir::new("difference-wal");
    let (db, replica, target) = (dir.join("app.db"), dir.join("replica"), dir.join("target.db"));
    replicate(&db, &replica);
    restore(&replica, &target, Some("3"));
    let reader = open_wal(&target);
    reader.execute_batch("update t set body = 'ours' where id < 3").unwrap();
    let wal = dir.join("target.db-wal");
    assert!(fs::metadata(&wal).unwrap().len() > 0);
    let said = over(&target, &replica, &[]).out;
    assert!(said.contains(" pages fetched in ") && !said.contains(" kept of "), "{said}");
    assert!(!wal.exists());
    drop(reader);
    assert_eq!(dump_digest(&target), dump_digest(&db));
    fs::remove_file(&target).unwrap();
    restore(&replica, &target, Some("4"));
    let said = over(&target, &replica, &[]).out;
    assert!(said.contains(" kept of the database that was there"), "{said}");
}
