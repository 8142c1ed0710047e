//! The harness's end of the application under test, and what a copy of its database must show.
//!
//! [`App::start`] runs `driftless-test-app` with the SQLite that this workspace links;
//! [`App::python`] runs Python's `sqlite3`, usually an older one. Both speak the same lines. An
//! application that is dropped is killed, without closing its connections.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::programs::test_app;
use crate::{PATIENCE, poll};

/// What the Python application runs.
const PYTHON: &str = r#"
import sys, json, sqlite3, os
C = {}
for line in sys.stdin:
    m = json.loads(line)
    try:
        op, name, r = m['op'], m.get('c', 'a'), None
        if op == 'open':
            C[name] = sqlite3.connect(m['path'], isolation_level=None, timeout=m.get('busy_ms', 0) / 1000)
        elif op == 'sql':
            r = [list(x) for x in C[name].execute(m['q']).fetchall()]
        elif op == 'close':
            C.pop(name).close()
        else:
            raise Exception('unknown command ' + op)
        print(json.dumps({'ok': r}), flush=True)
    except Exception as e:
        print(json.dumps({'error': str(e)}), flush=True)
os._exit(0)
"#;

/// A process with connections to databases.
pub struct App {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl App {
    /// The Rust application.
    pub fn start() -> App {
        App::spawn(&mut Command::new(test_app()))
    }

    /// The Rust application with `library` loaded before its C library, and `variables` set.
    pub fn preloaded(library: &Path, variables: &[(&str, &Path)]) -> App {
        let mut command = Command::new(test_app());
        command.env("LD_PRELOAD", library).envs(variables.iter().copied());
        App::spawn(&mut command)
    }

    /// The Rust application as another user and group.
    pub fn as_user(id: u32) -> App {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".into()])
            .arg(test_app());
        App::spawn(&mut command)
    }

    /// Python's SQLite.
    pub fn python() -> App {
        App::spawn(Command::new("python3").args(["-c", PYTHON]))
    }

