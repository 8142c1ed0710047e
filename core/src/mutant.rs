//! Planted bugs, by which the simulator is judged.
//!
//! Each is a rule of the engine that is left out or turned round: `if mutant::on(Mutant::…)` at the
//! place where the rule stands. Without the feature `mutants` that is a constant `false`, and nothing
//! is left of it. With the feature, a process can choose one (`choose`), and the simulator must
//! object to what follows (`sim mutants`, `sim/src/mutants.rs`). Some are bugs that were made in
//! earnest and mended; [`Mutant::met`] tells where.
//!
//! Only `target/mutants` is ever built with the feature, and the binary `driftless` does not compile
//! with it ([`PLANTED`]).

/// Whether this build holds the planted bugs.
pub const PLANTED: bool = cfg!(feature = "mutants");

macro_rules! mutants {
    ($($variant:ident, $name:literal, $met:literal, $story:literal;)*) => {
        /// One planted bug.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mutant {
            $(#[doc = $story] $variant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$variant),*];

            /// The name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Mutant::$variant => $name,)* }
            }

            /// What goes wrong.
            pub const fn story(self) -> &'static str {
                match self { $(Mutant::$variant => $story,)* }
            }

            /// Where it was made in earnest: the seed that found it, or who did; empty if it was
            /// made up.
            pub const fn met(self) -> &'static str {
                match self { $(Mutant::$variant => $met,)* }
            }
        }
    };
}

