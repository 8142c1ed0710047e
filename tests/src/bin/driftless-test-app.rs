//! The application under test: a process of its own, because POSIX locks belong to processes.
//!
//! It takes one JSON command a line on its input and gives one JSON line back; `src/app.rs` is its
//! other end. Beside plain SQL it writes *numbered transactions*: transaction `i` adds the row `i`
//! to `tx`, some rows to `p`, moves money between two rows of `acct` and forgets the payload of
//! transaction `i - keep`. So a copy of the database tells by itself whether it is a state that was
//! committed: `tx` has no gap, each kept transaction has all its rows, and no money was made.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use driftless_tests::random;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, ErrorCode, Statement, ToSql, params};
use serde_json::{Value, json};

/// What `start` and `tx` write.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS tx(i INTEGER PRIMARY KEY, n INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS p(i INTEGER, j INTEGER, k TEXT, body BLOB, PRIMARY KEY(i, j)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS pk ON p(k);
    CREATE TABLE IF NOT EXISTS acct(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, pad TEXT);
    WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 64)
        INSERT OR IGNORE INTO acct SELECT x, 1000, hex(zeroblob(200)) FROM c;
";

/// The shape of a numbered transaction.
#[derive(Clone)]
struct Shape {
    rows: i64,
    bytes: usize,
    keep: i64,
    rollback_every: i64,
}

impl Shape {
    fn of(command: &Value) -> Shape {
        Shape {
            rows: command["rows"].as_i64().unwrap_or(5),
            bytes: command["bytes"].as_u64().unwrap_or(200) as usize,
            keep: command["keep"].as_i64().unwrap_or(i64::MAX),
            rollback_every: command["rollback_every"].as_i64().unwrap_or(i64::MAX),
        }
    }
}

/// What a running writer tells.
#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    paused: AtomicBool,
    /// The thread has seen that it is to pause: what is counted is what is committed.
    idle: AtomicBool,
    committed: AtomicU64,
    busy: AtomicU64,
    slowest_us: AtomicU64,
    over_100_ms: AtomicU64,
}

struct Writer {
    counts: Arc<Counts>,
    thread: JoinHandle<Result<(), String>>,
}

fn main() {
    let mut connections: BTreeMap<String, Connection> = BTreeMap::new();
    let mut writer: Option<Writer> = None;
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout());
    for line in input.lines() {
        let Ok(line) = line else { break };
        let command: Value = serde_json::from_str(&line).expect("the harness speaks JSON");
        let reply = match run(&command, &mut connections, &mut writer) {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error }),
        };
        if writeln!(output, "{reply}").and_then(|()| output.flush()).is_err() {
            break;
        }
    }
    // The harness is gone or wants an end without a last close.
    std::process::exit(0);
}

fn run(
    command: &Value,
    connections: &mut BTreeMap<String, Connection>,
    writer: &mut Option<Writer>,
) -> Result<Value, String> {
    let name = command["c"].as_str().unwrap_or("a").to_string();
    let text = |error: rusqlite::Error| error.to_string();
    match command["op"].as_str().unwrap_or_default() {
        "open" => {
            let connection = Connection::open(command["path"].as_str().expect("a path")).map_err(text)?;
            connection
                .busy_timeout(Duration::from_millis(command["busy_ms"].as_u64().unwrap_or(0)))
                .map_err(text)?;
            connections.insert(name, connection);
            Ok(Value::Null)
        }
        "close" => {
            if let Some(connection) = connections.remove(&name) {
                connection.close().map_err(|(_, error)| error.to_string())?;
            }
            Ok(Value::Null)
        }
        "sql" => {
            let connection = connections.get(&name).ok_or("no such connection")?;
            query(connection, command["q"].as_str().expect("a query")).map_err(text)
        }
        "schema" => {
            let connection = connections.get(&name).ok_or("no such connection")?;
            connection.execute_batch(SCHEMA).map_err(text)?;
            Ok(Value::Null)
        }
        "tx" => {
            let connection = connections.get(&name).ok_or("no such connection")?;
            let mut seed = command["seed"].as_u64().unwrap_or(1) | 1;
            Statements::new(connection)
                .transact(&Shape::of(command), &mut seed)
                .map(Value::from)
                .map_err(text)
        }
        "start" => {
            *writer = Some(start(command)?);
            Ok(Value::Null)
        }
        "pause" | "resume" => {
            let counts = &writer.as_ref().ok_or("no writer")?.counts;
            let pause = command["op"] == "pause";
            counts.paused.store(pause, Ordering::SeqCst);
            let writer = writer.as_ref().ok_or("no writer")?;
            while pause && !counts.idle.load(Ordering::SeqCst) && !writer.thread.is_finished() {
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(describe(counts))
        }
        "counts" => Ok(describe(&writer.as_ref().ok_or("no writer")?.counts)),
        "stop" => {
            let writer = writer.take().ok_or("no writer")?;
            writer.counts.stop.store(true, Ordering::SeqCst);
            writer.thread.join().map_err(|_| "the writer panicked")??;
            Ok(describe(&writer.counts))
        }
        other => Err(format!("unknown command {other}")),
    }
}

fn describe(counts: &Counts) -> Value {
    json!({
        "committed": counts.committed.load(Ordering::SeqCst),
        "busy": counts.busy.load(Ordering::SeqCst),
        "slowest_us": counts.slowest_us.load(Ordering::SeqCst),
        "over_100_ms": counts.over_100_ms.load(Ordering::SeqCst),
    })
}

fn query(connection: &Connection, text: &str) -> rusqlite::Result<Value> {
    let mut statement = connection.prepare(text)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let values: rusqlite::Result<Vec<Value>> =
            (0..columns).map(|at| row.get::<_, Sql>(at).map(plain)).collect();
        all.push(Value::from(values?));
    }
    Ok(Value::from(all))
}

