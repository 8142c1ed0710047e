//! The final sync beside a store that comes back late.

use std::fs;
use std::time::{Duration, Instant};

use driftless_tests::db::open_wal;
use driftless_tests::scene::Scene;
use driftless_tests::store_faults::Away;
use driftless_tests::{Daemon, PATIENCE, dump_digest};
use rustix::process::Signal;

#[test]
fn a_store_that_comes_back_in_time_gets_everything() {
    let scene = Scene::fresh("late-store");
    let text = fs::read_to_string(&scene.config).expect("just written");
    let text = text
        .replace("shutdown-sync-timeout: 1s", "shutdown-sync-timeout: 60s\nshutdown-sync-interval: 200ms");
    fs::write(&scene.config, text).expect("the test's directory");
    let mut daemon = Daemon::replicate_with(&scene.db, &["-config".as_ref(), scene.config.as_os_str()]);
    daemon.wait_for_line("replicated txid=");
    let away = Away::take(&scene.replica);
    let app = open_wal(&scene.db);
    app.execute_batch("insert into t(x) values ('late')").expect("the application writes");
    // The waits between two tries have grown long by now.
    let long = |log: &str| log.matches("writing to the replica failed").count() >= 6;
    daemon.wait_for("six tries", PATIENCE, long);
    let tries = daemon.log().matches("writing to the replica failed").count();
    daemon.signal(Signal::TERM);
    daemon.wait_for("ten more tries", PATIENCE / 3, |log| {
        log.matches("writing to the replica failed").count() >= tries + 10
    });
    assert!(daemon.is_running());
    away.bring_back();
    let back = Instant::now();
    daemon.wait_end(PATIENCE).expect_code(0);
    assert!(back.elapsed() < Duration::from_secs(3), "it took {:?}", back.elapsed());
    drop(app);
    let copy = scene.dir.join("copy.db");
    driftless_tests::command::restore(&scene.replica, &copy, None);
    assert_eq!(dump_digest(&copy), dump_digest(&scene.db));
}