mutants! {
    // Compression.
    BlocksOfAnotherCodec, "blocks-of-another-codec", "",
        "a merge copies the blocks of an input that is compressed in another way than the result";
    SegmentBeforeDictionary, "segment-before-dictionary", "",
        "a segment leaves before the dictionary that it names is on the replica";
    // Scanning and capturing.
    IndexPageSizeZero, "index-page-size-zero", "seed 29",
        "the wal-index of an empty WAL has page size zero and is taken for torn";
    CommitCutsLastPage, "commit-cuts-last-page", "",
        "a commit cuts off one page too many: the last of the database";
    OldestImageKept, "oldest-image-kept", "",
        "of a page that changed twice the first image is sent";
    OutdatedFrameRead, "outdated-frame-read", "",
        "of the frames of one page in a stretch of the WAL the oldest is read instead of the newest";
    NewestUnproven, "newest-unproven", "",
        "frames that are read for being the newest of their page are taken without their checksums";
    GrowthOmitted, "growth-omitted", "",
        "pages by which the database grew are left out of the segment";
    TornBeginTrusted, "torn-begin-trusted", "review",
        "what a read transaction saw is not looked at again when the index that came with it was torn";
    PhantomCaptured, "phantom-captured", "",
        "frames that follow the last committed one in order are taken for committed";
    PinWithoutOverlap, "pin-without-overlap", "",
        "the old read transaction ends before the new one begins, and a restart of the WAL is harmless";
    CheckpointBeforeCapture, "checkpoint-before-capture", "",
        "a checkpoint runs with nothing captured before it, and a restart of the WAL is harmless";
    CutWithinCapture, "cut-within-capture", "",
        "a segment is cut while a capture is under way, in the middle of a transaction";
    FramesBehindForgotten, "frames-behind-forgotten", "seed 15301791",
        "an answer tells of frames behind the last capture, their event was lost, and nobody looks";
    // Attaching and letting go.
    SealTrustedBlindly, "seal-trusted-blindly", "",
        "a seal counts whatever became of the file since";
    FailedAttachSeen, "failed-attach-seen", "seed 227",
        "what stands in the -wal of a source that was let go of is never looked at";
    TailIgnored, "tail-ignored", "seed 200909",
        "a commit that failed stands behind the last one when the source is sealed, and is forgotten";
    ThirdFileAttached, "third-file-attached", "seed 23519",
        "the file that the link opened is known by its number alone";
    HeaderNotReread, "header-not-reread", "seed 1263",
        "the header is not read again under the read transaction: the page size is an old one";
    BusyAttachKept, "busy-attach-kept", "seed 2941",
        "busy while attaching: the link stays open without proof of continuity";
    ClosesUnproven, "closes-unproven", "seed 10001812",
        "a link that never read is closed as the last one: the -wal of a file that took the path is deleted";
    EventForgottenInClose, "event-forgotten-in-close", "seed 15870",
        "an event between the seal and the end of closing is forgotten";
    ReplacedAtStop, "replaced-at-stop", "seed 67",
        "a stop does not ask whether the path still names the file that is open";
    SecondSignalDone, "second-signal-done", "seed 51",
        "a second signal before the replica's end is known ends in success";
    CtimeUnsettled, "ctime-unsettled", "",
        "a file is sealed in the clock tick of its last change, which hides the next";
    LockKept, "lock-kept", "",
        "the write lock is not given back when a seal has to wait";
    LooksForever, "looks-forever", "",
        "a quiet source is looked at four times a second for ever";
    // Bases.
    LengthByPath, "length-by-path", "seed 402",
        "a base takes the length of whatever file the path names";
    DirtyOutlivesPin, "dirty-outlives-pin", "seed 11",
        "the list of changed pages outlives the pin under which it was complete";
    CapturedSinceForgotten, "captured-since-forgotten", "seed 100064",
        "pages captured after a base of changed pages was wanted are not read by it";
    UnprovenPinUsed, "unproven-pin-used", "",
        "a base reads a state that its read transaction may not have";
    LockPageWritten, "lock-page-written", "",
        "the lock page goes into a base";
    AsideForgotten, "aside-forgotten", "",
        "while a base is streamed, pages are read as they have become, and nobody compares";
    PageSumLinear, "page-sum-linear", "seed 10000004",
        "a page's checksum in the chain and the page table is the one of LTX";
    // Segments on their way.
    TakenIsDone, "taken-is-done", "",
        "a name that is taken counts as written by us (412 is success)";
    NoReadBack, "no-read-back", "",
        "a put whose answer was lost counts as done, unseen";
    SegmentDropped, "segment-dropped", "",
        "a segment whose put failed is dropped before anybody confirmed it";
    GhostIsOurs, "ghost-is-ours", "",
        "a segment of an earlier run is taken for the one that was to be sent";
    GhostNotRebased, "ghost-not-rebased", "",
        "after a segment of an earlier run was taken over, capture goes on as if it were ours";
    FullByNumberOnly, "full-by-number-only", "seed 4429",
        "a full segment that is not the first is laid over the page table before it";
    VacantSkipped, "vacant-skipped", "",
        "a store that would replace an object is not asked what stands there";
    LateBody, "late-body", "seed 1000682",
        "another body goes out under a name for which an earlier one may yet land";
    ServerBelieved, "server-believed", "seed 15613030",
        "a server is taken to refuse a name that is taken before the probe has found so";
    LaterRunOurs, "later-run-ours", "seed 15600774",
        "a segment with our states that a later run of a copy wrote is taken for our own put";
    StampThereUnread, "stamp-there-unread", "seed 15903841",
        "an earlier try with our states stands there, and what follows may be stamped before it";
    IntentStampKept, "intent-stamp-kept", "seed 15704859",
        "a put that is confirmed at start keeps the stamp of its intent, whatever stands there";
    DeniedOnce, "denied-once", "seed 13311541",
        "what was written is taken for gone when the store has denied it once";
    RetryNeverDue, "retry-never-due", "",
        "nobody wakes for a put that is to be tried again";
    HangNotNoticed, "hang-not-noticed", "",
        "a put that is never answered is awaited for ever";
    DoneBehindHole, "done-behind-hole", "seed 24086",
        "a put is confirmed in the journal although its intent could not be written";
    // Who we are to the replica.
    IdentityUnwritten, "identity-unwritten", "seed 9537",
        "the first put goes out before it is written down whose it is";
    IdentityUnsynced, "identity-unsynced", "",
        "the record of who we are is not synced before the first put";
    LineageRedrawn, "lineage-redrawn", "seed 100014",
        "a run that finds nothing confirmed draws another lineage, and its first put may yet land";
    IncarnationReused, "incarnation-reused", "",
        "a run takes the number of the one before";
    PartialListTrusted, "partial-list-trusted", "",
        "the first page of a listing is taken for all of it";
    HeadReadOnce, "head-read-once", "seed 10000280",
        "the newest segment's header, which has no checksum of its own, is believed at first sight";
    JournalHoleTrusted, "journal-hole-trusted", "",
        "records are written behind a hole in the journal, and read as if there were none";
    // Reports and the machine itself.
    StampGoesBack, "stamp-goes-back", "",
        "segments are stamped by the wall clock alone, which may be set back";
    SyncedAhead, "synced-ahead", "",
        "a sync is reported as soon as it was captured";
    HiddenState, "hidden-state", "",
        "decisions follow from something that is no event";
    // Restoring.
    PlanSkipsOne, "plan-skips-one", "",
        "a restore takes a file that begins one transaction too late";
    TimeExcluded, "time-excluded", "",
        "a restore to a moment leaves out what was stamped at that very moment";
    // Levels.
    OldestPageMerged, "oldest-page-merged", "",
        "of a page in several files the first image goes into the compaction";
    GapBridged, "gap-bridged", "",
        "files are compacted into one although transactions between them are missing";
    CutPageMerged, "cut-page-merged", "",
        "pages that a later transaction cut off stay in a compaction, and the database as long as it was";
    InputUnverified, "input-unverified", "",
        "a compaction takes what it reads without its file checksum";
    MergeMissesPage, "merge-misses-page", "",
        "the last page of the database is left out of a compaction";
    ForeignLevelTaken, "foreign-level-taken", "",
        "whatever stands under the name of a compaction is taken for it";
    // Retention.
    RetentionImpatient, "retention-impatient", "",
        "what is covered goes at once, and snapshots do not wait for their time";
    HeadNotKept, "head-not-kept", "",
        "the newest files of level 0 go as soon as they are covered";
    InputsEaten, "inputs-eaten", "seed 30000014",
        "what a level above has yet to take goes with the rest";
    CoverGuessed, "cover-guessed", "",
        "a file counts as covered although its transactions are not in what covers it";
    CoverUnread, "cover-unread", "",
        "what covers is not read before anything goes on its account";
    CoverUnlinked, "cover-unlinked", "",
        "what covers is not held against the states of its neighbours";
    WallClockTrusted, "wall-clock-trusted", "",
        "files are as old as a clock says that may have been set";
    DeleteBelieved, "delete-believed", "",
        "the next block of level 0 goes without a look whether the one before has gone";
    BaseUncut, "base-uncut", "",
        "a copy keeps pages of a base that a later file of it has cut off";
    PutsPipelined, "puts-pipelined", "",
        "the next segment is put before the put of the last is known to have succeeded";
    FenceForgotten, "fence-forgotten", "",
        "the first segment of an epoch goes as every other";
    TenureUnproven, "tenure-unproven", "",
        "a put under a name that was deleted is taken for the head";
    // Databases without an engine.
    ChangedFilesBelieved, "changed-files-believed", "",
        "a database without an engine is as it was left, whatever its files are now";
    OldRecordsBelieved, "old-records-believed", "",
        "a database begins without an engine although its files are not those of its seal";
    ChangeInLeavingForgotten, "change-in-leaving-forgotten", "",
        "what is told of a database whose engine leaves is forgotten";
    LeftUnlooked, "left-unlooked", "",
        "the files of a database are not looked at once its engine has gone";
    ViewUnlooked, "view-unlooked", "",
        "what has changed before the directories are watched is not looked for";
    UnreplicatedRests, "unreplicated-rests", "",
        "an engine that ends with something unreplicated counts as finished";
    PendingRests, "pending-rests", "",
        "an engine with captured pages that wait, or a put under way, counts as resting";
    SweepForgotten, "sweep-forgotten", "",
        "the files of databases without an engine are never looked at unless somebody tells of them";
    // The lease.
    WaiterImpatient, "waiter-impatient", "",
        "whoever waits takes the lease when half of its holder's time is over";
    BeginnerFollows, "beginner-follows", "",
        "a host that is to begin the history is a copy first, and what it holds is moved aside";
    WaiterByWall, "waiter-by-wall", "",
        "whoever waits compares its wall clock with the holder's";
    TenureFromAnswer, "tenure-from-answer", "",
        "a holder counts its time from the answer to its renewal, not from before it was sent";
    LooksBeforeRenewal, "looks-before-renewal", "",
        "a holder of whom proofs are wanted all the time does not come to renew its lease";
    TenureNeverEnds, "tenure-never-ends", "",
        "a holder that cannot renew its lease goes on";
    EpochKept, "epoch-kept", "",
        "a new holder has the epoch of the one before";
    RefusalIsOurs, "refusal-is-ours", "",
        "a refused write of the lease is taken for an earlier one of ours that has succeeded";
    LeaseUnread, "lease-unread", "",
        "a put counts as replicated without a look at the lease after it";
    SuccessionUnfenced, "succession-unfenced", "",
        "a successor whose database is as the replica says begins without a segment of its own";
    PredecessorReverted, "predecessor-reverted", "",
        "what the predecessor wrote last is taken for an earlier try of ours, and undone";
    EpochUnsaid, "epoch-unsaid", "failover --whole, seed 2913",
        "runs of two epochs have the same number, so that a successor takes another claimant's fence for its own";
    SnapshotGoesOn, "snapshot-goes-on", "failover --whole, seed 2010",
        "a copy of the primary's machine, which the lease lets go on, brings the replica back to what it has";
    LeaseDeleted, "lease-deleted", "",
        "a holder that gives its lease up deletes it";
    ActivatesUnfenced, "activates-unfenced", "",
        "a successor's application begins before its first segment is on the replica";
    TailBelieved, "tail-believed", "failover --whole, seed 5",
        "a copy goes on from the state of a put that never arrived";
    UnknownOverwritten, "unknown-overwritten", "",
        "a database in no known state is brought to that of the replica";
    EarlyLookBelieved, "early-look-believed", "failover --whole, seed 39",
        "a look from before the lease was held shows a successor that the replica is empty";
    EarlySearchBelieved, "early-search-believed", "",
        "a search from before the lease was held shows a successor all databases of a directory";
    OwnPutFences, "own-put-fences", "",
        "where our own put stands, whose answer was lost, a writer under a lease counts as fenced";
    // Validation.
    VanishedIsDamage, "vanished-is-damage", "",
        "an object that goes while a validation reads counts as damaged";
    // The directory store.
    DirectoryUnsynced, "directory-unsynced", "",
        "a directory is not synced after the rename into it";
    FileUnsynced, "file-unsynced", "",
        "an object's bytes are not synced before it takes its name";
    ParentUnsynced, "parent-unsynced", "",
        "a new directory's own name is not synced";
    RenameReplaces, "rename-replaces", "",
        "an object is put in place by a rename that replaces";
}

