//! What identifies a writer and a state, and the two clocks.
//!
//! Each type admits only values that mean something, so that a page number of zero, an empty
//! range or a comparison of wall time with monotonic time does not compile or does not construct.
//! Where each field lives, who sets it and who checks it: `docs/decisions/0001-identity.md`.

use core::fmt;
use core::num::{NonZeroU32, NonZeroU64};
use core::time::Duration;

/// One capture of one or more whole transactions; consecutive, starting at 1.
///
/// Written as 16 lower-case hexadecimal digits, as Litestream does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid(NonZeroU64);

impl Txid {
    /// The first transaction identifier of every history.
    pub const FIRST: Txid = Txid(NonZeroU64::MIN);

    /// `None` for zero, which stands for "before the first transaction".
    pub const fn new(n: u64) -> Option<Txid> {
        match NonZeroU64::new(n) {
            Some(n) => Some(Txid(n)),
            None => None,
        }
    }

    /// The number itself, never zero.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The successor. Panics at 2^64-1, which a writer at one capture a microsecond reaches
    /// after half a million years.
    pub fn next(self) -> Txid {
        Txid(self.0.checked_add(1).expect("transaction identifiers do not run out"))
    }

    /// Reads exactly 16 hexadecimal digits, as in object names.
    pub fn parse_hex16(text: &str) -> Option<Txid> {
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return None;
        }
        Txid::new(u64::from_str_radix(text, 16).ok()?)
    }
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.get())
    }
}

impl fmt::Debug for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{:x}", self.0.get())
    }
}

/// A non-empty, inclusive range of transaction identifiers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxidRange {
    min: Txid,
    max: Txid,
}

impl TxidRange {
    /// `None` when `min` lies above `max`.
    pub const fn new(min: Txid, max: Txid) -> Option<TxidRange> {
        if min.get() <= max.get() { Some(TxidRange { min, max }) } else { None }
    }

    /// The range that holds one identifier.
    pub const fn single(txid: Txid) -> TxidRange {
        TxidRange { min: txid, max: txid }
    }

    /// The lowest identifier inside.
    pub const fn min(self) -> Txid {
        self.min
    }

    /// The highest identifier inside: the state that a segment of this range leads to.
    pub const fn max(self) -> Txid {
        self.max
    }

    /// Whether the range starts at the first transaction, so that its segment stands alone.
    pub const fn is_snapshot(self) -> bool {
        self.min.get() == 1
    }
}

impl fmt::Display for TxidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

impl fmt::Debug for TxidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{:?}", self.min, self.max)
    }
}

/// A page of a database, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNo(NonZeroU32);

impl PageNo {
    /// The page that holds the database header.
    pub const FIRST: PageNo = PageNo(NonZeroU32::MIN);

    /// `None` for zero.
    pub const fn new(n: u32) -> Option<PageNo> {
        match NonZeroU32::new(n) {
            Some(n) => Some(PageNo(n)),
            None => None,
        }
    }

    /// The number itself, never zero.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Debug for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0.get())
    }
}

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.get())
    }
}

/// The first byte of the region that SQLite locks and never uses for data (1 GiB).
pub const PENDING_BYTE: u64 = 0x4000_0000;

