//! Two hosts: the writer is struck, and the other takes over (`docs/FAILOVER.md`). More rounds by
//! `cargo run --release -p driftless-tests --bin failover`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use driftless_tests::db::open_wal;
use driftless_tests::failover::{Blow, Pair, ways};
use driftless_tests::place::{Place, Remote};
use driftless_tests::proxy::Proxy;
use driftless_tests::servers::{Moto, Rclone, Webdav, azurite};
use driftless_tests::{Daemon, PATIENCE, TempDir, driftless_command};

/// One at a time, and on a server of its own: two hosts that renew and follow leave others little of a small
/// machine, and are asked to be in time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_standby_takes_over_on_s3() {
    let _alone = alone();
    let moto = Moto::start();
    let bucket = moto.bucket("failover");
    let mut pair = Pair::start("failover-s3", ways(moto.address(), |way| Remote::s3(&bucket, way)));
    for blow in Blow::ALL {
        pair.round(blow);
    }
    pair.end();
}

#[test]
fn a_standby_takes_over_on_azure() {
    let _alone = alone();
    let container = azurite().container("failover");
    let ways = ways(azurite().address(), |way| Remote::azure(&container, way));
    let mut pair = Pair::start("failover-azure", ways);
    for blow in [Blow::Kill, Blow::Handoff] {
        pair.round(blow);
    }
    pair.end();
}

/// A configuration of one database on one place with a lease.
fn config(dir: &TempDir, place: &dyn Place, more: &str) -> PathBuf {
    let config = dir.join("driftless.yml");
    let keys: String =
        place.litestream_keys().iter().map(|(name, value)| format!("      {name}: {value}\n")).collect();
    let database = dir.join("app.db").display().to_string();
    let text = format!("lease: {{ttl: 2s{more}}}\ndbs:\n  - path: {database}\n    replica:\n{keys}");
    fs::write(&config, text).unwrap();
    config
}

fn replicate(place: &dyn Place, config: &Path) -> Daemon {
    let mut command = driftless_command();
    place.equip(&mut command).args(["replicate", "-config"]).arg(config);
    Daemon::spawn(&mut command, &config.with_extension("log"))
}

/// The application runs by itself: what it would commit is refused until somebody has ended it.
#[test]
fn a_writer_without_the_lease_keeps_others_from_committing() {
    let _alone = alone();
    let moto = Moto::start();
    let bucket = moto.bucket("failover-lock");
    let proxy = Proxy::start(moto.address());
    let place = Remote::s3(&bucket, proxy.address());
    let dir = TempDir::new("failover-lock");
    let config = config(&dir, &place, "");
    let app = open_wal(&dir.join("app.db"));
    app.execute_batch("create table t(x); insert into t values (1)").unwrap();
    let mut daemon = replicate(&place, &config);
    daemon.wait_for_line("this process is the primary");
    app.execute_batch("insert into t values (2)").unwrap();
    proxy.refuse(None);
    daemon.wait_for_line("the write lock is held");
    let refused = app.execute_batch("insert into t values (3)").unwrap_err();
    assert!(refused.to_string().contains("locked"), "{refused}");
    daemon.term().expect_code(5);
    app.execute_batch("insert into t values (4)").unwrap();

    // With a hook that ends the application nothing is held.
    proxy.heal();
    let told = dir.join("demoted");
    let hook = format!(", demote: \"sh -c 'printenv DRIFTLESS_EVENT DRIFTLESS_EPOCH > {}'\"", told.display());
    let config = self::config(&dir, &place, &hook);
    let mut daemon = replicate(&place, &config);
    daemon.wait_for_line("this process is the primary");
    proxy.refuse(None);
    daemon.wait_end(PATIENCE).expect_code(5);
    assert_eq!(fs::read_to_string(told).unwrap(), "demote\n2\n");
    app.execute_batch("insert into t values (5)").unwrap();

    // At an orderly end as well, before the lease is given up.
    proxy.heal();
    fs::remove_file(dir.join("demoted")).unwrap();
    let mut daemon = replicate(&place, &config);
    daemon.wait_for_line("this process is the primary");
    let ended = daemon.term().expect_code(0);
    assert!(ended.log.contains("the lease was given up"), "{}", ended.log);
    assert_eq!(fs::read_to_string(dir.join("demoted")).unwrap(), "demote\n3\n");
}

