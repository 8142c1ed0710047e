//! The application in a process of its own, and the directory it works in.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use driftless::sqlite::{Link, LinkOptions, probe};
use rusqlite::types::Value;

const DATABASE: &str = "DRIFTLESS_TEST_APPLICATION";

/// The application's side. A test like the others, that does nothing unless it was started as
/// an application.
#[test]
fn application() {
    let Ok(path) = std::env::var(DATABASE) else { return };
    let db = rusqlite::Connection::open(path).expect("open");
    for line in std::io::stdin().lines() {
        let answer = execute(&db, &line.expect("a line"));
        // Not print!, which the test harness captures.
        writeln!(std::io::stderr(), "{answer}").expect("the parent listens");
    }
    // Die as a killed process does: no close, no checkpoint.
    std::process::exit(0);
}

/// The first column of the first row, `-` without one, or the error.
fn execute(db: &rusqlite::Connection, sql: &str) -> String {
    let run = || -> rusqlite::Result<String> {
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else { return Ok("-".into()) };
        let first = row.get::<_, Value>(0)?;
        while rows.next()?.is_some() {}
        Ok(match first {
            Value::Integer(n) => n.to_string(),
            Value::Text(text) => text,
            other => format!("{other:?}"),
        })
    };
    run().unwrap_or_else(|error| format!("error: {error}"))
}

/// An application that has one connection open, until it is killed.
pub struct App {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStderr>,
    _stdout: ChildStdout,
}

impl App {
    /// Starts it without waiting for anything: no busy timeout, no syncs.
    pub fn open(path: &Path) -> App {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "place::application", "--nocapture"])
            .env(DATABASE, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the application");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stderr.take().expect("piped"));
        let _stdout = child.stdout.take().expect("piped");
        let mut app = App { child, input, output, _stdout };
        app.ok("PRAGMA synchronous=OFF");
        app.ok("PRAGMA busy_timeout=0");
        app
    }

    /// The first column of the first row, `-` without one, or `error: …`.
    pub fn sql(&mut self, sql: &str) -> String {
        writeln!(self.input, "{sql}").expect("the application listens");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the application answers");
        answer.trim_end().to_string()
    }

    /// As [`sql`](App::sql), for what must succeed.
    pub fn ok(&mut self, sql: &str) -> String {
        let answer = self.sql(sql);
        assert!(!answer.starts_with("error"), "{sql}: {answer}");
        answer
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of this test's own with one database in WAL mode.
pub struct Place {
    pub dir: PathBuf,
    pub db: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("driftless-beside-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("make a directory");
        let dir = dir.canonicalize().expect("a real path");
        Place { db: dir.join("app.db"), dir }
    }

    /// A database with one table and `rows` commits in its WAL.
    pub fn app(&self, rows: u32) -> App {
        let mut app = App::open(&self.db);
        assert_eq!(app.ok("PRAGMA journal_mode=WAL"), "wal");
        app.ok("PRAGMA wal_autocheckpoint=0");
        app.ok("CREATE TABLE t(a)");
        write(&mut app, rows);
        app
    }

    pub fn link(&self) -> Link {
        Link::open(&self.db, LinkOptions::default()).expect("link")
    }

    pub fn bytes(&self, suffix: &str) -> Vec<u8> {
        // `cat`, because closing a descriptor here would drop the locks of the link under test.
        let file = probe::companion(&self.db, suffix);
        Command::new("cat").arg(file).output().expect("cat").stdout
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn write(app: &mut App, rows: u32) {
    for _ in 0..rows {
        app.ok("INSERT INTO t VALUES (hex(randomblob(100)))");
    }
}
