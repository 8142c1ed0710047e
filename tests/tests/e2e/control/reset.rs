//! `driftless reset` ends in a whole base that restores alone, and never in a fence.

use std::fs;

use driftless_tests::{daemon, run};

use super::{Place, insert};

fn level0(place: &Place, txid: u64) -> std::path::PathBuf {
    place.dir.join(&format!("ra/ltx/0/{txid:016x}-{txid:016x}.ltx"))
}

/// Damages what came before: only what was written since can restore.
fn damage(place: &Place, txids: std::ops::RangeInclusive<u64>) {
    for txid in txids {
        let path = level0(place, txid);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_running_database_gets_a_base_that_restores_alone() {
    let place = Place::new("reset-running");
    place.configure(&[("a.db", "ra")], "");
    let a = place.database("a.db");
    let mut daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    insert(&a, "second");
    place.ask("sync -wait @a.db").expect_ok();
    let done = place.ask("reset -json @a.db").expect_ok().json();
    assert_eq!(done["status"], "reset");
    daemon.wait_for_line("writing the whole database: the local state was reset");
    place.ask("sync -wait @a.db").expect_ok();
    damage(&place, 1..=2);
    insert(&a, "after the reset");
    place.ask("sync -wait @a.db").expect_ok();
    place.expect_restored("ra", "a.db");
    // Killed before the base is there, it is still due.
    place.ask("stop @a.db").expect_ok();
    place.ask("reset @a.db").expect_ok();
    assert_eq!(place.listed()[0].1, "stopped", "one that rests goes on resting");
    daemon.kill9();
    let bases = daemon::level0(&place.dir.join("ra")).len() as u64;
    let daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    damage(&place, 3..=bases);
    place.expect_restored("ra", "a.db");
    daemon.term().expect_code(0);
}

#[test]
fn without_a_process_the_files_are_reset() {
    let place = Place::new("reset-files");
    place.configure(&[("a.db", "ra")], "");
    let a = place.database("a.db");
    let config = place.config.display().to_string();
    let database = place.dir.join("a.db").display().to_string();
    let reset = |flags: &[&str]| {
        let words = ["reset", "-config", &config, "-json"].into_iter().chain(flags.iter().copied());
        run(words.chain([database.as_str()])).expect_ok().json()["status"].clone()
    };
    assert_eq!(reset(&[]), "nothing_to_reset");
    assert!(!place.dir.join("state").exists(), "to look is not to make one");
    let once = || run(["replicate", "-once", "-config", &config]).expect_ok();
    once();
    insert(&a, "second");
    once();
    assert_eq!(reset(&["-dry-run"]), "would_reset");
    assert_eq!(reset(&[]), "reset");
    assert_eq!(reset(&[]), "reset");
    insert(&a, "third");
    once();
    damage(&place, 1..=2);
    place.expect_restored("ra", "a.db");
    assert_eq!(daemon::level0(&place.dir.join("ra")), [1, 2, 3]);
    // What the base was for is done: the next is small.
    insert(&a, "fourth");
    let log = once().err;
    assert!(!log.contains("writing the whole database"), "{log}");
}