#[test]
fn a_store_that_cannot_hold_a_lease_is_refused() {
    let dir = TempDir::new("failover-refused");
    let rclone = Rclone::start();
    let ignores = Remote::s3(&rclone.bucket("failover"), rclone.address());
    let ended = replicate(&ignores, &config(&dir, &ignores, "")).wait_end(PATIENCE).expect_code(2);
    assert!(
        ended.log.contains("does not keep what a lease needs: create-if-absent ignored"),
        "{}",
        ended.log
    );

    let webdav = Webdav::start();
    let address = webdav.address();
    let place = Remote::webdav(webdav, address);
    let ended = replicate(&place, &config(&dir, &place, "")).wait_end(PATIENCE).expect_code(2);
    assert!(ended.log.contains("cannot hold a lease"), "{}", ended.log);

    let place = dir.join("replica");
    let ended = replicate(&place, &config(&dir, &place, "")).wait_end(PATIENCE).expect_code(2);
    assert!(ended.log.contains("a directory cannot hold a lease"), "{}", ended.log);
}

/// A primary that was killed and is started again goes on at once, and asks nothing for its database while
/// nothing happens.
#[test]
fn a_restart_goes_on_and_an_idle_pair_costs_its_renewals() {
    let _alone = alone();
    let moto = Moto::start();
    let bucket = moto.bucket("failover-idle");
    let dirs = [TempDir::new("failover-idle-a"), TempDir::new("failover-idle-b")];
    let proxies = [(); 2].map(|()| Proxy::start(moto.address()));
    let places = [0, 1].map(|n: usize| Remote::s3(&bucket, proxies[n].address()));
    let app = open_wal(&dirs[0].join("app.db"));
    app.execute_batch("create table t(x); insert into t values (1)").unwrap();
    let configs = [0, 1].map(|n: usize| config(&dirs[n], &places[n], ""));
    let mut writer = replicate(&places[0], &configs[0]);
    writer.wait_for_line("this process is the primary");
    app.execute_batch("insert into t values (2)").unwrap();
    writer.wait_for_line("replicated txid=0000000000000002");
    writer.kill9();
    let mut writer = replicate(&places[0], &configs[0]);
    writer.wait_for_line("this process is the primary");
    assert!(!writer.log().contains("standing by"), "it waited for its own lease to end: {}", writer.log());

    let mut standby = driftless_command();
    places[1].equip(&mut standby).args(["standby", "-config"]).arg(&configs[1]);
    let mut standby = Daemon::spawn(&mut standby, &configs[1].with_extension("log"));
    standby.wait_for_line("following the database");
    // The database comes to rest, and whoever waits learns when the lease is renewed.
    thread::sleep(Duration::from_secs(20));
    let marks = [proxies[0].mark(), proxies[1].mark()];
    thread::sleep(Duration::from_secs(10));
    let counts = [0, 1].map(|n: usize| proxies[n].since(marks[n]));
    for asked in &counts {
        assert!(asked.iter().all(|record| record.path.contains(".driftless/lease")), "{asked:?}");
    }
    // 15 renewals, each of one request, and a look each; one look in some twenty comes before its renewal, and
    // again soon after.
    assert!((4..=16).contains(&counts[0].len()), "{} of the writer", counts[0].len());
    assert!((4..=18).contains(&counts[1].len()), "{} of the standby", counts[1].len());
    standby.term().expect_code(0);
    writer.term().expect_code(0);
}
