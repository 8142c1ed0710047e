//! The conformance battery: what every store must do, shown on the store itself.
//!
//! A store that ignores a condition, lists by insertion or serves a short body works on the day it
//! is written; the history that it costs is missed weeks later. So each clause of the contract
//! ([`crate::store`]) has a check here, and each check has a store in the tests that breaks just
//! that clause and must fail it. Run it over your own adapter (`docs/STORAGE.md`):
//!
//! ```
//! use driftless_adapters::{battery, memory::MemoryStore};
//!
//! let store = MemoryStore::new();
//! let report = futures_lite::future::block_on(battery::run(&store, &battery::Options::default()));
//! assert!(report.passed(), "{report}");
//! ```
//!
//! Checks run one after another below one prefix, which must be empty at the start and is empty at
//! the end. Operations inside a check run concurrently, but in one task: a store meets itself in
//! real parallel only if it works on threads or over a network. What a store does not claim in its
//! [`Capabilities`] is reported as unclaimed, never as passed, and it
//! must refuse what it does not claim. What only a crash shows is not here: see the crash tests of
//! the directory store.

use std::fmt;
use std::future::poll_fn;
use std::task::Poll;

use crate::keys::Key;
use crate::store::{
    BoxFuture, ByteRange, Capabilities, ListEntry, PART_BYTES_MAX, PutBody, PutCondition, Store, StoreError,
    StoreErrorKind, Version,
};

mod lists;
mod reads;
mod swaps;
mod writes;

/// How hard to look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Where to work: a valid key below which nothing may exist yet.
    pub prefix: String,
    /// The length of the large object in bytes; more than two parts.
    pub large_bytes: usize,
    /// How many keys the paginated listing has; more than 1,000, the usual size of a page, shows
    /// the most.
    pub listed_keys: usize,
    /// How many contenders race for one key.
    pub racers: usize,
    /// How many races are run.
    pub races: usize,
}

impl Default for Options {
    /// 5 MiB and a bit, 1,100 keys, 20 races of 8: about 1,500 small requests.
    fn default() -> Options {
        let prefix = "driftless-battery".to_owned();
        Options { prefix, large_bytes: (5 << 20) + 123, listed_keys: 1_100, racers: 8, races: 20 }
    }
}

/// How one check went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As the contract wants it.
    Passed,
    /// What was seen instead.
    Failed(String),
    /// The store does not claim what the check is about, and it was not run.
    Unclaimed,
}

/// One check and how it went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The name of the check, as in [`check_names`].
    pub check: &'static str,
    /// How it went.
    pub verdict: Verdict,
}

/// How all checks went. `Display` prints one line for each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// In the order in which they ran. If the prefix was not empty, only that.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Whether nothing failed; unclaimed checks do not count.
    pub fn passed(&self) -> bool {
        self.failed().next().is_none()
    }

    /// The names of the checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &'static str> {
        self.outcomes.iter().filter(|o| matches!(o.verdict, Verdict::Failed(_))).map(|o| o.check)
    }

    /// The names of the checks that were not run for lack of a claim.
    pub fn unclaimed(&self) -> impl Iterator<Item = &'static str> {
        self.outcomes.iter().filter(|o| o.verdict == Verdict::Unclaimed).map(|o| o.check)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Outcome { check, verdict } in &self.outcomes {
            match verdict {
                Verdict::Passed => writeln!(f, "passed     {check}")?,
                Verdict::Failed(seen) => writeln!(f, "FAILED     {check}: {seen}")?,
                Verdict::Unclaimed => writeln!(f, "unclaimed  {check}")?,
            }
        }
        Ok(())
    }
}

/// What a check needs the store to claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// `create_if_absent`.
    Create,
    /// That `create_if_absent` is *not* claimed.
    NoCreate,
    /// `swap`.
    Swap,
    /// That `swap` is *not* claimed.
    NoSwap,
    /// `modified`.
    Modified,
}

impl Needs {
    fn met_by(self, claims: Capabilities) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Create => claims.create_if_absent,
            Needs::NoCreate => !claims.create_if_absent,
            Needs::Swap => claims.swap,
            Needs::NoSwap => !claims.swap,
            Needs::Modified => claims.modified,
        }
    }
}

struct Check {
    name: &'static str,
    needs: Needs,
    run: for<'a> fn(&'a Ctx<'a>) -> BoxFuture<'a, Result<(), String>>,
}

/// The first check; the others are not run if it fails.
const STARTS_EMPTY: &str = "starts_empty";
/// The last one, which also cleans up.
const ENDS_EMPTY: &str = "ends_empty";

