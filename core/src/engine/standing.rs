//! Who may write: the decisions about the replica's end and about the source's position.
//!
//! All of it is pure, from what was found to what follows. The rule behind each branch: a writer
//! that cannot prove that it extends the head does not write (`docs/decisions/0001-identity.md`).

use alloc::format;
use alloc::string::{String, ToString};

use super::history::{History, Point, Step};
use crate::ids::{Incarnation, Lineage, PageSize, Txid};
use crate::ltx::LtxHeader;
use crate::machine::{Exit, Filesystem, LitestreamHead, Object, SealRecord, SourceFacts};
use crate::mutant::{self, Mutant};
use crate::wal::{WalIndex, WalPosition};

/// Reads the first bytes of a segment, of which there may be too few.
///
/// # Errors
/// What is wrong with them, for people.
pub fn decode_header(bytes: &[u8]) -> Result<LtxHeader, String> {
    let Some(header) = bytes.first_chunk() else {
        return Err(format!("it is {} bytes long, shorter than a header", bytes.len()));
    };
    LtxHeader::decode(header).map_err(|error| error.to_string())
}

/// The newest object on the replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its name.
    pub object: Object,
    /// Its header.
    pub header: LtxHeader,
}

impl Head {
    /// The transaction that it leads to.
    pub fn txid(&self) -> Txid {
        self.object.range.max()
    }
}

/// What follows from the local journal and the replica's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The head is our point: go on from there.
    Extend,
    /// The head is the put that the journal says was begun: take it as done and go on.
    Confirm(Step),
    /// Segments that an earlier run of ours wrote lie past our point: read them first.
    CatchUp,
    /// The history is ours, the page table is not to be had: write a full base at the next
    /// transaction, unless a survey shows that nothing changed.
    Base {
        /// Why.
        why: String,
    },
    /// The local journal knows nothing of this history: only a survey that finds the source in
    /// the head's state, or past it by the WAL's own proof, allows to go on.
    Prove,
    /// Begin a new history on what is there, or on nothing.
    Begin {
        /// Why.
        why: String,
    },
    /// Not ours, or not ours yet.
    Fenced(Exit),
}

/// What must be known to decide.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// From the local journal.
    pub local: &'a History,
    /// A put that was begun and not confirmed.
    pub intent: Option<&'a Step>,
    /// The replica's end.
    pub head: Option<&'a Head>,
    /// Litestream's own local state.
    pub litestream: Option<&'a LitestreamHead>,
    /// Whether a person said that this database owns the replica.
    pub adopt: bool,
    /// Whether the local journal was left by a copy that has followed the replica to its end.
    pub succeeds: bool,
    /// Whether the process writes under a lease.
    pub leased: bool,
}

/// Decides who we are to this replica.
pub fn plan_standing(claims: Claims<'_>) -> Standing {
    let Some(head) = claims.head else {
        let why = match claims.local.point {
            Some(_) => "the replica is empty although segments were written to it",
            None => "the replica is empty",
        };
        return Standing::Begin { why: why.into() };
    };
    if claims.succeeds {
        return plan_succession(claims, head);
    }
    let Some(theirs) = head.header.lineage else { return plan_after_litestream(claims, head) };
    if claims.local.lineage == Some(theirs) {
        return plan_own(claims, head);
    }
    if claims.adopt {
        return Standing::Begin { why: format!("told to adopt a replica of lineage {theirs}") };
    }
    match claims.local.lineage {
        None if behind(&claims) => Standing::Fenced(overtaken(head.object)),
        None => Standing::Prove,
        Some(ours) => Standing::Fenced(fenced(format!(
            "the replica at {} belongs to lineage {theirs}; this database is of lineage {ours}",
            head.object
        ))),
    }
}