/// Whether this bug is the one that was chosen.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn on(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use planted::{choose, met_times, noise, on};

/// What is no event: something that lives outside of every machine.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn noise() -> u64 {
    0
}

#[cfg(feature = "mutants")]
mod planted {
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::Mutant;

    /// The number of the chosen one, counted from 1.
    static CHOSEN: AtomicU32 = AtomicU32::new(0);

    /// How often it has been asked for since it was chosen.
    static MET: AtomicU64 = AtomicU64::new(0);

    /// Chooses the bug that this process has from now on, or none.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.store(mutant.map_or(0, |mutant| mutant as u32 + 1), Ordering::Relaxed);
        MET.store(0, Ordering::Relaxed);
    }

    /// How often the chosen bug has stood in the way since it was chosen: most are asked for only
    /// where the rule that they break would have decided.
    pub fn met_times() -> u64 {
        MET.load(Ordering::Relaxed)
    }

    /// The unit tests have the one that the environment names.
    #[cfg(test)]
    fn choose_as_asked() {
        static ASKED: std::sync::Once = std::sync::Once::new();
        ASKED.call_once(|| {
            let Ok(name) = std::env::var("DRIFTLESS_MUTANT") else { return };
            let named = Mutant::ALL.iter().find(|mutant| mutant.name() == name);
            choose(Some(*named.expect("DRIFTLESS_MUTANT names a planted bug")));
        });
    }

    /// Whether this bug is the one that was chosen.
    pub fn on(mutant: Mutant) -> bool {
        #[cfg(test)]
        choose_as_asked();
        let on = CHOSEN.load(Ordering::Relaxed) == mutant as u32 + 1;
        MET.fetch_add(u64::from(on), Ordering::Relaxed);
        on
    }

    /// What is no event: something that lives outside of every machine.
    pub fn noise() -> u64 {
        static NOISE: AtomicU64 = AtomicU64::new(1);
        NOISE.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn this_build_holds_none_of_them() {
        assert_eq!([PLANTED], [false], "the feature `mutants` is for target/mutants only");
        assert!(Mutant::ALL.iter().all(|mutant| !on(*mutant)));
    }

    #[test]
    fn each_has_a_name_and_a_story_of_its_own() {
        assert!(Mutant::ALL.len() >= 32, "{} planted bugs", Mutant::ALL.len());
        let names: BTreeSet<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        let stories: BTreeSet<_> = Mutant::ALL.iter().map(|mutant| mutant.story()).collect();
        assert_eq!((names.len(), stories.len()), (Mutant::ALL.len(), Mutant::ALL.len()));
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        let met = Mutant::ALL.iter().filter(|mutant| !mutant.met().is_empty()).count();
        assert!(met >= 10, "{met} of them were made in earnest");
    }
}
