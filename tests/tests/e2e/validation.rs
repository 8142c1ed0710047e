//! Validations beside the replication: they tell of damage within an interval and of its end, and of nothing
//! that retention and compaction take away meanwhile.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use driftless_tests::daemon::{level0, ltx_files, told};
use driftless_tests::db::open_wal;
use driftless_tests::store_faults::Away;
use driftless_tests::{Daemon, PATIENCE, TempDir, poll, run};
use rusqlite::Connection;
use serde_json::Value;

/// A database that is replicated, with its metrics at a port.
struct Scene {
    dir: TempDir,
    db: PathBuf,
    replica: PathBuf,
    config: PathBuf,
    daemon: Daemon,
    metrics: SocketAddr,
    app: Connection,
}

impl Scene {
    fn new(name: &str, keys: &str) -> Scene {
        let dir = TempDir::new(name);
        let (db, replica, config) = (dir.join("app.db"), dir.join("replica"), dir.join("driftless.yml"));
        let text = format!(
            "addr: 127.0.0.1:0\n{keys}dbs: [{{path: {}, replica: {{path: {}, sync-interval: 50ms}}}}]\n",
            db.display(),
            replica.display()
        );
        fs::write(&config, text).expect("our own directory");
        let app = open_wal(&db);
        app.execute_batch("create table t(n integer primary key, pad blob)").expect("a fresh database");
        let mut daemon = Daemon::replicate_at(&db, &replica, &config);
        let line = daemon.wait_for_line("serving metrics on http://");
        let address = line.split("http://").nth(1).and_then(|rest| rest.strip_suffix("/metrics"));
        let metrics = address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        daemon.wait_for_line("replicated txid=");
        Scene { dir, db, replica, config, daemon, metrics, app }
    }

    /// So many transactions, each a segment of its own.
    fn write(&self, count: usize) {
        for _ in 0..count {
            self.app.execute("insert into t(pad) values (randomblob(700))", []).expect("it writes");
            thread::sleep(Duration::from_millis(60));
        }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.metrics).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("any timeout will do");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        reply
    }

    /// The value of a series of the database, by name and result.
    fn metric(&self, name: &str, result: Option<&str>) -> Option<f64> {
        let text = self.get("/metrics");
        let of = |line: &&str| {
            line.starts_with(&format!("{name}{{"))
                && result.is_none_or(|result| line.contains(&format!("result=\"{result}\"")))
        };
        text.lines().find(of).and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
    }

    fn validations(&self, result: &str) -> u64 {
        self.metric("driftless_validations_total", Some(result)).unwrap_or(0.0) as u64
    }

    /// Waits for so many more validations of this kind.
    fn wait_for_more(&mut self, result: &str, more: u64) {
        let before = self.validations(result);
        let done = poll(PATIENCE, || (self.validations(result) >= before + more).then_some(()));
        assert!(done.is_some(), "no validation is {result}:\n{}", self.daemon.log());
    }

    /// What the process says of the validation over its socket.
    fn told(&self) -> Value {
        told(&self.dir.join(".app.db-driftless"))["databases"][0]["validation"].clone()
    }

    fn check(&self) -> driftless_tests::Ran {
        run(["check".as_ref(), "-config".as_ref(), self.config.as_os_str()])
    }
}