fn plan_own(claims: Claims<'_>, head: &Head) -> Standing {
    // A run that could not write down its number, or another process. A journal that is too old says
    // no more than one that is lost.
    let outdated = head.header.chain.incarnation > claims.local.incarnation && !claims.adopt;
    let Some(point) = claims.local.point.as_ref().filter(|_| claims.local.table.is_some()) else {
        return match claims.intent {
            // The very first put, begun and not confirmed: it carries the whole table.
            Some(step) if step.full && confirms(step, head) => Standing::Confirm(step.clone()),
            _ if claims.local.reset => Standing::Base { why: "the local state was reset".into() },
            // A base over what another process wrote would be a second history.
            _ if behind(&claims) => Standing::Fenced(overtaken(head.object)),
            _ if outdated => Standing::Prove,
            _ => Standing::Base { why: "the local page table is lost".into() },
        };
    };
    if outdated {
        return if behind(&claims) { Standing::Fenced(overtaken(head.object)) } else { Standing::Prove };
    }
    let at = head.txid();
    if at == point.txid {
        return match head.header.chain.post {
            // Never by difference from a state that is not the head's.
            Some(post) if post != point.post && claims.adopt => Standing::Base {
                why: format!(
                    "told to adopt a replica whose segment {} another process has written",
                    head.object
                ),
            },
            Some(post) if post != point.post => Standing::Fenced(fenced(format!(
                "segment {} leads to state {post}, the local journal says {}: another process has written it",
                head.object, point.post
            ))),
            _ => Standing::Extend,
        };
    }
    if at < point.txid {
        return Standing::Base {
            why: format!("the replica ends at {at} although {} was written to it", point.txid),
        };
    }
    match claims.intent {
        Some(step) if at == point.txid.next() && confirms(step, head) => Standing::Confirm(step.clone()),
        _ if behind(&claims) => Standing::Fenced(overtaken(head.object)),
        _ => Standing::CatchUp,
    }
}

/// Whether a journal that knows less than the replica is no reason to bring the replica to what stands here. By
/// itself a machine that came back as it was once takes its history with it. Under a lease others rely on what
/// is acknowledged: the machine is a copy first, and what it alone has is kept aside.
fn behind(claims: &Claims<'_>) -> bool {
    claims.leased && !claims.adopt && !mutant::on(Mutant::SnapshotGoesOn)
}

/// A copy that has followed the replica goes on where it ends, and nowhere else.
fn plan_succession(claims: Claims<'_>, head: &Head) -> Standing {
    let at = claims.local.point.as_ref().map(|point| (point.txid, Some(point.post)));
    if at == Some((head.txid(), head.header.chain.post)) && head.header.lineage.is_some() {
        return Standing::Extend;
    }
    Standing::Fenced(overtaken(head.object))
}

/// The exit of a successor that is not at the end of the history.
pub fn overtaken(object: Object) -> Exit {
    Exit::Overtaken { error: format!("{object} is on the replica, which the copy has not followed yet") }
}

fn confirms(step: &Step, head: &Head) -> bool {
    step.to.txid == head.txid() && head.header.chain.post == Some(step.to.post)
}

/// A replica whose head Litestream wrote: Litestream's own local state, ending where the head
/// ends, proves that this database is the one.
fn plan_after_litestream(claims: Claims<'_>, head: &Head) -> Standing {
    if claims.adopt {
        return Standing::Begin { why: "told to adopt a replica that another program wrote".into() };
    }
    let same = claims.litestream.is_some_and(|local| {
        local.txid == head.txid()
            && decode_header(&local.header).is_ok_and(|local| {
                (local.wal_offset, local.wal_size, local.wal_salts)
                    == (head.header.wal_offset, head.header.wal_size, head.header.wal_salts)
            })
    });
    if same {
        return Standing::Begin {
            why: "taking over from Litestream, whose local state ends at the replica's head".into(),
        };
    }
    Standing::Fenced(Exit::Fenced {
        error: format!(
            "the replica's head {} was written by another program, and nothing beside this database proves that it is the source",
            head.object
        ),
        hint: "if this database is the one to replicate there, run once with -adopt; otherwise choose another path".into(),
    })
}

/// The exit for a replica that is not ours.
pub fn fenced(error: String) -> Exit {
    Exit::Fenced {
        error,
        hint: "if this database is to own the replica from now on, run once with -adopt; otherwise choose another path".into(),
    }
}

/// The number of a new run: above all that were seen, and under a lease of a range that no other epoch has.
pub fn plan_incarnation(
    local: &History,
    head: Option<&Head>,
    lineage: Lineage,
    epoch: Option<u64>,
) -> Incarnation {
    let mut last = Incarnation(0);
    if local.lineage == Some(lineage) {
        last = last.max(local.incarnation);
    }
    if let Some(head) = head.filter(|head| head.header.lineage == Some(lineage)) {
        last = last.max(head.header.chain.incarnation);
    }
    let first =
        epoch.filter(|_| !mutant::on(Mutant::EpochUnsaid)).map_or(0, |epoch| epoch.min(EPOCH_MAX) as u32);
    let next =
        if mutant::on(Mutant::IncarnationReused) { last } else { crate::machine::next_incarnation(last) };
    next.max(Incarnation(first << Incarnation::RUNS_BITS))
}

