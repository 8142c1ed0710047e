//! A running process is asked, and its databases come and go.

mod commands;
mod hostile;
mod litestream;
mod registrations;
mod reload;
mod reset;
mod waits;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_tests::command::{Ran, run};
use driftless_tests::db::open_wal;
use driftless_tests::{Daemon, PATIENCE, TempDir, content_lines, wait_for};
use rusqlite::Connection;
use serde_json::Value;

/// A directory with a configuration, and the process that runs by it.
struct Place {
    dir: TempDir,
    config: PathBuf,
    socket: PathBuf,
}

impl Place {
    /// Names what is to be there.
    fn new(name: &str) -> Place {
        let dir = TempDir::new(name);
        let (config, socket) = (dir.join("driftless.yml"), dir.join("control.sock"));
        Place { dir, config, socket }
    }

    /// Writes the configuration: a control socket, a state directory, databases with their
    /// replicas, and further lines.
    fn configure(&self, databases: &[(&str, &str)], lines: &str) {
        let (socket, state) = (self.socket.display(), self.dir.join("state"));
        let mut text = format!(
            "socket:\n  enabled: true\n  path: {socket}\nstate-dir: {}\nshutdown-sync-timeout: 5s\n{lines}\ndbs:\n",
            state.display()
        );
        for (database, replica) in databases {
            let (database, replica) = (self.dir.join(database), self.dir.join(replica));
            text.push_str(&format!("  - path: {}\n    replica: {}\n", database.display(), replica.display()));
        }
        fs::write(&self.config, text).unwrap();
    }

    /// Starts the process and waits until it can be asked.
    fn start(&self) -> Daemon {
        let _ = fs::remove_file(&self.socket);
        let args = ["-log-level".as_ref(), "debug".as_ref(), "-config".as_ref(), self.config.as_os_str()];
        let mut daemon = Daemon::replicate_with(&self.dir.join("process"), &args);
        daemon.wait_until("a control socket", PATIENCE, || UnixStream::connect(&self.socket).is_ok());
        daemon
    }

    /// A database in WAL mode with one row, and a connection to it.
    fn database(&self, name: &str) -> Connection {
        let connection = open_wal(&self.dir.join(name));
        connection
            .execute_batch(
                "create table if not exists t(id integer primary key, x); insert into t(x) values ('first')",
            )
            .unwrap();
        connection
    }

    /// Runs a command against the socket. Names of files in the directory begin with `@`.
    #[track_caller]
    fn ask(&self, line: &str) -> Ran {
        run(self.words(line))
    }

    fn words(&self, line: &str) -> Vec<String> {
        let mut words = line.split_whitespace();
        let command = words.next().expect("a command").to_owned();
        let socket = ["-socket".to_owned(), self.socket.display().to_string()];
        let rest = words.map(|word| match word.strip_prefix('@') {
            Some(name) => self.dir.join(name).display().to_string(),
            None => word.to_owned(),
        });
        [command].into_iter().chain(socket).chain(rest).collect()
    }

    /// The databases that the process lists, by file name, with their states.
    #[track_caller]
    fn listed(&self) -> Vec<(String, String)> {
        let reply = self.ask("list -json").expect_ok().json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let name = |value: &Value| {
            Path::new(&text(value)).file_name().expect("a file").to_string_lossy().into_owned()
        };
        let databases = reply["databases"].as_array().expect("a list");
        databases.iter().map(|one| (name(&one["path"]), text(&one["status"]))).collect()
    }

    /// What the process says of itself and of each database.
    #[track_caller]
    fn status(&self) -> Value {
        let reply = exchange(&self.socket, b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n");
        let (_, body) = reply.split_once("\r\n\r\n").expect("an HTTP response");
        serde_json::from_str(body).expect("JSON")
    }

    /// Restores a replica, which must hold what the database holds.
    #[track_caller]
    fn expect_restored(&self, replica: &str, database: &str) {
        let copy = self.dir.join("copy.db");
        let _ = fs::remove_file(&copy);
        let replica = self.dir.join(replica);
        run(["restore".as_ref(), "-o".as_ref(), copy.as_os_str(), replica.as_os_str()]).expect_ok();
        let rows = |path: &Path| content_lines(path, "select * from t order by id");
        assert_eq!(rows(&copy), rows(&self.dir.join(database)), "{database}");
    }
}

/// Adds rows.
fn insert(connection: &Connection, text: &str) {
    connection.execute("insert into t(x) values (?1)", [text]).unwrap();
}

/// Sends bytes to a socket and reads what comes until it ends, within the usual patience.
fn exchange(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("any time will do");
    // It may have hung up already.
    let _ = stream.write_all(bytes);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

/// How many bases a log tells of.
fn bases(log: &str) -> usize {
    log.lines().filter(|line| line.contains("writing the ")).count()
}

/// Waits until a process has read its configuration again so many times.
#[track_caller]
fn wait_for_reloads(place: &Place, count: u64) -> Value {
    let mut status = Value::Null;
    wait_for("the configuration to be read again", PATIENCE, || {
        status = place.status();
        status["reloads"] == count
    });
    status
}

/// Shorter than the usual patience, for what must not wait for anything.
const PROMPT: Duration = Duration::from_secs(5);
