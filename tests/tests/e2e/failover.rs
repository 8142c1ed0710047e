//! Two hosts: the writer is struck, and the other takes over (`docs/FAILOVER.md`). More rounds by
//! `cargo run --release -p driftless-tests --bin failover`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use driftless_tests::db::{open_to_read, open_wal};
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
    let mut pair = Pair::start("failover-s3", ways(moto.address(), |way| Remote::s3(&bucket, way)), 0);
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
    let mut pair = Pair::start("failover-azure", ways, 0);
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

/// Hosts with the databases `a.db` and `b.db`, each reaching the store by a way of its own.
struct Several {
    dirs: Vec<TempDir>,
    proxies: Vec<Proxy>,
    places: Vec<Remote>,
}

impl Several {
    fn hosts(count: usize, name: &str, moto: &Moto) -> Several {
        let bucket = moto.bucket(name);
        let proxies: Vec<Proxy> = (0..count).map(|_| Proxy::start(moto.address())).collect();
        let places = proxies.iter().map(|proxy| Remote::s3(&bucket, proxy.address())).collect();
        Several { dirs: (0..count).map(|n| TempDir::new(&format!("{name}-{n}"))).collect(), proxies, places }
    }

    fn database(&self, host: usize, name: &str) -> PathBuf {
        self.dirs[host].join(name)
    }

    /// The URL of something at the place, as this host reaches it.
    fn url(&self, host: usize, name: &str) -> String {
        let url = self.places[host].url();
        let (path, options) = url.split_once('?').expect("an endpoint is one");
        format!("{path}/{name}?{options}")
    }

    fn start(&self, host: usize, command: &str) -> Daemon {
        let one = |name: &str| {
            let database = self.database(host, name).display().to_string();
            format!("  - path: {database}\n    replica:\n      url: '{}'\n", self.url(host, name))
        };
        self.start_with(host, command, &(one("a.db") + &one("b.db")))
    }

    /// The same of what is under `dbs` in the configuration.
    fn start_with(&self, host: usize, command: &str, databases: &str) -> Daemon {
        let config = self.dirs[host].join("driftless.yml");
        let lease = self.url(host, "lease");
        fs::write(&config, format!("lease: {{ttl: 2s, url: '{lease}'}}\ndbs:\n{databases}")).unwrap();
        let mut driftless = driftless_command();
        self.places[host].equip(&mut driftless).args([command, "-config"]).arg(&config);
        Daemon::spawn(&mut driftless, &config.with_extension("log"))
    }

    /// How many rows a database of a host has, as far as it can be read.
    fn rows(&self, host: usize, name: &str) -> Option<i64> {
        let db = self.database(host, name);
        let db = db.exists().then(|| open_to_read(&db))?;
        db.query_row("select count(*) from t", [], |row| row.get(0)).ok()
    }
}

#[test]
fn databases_fail_over_as_one_and_a_standby_looks_where_something_was_put() {
    let _alone = alone();
    let moto = Moto::start();
    let hosts = Several::hosts(2, "failover-several", &moto);
    let apps = ["a.db", "b.db"].map(|name| open_wal(&hosts.database(0, name)));
    apps.iter().for_each(|app| app.execute_batch("create table t(x); insert into t values (1)").unwrap());
    let mut writer = hosts.start(0, "replicate");
    writer.wait_for_line("this process is the primary");
    let mut standby = hosts.start(1, "standby");
    standby.wait_until("both are copied", PATIENCE, || {
        ["a.db", "b.db"].iter().all(|name| hosts.rows(1, name) == Some(1))
    });
    // What the lease says of the first puts is over, and with it what a look that had failed would repeat.
    thread::sleep(Duration::from_secs(3));
    let mark = hosts.proxies[1].mark();
    for _ in 0..3 {
        apps[0].execute_batch("insert into t values (2)").unwrap();
        let rows = hosts.rows(0, "a.db");
        standby.wait_until("the row is copied", PATIENCE, || hosts.rows(1, "a.db") == rows);
    }
    let asked = hosts.proxies[1].since(mark);
    let of = |name: &str| asked.iter().filter(|record| format!("{record:?}").contains(name)).count();
    assert!(of("a.db") >= 3, "{asked:?}");
    assert_eq!(of("b.db"), 0, "nothing was put there: {asked:?}");

    apps[1].execute_batch("insert into t values (2)").unwrap();
    standby.wait_until("the row is copied", PATIENCE, || hosts.rows(1, "b.db") == Some(2));
    writer.kill9();
    standby.wait_for_line("this process is the primary");
    assert_eq!((hosts.rows(1, "a.db"), hosts.rows(1, "b.db")), (Some(4), Some(2)));
    standby.term();
}

