//! One sequence of statements, written into two databases: one beside us, one alone.
//!
//! What happens to us meanwhile (stops, kills, silence) must not show: after a last checkpoint by
//! the application the two files are the same byte for byte, the schema cookie and the free list
//! included. Before that checkpoint they need not be, since the application's own checkpoints get
//! less far while we read.
//!
//! The change counter is the same as long as we have not truncated a WAL that grew large. When
//! another process truncates or restarts the WAL, whoever it is, a connection of the application
//! reads page 1 anew, and counts one more with its next change of that page.
//!
//! A short run of this is a test; the long one is `cargo run --release -p driftless-tests --bin soak`.

mod script;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

pub use script::{Script, Step};

use crate::app::App;
use crate::db::content_lines;
use crate::dir::tree_bytes;
use crate::sidecar::{Sidecar, assert_equal_to_source, assert_same_bytes};
use crate::{PATIENCE, TempDir, random, wait_for};

/// A replica that has grown beyond this is removed and begun anew: nothing compacts it yet.
const REPLICA_BYTES_MAX: u64 = 1 << 30;

/// What happens to us in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Nothing.
    Undisturbed,
    /// SIGTERM somewhere in the burst, and a new start.
    Stopped,
    /// SIGKILL somewhere in the burst, and a new start.
    Killed,
    /// SIGSTOP somewhere in the burst, for seconds, then SIGCONT.
    Frozen,
    /// Stopped before the burst, started after it.
    Absent,
    /// After the burst, silence until we have let go.
    Quiet,
}

impl Fate {
    /// All of them.
    pub const ALL: [Fate; 6] =
        [Fate::Undisturbed, Fate::Stopped, Fate::Killed, Fate::Frozen, Fate::Absent, Fate::Quiet];
}

/// What has been done so far.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    /// Statements and numbered transactions, beside us.
    pub steps: u64,
    /// How often each fate came, in the order of [`Fate::ALL`].
    pub fates: [u64; Fate::ALL.len()],
    /// Comparisons of files, schemas and a restore.
    pub comparisons: u64,
    /// Large WALs that we have truncated in silence.
    pub truncations: u64,
    /// Replicas that were removed because of their size.
    pub replicas_removed: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps", self.steps)?;
        for (fate, count) in Fate::ALL.iter().zip(self.fates) {
            write!(f, ", {count} {}", format!("{fate:?}").to_lowercase())?;
        }
        write!(
            f,
            ", {} comparisons, {} WALs truncated, {} replicas removed",
            self.comparisons, self.truncations, self.replicas_removed
        )
    }
}

/// One of the two databases and its application.
struct Side {
    database: PathBuf,
    app: App,
}

impl Side {
    fn wal_bytes(&self) -> Option<u64> {
        fs::metadata(self.database.with_extension("db-wal")).ok().map(|facts| facts.len())
    }

    /// Does all steps, and returns the replies that must be alike.
    fn play(&mut self, steps: &[Step]) -> Vec<Value> {
        let mut replies = Vec::with_capacity(steps.len());
        for step in steps {
            let asked = match step {
                Step::Crash => {
                    std::mem::replace(&mut self.app, App::start()).kill();
                    continue;
                }
                Step::Checkpoint(mode) => {
                    self.app.sql("a", &format!("PRAGMA wal_checkpoint({mode})"));
                    continue;
                }
                Step::Ask(command) => {
                    let mut command = command.clone();
                    command["path"] = json!(self.database);
                    self.app.ask(&command)
                }
            };
            let reply =
                asked.unwrap_or_else(|error| panic!("{}: {step:?}: {error}", self.database.display()));
            replies.push(reply);
        }
        replies
    }
}

/// Both databases, and us beside the first.
pub struct Twins {
    ours: Side,
    alone: Side,
    replica: PathBuf,
    sidecar: Option<Sidecar>,
    script: Script,
    chance: u64,
    counts: Counts,
    /// Holds everything, and goes last.
    dir: TempDir,
}

impl Twins {
    /// Makes both databases and starts replicating the first. `seed` settles what is written; when
    /// our fates strike follows from it too, but not what they strike.
    pub fn new(name: &str, seed: u64) -> Twins {
        let dir = TempDir::new(name);
        let side = |file: &str| Side { database: dir.join(file), app: App::start() };
        let mut twins = Twins {
            ours: side("ours.db"),
            alone: side("alone.db"),
            replica: dir.join("replica"),
            sidecar: None,
            script: Script::new(seed),
            chance: seed | 1,
            counts: Counts::default(),
            dir,
        };
        let beginning = twins.script.beginning();
        twins.ours.play(&beginning);
        twins.alone.play(&beginning);
        twins.start();
        twins
    }

    /// What has been done so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Where all the files are.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// A number below `limit`, for what need not be the same in every run.
    pub fn chance(&mut self, limit: u64) -> u64 {
        (random(&mut self.chance) >> 11) % limit
    }