/// The size of a database page in bytes: a power of two from 512 to 65,536.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// `None` unless `bytes` is one of the eight sizes that SQLite knows.
    pub const fn new(bytes: u32) -> Option<PageSize> {
        if bytes >= 512 && bytes <= 65_536 && bytes.is_power_of_two() { Some(PageSize(bytes)) } else { None }
    }

    /// Reads the two-byte form of the database header and the wal-index, where 1 means 65,536.
    pub const fn from_u16(raw: u16) -> Option<PageSize> {
        if raw == 1 { PageSize::new(65_536) } else { PageSize::new(raw as u32) }
    }

    /// Bytes in one page.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Bytes in one page, for indexing.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }

    /// The page that covers SQLite's lock bytes when they start at `pending_byte`
    /// (production: [`PENDING_BYTE`]); it never holds data and never appears in a segment.
    pub const fn lock_page(self, pending_byte: u64) -> PageNo {
        match PageNo::new((pending_byte / self.0 as u64) as u32 + 1) {
            Some(page) => page,
            None => PageNo::FIRST,
        }
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A compaction level: 0 holds captures, 1 to 8 compactions, 9 snapshots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Level(u8);

impl Level {
    /// Captures, one file a transaction identifier.
    pub const CAPTURES: Level = Level(0);
    /// Snapshots, each of which stands alone.
    pub const SNAPSHOTS: Level = Level(9);

    /// `None` above 9.
    pub const fn new(n: u8) -> Option<Level> {
        if n <= 9 { Some(Level(n)) } else { None }
    }

    /// The number, 0 to 9.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// All levels in ascending order.
    pub fn all() -> impl Iterator<Item = Level> {
        (0..=9).map(Level)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The rolling checksum of a whole database: the XOR of its pages' checksums with the top bit
/// set. Zero on disk means "unknown" and is `None` here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbChecksum(NonZeroU64);

impl DbChecksum {
    /// Takes a stored value; `None` for zero, which means unknown.
    pub const fn from_stored(raw: u64) -> Option<DbChecksum> {
        match NonZeroU64::new(raw) {
            Some(n) => Some(DbChecksum(n)),
            None => None,
        }
    }

    /// Sets the top bit, as LTX does, so that no state has checksum zero.
    pub const fn from_xor(xor: u64) -> DbChecksum {
        match NonZeroU64::new(xor | 1 << 63) {
            Some(n) => DbChecksum(n),
            None => panic!("the top bit is set"),
        }
    }

    /// The stored form.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The stored form of a value that may be unknown (zero).
    pub fn to_stored(this: Option<DbChecksum>) -> u64 {
        this.map_or(0, DbChecksum::get)
    }
}

impl fmt::Debug for DbChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.get())
    }
}

impl fmt::Display for DbChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.get())
    }
}

/// The history that a writer extends: a random number, kept in the LTX node id field.
/// Zero on disk means "none" (written by Litestream) and is `None` here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(NonZeroU64);

impl Lineage {
    /// `None` for zero.
    pub const fn new(n: u64) -> Option<Lineage> {
        match NonZeroU64::new(n) {
            Some(n) => Some(Lineage(n)),
            None => None,
        }
    }

    /// The stored form.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The stored form of a value that may be absent (zero).
    pub fn to_stored(this: Option<Lineage>) -> u64 {
        this.map_or(0, Lineage::get)
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.get())
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.get())
    }
}

/// One run of one process over one database; grows with each start. Zero is "unknown".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// So many bits count the runs of an epoch; the others are the epoch.
    pub const RUNS_BITS: u32 = 16;

    /// The epoch of the lease under which the run writes; 0 without one.
    pub const fn epoch(self) -> u32 {
        self.0 >> Incarnation::RUNS_BITS
    }
}

/// Monotonic time since an arbitrary start, counting suspend (`CLOCK_BOOTTIME`). The only clock
/// on which waits and deadlines are measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(Duration);

impl Mono {
    /// `since` is the time since the clock's own start.
    pub const fn from_duration(since: Duration) -> Mono {
        Mono(since)
    }

    /// Time since the clock's own start.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// This moment and `wait` more; saturates.
    pub const fn after(self, wait: Duration) -> Mono {
        Mono(self.0.saturating_add(wait))
    }

    /// Time since `earlier`, zero if that lies ahead.
    pub const fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall time in milliseconds since 1970. Untrusted: it stamps segments and drives schedules,
/// never safety.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Wall(pub i64);

/// Both clocks, read together by the host before each event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For waits and deadlines.
    pub mono: Mono,
    /// For stamps only.
    pub wall: Wall,
}
