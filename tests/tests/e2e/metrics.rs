//! Metrics: what a scrape finds is what the status says and what happened, and nobody can do more with
//! the port than ask.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use driftless_tests::daemon::{self, level0};
use driftless_tests::db::open_wal;
use driftless_tests::scene::Scene;
use driftless_tests::store_faults::Away;
use driftless_tests::{Daemon, PATIENCE, proc, run, wait_for};

/// A replicator with metrics on a port of its own.
struct Served {
    scene: Scene,
    daemon: Daemon,
    address: SocketAddr,
}

impl Served {
    fn new(name: &str) -> Served {
        let scene = Scene::fresh(name);
        let text = fs::read_to_string(&scene.config).expect("just written");
        fs::write(&scene.config, format!("addr: 127.0.0.1:0\n{text}")).expect("the test's directory");
        let mut daemon = Daemon::replicate_with(&scene.db, &["-config".as_ref(), scene.config.as_os_str()]);
        let line = daemon.wait_for_line("serving metrics on http://");
        let address = line.split("http://").nth(1).and_then(|rest| rest.strip_suffix("/metrics"));
        let address = address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        daemon.wait_for_line("replicated txid=");
        Served { scene, daemon, address }
    }

    /// Sends bytes, and returns what comes back: status, head, body.
    fn send(&self, bytes: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("any timeout will do");
        // It may hang up before it has read all of it.
        let _ = stream.write_all(bytes);
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {reply:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_owned(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        (status, body)
    }

    /// The samples of a scrape by name and labels.
    fn scrape(&self) -> BTreeMap<String, f64> {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200);
        let mut kinds = BTreeMap::new();
        let mut samples = BTreeMap::new();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a kind");
                assert_eq!(kinds.insert(name.to_owned(), kind.to_owned()), None, "{name} twice");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').expect("a name and a value");
                let family = name.split('{').next().expect("a name");
                let histogram =
                    ["_bucket", "_sum", "_count"].iter().find_map(|part| family.strip_suffix(part));
                let known = kinds.contains_key(family)
                    || histogram
                        .is_some_and(|family| kinds.get(family).is_some_and(|kind| kind == "histogram"));
                assert!(known, "no type for {line}");
                let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert_eq!(samples.insert(name.to_owned(), value), None, "{name} twice");
            }
        }
        samples
    }

    /// The name of a series of the database.
    fn of_db(&self, name: &str) -> String {
        format!("{name}{{db=\"{}\",replica=\"{}\"}}", self.scene.db.display(), self.scene.replica.display())
    }
}

#[test]
fn a_scrape_says_what_the_status_says_and_what_happened() {
    let served = Served::new("metrics");
    let app = open_wal(&served.scene.db);
    for n in 0..3 {
        let before = level0(&served.scene.replica).len();
        app.execute_batch(&format!("insert into t(x) values ('{n}')")).expect("the application writes");
        wait_for("one more segment", PATIENCE, || level0(&served.scene.replica).len() > before);
    }
    let status = daemon::status(&served.scene.db);
    let samples = served.scrape();
    let value = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("no {name} in {samples:#?}"));
    let of_db = |name: &str| value(&served.of_db(name));
    let txid = u64::from_str_radix(status["replicated_txid"].as_str().expect("replicated"), 16).expect("hex");
    assert_eq!(of_db("driftless_replicated_txid"), txid as f64);
    assert_eq!(txid, *level0(&served.scene.replica).last().expect("a segment"));
    assert_eq!((of_db("driftless_lag_frames"), of_db("driftless_lag_seconds")), (0.0, 0.0));
    assert_eq!(status["lag_frames"], 0);
    assert_eq!((of_db("driftless_well"), of_db("driftless_bases_total")), (1.0, 1.0));
    assert_eq!(of_db("driftless_segments_total"), txid as f64);
    let bytes: u64 =
        (1..=txid).map(|txid| fs::metadata(served.scene.level0(txid)).expect("there").len()).sum();
    assert_eq!(of_db("driftless_segment_bytes_total"), bytes as f64);
    assert!((0.0..60.0).contains(&of_db("driftless_snapshot_age_seconds")));
    assert_eq!(value("driftless_databases{phase=\"following\"}"), 1.0);

    // Litestream's names, with its labels.
    let db = served.scene.db.display();
    let pages = |path: &str| fs::metadata(path).expect("there").len() as f64;
    assert_eq!(value(&format!("litestream_txid{{db=\"{db}\"}}")), txid as f64);
    assert_eq!(value(&format!("litestream_db_size{{db=\"{db}\"}}")), pages(&db.to_string()));
    assert_eq!(value(&format!("litestream_wal_size{{db=\"{db}\"}}")), pages(&format!("{db}-wal")));
    assert!(value(&format!("litestream_total_wal_bytes{{db=\"{db}\"}}")) > 0.0);
    let puts = "{replica_type=\"file\",operation=\"PUT\"}";
    assert_eq!(value(&format!("litestream_replica_operation_total{puts}")), txid as f64);
    assert_eq!(value(&format!("litestream_replica_operation_bytes{puts}")), bytes as f64);
    assert_eq!(value(&format!("litestream_replica_operation_duration_seconds_count{puts}")), txid as f64);
    let ok = "driftless_requests_total{replica_type=\"file\",operation=\"PUT\",outcome=\"ok\"}";
    assert_eq!(value(ok), txid as f64);

    // The process, as the kernel sees it.
    let resident = proc::status_kib(served.daemon.id(), "VmRSS") as f64 * 1024.0;
    let told = value("process_resident_memory_bytes");
    assert!((told - resident).abs() < 4e6, "{told} and {resident}");
    assert!(value("process_open_fds") > 5.0 && value("process_cpu_seconds_total") > 0.0);

    // A store that is away: failures, and a lag that grows.
    assert_eq!(served.get("/healthz"), (200, "ok\n".to_owned()));
    let away = Away::take(&served.scene.replica);
    app.execute_batch("insert into t(x) values ('away')").expect("the application writes");
    wait_for("failed puts", PATIENCE, || {
        let samples = served.scrape();
        let failed = samples.iter().filter(|(name, _)| {
            name.starts_with(
                "litestream_replica_operation_errors_total{replica_type=\"file\",operation=\"PUT\"",
            )
        });
        let lag = samples[&served.of_db("driftless_lag_seconds")];
        failed.map(|(_, count)| count).sum::<f64>() >= 2.0 && lag > 1.0
    });
    let samples = served.scrape();
    assert!(samples[&served.of_db("driftless_lag_frames")] >= 1.0);
    assert!(samples[&format!("litestream_sync_error_count{{db=\"{db}\"}}")] >= 2.0);
    away.bring_back();
    wait_for("no lag", PATIENCE, || served.scrape()[&served.of_db("driftless_lag_seconds")] == 0.0);
    drop(app);
    served.daemon.term().expect_code(0);
}