fn plain(value: Sql) -> Value {
    match value {
        Sql::Null => Value::Null,
        Sql::Integer(n) => json!(n),
        Sql::Real(n) => json!(n),
        Sql::Text(text) => json!(text),
        Sql::Blob(bytes) => json!(bytes.len()),
    }
}

/// Statements of a connection, prepared once.
struct Statements<'c> {
    connection: &'c Connection,
    prepared: BTreeMap<&'static str, Statement<'c>>,
}

impl<'c> Statements<'c> {
    fn new(connection: &'c Connection) -> Statements<'c> {
        Statements { connection, prepared: BTreeMap::new() }
    }

    fn run(&mut self, sql: &'static str, params: &[&dyn ToSql]) -> rusqlite::Result<i64> {
        if !self.prepared.contains_key(sql) {
            self.prepared.insert(sql, self.connection.prepare(sql)?);
        }
        self.prepared.get_mut(sql).expect("just inserted").execute(params)?;
        Ok(self.connection.last_insert_rowid())
    }

    /// One numbered transaction; its number, or 0 if it was rolled back on purpose.
    fn transact(&mut self, shape: &Shape, seed: &mut u64) -> rusqlite::Result<i64> {
        self.run("BEGIN IMMEDIATE", &[])?;
        let done = self.write_and_commit(shape, seed);
        if done.is_err() {
            // What matters is why it failed.
            let _ = self.run("ROLLBACK", &[]);
        }
        done
    }

    fn write_and_commit(&mut self, shape: &Shape, seed: &mut u64) -> rusqlite::Result<i64> {
        let i = self.run("INSERT INTO tx(n) VALUES(?1)", params![shape.rows])?;
        for j in 0..shape.rows {
            let key = format!("k{:016x}", random(seed));
            let mut bytes = vec![0_u8; shape.bytes];
            bytes
                .chunks_mut(8)
                .for_each(|chunk| chunk.copy_from_slice(&random(seed).to_le_bytes()[..chunk.len()]));
            self.run("INSERT INTO p(i, j, k, body) VALUES(?1, ?2, ?3, ?4)", params![i, j, key, bytes])?;
        }
        let amount = (random(seed) % 10) as i64;
        let (from, to) = ((random(seed) % 64 + 1) as i64, (random(seed) % 64 + 1) as i64);
        self.run("UPDATE acct SET balance = balance - ?1 WHERE id = ?2", params![amount, from])?;
        self.run("UPDATE acct SET balance = balance + ?1 WHERE id = ?2", params![amount, to])?;
        if i > shape.keep {
            self.run("DELETE FROM p WHERE i = ?1", params![i - shape.keep])?;
        }
        if i % shape.rollback_every == 0 && random(seed).is_multiple_of(2) {
            self.run("ROLLBACK", &[])?;
            return Ok(0);
        }
        self.run("COMMIT", &[])?;
        Ok(i)
    }
}

fn start(command: &Value) -> Result<Writer, String> {
    let text = |error: rusqlite::Error| error.to_string();
    let connection = Connection::open(command["path"].as_str().expect("a path")).map_err(text)?;
    let busy_ms = command["busy_ms"].as_u64().unwrap_or(5_000);
    connection.busy_timeout(Duration::from_millis(busy_ms.max(5_000))).map_err(text)?;
    let synchronous = command["synchronous"].as_str().unwrap_or("NORMAL");
    let autocheckpoint = command["autocheckpoint"].as_u64().unwrap_or(1_000);
    query(&connection, "PRAGMA journal_mode=WAL").map_err(text)?;
    query(&connection, &format!("PRAGMA synchronous={synchronous}")).map_err(text)?;
    query(&connection, &format!("PRAGMA wal_autocheckpoint={autocheckpoint}")).map_err(text)?;
    connection.execute_batch(SCHEMA).map_err(text)?;
    connection.busy_timeout(Duration::from_millis(busy_ms)).map_err(text)?;
    let shape = Shape::of(command);
    let pause = command["rate"].as_f64().map(|rate| Duration::from_secs_f64(1.0 / rate));
    let seed = command["seed"].as_u64().unwrap_or(1) | 1;
    let counts = Arc::new(Counts::default());
    let shared = Arc::clone(&counts);
    let thread = std::thread::spawn(move || {
        write_on(&connection, &shape, seed, pause, &shared)?;
        connection.close().map_err(|(_, error)| error.to_string())
    });
    Ok(Writer { counts, thread })
}

fn write_on(
    connection: &Connection,
    shape: &Shape,
    mut seed: u64,
    pause: Option<Duration>,
    counts: &Counts,
) -> Result<(), String> {
    let mut statements = Statements::new(connection);
    let mut due = Instant::now();
    while !counts.stop.load(Ordering::SeqCst) {
        let paused = counts.paused.load(Ordering::SeqCst);
        counts.idle.store(paused, Ordering::SeqCst);
        if paused {
            std::thread::sleep(Duration::from_millis(1));
            due = Instant::now();
            continue;
        }
        let begun = Instant::now();
        match statements.transact(shape, &mut seed) {
            Ok(0) => {}
            Ok(_) => {
                counts.committed.fetch_add(1, Ordering::SeqCst);
                let us = begun.elapsed().as_micros() as u64;
                counts.slowest_us.fetch_max(us, Ordering::SeqCst);
                counts.over_100_ms.fetch_add(u64::from(us > 100_000), Ordering::SeqCst);
            }
            Err(error) if busy(&error) => {
                counts.busy.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) => return Err(error.to_string()),
        }
        if let Some(pause) = pause {
            due += pause;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    Ok(())
}

fn busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
