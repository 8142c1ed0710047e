//! The application: transactions of five rows and an index, as in the measurement that the
//! project began with. A process of its own, since POSIX locks are per process.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement};

/// What rows hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// A letter over and over.
    Plain,
    /// Words of a language of 600, the first of them often.
    Text,
    /// Numbers of several sizes.
    Integers,
}

/// `writer DB SECONDS RATE ROWS [KIND]`: rate 0 is full speed. Prints one JSON line.
pub fn main(words: &[&str]) {
    let (words, kind) = match words {
        [words @ .., "text"] => (words, Rows::Text),
        [words @ .., "integer"] => (words, Rows::Integers),
        words => (words, Rows::Plain),
    };
    let [path, seconds, rate, rows] = words else { panic!("writer DB SECONDS RATE ROWS [KIND]") };
    let seconds = Duration::from_secs_f64(seconds.parse().expect("seconds"));
    let rate: f64 = rate.parse().expect("a rate");
    let rows: u32 = rows.parse().expect("rows");
    let db = Connection::open(path).expect("the database opens");
    db.busy_timeout(Duration::from_secs(5)).expect("a timeout can be set");
    db.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
         CREATE TABLE IF NOT EXISTS ev(id INTEGER PRIMARY KEY, k TEXT, body TEXT, n INT);
         CREATE INDEX IF NOT EXISTS ek ON ev(k);
         CREATE TABLE IF NOT EXISTS num(id INTEGER PRIMARY KEY, a INT, b INT, c INT, d INT);
         CREATE INDEX IF NOT EXISTS nk ON num(b);
         CREATE TABLE IF NOT EXISTS tx(i INTEGER PRIMARY KEY)",
    )
    .expect("the schema is made");
    let mut latencies: Vec<f64> = Vec::with_capacity(1 << 20);
    let mut statements = Statements::new(&db);
    let start = Instant::now();
    let mut seed = 12_345_u32;
    while start.elapsed() < seconds {
        let begun = Instant::now();
        statements.transaction(kind, rows, latencies.len() as i64, &mut seed);
        latencies.push(begun.elapsed().as_secs_f64());
        if rate > 0.0 {
            let due = Duration::from_secs_f64(latencies.len() as f64 / rate);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize] * 1e3;
    println!(
        "{}",
        serde_json::json!({
            "tx": latencies.len(), "per_second": latencies.len() as f64 / elapsed,
            "p50_ms": at(0.5), "p99_ms": at(0.99), "p9999_ms": at(0.9999), "max_ms": at(1.0),
        })
    );
    // Leave the WAL as it is, as an application that runs on would.
    drop(statements);
    std::mem::forget(db);
}

/// The statements of a transaction, prepared once.
struct Statements<'c> {
    begin: Statement<'c>,
    event: Statement<'c>,
    numbers: Statement<'c>,
    count: Statement<'c>,
    commit: Statement<'c>,
}

impl<'c> Statements<'c> {
    fn new(db: &'c Connection) -> Statements<'c> {
        let prepare = |sql| db.prepare(sql).expect("the statement is right");
        Statements {
            begin: prepare("BEGIN IMMEDIATE"),
            event: prepare("INSERT INTO ev(k,body,n) VALUES(?,?,?)"),
            numbers: prepare("INSERT INTO num(a,b,c,d) VALUES(?,?,?,?)"),
            count: prepare("INSERT INTO tx VALUES(NULL)"),
            commit: prepare("COMMIT"),
        }
    }

    fn transaction(&mut self, kind: Rows, rows: u32, n: i64, seed: &mut u32) {
        self.begin.execute([]).expect("the write lock is had");
        for _ in 0..rows {
            *seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            if kind == Rows::Integers {
                let (a, c) = ((*seed >> 18) % 100, 1_600_000_000 + n / 100);
                self.numbers.execute((a, *seed >> 8, c, 1_700_000_000 + n)).expect("a row is inserted");
                continue;
            }
            if kind == Rows::Text {
                self.event.execute((format!("k{seed:08x}"), sentence(seed), n)).expect("a row is inserted");
                continue;
            }
            let body = vec![b'a' + ((*seed >> 16) % 26) as u8; 150 + ((*seed >> 20) % 50) as usize];
            let body = String::from_utf8(body).expect("letters");
            self.event.execute((format!("k{seed:08x}"), body, n)).expect("a row is inserted");
        }
        self.count.execute([]).expect("a row is inserted");
        self.commit.execute([]).expect("it commits");
    }
}

/// A record with twenty words in it.
pub fn sentence(seed: &mut u32) -> String {
    const SYLLABLES: [&str; 12] =
        ["ra", "to", "mi", "sen", "lor", "pe", "di", "kan", "vu", "as", "el", "gor"];
    let mut text =
        format!("{{\"user\": {}, \"event\": \"comment added\", \"note\": \"", (*seed >> 12) % 1_000);
    for _ in 0..20 {
        *seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let (one, two) = ((*seed >> 8) % 600, (*seed >> 18) % 600);
        let mut word = one * two / 600;
        for _ in 0..3 {
            text.push_str(SYLLABLES[(word % 12) as usize]);
            word /= 12;
        }
        text.push(' ');
    }
    text + "\"}"
}