#[test]
fn there_is_nothing_else_at_the_port() {
    let served = Served::new("port");
    for path in ["/", "/debug/pprof/", "/metrics/x", "/status", "/list"] {
        assert_eq!(served.get(path).0, 404, "{path}");
    }
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 405),
        ("POST /sync HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 404),
        ("hello\r\n\r\n", 400),
    ] {
        assert_eq!(served.send(request.as_bytes()).0, status, "{request}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1 << 16));
    assert_eq!(served.send(long.as_bytes()).0, 431);
    let (status, head, body) = served.send(b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");

    // Connections that say nothing keep nobody waiting for longer than they may.
    let silent: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(served.address).expect("it listens")).collect();
    assert_eq!(served.get("/healthz").0, 200);
    drop(silent);
    served.daemon.term().expect_code(0);
}

#[test]
fn ill_health_is_named() {
    let served = Served::new("ill");
    let text = fs::read_to_string(&served.scene.config).expect("just written");
    let missing = served.scene.dir.join("missing.db");
    let more = format!("  - path: {}\n    replica: {}-replica\n", missing.display(), missing.display());
    fs::write(&served.scene.config, text + &more).expect("the test's directory");
    served.daemon.signal(rustix::process::Signal::HUP);
    let line = format!("{}: waiting\n", missing.display());
    wait_for("an ill database", PATIENCE, || served.get("/healthz") == (503, line.clone()));
    assert_eq!(served.scrape()["driftless_databases_ill"], 1.0);
    served.daemon.term().expect_code(0);
}

#[test]
fn a_taken_address_is_told_of() {
    let served = Served::new("taken");
    let other = Scene::fresh("other");
    let addr = served.address.to_string();
    let ran = run([
        "replicate".as_ref(),
        "-addr".as_ref(),
        addr.as_ref(),
        other.db.as_os_str(),
        other.replica.as_os_str(),
    ]);
    ran.expect_error(2, &["metrics cannot be served at", &addr, "in use"]).expect_hint();
    served.daemon.term().expect_code(0);
}

#[test]
fn nobody_wakes_while_nobody_asks() {
    let served = Served::new("scrape-idle");
    let mut daemon = served.daemon;
    daemon.wait_for("quiet", PATIENCE * 2, |log| log.contains("the database is quiet"));
    proc::assert_no_switches(daemon.id(), Duration::from_secs(10));
    // A scrape wakes no database.
    let served = Served { daemon, ..served };
    for _ in 0..3 {
        assert_eq!(served.scrape()["driftless_databases{phase=\"quiet\"}"], 1.0);
    }
    proc::assert_no_switches(served.daemon.id(), Duration::from_secs(5));
    served.daemon.term().expect_code(0);
}
