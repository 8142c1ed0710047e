//! What the service manager is told (sd_notify).

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use driftless_tests::scene::Scene;
use driftless_tests::{Daemon, PATIENCE, TempDir, driftless_command, proc, wait_for};
use rustix::process::Signal;

/// A service manager.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn at(path: &Path) -> Manager {
        Manager::new(UnixDatagram::bind(path).expect("the test's directory"))
    }

    fn hidden(name: &str) -> Manager {
        let address = SocketAddr::from_abstract_name(name).expect("a short name");
        Manager::new(UnixDatagram::bind_addr(&address).expect("nobody else has the name"))
    }

    fn new(socket: UnixDatagram) -> Manager {
        socket.set_nonblocking(true).expect("our own socket");
        Manager { socket, heard: Vec::new() }
    }

    /// Takes what has come, and says which lines there have been in all.
    fn lines(&mut self) -> Vec<String> {
        let mut buffer = [0; 4096];
        while let Ok(n) = self.socket.recv(&mut buffer) {
            self.heard.push(String::from_utf8(buffer[..n].to_vec()).expect("text"));
        }
        self.heard.iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
    }

    #[track_caller]
    fn wait(&mut self, start: &str) -> String {
        wait_for(start, PATIENCE, || self.lines().iter().any(|line| line.starts_with(start)));
        self.lines().into_iter().rfind(|line| line.starts_with(start)).expect("just seen")
    }

    fn count(&mut self, line: &str) -> usize {
        self.lines().iter().filter(|known| *known == line).count()
    }
}

fn start(scene: &Scene, name: &str, more: &[(&str, &str)]) -> Daemon {
    let mut command = driftless_command();
    command.args(["replicate", "-config"]).arg(&scene.config).env("NOTIFY_SOCKET", name);
    command.envs(more.iter().copied());
    Daemon::spawn(&mut command, &scene.dir.join("log"))
}

#[test]
fn it_is_told_of_each_moment() {
    let scene = Scene::fresh("notify");
    let path = scene.dir.join("notify");
    let mut manager = Manager::at(&path);
    let daemon = start(&scene, path.to_str().expect("utf-8"), &[]);
    manager.wait("READY=1");
    manager.wait("STATUS=1 database: 1 following");
    manager.wait("STATUS=1 database: 1 quiet");

    // A reload, with a database more that is not there yet.
    let missing = scene.dir.join("missing.db");
    let text = fs::read_to_string(&scene.config).expect("just written");
    let more = format!("  - path: {}\n    replica: {}-replica\n", missing.display(), missing.display());
    fs::write(&scene.config, text + &more).expect("the test's directory");
    daemon.signal(Signal::HUP);
    manager.wait("RELOADING=1");
    let since_boot: u64 =
        manager.wait("MONOTONIC_USEC=")["MONOTONIC_USEC=".len()..].parse().expect("a number");
    assert!(since_boot > 0);
    wait_for("ready again", PATIENCE, || manager.count("READY=1") == 2);
    let status = manager.wait("STATUS=2 databases: 1 quiet, 1 waiting");
    assert!(status.contains(&format!("{}: the database does not exist", missing.display())), "{status}");

    // Nothing changes, nothing is said, nobody wakes.
    let before = manager.lines().len();
    proc::assert_no_switches(daemon.id(), Duration::from_secs(10));
    assert_eq!(manager.lines().len(), before);

    daemon.signal(Signal::TERM);
    manager.wait("STOPPING=1");
    // The final sync may take a second here, and the rest of the stop five.
    manager.wait("EXTEND_TIMEOUT_USEC=6000000");
    daemon.wait_end(PATIENCE).expect_code(0);
    assert_eq!(manager.count("READY=1"), 2, "{:?}", manager.heard);
}

#[test]
fn a_watchdog_is_fed_twice_in_its_time_over_an_abstract_socket() {
    let scene = Scene::fresh("watchdog");
    let name = format!("driftless-test-{}", std::process::id());
    let mut manager = Manager::hidden(&name);
    let daemon = start(&scene, &format!("@{name}"), &[("WATCHDOG_USEC", "1000000")]);
    manager.wait("READY=1");
    let begun = Instant::now();
    wait_for("nine feeds", PATIENCE, || manager.count("WATCHDOG=1") >= 9);
    assert!(begun.elapsed() >= Duration::from_secs(3), "more often than twice a second");
    daemon.term().expect_code(0);
}

#[test]
fn it_is_not_ready_before_it_knows_and_never_if_it_cannot_be() {
    let dir = TempDir::new("foreign");
    let other = Scene::replicated("other", 1);
    let database = dir.join("app.db");
    driftless_tests::db::open_wal(&database).execute_batch("create table t(x)").expect("a new database");
    let path = dir.join("notify");
    let mut manager = Manager::at(&path);
    let mut command = driftless_command();
    command.arg("replicate").arg(&database).arg(&other.replica).env("NOTIFY_SOCKET", &path);
    Daemon::spawn(&mut command, &dir.join("log")).wait_end(PATIENCE).expect_code(5);
    assert_eq!(manager.count("READY=1"), 0, "{:?}", manager.heard);
}