    fn spawn(command: &mut Command) -> App {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        App { child, input, output }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// What SQLite said, or that the process died.
    pub fn ask(&mut self, command: &Value) -> Result<Value, String> {
        let died = |_| "the application died".to_string();
        writeln!(self.input, "{command}").map_err(died)?;
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(died)?;
        if line.is_empty() {
            return Err("the application died".into());
        }
        let reply: Value = serde_json::from_str(&line).expect("the application speaks JSON");
        match reply.get("error") {
            Some(error) => Err(error.as_str().unwrap_or_default().to_string()),
            None => Ok(reply["ok"].clone()),
        }
    }

    fn must(&mut self, command: &Value) -> Value {
        self.ask(command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Opens a connection without a busy timeout.
    pub fn open(&mut self, name: &str, path: &Path) {
        self.open_patient(name, path, 0);
    }

    /// Opens a connection with a busy timeout.
    pub fn open_patient(&mut self, name: &str, path: &Path, busy_ms: u64) {
        self.must(&json!({ "op": "open", "c": name, "path": path, "busy_ms": busy_ms }));
    }

    /// Closes a connection.
    pub fn close(&mut self, name: &str) {
        self.must(&json!({ "op": "close", "c": name }));
    }

    /// Runs one statement, whose rows are returned.
    pub fn sql(&mut self, name: &str, text: &str) -> Value {
        self.must(&json!({ "op": "sql", "c": name, "q": text }))
    }

    /// Runs one statement that may fail.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn try_sql(&mut self, name: &str, text: &str) -> Result<Value, String> {
        self.ask(&json!({ "op": "sql", "c": name, "q": text }))
    }

    /// The number in the first column of the first row.
    pub fn number(&mut self, name: &str, text: &str) -> i64 {
        self.sql(name, text)[0][0].as_i64().expect("one number")
    }

    /// Opens a connection with a busy timeout on a database in WAL mode with the tables of
    /// numbered transactions.
    pub fn prepare(&mut self, name: &str, path: &Path) {
        self.open_patient(name, path, 5_000);
        self.sql(name, "PRAGMA journal_mode=WAL");
        self.must(&json!({ "op": "schema", "c": name }));
    }

    /// Commits one numbered transaction of five rows.
    pub fn tx(&mut self, name: &str) -> i64 {
        self.must(&json!({ "op": "tx", "c": name })).as_i64().expect("a number")
    }

    /// Commits one numbered transaction of `rows` rows of `bytes` bytes.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn try_tx(&mut self, name: &str, rows: u64, bytes: u64) -> Result<i64, String> {
        let done = self.ask(&json!({ "op": "tx", "c": name, "rows": rows, "bytes": bytes }))?;
        Ok(done.as_i64().expect("a number"))
    }

    /// Starts a thread that writes numbered transactions; `options` as in the application's
    /// `start`, without which it writes as fast as it can. A lock that somebody holds for a moment is
    /// waited for.
    pub fn start_writer(&mut self, path: &Path, options: Value) {
        let mut command = options;
        command["op"] = json!("start");
        command["path"] = json!(path);
        let is_busy = |done: &Result<Value, String>| matches!(done, Err(error) if error.contains("locked"));
        let done = poll(PATIENCE, || Some(self.ask(&command)).filter(|done| !is_busy(done)));
        done.expect("a lock is held for a moment").unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    /// How many transactions the writer has committed.
    pub fn committed(&mut self) -> u64 {
        self.counts()["committed"].as_u64().expect("a count")
    }

    /// What the writer counts: `committed`, `busy`, `slowest_us`, `over_100_ms`.
    pub fn counts(&mut self) -> Value {
        self.must(&json!({ "op": "counts" }))
    }

    /// Holds the writer between two transactions; how many it has committed.
    pub fn pause_writer(&mut self) -> u64 {
        self.must(&json!({ "op": "pause" }))["committed"].as_u64().expect("a count")
    }

    /// Lets it go on.
    pub fn resume_writer(&mut self) {
        self.must(&json!({ "op": "resume" }));
    }

    /// Stops the writer and closes its connection.
    pub fn stop_writer(&mut self) -> Value {
        self.must(&json!({ "op": "stop" }))
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill starts").success(), "it has died");
    }

    /// Ends the process without closing anything, as a crash does.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is ours");
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It may have died already, which some tests want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a copy of the database says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Numbered transactions in it, without a gap from the first.
    pub transactions: u64,
}

/// Checks that a copy is a state that was committed, whichever.
///
/// # Errors
/// What it is that no committed state shows.
pub fn check_copy(path: &Path, keep: u64) -> Result<Seen, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| error.to_string())?;
    let number = |sql: &str| {
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|e| format!("{sql}: {e}"))
    };
    let integrity: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(|error| error.to_string())?;
    if integrity != "ok" {
        return Err(format!("integrity check: {integrity}"));
    }
    if number("SELECT count(*) FROM sqlite_schema WHERE name = 'tx'")? == 0 {
        return Ok(Seen { transactions: 0 });
    }
    let (rows, last) = (number("SELECT count(*) FROM tx")?, number("SELECT coalesce(max(i), 0) FROM tx")?);
    if rows != last {
        return Err(format!("{rows} transactions up to number {last}: there is a gap"));
    }
    if number("SELECT count(*) FROM sqlite_schema WHERE name = 'acct'")? == 1 {
        let kept = last - i64::try_from(keep).unwrap_or(i64::MAX).min(last);
        let torn = number(&format!(
            "SELECT count(*) FROM tx WHERE i > {kept} AND n != (SELECT count(*) FROM p WHERE p.i = tx.i)"
        ))?;
        let money = number("SELECT coalesce(sum(balance), 64000) FROM acct")?;
        let strangers = number(&format!("SELECT count(*) FROM p WHERE i > {last} OR i <= {kept}"))?;
        if torn != 0 || money != 64_000 || strangers != 0 {
            return Err(format!(
                "{torn} torn transactions, {strangers} rows of no transaction, balance {money}"
            ));
        }
    }
    Ok(Seen { transactions: last as u64 })
}

/// Compiles a C source to a library for `LD_PRELOAD` in `directory`.
pub fn compile_shim(directory: &Path, name: &str, source: &str) -> PathBuf {
    let (from, to) = (directory.join(format!("{name}.c")), directory.join(format!("{name}.so")));
    std::fs::write(&from, source).expect("the test's directory can be written");
    let status = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([&to, &from])
        .arg("-ldl")
        .status()
        .expect("these tests need a C compiler named cc");
    assert!(status.success(), "cc fails on {}", from.display());
    to
}