/// Beyond it, epochs share their range; as many again are left for what comes after the last lease.
const EPOCH_MAX: u64 = 0x7fff;

/// What the files' facts allow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// SQLite may open the database.
    Open,
    /// Not now: a person or the application has to change something.
    Wait {
        /// What is the matter.
        why: &'static str,
        /// What a person can do.
        hint: &'static str,
        /// Whether the application may be committing meanwhile.
        unseen: bool,
    },
    /// Never as it is.
    Refuse {
        /// What is the matter.
        why: String,
        /// What a person can do.
        hint: &'static str,
    },
}

/// Whether the database may be opened, by its files' facts. The order is that of harm: what could
/// destroy data comes first.
pub fn plan_admission(facts: Option<&SourceFacts>) -> Admission {
    let Some(facts) = facts else {
        return Admission::Wait {
            why: "the database does not exist",
            hint: "replication starts by itself when the application creates it",
            unseen: false,
        };
    };
    if !facts.regular {
        return Admission::Refuse {
            why: "the path is not a regular file".into(),
            hint: "name the database file itself",
        };
    }
    if facts.links > 1 {
        return Admission::Refuse {
            why: format!("the database has {} hard links", facts.links),
            hint: "SQLite finds -wal and -shm by name: remove the other links",
        };
    }
    if let Filesystem::Remote(kind) = &facts.filesystem {
        return Admission::Refuse {
            why: format!(
                "the database lies on {kind}, where SQLite's WAL mode is not safe between processes"
            ),
            hint: "move the database to a local filesystem",
        };
    }
    if facts.size == 0 {
        return Admission::Wait {
            why: "the database is empty",
            hint: "replication starts by itself when the application creates a table",
            unseen: false,
        };
    }
    if facts.journal.is_some_and(|bytes| bytes > 0) {
        return Admission::Wait {
            why: "a rollback journal stands beside the database",
            hint: "open the database once with the application, so that SQLite rolls the journal back",
            unseen: true,
        };
    }
    if !facts.owner && (facts.wal.is_none() || !facts.shm) {
        return Admission::Wait {
            why: "the application has the database closed, and opening it as another user would create files that it cannot write",
            hint: "run as the owner of the database, or start the application first",
            unseen: true,
        };
    }
    Admission::Open
}

/// What the first 100 bytes of the database allow.
pub fn plan_header(header: &[u8]) -> Admission {
    let Some(header) = header.first_chunk::<100>() else {
        return Admission::Wait {
            why: "the database is shorter than its header",
            hint: "replication starts by itself when the application creates a table",
            unseen: false,
        };
    };
    if &header[..16] != b"SQLite format 3\0" {
        return Admission::Refuse {
            why: "the file is not a SQLite database, or it is encrypted".into(),
            hint: "name a plain SQLite database; SQLCipher and other encrypted files are not supported",
        };
    }
    match (header[18], header[19]) {
        (2, 2) => Admission::Open,
        (1, 1) => Admission::Wait {
            why: "the database is in rollback-journal mode",
            hint: "run: sqlite3 DATABASE 'PRAGMA journal_mode=WAL'",
            unseen: true,
        },
        (3, _) | (_, 3) => Admission::Refuse {
            why: "the database is in WAL2 mode".into(),
            hint: "run: PRAGMA journal_mode=WAL with the SQLite that wrote it",
        },
        (w, r) => Admission::Refuse {
            why: format!("the database header names unknown file formats {w} and {r}"),
            hint: "the file is damaged or from a newer SQLite",
        },
    }
}

/// What a person should know of the SQLite that wrote the database last, by its header: releases
/// from 3.7.0 to 3.51.2 can lose pages when a second process checkpoints, which we do. Patched ones
/// of two older branches are sound (<https://sqlite.org/wal.html#walresetbug>).
pub fn plan_writer(header: &[u8]) -> Option<String> {
    let version = u32::from_be_bytes(*header.get(96..)?.first_chunk()?);
    let (major, minor, patch) = (version / 1_000_000, version / 1_000 % 1_000, version % 1_000);
    let sound = match (major, minor) {
        // Nobody has written it down.
        (0, _) => true,
        (3, 44) => patch >= 6,
        (3, 50) => patch >= 7,
        (3, 51) => patch >= 3,
        (3, minor) => minor > 51,
        (major, _) => major > 3,
    };
    (!sound).then(|| {
        format!(
            "SQLite {major}.{minor}.{patch} has written the database: before 3.51.3 a checkpoint by another process, which driftless runs, can damage it; update the application's SQLite"
        )
    })
}