    fn start(&mut self) {
        self.sidecar = Some(Sidecar::of(&self.ours.database, &self.replica));
    }

    fn sidecar(&mut self) -> Sidecar {
        self.sidecar.take().expect("it runs between rounds")
    }

    /// One burst of writes, with this fate of ours.
    pub fn round(&mut self, fate: Fate) {
        self.count_truncation();
        let steps = self.script.burst();
        let delay = Duration::from_micros(self.chance(1_500_000));
        let frozen = Duration::from_millis(1_000 + self.chance(4_000));
        let sidecar = self.sidecar();
        if fate == Fate::Absent {
            stop(sidecar);
            let replies = self.ours.play(&steps);
            self.start();
            self.finish_round(fate, &steps, &replies);
            return;
        }
        let quiet = sidecar.count(QUIET);
        let ours = &mut self.ours;
        let (sidecar, replies) = thread::scope(|scope| {
            let burst = scope.spawn(|| ours.play(&steps));
            thread::sleep(delay);
            let left = match fate {
                Fate::Stopped => {
                    stop(sidecar);
                    None
                }
                Fate::Killed => {
                    sidecar.kill();
                    None
                }
                Fate::Frozen => {
                    sidecar.signal("STOP");
                    thread::sleep(frozen);
                    sidecar.signal("CONT");
                    Some(sidecar)
                }
                _ => Some(sidecar),
            };
            (left, burst.join().expect("what it panicked with stands above"))
        });
        match sidecar {
            Some(sidecar) => self.sidecar = Some(sidecar),
            None => self.start(),
        }
        if fate == Fate::Quiet {
            // It may have been so before the burst: this one is another.
            self.sidecar.as_mut().expect("not ended").wait_nth_line(QUIET, quiet + 1);
        }
        self.finish_round(fate, &steps, &replies);
    }

    /// Between rounds the applications have done the same: an empty WAL on one side is our doing.
    fn count_truncation(&mut self) {
        let ours = self.ours.wal_bytes() == Some(0);
        self.counts.truncations += u64::from(ours && self.alone.wal_bytes().is_some_and(|bytes| bytes > 0));
    }

    /// The other database's part, once nothing is to be struck any more.
    fn finish_round(&mut self, fate: Fate, steps: &[Step], replies: &[Value]) {
        assert_eq!(replies, self.alone.play(steps), "a statement was answered differently beside us");
        self.counts.steps += steps.len() as u64;
        let at = Fate::ALL.iter().position(|one| *one == fate).expect("all are there");
        self.counts.fates[at] += 1;
    }

    /// Copies everything back, compares the files, the schemas and a restore, and goes on.
    /// Panics at the first difference; all files are kept then.
    pub fn compare(&mut self) {
        self.count_truncation();
        let end = self.script.end();
        self.ours.play(&end);
        self.alone.play(&end);
        let sidecar = self.sidecar();
        sidecar.caught_up();
        sidecar.stop();
        let (ours, alone) = (&self.ours.database, &self.alone.database);
        let expected = self.dir.join("expected.db");
        write_expected(ours, alone, self.counts.truncations, &expected);
        assert_same_bytes(ours, &expected);
        let schema = |database| content_lines(database, "SELECT type, name, sql FROM sqlite_schema");
        assert_eq!(schema(ours), schema(alone));
        let told = schema(ours).concat();
        assert!(!told.contains("litestream") && !told.contains("driftless"), "{told}");
        assert_equal_to_source(ours, &self.replica);
        self.counts.comparisons += 1;
        if tree_bytes(&self.replica) > REPLICA_BYTES_MAX {
            fs::remove_dir_all(&self.replica).expect("our own directory");
            fs::remove_dir_all(self.dir.join(".ours.db-driftless")).expect("our own directory");
            self.counts.replicas_removed += 1;
        }
        self.start();
    }
}

/// Writes what `ours` must be: `alone`, but for a change counter that may be ahead by one for each
/// truncation. It stands in the header twice, at 24 and (as "version valid for") at 92.
fn write_expected(ours: &Path, alone: &Path, truncations: u64, expected: &Path) {
    let counter = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
    let mut bytes = fs::read(alone).expect("its application has closed it");
    let ours = counter(&fs::read(ours).expect("its application has closed it"), 24);
    let ahead = ours.checked_sub(counter(&bytes, 24)).map(u64::from);
    assert!(
        ahead.is_some_and(|ahead| ahead <= truncations),
        "change counter {ours} beside us, {} alone, after {truncations} truncations by us",
        counter(&bytes, 24)
    );
    for at in [24, 92] {
        bytes[at..at + 4].copy_from_slice(&ours.to_be_bytes());
    }
    fs::write(expected, bytes).expect("our own directory");
}

/// SIGTERM, which is heeded from when the socket answers; until then it kills.
fn stop(sidecar: Sidecar) {
    wait_for("an answer on the socket", PATIENCE, || sidecar.status().is_some());
    sidecar.stop();
}

/// What we log when we have let go.
const QUIET: &str = "the database is quiet";
