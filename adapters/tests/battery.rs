//! The battery over the stores of this crate, and over stores that must fail it.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use driftless_adapters::battery::{self, Options, Report, Verdict};
use driftless_adapters::directory::DirectoryStore;
use driftless_adapters::fs::RealFs;
use driftless_adapters::memory::MemoryStore;
use driftless_adapters::store::Store;
use futures_lite::future::block_on;
use support::Scratch;
use support::broken::{Broken, Defect};
use support::crash_fs::CrashFs;

fn run(store: &dyn Store) -> Report {
    block_on(battery::run(store, &Options::default()))
}

/// What a store does not claim that has no versions.
const SWAPS: [&str; 5] =
    ["swap_is_exact", "swap_names_its_version", "swap_of_nothing", "swap_of_large", "swap_has_one_winner"];

fn passes_whole(store: &dyn Store, unclaimed: &[&str]) {
    let report = run(store);
    assert!(report.passed(), "{report}");
    assert_eq!(report.unclaimed().collect::<Vec<_>>(), unclaimed);
}

#[test]
fn the_memory_store_conforms() {
    passes_whole(&MemoryStore::new(), &["list_modified"]);
}

#[test]
fn the_directory_store_conforms() {
    let scratch = Scratch::new();
    let root = scratch.path().join("not/yet/there");
    let store: Arc<dyn Store> = Arc::new(DirectoryStore::new(RealFs, &root, std::process::id()));
    passes_whole(&*store, &SWAPS);
}

#[test]
fn the_directory_store_conforms_on_a_filesystem_in_memory() {
    passes_whole(&DirectoryStore::new(CrashFs::new(), "/replica", 1), &SWAPS);
}

#[test]
fn what_is_not_claimed_is_reported_and_not_passed() {
    let report = run(&Broken::without_create());
    assert!(report.passed(), "{report}");
    let unclaimed: Vec<_> = report.unclaimed().collect();
    let creates = ["create_is_refused", "decided_at_commit", "one_winner"];
    assert_eq!(unclaimed, [&creates[..], &SWAPS, &["list_modified"]].concat());
    for refused in ["unclaimed_is_refused", "unclaimed_swap_is_refused"] {
        assert!(report.outcomes.iter().any(|o| o.check == refused && o.verdict == Verdict::Passed));
    }
}

#[test]
fn what_stood_there_before_is_left_alone() {
    let store = MemoryStore::new();
    let key = "driftless-battery/mine".try_into().unwrap();
    block_on(async {
        store.put(&key, driftless_adapters::store::PutCondition::Always).await?.commit().await
    })
    .unwrap();
    let report = run(&store);
    assert_eq!(report.failed().collect::<Vec<_>>(), ["starts_empty"]);
    assert_eq!(report.outcomes.len(), 1);
    assert!(block_on(store.get(&key, driftless_adapters::store::ByteRange::ALL)).is_ok());
}

/// Each defect with a check that must notice it; others may as well.
const DEFECTS: &[(Defect, &str)] = &[
    (Defect::FlipsFirstByte, "put_then_get"),
    (Defect::EndsBodyEarly, "put_then_get"),
    (Defect::MiscountsRemaining, "put_then_get"),
    (Defect::YieldsHugeChunks, "large_object"),
    (Defect::YieldsEmptyChunks, "put_then_get"),
    (Defect::RangeOffByOne, "ranged_get"),
    (Defect::RangeLenAsObjectLen, "ranged_get"),
    (Defect::TailFromStart, "tail_get"),
    (Defect::ZeroLengthMeansAll, "zero_length_range"),
    (Defect::RefusesRangePastEnd, "range_past_the_end"),
    (Defect::LosesEmptyObjects, "empty_object"),
    (Defect::LosesThirdPart, "large_object"),
    (Defect::EmptyPartEndsObject, "uneven_parts"),
    (Defect::AbsentIsEmpty, "absent_is_not_found"),
    (Defect::AbsentIsRetry, "absent_is_not_found"),
    (Defect::RestartsBody, "body_ends_once"),
    (Defect::IgnoresCondition, "create_is_refused"),
    (Defect::RefusesAndReplaces, "create_is_refused"),
    (Defect::RefusesAsFailed, "create_is_refused"),
    (Defect::ChecksAtBegin, "decided_at_commit"),
    (Defect::ChecksBeforeCommitting, "one_winner"),
    (Defect::AcceptsUnclaimed, "unclaimed_is_refused"),
    (Defect::AlwaysKeepsFirst, "always_replaces"),
    (Defect::VisibleAtBegin, "hidden_until_commit"),
    (Defect::AbortCommits, "abort_leaves_nothing"),
    (Defect::DropCommits, "drop_leaves_nothing"),
    (Defect::SharesStaging, "concurrent_puts"),
    (Defect::RemembersDeleted, "delete_then_recreate"),
    (Defect::DeletesByPrefix, "delete_is_exact"),
    (Defect::DeletesNothing, "ends_empty"),
    (Defect::DeleteOfAbsentFails, "delete_of_nothing"),
    (Defect::StopsAtThousand, "list_pages"),
    (Defect::IgnoresLimit, "list_pages"),
    (Defect::AlwaysMore, "list_pages"),
    (Defect::ListsWrongLen, "list_pages"),
    (Defect::IgnoresStartAfter, "list_start_after"),
    (Defect::IncludesStartAfter, "list_start_after"),
    (Defect::OrdersByName, "list_order"),
    (Defect::PrefixIsDirectory, "list_prefix"),
    (Defect::ClaimsModified, "list_modified"),
    (Defect::TellsNoVersion, "swap_is_exact"),
    (Defect::NamesOldVersion, "swap_names_its_version"),
    (Defect::IgnoresVersion, "swap_is_exact"),
    (Defect::SwapsNothing, "swap_of_nothing"),
    (Defect::SwapsLargeAlways, "swap_of_large"),
    (Defect::ComparesBeforeCommitting, "swap_has_one_winner"),
    (Defect::AcceptsUnclaimedSwap, "unclaimed_swap_is_refused"),
];

#[test]
fn every_defect_is_found() {
    for (defect, check) in DEFECTS {
        let report = run(&Broken::new(*defect));
        // A store whose listings are wrong throughout is stopped at the door, which is as good.
        let found = report.failed().any(|failed| failed == *check || failed == "starts_empty");
        assert!(found, "{defect:?} was not noticed by {check}:\n{report}");
    }
}

/// A check that no defect fails is not known to check anything.
#[test]
fn every_check_can_fail() {
    let mut unproven: BTreeSet<_> = battery::check_names().collect();
    for (defect, _) in DEFECTS {
        for failed in run(&Broken::new(*defect)).failed() {
            unproven.remove(failed);
        }
    }
    unproven.remove("starts_empty"); // `what_stood_there_before_is_left_alone`
    assert!(unproven.is_empty(), "{unproven:?}");
}

#[test]
fn the_harness_itself_has_no_defect() {
    let report = run(&Broken::new(Defect::None));
    assert!(report.passed(), "{report}");
}
