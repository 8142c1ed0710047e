//! What a person sets, and the limits that nobody sets.

use core::time::Duration;

use crate::ids::PENDING_BYTE;
use crate::machine::body_time;

/// The settings of one replicator. `Default` is what Litestream does, where it does it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// How long captured pages may wait for company before a segment leaves. Default 1 s.
    pub sync_interval: Duration,
    /// Frames in the WAL from which checkpoints are tried without a lock. Default 1,000. At four
    /// times as many the write lock is taken for a moment.
    pub min_checkpoint_pages: u32,
    /// Quiet time after which the source is let go. Default 15 s.
    pub quiet_after: Duration,
    /// Bytes of page images that may wait for the store; past that only page numbers are kept
    /// and the images are read again. A segment leaves early once half of it is full. Default
    /// 32 MiB: a segment a second then holds each page once, also of an application at full speed
    /// whose pages are spread over a large index (`docs/BENCHMARKS.md`).
    pub pending_bytes_max: usize,
    /// How long a store request may take before it counts as lost. Default 60 s.
    pub store_deadline: Duration,
    /// Whether bodies cross a network, which may be slow: a put then has more time, by what was sent
    /// of it. Off by default.
    pub remote: bool,
    /// Whether the store is said to keep create-if-absent. If it is not, or is found not to, each
    /// put is preceded by a look at its name: that keeps out a second writer that does not write
    /// in the same moment, and no more.
    pub create_if_absent: bool,
    /// Whether segments are deleted once a file of a higher level holds them. Each put is then followed by
    /// a look that no one else went on meanwhile ([`retain`](crate::retain)). Off by default.
    pub prove_tenure: bool,
    /// The epoch of the [lease](crate::lease) that the process holds, if it needs one to write: nothing counts as
    /// replicated before a look at it that began after the put, and the number of the run says the epoch, so
    /// that no two holders' segments have the same. None by default.
    pub epoch: Option<u64>,
    /// Whether this database is a copy that comes after another writer's: it must be at the end of the
    /// history, its first segment takes the next name whether anything has changed or not, and where another
    /// has gone on, the run ends with [`Exit::Overtaken`](crate::machine::Exit). Off by default.
    pub succeeds: bool,
    /// The longest wait between two tries of a failed request during the final sync. Default 500 ms.
    pub shutdown_sync_interval: Duration,
    /// How pages are compressed.
    pub compression: Compression,
    /// Pages from which a dictionary is made at the least; only tests move it.
    pub sample_pages_min: usize,
    /// A dictionary is used if pages take at most so many thousandths with it of what they take without;
    /// only tests move it.
    pub dictionary_permille_max: u64,
    /// Take over a replica that belongs to another history.
    pub adopt: bool,
    /// Replicate what is there, then stop.
    pub once: bool,
    /// Frames that a capture must find before it leaves out those that are out of date; below it,
    /// to ask which they are costs more than to read them. Default 32; only tests move it.
    pub newest_only_from: u32,
    /// Where SQLite keeps its lock bytes; only tests move them.
    pub pending_byte: u64,
}

/// How a database's pages are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// As Litestream does.
    #[default]
    Lz4,
    /// In a quarter to a half less room; Litestream cannot read it.
    Zstd {
        /// One of [`ZSTD_LEVELS`](crate::ltx::ZSTD_LEVELS).
        level: i32,
    },
}

impl Default for Config {
    fn default() -> Config {
        Config {
            sync_interval: Duration::from_secs(1),
            min_checkpoint_pages: 1_000,
            quiet_after: Duration::from_secs(15),
            pending_bytes_max: 32 << 20,
            store_deadline: Duration::from_secs(60),
            remote: false,
            create_if_absent: true,
            prove_tenure: false,
            epoch: None,
            succeeds: false,
            shutdown_sync_interval: Duration::from_millis(500),
            compression: Compression::default(),
            sample_pages_min: 64,
            dictionary_permille_max: 970,
            adopt: false,
            once: false,
            newest_only_from: 32,
            pending_byte: PENDING_BYTE,
        }
    }
}

impl Config {
    /// How long a request of a put may take, after so many bytes were sent.
    pub(super) fn put_deadline(&self, sent: u64) -> Duration {
        let slow = if self.remote { body_time(sent.min(IN_FLIGHT_MAX), 1) } else { Duration::ZERO };
        self.store_deadline + slow
    }
}

