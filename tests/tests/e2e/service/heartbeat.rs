//! The heartbeat: while all is well, and only then.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use driftless_tests::scene::Scene;
use driftless_tests::{Daemon, PATIENCE, proc, wait_for};

/// A monitor: the heads of the requests that it got, with when they came. It never ends.
struct Monitor {
    url: String,
    got: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Monitor {
    fn new(answer: &'static str) -> Monitor {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/ping/secret", listener.local_addr().expect("bound"));
        let got = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&got);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("readable") == 1 {
                    head.push(byte[0]);
                }
                kept.lock()
                    .expect("no holder panics")
                    .push((Instant::now(), String::from_utf8(head).expect("text")));
                let reply = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(reply.as_bytes()).expect("writable");
            }
        });
        Monitor { url, got }
    }

    fn got(&self) -> Vec<(Instant, String)> {
        self.got.lock().expect("no holder panics").clone()
    }
}

/// Replicates a scene's database, and `more` if given, with a heartbeat each minute.
fn start(scene: &Scene, more: Option<&Path>, monitor: &Monitor) -> Daemon {
    let mut text = format!(
        "heartbeat-url: {}\nheartbeat-interval: 1m\ndbs:\n  - path: {}\n    replica: {}\n",
        monitor.url,
        scene.db.display(),
        scene.replica.display()
    );
    if let Some(more) = more {
        text.push_str(&format!("  - path: {}\n    replica: {}-replica\n", more.display(), more.display()));
    }
    fs::write(&scene.config, text).expect("the test's directory");
    Daemon::replicate_with(&scene.db, &["-config".as_ref(), scene.config.as_os_str()])
}

#[test]
fn it_beats_while_every_database_is_well() {
    let (well, ill, refused) = (Scene::fresh("well"), Scene::fresh("ill"), Scene::fresh("refused"));
    let monitors = [Monitor::new("200 OK"), Monitor::new("200 OK"), Monitor::new("500 No")];
    let begun = Instant::now();
    let missing = ill.dir.join("missing.db");
    let first = start(&well, None, &monitors[0]);
    let second = start(&ill, Some(&missing), &monitors[1]);
    let mut third = start(&refused, None, &monitors[2]);

    wait_for("a first beat", PATIENCE, || !monitors[0].got().is_empty());
    assert!(begun.elapsed() >= Duration::from_secs(15), "a service that keeps dying would beat as well");
    let (_, head) = monitors[0].got().remove(0);
    assert!(head.starts_with("GET /ping/secret HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("user-agent: driftless/"), "{head}");
    // Between the beats nobody wakes.
    proc::assert_no_switches(first.id(), Duration::from_secs(10));
    wait_for("a second beat of an idle process", Duration::from_secs(90), || monitors[0].got().len() > 1);
    let got = monitors[0].got();
    let apart = got[1].0 - got[0].0;
    assert!(apart >= Duration::from_secs(59) && apart < Duration::from_secs(75), "{apart:?}");

    assert_eq!(monitors[1].got().len(), 0, "a database that nobody replicates is not well");
    driftless_tests::db::open_wal(&missing).execute_batch("create table t(x)").expect("a new database");
    wait_for("a beat once it is there", PATIENCE, || !monitors[1].got().is_empty());

    // A monitor that refuses is asked again soon, and its secret is not told.
    assert!(monitors[2].got().len() > 2, "{}", third.log());
    let line = third.wait_for_line("no heartbeat");
    assert!(line.contains("the answer is 500"), "{line}");
    for daemon in [first, second, third] {
        let log = daemon.term().expect_code(0).log;
        assert!(!log.contains("secret"), "{log}");
    }
}