/// The names of all checks, in the order in which they run.
pub fn check_names() -> impl Iterator<Item = &'static str> {
    [STARTS_EMPTY].into_iter().chain(all().map(|check| check.name)).chain([ENDS_EMPTY])
}

fn all() -> impl Iterator<Item = &'static Check> {
    reads::CHECKS.iter().chain(writes::CHECKS).chain(swaps::CHECKS).chain(lists::CHECKS)
}

/// Runs every check over `store`. Deletes what it put and nothing else: if anything stands below
/// the prefix, it fails and goes no further.
pub async fn run(store: &dyn Store, options: &Options) -> Report {
    let claims = store.capabilities();
    let mut report = Report { outcomes: Vec::new() };
    let mut note = |check, verdict| report.outcomes.push(Outcome { check, verdict });
    let whole = Ctx { store, options, claims, base: options.prefix.clone() };
    let empty = starts_empty(&whole).await;
    let go_on = empty.is_ok();
    note(STARTS_EMPTY, verdict_of(empty));
    if !go_on {
        return report;
    }
    for check in all() {
        if !check.needs.met_by(claims) {
            // Having to refuse what is not claimed is no capability that could be lacking.
            if !matches!(check.needs, Needs::NoCreate | Needs::NoSwap) {
                note(check.name, Verdict::Unclaimed);
            }
            continue;
        }
        let ctx = Ctx { store, options, claims, base: format!("{}/{}", options.prefix, check.name) };
        note(check.name, verdict_of((check.run)(&ctx).await));
    }
    note(ENDS_EMPTY, verdict_of(ends_empty(&whole).await));
    report
}

fn verdict_of(result: Result<(), String>) -> Verdict {
    result.map_or_else(Verdict::Failed, |()| Verdict::Passed)
}

async fn starts_empty(ctx: &Ctx<'_>) -> Result<(), String> {
    Key::new(ctx.base.as_str()).map_err(|e| format!("the prefix is no key: {e}"))?;
    let found = ctx.list_all("", 1000).await?;
    ensure(found.is_empty(), || format!("{} objects stand below {}/ already", found.len(), ctx.base))
}

async fn ends_empty(ctx: &Ctx<'_>) -> Result<(), String> {
    for chunk in ctx.list_all("", 1000).await?.chunks(32) {
        for deleted in join_all(chunk.iter().map(|entry| ctx.store.delete(&entry.key))).await {
            deleted.map_err(|e| format!("delete: {e}"))?;
        }
    }
    let left = ctx.list_all("", 1000).await?;
    ensure(left.is_empty(), || format!("after deleting everything {} objects are listed", left.len()))
}

/// A store under test and a place in it that belongs to one check.
struct Ctx<'a> {
    store: &'a dyn Store,
    options: &'a Options,
    claims: Capabilities,
    base: String,
}

