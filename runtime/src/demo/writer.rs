//! The application of the demo: `driftless demo-writer DB`, a process that nobody calls by hand.
//!
//! It does what a small shop does: each transaction adds an order and changes an account. It
//! prints how many transactions it has committed, and stops when its standard input ends, which
//! also happens when the demo itself dies.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::cli::error::CliError;

/// The hidden command.
pub const WRITER_COMMAND: &str = "demo-writer";

/// Transactions a second at the most: enough to keep a replicator busy, and few enough that the
/// database stays small.
const PACE: f64 = 1_500.0;
const ACCOUNTS: u32 = 2_000;
/// What is ordered.
const WORDS: [&str; 8] = ["anchor", "buoy", "compass", "dinghy", "fender", "halyard", "lantern", "sextant"];

/// Runs the application on the database that `args` names.
pub fn write(args: &[OsString]) -> Result<(), CliError> {
    let [database] = args else {
        return Err(CliError::usage("demo-writer is a part of driftless demo").hint("driftless demo"));
    };
    let failed =
        |error: rusqlite::Error| CliError::failed("the application of the demo cannot write").cause(error);
    let connection = open(Path::new(database)).map_err(failed)?;
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            // Ends at the end of input, and at an error as well.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            stop.store(true, Ordering::Relaxed);
        }
    });
    let written = work(&connection, &stop).map_err(failed)?;
    tell(written);
    Ok(())
}

fn open(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(database)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch(
        "pragma journal_mode = wal;
         pragma synchronous = normal;
         begin;
         create table accounts(id integer primary key, balance integer not null);
         create table orders(id integer primary key, account integer not null, amount integer not null, note text);
         create index orders_by_account on orders(account);",
    )?;
    let mut insert = connection.prepare("insert into accounts(id, balance) values (?1, 100000)")?;
    for id in 1..=ACCOUNTS {
        insert.execute([id])?;
    }
    drop(insert);
    connection.execute_batch("commit")?;
    Ok(connection)
}

fn work(connection: &Connection, stop: &AtomicBool) -> rusqlite::Result<u64> {
    let mut order = connection.prepare("insert into orders(account, amount, note) values (?1, ?2, ?3)")?;
    let mut account = connection.prepare("update accounts set balance = balance - ?2 where id = ?1")?;
    let (begun, mut told) = (Instant::now(), Instant::now());
    let (mut written, mut random) = (0_u64, 0x9e37_79b9_7f4a_7c15_u64);
    while !stop.load(Ordering::Relaxed) {
        // Knuth's generator: the same orders in each demo.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (id, amount) = ((random >> 32) as u32 % ACCOUNTS + 1, (random >> 20) as u32 % 500);
        let words: Vec<&str> =
            (0..60).step_by(3).map(|bit| WORDS[(random >> bit) as usize % WORDS.len()]).collect();
        let note = format!("order {written} of account {id}, {random:016x}: {}", words.join(" "));
        connection.execute_batch("begin immediate")?;
        order.execute(params![id, amount, note])?;
        account.execute(params![id, amount])?;
        connection.execute_batch("commit")?;
        written += 1;
        if told.elapsed() > Duration::from_millis(50) {
            told = Instant::now();
            tell(written);
        }
        let due = Duration::from_secs_f64(written as f64 / PACE);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok(written)
}

/// Tells the demo how many transactions are committed.
fn tell(written: u64) {
    // When nobody listens any more, standard input has ended as well.
    let _ = writeln!(io::stdout().lock(), "{written}");
}