/// One that took the lease and could not begin would keep the other from it.
#[test]
fn a_standby_whose_copy_is_locked_leaves_the_lease_to_another() {
    let _alone = alone();
    let moto = Moto::start();
    let hosts = Several::hosts(3, "failover-locked", &moto);
    let apps = ["a.db", "b.db"].map(|name| open_wal(&hosts.database(0, name)));
    apps.iter().for_each(|app| app.execute_batch("create table t(x); insert into t values (1)").unwrap());
    let mut writer = hosts.start(0, "replicate");
    writer.wait_for_line("this process is the primary");
    let mut locked = hosts.start(1, "standby");
    let is_copied = |host: usize, rows| ["a.db", "b.db"].iter().all(|name| hosts.rows(host, name) == rows);
    locked.wait_until("both are copied", PATIENCE, || is_copied(1, Some(1)));
    let reader = open_wal(&hosts.database(1, "b.db"));
    reader.execute_batch("begin immediate").unwrap();
    apps.iter().for_each(|app| app.execute_batch("insert into t values (2)").unwrap());
    locked.wait_for_line("a copy cannot be written");
    let mut free = hosts.start(2, "standby");
    free.wait_until("both are copied", PATIENCE, || is_copied(2, Some(2)));
    writer.kill9();
    free.wait_for_line("this process is the primary");
    assert!(!locked.log().contains("this process holds the lease"), "{}", locked.log());

    // Once it is let go of, it follows, and is as good as any other.
    reader.execute_batch("rollback").unwrap();
    drop(reader);
    locked.wait_until("the copy goes on", PATIENCE, || is_copied(1, Some(2)));
    free.kill9();
    locked.wait_for_line("this process is the primary");
    locked.term();
}

/// Databases of a directory come while their host is the primary, on either side of a failover.
#[test]
fn a_directory_fails_over_with_what_came_into_it() {
    let _alone = alone();
    let moto = Moto::start();
    let hosts = Several::hosts(2, "failover-directory", &moto);
    let start = |host: usize, command| {
        let (root, url) = (hosts.database(host, "data"), hosts.url(host, "tenants"));
        fs::create_dir_all(&root).unwrap();
        let root = root.display();
        let rules = "pattern: '*.db'\n    recursive: true\n    watch: true";
        hosts.start_with(
            host,
            command,
            &format!("  - dir: {root}\n    {rules}\n    replica:\n      url: '{url}'\n"),
        )
    };
    let make = |host: usize, name: &str| {
        let path = hosts.database(host, name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let app = open_wal(&path);
        app.execute_batch("create table t(x); insert into t values (1)").unwrap();
        app
    };
    let first = ["data/a.db", "data/below/b.db"];
    let apps = first.map(|name| make(0, name));
    let mut writer = start(0, "replicate");
    writer.wait_for_line("this process is the primary");
    let mut standby = start(1, "standby");
    standby.wait_until("they are copied", PATIENCE, || first.iter().all(|it| hosts.rows(1, it) == Some(1)));
    let _later = make(0, "data/later/c.db");
    standby.wait_until("it is found", PATIENCE, || hosts.rows(1, "data/later/c.db") == Some(1));
    let asked = hosts.proxies[1].mark();
    apps[1].execute_batch("insert into t values (2)").unwrap();
    standby.wait_until("it is followed", PATIENCE, || hosts.rows(1, first[1]) == Some(2));
    let config = hosts.dirs[1].join("driftless.yml");
    let shown =
        hosts.places[1].equip(&mut driftless_command()).args(["lease", "-config"]).arg(config).output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    let active: Vec<&str> = shown.lines().filter(|line| line.contains("active:")).collect();
    assert!(active.len() == 3 && active[0].ends_with(first[1]), "{shown}");
    let asked = hosts.proxies[1].since(asked);
    assert!(asked.iter().all(|record| !format!("{record:?}").contains("a.db")), "{asked:?}");

    writer.kill9();
    standby.wait_for_line("this process is the primary");
    let all = ["data/a.db", "data/below/b.db", "data/later/c.db"];
    assert_eq!(all.map(|name| hosts.rows(1, name)), [Some(1), Some(2), Some(1)]);
    let goes_on = open_wal(&hosts.database(1, all[2]));
    goes_on.execute_batch("insert into t values (2)").unwrap();
    let _new = make(1, "data/new/d.db");
    let mut returned = start(0, "standby");
    returned.wait_until("it follows the other", PATIENCE, || {
        hosts.rows(0, all[2]) == Some(2) && hosts.rows(0, "data/new/d.db") == Some(1)
    });
    assert!(!returned.log().contains("what was not replicated is kept"), "{}", returned.log());
    standby.kill9();
    returned.wait_for_line("this process is the primary");
    returned.term();
}