#[test]
fn damage_is_told_of_within_an_interval_and_is_over_once_it_is_mended() {
    let mut scene = Scene::new("validation", "validation: {interval: 1s}\n");
    scene.write(5);
    scene.wait_for_more("sound", 2);
    let told = scene.told();
    assert_eq!(
        (&told["result"], &told["faults_count"], &told["error"]),
        (&Value::from("sound"), &Value::from(0), &Value::Null)
    );
    assert!(told["objects"].as_u64() >= Some(1) && told["at"].is_string(), "{told}");
    assert_eq!(scene.metric("driftless_validation_failed", None), Some(0.0));
    assert!(scene.metric("driftless_last_validation_timestamp_seconds", None) > Some(1e9));
    scene.check().expect_ok();

    // A byte of a segment that everything rests on.
    let victim = scene.replica.join("ltx/0/0000000000000001-0000000000000001.ltx");
    let sound = fs::read(&victim).expect("it is there");
    let mut damaged = sound.clone();
    damaged[150] ^= 1;
    fs::write(&victim, damaged).expect("our own directory");
    scene.wait_for_more("faulty", 1);
    let name = "0/0000000000000001-0000000000000001.ltx: ";
    let line = scene.daemon.wait_for_line(name);
    assert!(line.contains("ERROR") && line.contains("run driftless verify"), "{line}");
    assert_eq!(scene.metric("driftless_validation_failed", None), Some(1.0));
    assert!(scene.get("/healthz").contains(": damaged\n"), "{}", scene.get("/healthz"));
    let told = scene.told();
    assert_eq!(told["result"], "faulty");
    assert!(told["faults"][0].as_str().is_some_and(|fault| fault.starts_with(name)), "{told}");
    let checked = scene.check().expect_code(4);
    assert!(checked.out.contains("its replica is damaged") && checked.out.contains(name), "{checked:?}");
    let status = driftless_tests::daemon::status(&scene.db);
    assert_eq!(status["status"], "error");
    assert!(status["damage"].as_str().is_some_and(|fault| fault.starts_with(name)), "{status}");

    // Replication goes on meanwhile.
    let before = level0(&scene.replica).len();
    scene.write(3);
    assert!(level0(&scene.replica).len() > before);

    fs::write(&victim, sound).expect("our own directory");
    scene.wait_for_more("sound", 1);
    assert_eq!(scene.metric("driftless_validation_failed", None), Some(0.0));
    assert_eq!(scene.metric("driftless_well", None), Some(1.0));
    scene.check().expect_ok();
    scene.daemon.term().expect_code(0);
}

#[test]
fn retention_and_compaction_beside_it_are_no_fault() {
    let keys = "validation: {interval: 1s}\nlevels: [{interval: 1s}, {interval: 2s}]\n\
                snapshot: {interval: 2s, retention: 2s}\nl0-retention: 1s\n";
    let scene = Scene::new("validation-beside", keys);
    let gone = |scene: &Scene| ltx_files(&scene.replica, 0).first().is_some_and(|(min, _)| *min > 1);
    for _ in 0..40 {
        scene.write(10);
        if gone(&scene) && scene.validations("sound") >= 8 {
            break;
        }
    }
    assert!(gone(&scene), "nothing was deleted:\n{}", scene.daemon.log());
    assert!(scene.validations("sound") >= 8, "{}", scene.daemon.log());
    assert_eq!((scene.validations("faulty"), scene.validations("undone")), (0, 0), "{}", scene.daemon.log());
    let ended = scene.daemon.term().expect_code(0);
    assert!(!ended.log.contains(" ERROR ") && !ended.log.contains(" WARN "), "{}", ended.log);
}

#[test]
fn a_replica_that_lost_its_end_or_everything_is_told_of() {
    let mut scene = Scene::new("validation-lost", "validation-interval: 1s\n");
    scene.write(3);
    scene.wait_for_more("sound", 1);
    // The newest segment goes, with all that tells of it.
    let last = *level0(&scene.replica).last().expect("a segment");
    let victim = scene.replica.join(format!("ltx/0/{last:016x}-{last:016x}.ltx"));
    let away = scene.dir.join("away.ltx");
    fs::rename(&victim, &away).expect("our own directory");
    scene.wait_for_more("faulty", 1);
    let line = scene.daemon.wait_for_line("the replica ends with transaction");
    assert!(line.contains(&format!("everything up to {last:016x} was stored there")), "{line}");
    fs::rename(&away, &victim).expect("our own directory");
    scene.wait_for_more("sound", 1);

    // And then everything, as when a disk is unmounted or a bucket emptied.
    let replica = Away::take(&scene.replica);
    scene.wait_for_more("faulty", 1);
    scene.daemon.wait_for_line("the replica is empty, and everything up to");
    replica.bring_back();
    scene.wait_for_more("sound", 1);
    scene.daemon.term().expect_code(0);
}

#[test]
fn without_an_interval_nothing_is_asked() {
    for keys in ["", "validation: {interval: 0}\n"] {
        let scene = Scene::new("validation-off", keys);
        scene.write(3);
        thread::sleep(Duration::from_secs(3));
        assert_eq!(scene.told(), Value::Null);
        let metrics = scene.get("/metrics");
        for family in ["driftless_validations_total", "driftless_validation_failed"] {
            assert!(!metrics.contains(&format!("{family}{{")), "{metrics}");
        }
        // Nothing is listed or read of the replica once it is followed.
        let gets = |text: &str| {
            let of = |line: &&str| line.contains("_total{") && line.contains("operation=\"GET\"");
            text.lines()
                .filter(of)
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum::<f64>()
        };
        assert_eq!(gets(&metrics), 0.0, "{metrics}");
        scene.daemon.term().expect_code(0);
    }
}