/// Bytes of one put that a store may hold back or have under way, and that one request may have to
/// wait for.
const IN_FLIGHT_MAX: u64 = 32 << 20;
/// The write lock is taken from this many times `min_checkpoint_pages`.
pub const LOCK_FACTOR: u32 = 4;
/// A person is told that the WAL is over its bound from this many times `min_checkpoint_pages`.
pub const ALERT_FACTOR: u32 = 16;
/// The WAL must have been over the bound for this long before a person is told.
pub const ALERT_AFTER: Duration = Duration::from_secs(5);
/// How long taking the write lock is tried.
pub const LOCK_TRY: Duration = Duration::from_millis(20);
/// How long the write lock is held at the most while the application's own checkpoint ends.
pub const LOCK_HOLD: Duration = Duration::from_millis(40);
/// How long a checkpoint without the lock waits for one of the application's to end.
pub const CHECKPOINT_WAIT: Duration = Duration::from_millis(250);
/// Whether that has ended is tried so often.
pub const CHECKPOINT_AGAIN: Duration = Duration::from_millis(2);
/// The write lock, and what is done under it, is tried again so soon when SQLite says busy: a
/// writer at full speed leaves it free for a few microseconds at a time.
pub const LOCK_AGAIN: Duration = Duration::from_micros(200);
/// After the write lock was held for longer than this, a third of what a commit may wait for us,
/// it rests.
pub const SLOW_LOCK: Duration = Duration::from_millis(33);
/// What a commit may wait for us at the most.
pub const COMMIT_WAIT_MAX: Duration = Duration::from_millis(100);
/// The lock rests for so many times as long as it was held.
pub const LOCK_REST_SHORT: u32 = 3;
/// The same when it was held for longer than a commit may wait: the disk is too slow for it.
pub const LOCK_REST_LONG: u32 = 20;
/// Passes without the lock before it is taken all the same.
pub const PASSES_MAX: u8 = 5;
/// Bytes of the WAL captured in one step: so few that the engine's thread, which reads and checks
/// what was written a moment ago in place, serves others within a millisecond.
pub const CAPTURE_BYTES: u32 = 1 << 18;
/// Frames of which the newest of each page are looked for at once.
pub const NEWEST_FRAMES: u32 = 1 << 12;
/// Bytes read from the WAL or the database in one request of a base.
pub const READ_BYTES: u32 = 1 << 20;
/// The longest wait for another try to let go, where an application keeps the write lock.
pub const LOCK_REFUSED_MAX: Duration = Duration::from_secs(15);
/// When something else is begun after a script was given up.
pub const SCRIPT_AGAIN: Duration = Duration::from_millis(100);
/// The longest wait between looks at a WAL that may grow, where the sync interval is no shorter.
pub const LOOK_MAX: Duration = Duration::from_millis(250);
/// The shortest wait between looks at a WAL that grows fast, and the first.
pub const LOOK_MIN: Duration = Duration::from_millis(10);
/// A source that no event speaks of is looked for this often.
pub const SWEEP: Duration = Duration::from_secs(15 * 60);
/// A status-change time younger than this can hide a second write in the same clock tick.
pub const CTIME_SETTLED_NS: i128 = 1_100_000_000;
/// The first and the longest wait before a failed store request is tried again.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest wait before a failed request is tried again.
pub const RETRY_MAX: Duration = Duration::from_secs(10);
/// What puts that were never finished have left invisibly is removed once it is so old: by then no
/// writer is at it any more.
pub const UNFINISHED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a streamed put whose fate is unknown may yet land, where nothing would refuse it: another
/// body goes out under its name only then.
pub const LATE_PUT: Duration = Duration::from_secs(5 * 60);
/// The local journal is rewritten when it has grown past twice its size after the last rewrite
/// and this many bytes.
pub const JOURNAL_SLACK: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_on_a_slow_line_has_time_to_arrive() {
        let seconds = |remote, sent| {
            let config = Config { remote, ..Config::default() };
            config.put_deadline(sent).as_secs()
        };
        assert_eq!((seconds(true, 0), seconds(true, 20_000)), (60, 60));
        // 20 MiB, which the object stores may have under way, at half a megabit a second.
        assert_eq!(seconds(true, 20 << 20), 60 + 320);
        assert_eq!(seconds(true, u64::MAX), 60 + 512);
        assert_eq!(seconds(false, 20 << 20), 60);
    }
}