impl Ctx<'_> {
    fn key(&self, name: &str) -> Key {
        Key::new(format!("{}/{name}", self.base)).expect("names in checks make valid keys")
    }

    /// The strictest condition that the store claims, for keys that are free.
    fn create(&self) -> PutCondition {
        if self.claims.create_if_absent { PutCondition::IfAbsent } else { PutCondition::Always }
    }

    /// Begins an object and writes `bytes` into it.
    async fn begin(
        &self,
        key: &Key,
        how: PutCondition,
        bytes: &[u8],
    ) -> Result<Box<dyn PutBody>, StoreError> {
        let mut body = self.store.put(key, how).await?;
        for part in bytes.chunks(PART_BYTES_MAX) {
            body.write(part.to_vec()).await?;
        }
        Ok(body)
    }

    async fn put(&self, key: &Key, how: PutCondition, bytes: &[u8]) -> Result<Option<Version>, StoreError> {
        self.begin(key, how, bytes).await?.commit().await
    }

    /// Creates an object that must succeed.
    async fn seed(&self, name: &str, bytes: &[u8]) -> Result<Key, String> {
        let key = self.key(name);
        self.put(&key, self.create(), bytes)
            .await
            .map_err(|e| format!("put of {} bytes: {e}", bytes.len()))?;
        Ok(key)
    }

    /// Reads a range to its end, checking the body's manners on the way.
    async fn read(&self, key: &Key, range: ByteRange) -> Result<(u64, Vec<u8>), String> {
        let mut body = self.store.get(key, range).await.map_err(|e| format!("get {range:?}: {e}"))?;
        let (object_len, announced) = (body.object_len(), body.remaining());
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await.map_err(|e| format!("reading {range:?}: {e}"))? {
            ensure((1..=PART_BYTES_MAX).contains(&chunk.len()), || {
                format!("a chunk of {} bytes", chunk.len())
            })?;
            bytes.extend_from_slice(&chunk);
            let (left, want) = (body.remaining(), announced.checked_sub(bytes.len() as u64));
            ensure(Some(left) == want, || {
                format!("{left} bytes are said to remain of {announced} after {} were read", bytes.len())
            })?;
        }
        ensure(bytes.len() as u64 == announced, || {
            format!("the body of {range:?} ended after {} of {announced} bytes without an error", bytes.len())
        })?;
        Ok((object_len, bytes))
    }

    /// Reads a range of an object that holds `whole`, and compares.
    async fn expect(&self, key: &Key, range: ByteRange, whole: &[u8]) -> Result<(), String> {
        let (object_len, got) = self.read(key, range).await?;
        ensure(object_len == whole.len() as u64, || {
            format!("{range:?}: object length {object_len}, expected {}", whole.len())
        })?;
        let (start, end) = range.within(whole.len() as u64);
        let want = &whole[start as usize..end as usize];
        ensure(got == want, || match got.iter().zip(want).position(|(a, b)| a != b) {
            Some(at) => format!("{range:?}: byte {at} of the answer differs"),
            None => format!("{range:?}: {} bytes, expected {}", got.len(), want.len()),
        })
    }

    async fn expect_absent(&self, key: &Key, when: &str) -> Result<(), String> {
        for range in [ByteRange::ALL, ByteRange::at(1, 2), ByteRange::Tail(1)] {
            let got = self.store.get(key, range).await;
            expect_kind(got.map(|body| body.object_len()), &[StoreErrorKind::NotFound], || {
                format!("get {range:?} {when}")
            })?;
        }
        Ok(())
    }

    /// All entries whose keys start with this check's place and `rest`, by pages of `limit`,
    /// checking each page's manners on the way.
    async fn list_all(&self, rest: &str, limit: usize) -> Result<Vec<ListEntry>, String> {
        let prefix = format!("{}/{rest}", self.base);
        let mut entries: Vec<ListEntry> = Vec::new();
        loop {
            let last = entries.last().map(|e| e.key.clone());
            let page = self.store.list(&prefix, last.as_ref(), limit).await;
            let page = page.map_err(|e| format!("list after {last:?}: {e}"))?;
            ensure(page.entries.len() <= limit, || format!("{} entries, limit {limit}", page.entries.len()))?;
            ensure(!page.more || !page.entries.is_empty(), || {
                "an empty page says that more follow".to_owned()
            })?;
            for entry in page.entries {
                let before = entries.last().map(|e| &e.key);
                ensure(entry.key.as_str().starts_with(&prefix), || {
                    format!("{} lacks prefix {prefix}", entry.key)
                })?;
                ensure(before < Some(&entry.key), || format!("{} is listed after {before:?}", entry.key))?;
                entries.push(entry);
            }
            if !page.more {
                return Ok(entries);
            }
        }
    }

    /// The same, as names relative to this check's place.
    async fn list_names(&self, rest: &str, limit: usize) -> Result<Vec<String>, String> {
        Ok(self.list_all(rest, limit).await?.iter().map(|e| self.name_of(&e.key)).collect())
    }

    fn name_of(&self, key: &Key) -> String {
        key.as_str().strip_prefix(&format!("{}/", self.base)).unwrap_or(key.as_str()).to_owned()
    }
}

fn ensure(holds: bool, seen: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(seen()) }
}

/// Wants an error of one of `kinds`.
fn expect_kind<T>(
    got: Result<T, StoreError>,
    kinds: &[StoreErrorKind],
    what: impl FnOnce() -> String,
) -> Result<(), String> {
    match got {
        Ok(_) => Err(format!("{}: succeeded, expected {kinds:?}", what())),
        Err(e) if kinds.contains(&e.kind) => Ok(()),
        Err(e) => Err(format!("{}: {:?} ({e}), expected {kinds:?}", what(), e.kind)),
    }
}

/// Bytes in which every position differs from its neighbours and every `seed` from the others, so
/// that nothing shifted, swapped or torn compares equal.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(step).collect()
}

/// Drives all futures at once in this task; answers in their order.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Some(Box::pin(future)), None)).collect();
    poll_fn(|cx| {
        for (slot, answer) in &mut running {
            if let Some(Poll::Ready(value)) = slot.as_mut().map(|future| future.as_mut().poll(cx)) {
                (*slot, *answer) = (None, Some(value));
            }
        }
        if running.iter().any(|(slot, _)| slot.is_some()) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().map(|(_, answer)| answer.expect("every future is ready")).collect()
}