/// Where capture goes on after attaching.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Continuity {
    /// From this position.
    From(WalPosition),
    /// From the start of the WAL that is there now, whatever its salts.
    WalStart,
    /// Not proven: compare the database with the page table.
    Rebase {
        /// Why.
        why: String,
    },
}

/// What was seen of the source once a read transaction stood.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The files, looked at while the transaction stood.
    pub facts: &'a SourceFacts,
    /// The wal-index.
    pub index: &'a WalIndex,
    /// The page size of the database.
    pub page_size: PageSize,
    /// The cumulative checksum in the frame at our position, if the frame is there.
    pub mark: Option<crate::wal::FrameHeader>,
}

/// Whether the source goes on from `point`, by the three cases of `WAL-RULES`, "Continuity".
pub fn plan_continuity(point: &Point, seal: Option<&SealRecord>, seen: Sighting<'_>) -> Continuity {
    if point.page_size != seen.page_size {
        let why = format!("the page size changed from {} to {}", point.page_size, seen.page_size);
        return Continuity::Rebase { why };
    }
    let same_file = point.file == (seen.facts.device, seen.facts.inode);
    if let Some(wal) = &point.wal
        && same_file
        && wal.salts == seen.index.salts
        && wal.frame > 0
    {
        let stands = seen.index.mx_frame >= wal.frame
            && seen.mark.is_some_and(|mark| mark.salts == wal.salts && mark.checksum == wal.checksum);
        if stands {
            return Continuity::From(*wal);
        }
        if seal != Some(&SealRecord::of(seen.facts)) {
            let why = format!(
                "the source rolled back: its WAL ends at frame {} of the same generation, {} was captured to frame {}",
                seen.index.mx_frame, point.txid, wal.frame
            );
            return Continuity::Rebase { why };
        }
    }
    let trusted = seal.is_some() && mutant::on(Mutant::SealTrustedBlindly);
    if seal == Some(&SealRecord::of(seen.facts)) || trusted {
        return Continuity::WalStart;
    }
    let why = if same_file {
        "the database changed while it was not watched"
    } else {
        "the database file was replaced"
    };
    Continuity::Rebase { why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Level, TxidRange, Wall};

    /// Ring 1, twins of one database: the one that was fenced lost its page table with its power,
    /// started again, and wrote its older state over what the other had replicated since.
    #[test]
    fn a_lost_page_table_is_no_claim_to_what_another_process_wrote() {
        let lineage = Lineage::new(7);
        let range = TxidRange::single(Txid::FIRST);
        let mut header = LtxHeader::new(PageSize::new(512).unwrap(), 1, range, Wall(0));
        header.lineage = lineage;
        let stands = |incarnation: u32, adopt: bool| {
            let mut header = header;
            header.chain.incarnation = Incarnation(incarnation);
            let head = Head { object: Object { level: Level::CAPTURES, range }, header };
            let local = History { lineage, incarnation: Incarnation(2), ..History::default() };
            let (intent, litestream, succeeds) = (None, None, false);
            plan_standing(Claims {
                local: &local,
                intent,
                head: Some(&head),
                litestream,
                adopt,
                succeeds,
                leased: false,
            })
        };
        assert!(matches!(stands(2, false), Standing::Base { .. }));
        assert_eq!(stands(3, false), Standing::Prove);
        assert!(matches!(stands(3, true), Standing::Base { .. }));
    }

    #[test]
    fn an_old_sqlite_is_known_by_the_header() {
        let told = |version: u32| {
            let mut header = [0; 100];
            header[96..].copy_from_slice(&version.to_be_bytes());
            plan_writer(&header)
        };
        for affected in [3_007_000, 3_040_001, 3_044_005, 3_045_000, 3_050_006, 3_051_002] {
            assert!(told(affected).is_some(), "{affected}");
        }
        for sound in [0, 3_044_006, 3_050_007, 3_051_003, 3_052_000, 3_054_001, 4_000_000] {
            assert_eq!(told(sound), None, "{sound}");
        }
        assert!(told(3_040_001).is_some_and(|text| text.starts_with("SQLite 3.40.1 has")));
        assert_eq!(plan_writer(&[0; 99]), None, "shorter than a header");
    }
}
