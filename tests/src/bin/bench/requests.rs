//! What a database on S3 costs in requests: at rest, and with one write a second.
//!
//! Both programs replicate a database of their own to a bucket of their own of one moto, at the same
//! time, each through a proxy that counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use driftless_tests::db::open_wal;
use driftless_tests::place::Remote;
use driftless_tests::proxy::{Mark, Proxy, counts};
use driftless_tests::servers::Moto;
use rusqlite::Connection;

use crate::Program;
use crate::load::scratch;
use crate::process::Measured;

/// Until a start and what follows from it are over.
const SETTLE: Duration = Duration::from_secs(60);
/// After the last write, until all that follows at once has been sent.
const FOLLOWS: Duration = Duration::from_secs(5);

/// One program at work.
struct Subject {
    directory: PathBuf,
    app: Connection,
    proxy: Proxy,
    measured: Measured,
}

impl Subject {
    fn start(program: Program, moto: &Moto) -> Subject {
        let directory = scratch(&format!("requests-{program:?}").to_lowercase());
        let db = directory.join("app.db");
        let app = open_wal(&db);
        app.execute_batch("create table log(n integer primary key, pad blob)").expect("a fresh database");
        let bucket = moto.bucket("requests");
        let proxy = Proxy::start(bucket.server());
        let measured = Measured::start(program, &db, &Remote::s3(&bucket, proxy.address()));
        let subject = Subject { directory, app, proxy, measured };
        subject.write();
        subject
    }

    fn write(&self) {
        self.app.execute_batch("insert into log(pad) values (randomblob(300))").expect("it can be written");
    }

    fn row(&self, what: &str, seconds: u64, since: Mark) {
        let asked = counts(&self.proxy.since(since));
        println!(
            "| {} | {what} | {seconds} | {} | {} |",
            self.measured.program.name(),
            sum(&asked),
            kinds(&asked)
        );
    }
}

fn sum(asked: &BTreeMap<&str, usize>) -> usize {
    asked.values().sum()
}

fn kinds(asked: &BTreeMap<&str, usize>) -> String {
    let kinds: Vec<String> = asked.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
}

/// `requests [IDLE SECONDS [WRITING SECONDS]]`.
pub fn main(words: &[&str]) {
    let seconds = |at: usize, otherwise: u64| {
        words.get(at).map_or(otherwise, |word| word.parse().expect("a number of seconds"))
    };
    let (idle, writing) = (seconds(0, 600), seconds(1, 120));
    println!("\n## Requests: one database on S3, beside each other\n");
    println!("| program | database | seconds | requests | of these |");
    println!("|---|---|---|---|---|");
    let moto = Moto::start();
    let subjects = [Program::Driftless, Program::Litestream].map(|program| Subject::start(program, &moto));
    let begun: Vec<Mark> = subjects.iter().map(|_| Mark::default()).collect();
    std::thread::sleep(SETTLE);
    report(&subjects, "from the start", SETTLE.as_secs(), &begun);

    let marks: Vec<Mark> = subjects.iter().map(|subject| subject.proxy.mark()).collect();
    std::thread::sleep(Duration::from_secs(idle));
    report(&subjects, "idle", idle, &marks);

    let marks: Vec<Mark> = subjects.iter().map(|subject| subject.proxy.mark()).collect();
    let first = Instant::now();
    for n in 0..writing {
        std::thread::sleep(Duration::from_secs(n).saturating_sub(first.elapsed()));
        subjects.iter().for_each(Subject::write);
    }
    std::thread::sleep(FOLLOWS);
    report(&subjects, "one write a second", writing, &marks);
    for Subject { directory, measured, .. } in subjects {
        measured.stop();
        let _ = fs::remove_dir_all(directory);
    }
}

fn report(subjects: &[Subject], what: &str, seconds: u64, marks: &[Mark]) {
    for (subject, mark) in subjects.iter().zip(marks) {
        subject.row(what, seconds, *mark);
    }
}
