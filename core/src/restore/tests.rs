//! Restores against the files of three Litestream releases and against histories made here.

mod difference;
pub(crate) mod history;
mod host;
pub(crate) mod naive;
mod overlap;
mod resume;

use std::boxed::Box;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use super::*;
use crate::ids::{PageNo, Txid, TxidRange, Wall};
use crate::ltx::{Encoder, LTX_HEADER_BYTES, LtxHeader};
use crate::machine::{Exit, Listed, Object, StoreError, StoreErrorKind, StoreRequest};
pub(crate) use history::{History, object};
pub(crate) use host::Host;

const FIXTURES: [&str; 4] =
    ["ltx-0.5.5-4k-plain", "ltx-0.5.11-1k-plain", "ltx-0.5.17-4k-plain", "ltx-0.5.17-4k-shrink"];

/// The fixtures live outside the repository; see `core/tests/fixtures.rs`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let above = || root.ancestors().map(|it| it.join("shared")).find(|it| it.join("fixtures").exists());
    let shared = std::env::var_os("DRIFTLESS_SHARED").map(PathBuf::from).or_else(above);
    let shared = shared.expect("the fixtures are at hand");
    shared.join("fixtures").join(name)
}

pub(crate) fn txid(n: u64) -> Txid {
    Txid::new(n).unwrap()
}

fn at(n: u64) -> RestoreConfig {
    RestoreConfig { target: RestoreTarget::At(txid(n)), ..RestoreConfig::default() }
}

/// The restore points of `expected.json`: transaction (0 for the latest) and pages, `None` for
/// those that must fail. Read by hand, since the core has no parser of its own.
fn restore_points(dir: &Path) -> Vec<(u64, Option<u32>)> {
    let text = std::fs::read_to_string(dir.join("expected.json")).unwrap();
    let mut points = Vec::new();
    let mut key = None;
    for line in text.lines() {
        let words: Vec<&str> = line.trim().split('"').collect();
        let name = words.get(1).copied().unwrap_or_default();
        if name == "latest" {
            key = Some(0);
        } else if name.len() == 16 && line.ends_with('{') {
            key = u64::from_str_radix(name, 16).ok();
        } else if name == "error" {
            points.push((key.take().unwrap(), None));
        } else if let ("pages", Some(txid)) = (name, key) {
            let pages = words[2].trim_matches([':', ' ', ',']).parse().unwrap();
            points.push((txid, Some(pages)));
            key = None;
        }
    }
    points
}

#[test]
fn every_restore_point_of_every_release_comes_back_page_by_page() {
    for name in FIXTURES {
        let dir = fixture(name);
        let points = restore_points(&dir);
        assert!(points.len() > 15, "{name}: the restore points were read");
        for (n, (point, pages)) in points.into_iter().enumerate() {
            let mut host = Host::from_dir(&dir.join("replica/ltx")).seeded(n as u64 * 77 + 5, 60);
            let config = if point == 0 { RestoreConfig::default() } else { at(point) };
            let (exit, status) = host.restore(config);
            let Some(pages) = pages else {
                let Exit::NothingToRestore { error, .. } = &exit else {
                    panic!("{name} {point:x}: {exit:?}")
                };
                assert!(
                    error.contains("is missing on the way") || error.contains("no file ends at"),
                    "{name} {point:x}: {error}"
                );
                assert_eq!((host.target, host.output), (None, None));
                continue;
            };
            assert_eq!(exit, Exit::Done, "{name} {point:x}");
            let found = host.target.expect("the target is in place");
            let target = status.target.unwrap();
            assert!(point == 0 || target == txid(point));
            assert_eq!(status.pages, pages, "{name} {point:x}");
            assert_eq!(found.len(), pages as usize * status.page_size.unwrap().bytes(), "{name} {point:x}");
            assert!(found == naive::restore(&host.store, target).unwrap(), "{name} {point:x} differs");
        }
    }
}

/// Restores `target` under a few seeds and compares with what the history says.
fn check(history: &History, config: &RestoreConfig, txid: u64) -> RestoreStatus {
    let mut last = None;
    for seed in 1..6 {
        let mut host = Host::new(history.store.clone()).seeded(seed * 31, 50 * (seed - 1));
        let (exit, status) = host.restore(config.clone());
        assert_eq!(exit, Exit::Done, "seed {seed}");
        assert!(
            host.target.as_ref() == history.states.get(&txid),
            "the state at {txid} comes back, seed {seed}"
        );
        assert!(host.reads_open_max <= 2 * config.parallelism, "{} reads at once", host.reads_open_max);
        last = Some(status);
    }
    last.unwrap()
}

/// Restores with one seed and tells how it ended.
fn fails(store: &BTreeMap<Object, Vec<u8>>, config: RestoreConfig) -> Exit {
    let mut host = Host::new(store.clone());
    host.target = Some(b"old".to_vec());
    let (exit, _) = host.restore(RestoreConfig { replace: true, ..config });
    assert_ne!(exit, Exit::Done);
    assert_eq!(host.target.as_deref(), Some(&b"old"[..]), "the target is as it was");
    assert_eq!(host.output, None, "nothing is left beside it");
    exit
}

fn text(exit: &Exit) -> String {
    format!("{exit:?}")
}

#[test]
fn each_state_of_a_chained_history_is_proven() {
    for (page_bytes, points) in [(512, &[1, 2, 11, 20, 21, 33, 40][..]), (65_536, &[22])] {
        let history = History::typical(page_bytes, true);
        for &n in points {
            let status = check(&history, &at(n), n);
            assert!(status.proven);
            assert!(status.plan.iter().all(|file| file.chained == Some(true) && file.ranged));
        }
        check(&history, &RestoreConfig::default(), 40);
    }
}

#[test]
fn each_state_of_an_unchained_history_comes_back_unproven() {
    for parallelism in [1, 3] {
        let history = History::typical(1024, false);
        for n in [1, 2, 11, 20, 33, 40] {
            let status = check(&history, &RestoreConfig { parallelism, ..at(n) }, n);
            assert!(!status.proven);
            assert!(status.plan.iter().all(|file| file.chained == Some(false) && !file.ranged));
        }
    }
}

#[test]
fn large_files_come_in_ranges_or_pieces() {
    for chained in [true, false] {
        let mut history = History::new(4096, chained);
        history.commit(3000, &[]);
        history.snapshot();
        history.commit(3000, &(1..3000).step_by(40).collect::<Vec<_>>());
        history.commit(2900, &(1..2900).step_by(2).collect::<Vec<_>>());
        let status = check(&history, &at(3), 3);
        assert_eq!(status.proven, chained);
        let config = RestoreConfig { parallelism: 1, ..at(3) };
        check(&history, &config, 3);
    }
}

#[test]
fn the_lock_page_stays_a_hole() {
    for chained in [true, false] {
        let mut history = History::new(512, chained);
        history.pending_byte = 512 * 20;
        history.commit(40, &[]);
        history.snapshot();
        history.commit(50, &[3]);
        let config = RestoreConfig { pending_byte: 512 * 20, ..at(2) };
        check(&history, &config, 2);
        let mut history = History::new(512, chained);
        history.pending_byte = 512 * 20;
        history.commit(21, &[]);
        check(&history, &RestoreConfig { pending_byte: 512 * 20, ..at(1) }, 1);
    }
}

#[test]
fn what_is_missing_has_a_name() {
    let empty = fails(&BTreeMap::new(), RestoreConfig::default());
    assert!(matches!(empty, Exit::NothingToRestore { .. }));

    let history = History::typical(512, true);
    let mut store = history.store.clone();
    store.remove(&object(0, 30, 30));
    let exit = fails(&store, RestoreConfig::default());
    assert!(matches!(exit, Exit::Corrupt { .. }), "never an older state: {exit:?}");
    let named = "transaction 000000000000001e is missing on the way to 0000000000000028: files lead up to 000000000000001d, the next starts at 000000000000001f";
    assert!(text(&exit).contains(named), "{exit:?}");
    let exit = fails(&store, at(30));
    assert!(
        text(&exit).contains(
            "no file ends at transaction 000000000000001e; the nearest restorable below is 000000000000001d"
        ),
        "{exit:?}"
    );
    let exit = fails(&history.store, at(99));
    assert!(
        text(&exit).contains("the nearest restorable below is 0000000000000028, and none is above"),
        "{exit:?}"
    );

    store.retain(|it, _| it.level.get() == 0 && it.range.min().get() > 1);
    let exit = fails(&store, at(5));
    assert!(
        text(&exit).contains("no file at or below it stands alone, the first starts at 0000000000000002"),
        "{exit:?}"
    );
}

#[test]
fn a_time_means_the_highest_transaction_stamped_at_or_before_it() {
    let mut history = History::new(512, true);
    history.commit(9, &[]);
    history.snapshot();
    (0..29).for_each(|_| history.commit(9, &[2]));
    let config = |time| RestoreConfig { target: RestoreTarget::Time(Wall(time)), ..RestoreConfig::default() };
    for (time, txid) in [(1000, 1), (1999, 1), (2000, 2), (17_500, 17), (30_000, 30), (i64::MAX, 30)] {
        assert_eq!(check(&history, &config(time), txid).target, Some(self::txid(txid)));
    }
    assert!(matches!(fails(&history.store, config(999)), Exit::NothingToRestore { .. }));

    // The clock stepped back: transaction 20 bears the stamp of 15.
    let mut stepped = history.store[&object(0, 20, 20)].clone();
    let pages = stepped.clone();
    stepped[32..40].copy_from_slice(&15_000i64.to_be_bytes());
    assert_ne!(stepped, pages);
    history.store.insert(object(0, 20, 20), stepped);
    let mut host = Host::new(history.store.clone());
    let (exit, status) = host.restore(RestoreConfig { dry_run: true, ..config(16_500) });
    assert_eq!((exit, status.target), (Exit::Done, Some(txid(20))));
    assert_eq!(host.outputs, 0, "a dry run writes nothing");

    // A gap below the transaction that the time means is an error, never something older.
    history.store.remove(&object(0, 10, 10));
    let exit = fails(&history.store, config(25_000));
    assert!(text(&exit).contains("transaction 000000000000000a is missing"), "{exit:?}");
}

#[test]
fn a_file_with_every_page_makes_what_is_before_it_irrelevant() {
    for chained in [true, false] {
        let mut history = History::new(512, chained);
        history.commit(60, &[]);
        history.snapshot();
        history.commit(70, &[5]);
        history.change_page_size(2048, 33);
        history.commit(35, &[7]);
        history.commit(30, &[2]);
        for n in 1..=5 {
            check(&history, &at(n), n);
        }
        // Nor is it read: what is damaged there does no harm.
        history.store.get_mut(&object(0, 2, 2)).unwrap()[3] ^= 1;
        let status = check(&history, &at(5), 5);
        assert_eq!(status.plan[0].object, object(0, 3, 3));
    }
}

#[test]
fn each_damaged_byte_is_found_and_named() {
    for chained in [true, false] {
        let mut history = History::new(512, chained);
        history.commit(12, &[]);
        history.snapshot();
        history.commit(12, &[3, 4]);
        history.store.remove(&object(0, 1, 1));
        let victim = object(0, 2, 2);
        let bytes = history.store[&victim].len();
        for at_byte in 0..bytes {
            let mut store = history.store.clone();
            store.get_mut(&victim).unwrap()[at_byte] ^= 0x10;
            let mut host = Host::new(store);
            let (exit, _) = host.restore(at(2));
            match exit {
                // Parts that single pages do not depend on: proven right by the state's checksum.
                Exit::Done => {
                    assert!(chained && host.target.as_ref() == history.states.get(&2), "byte {at_byte}")
                }
                Exit::Corrupt { error, .. } => {
                    assert!(
                        error.contains("0/0000000000000002-0000000000000002.ltx"),
                        "byte {at_byte}: {error}"
                    );
                    assert!(
                        error.contains("byte")
                            && (error.contains("expected")
                                || error.contains("ends at")
                                || error.contains("unsupported")),
                        "byte {at_byte}: {error}"
                    );
                    assert_eq!((host.target, host.output), (None, None));
                }
                other => panic!("byte {at_byte}: {other:?}"),
            }
        }
        for cut in [0, 1, 50, 99, 100, 140, bytes - 20, bytes - 1] {
            let mut store = history.store.clone();
            store.get_mut(&victim).unwrap().truncate(cut);
            assert!(matches!(fails(&store, at(2)), Exit::Corrupt { .. }), "cut at {cut}");
        }
    }
}

/// A newest segment whose header tells of fewer pages than there are, so that none of its own are
/// wanted: it was never read, and the restore ended well with a shorter database. (Found by the fuzz
/// target `restores_of_any_store`, which had a database of one page come back with none.)
#[test]
fn a_newest_segment_that_provides_no_page_is_read_all_the_same() {
    let mut history = History::new(512, false);
    history.commit(12, &[]);
    history.commit(12, &[9]);
    let mut store = history.store.clone();
    let body = store.get_mut(&object(0, 2, 2)).unwrap();
    assert_eq!(body[12..16], 12_u32.to_be_bytes());
    body[15] = 8;
    assert!(matches!(fails(&store, at(2)), Exit::Corrupt { .. }));
    check(&history, &at(2), 2);
}

#[test]
fn a_damaged_object_is_gone_around_where_others_cover_it() {
    let mut history = History::typical(512, true);
    let covering =
        history.encode(21, 40, &(1..=history.pages.len() as u32).collect::<Vec<_>>(), None, history.post);
    history.store.insert(object(1, 21, 40), covering);
    let middle = history.store[&object(1, 21, 40)].len() / 2;
    history.store.get_mut(&object(1, 21, 40)).unwrap()[middle] ^= 4;
    for seed in 1..4 {
        let mut host = Host::new(history.store.clone()).seeded(seed, 0);
        let (exit, status) = host.restore(at(40));
        assert_eq!(exit, Exit::Done);
        assert!(status.proven && host.target.as_ref() == history.states.get(&40));
        assert_eq!(status.excluded, vec![object(1, 21, 40)]);
        assert!(host.remarks().contains("is damaged: corrupt"), "{}", host.remarks());
    }
}

#[test]
fn a_forged_page_is_traced_to_its_object() {
    let mut history = History::typical(512, true);
    // Transaction 30 again, sound in itself, with a page that its post-state does not know.
    let post = {
        let header: [u8; LTX_HEADER_BYTES] = *history.store[&object(0, 30, 30)].first_chunk().unwrap();
        LtxHeader::decode(&header).unwrap()
    };
    let mut forged = Vec::new();
    let mut encoder = Encoder::new(&post, &mut forged);
    for page in 1..=post.commit {
        encoder.page(PageNo::new(page).unwrap(), &[page as u8; 512], &mut forged);
    }
    encoder.finish(0, &mut forged);
    history.store.insert(object(0, 30, 30), forged);
    let exit = fails(&history.store, at(40));
    let Exit::Corrupt { error, .. } = &exit else { panic!("{exit:?}") };
    assert!(
        error.contains("0/000000000000001e-000000000000001e.ltx: post-state at byte 88: expected"),
        "{error}"
    );
}

#[test]
fn a_broken_link_is_named() {
    let mut history = History::typical(512, true);
    let file = history.store.get_mut(&object(0, 30, 30)).unwrap();
    file[85] ^= 1;
    let exit = fails(&history.store, at(40));
    assert!(
        text(&exit).contains("0/000000000000001e-000000000000001e.ltx: pre-state at byte 80: expected"),
        "{exit:?}"
    );
}

#[test]
fn objects_that_go_while_they_are_read_cost_a_listing() {
    for chained in [true, false] {
        let history = History::typical(512, chained);
        for n in 1..12 {
            let mut store = history.store.clone();
            let all: Vec<u32> = (1..=history.pages.len() as u32).collect();
            let merged = history.encode(21, 40, &all, None, history.post);
            store.retain(|it, _| it.range.min().get() != 41);
            let mut host = Host::new(store).seeded(n, 0);
            let mut gets = 0;
            host.hook = Some(Box::new(move |request, store| {
                if let StoreRequest::Get { .. } = request {
                    gets += 1;
                    if gets == n * 2 {
                        store.insert(object(1, 21, 40), merged.clone());
                        store.retain(|it, _| it.level.get() > 0 || it.range.min().get() < 21);
                    }
                }
                None
            }));
            let (exit, status) = host.restore(RestoreConfig { parallelism: 2, ..RestoreConfig::default() });
            assert_eq!(exit, Exit::Done, "{n}");
            assert!(host.target.as_ref() == history.states.get(&40));
            assert!(status.listings <= 2);
        }
    }
    let history = History::typical(512, true);
    let mut host = Host::new(history.store);
    host.hook = Some(Box::new(|request, _| {
        let gone = matches!(request, StoreRequest::Get { object: it, .. } if *it == object(0, 30, 30));
        gone.then(|| StoreError::new(StoreErrorKind::NotFound, "gone"))
    }));
    let (exit, status) = host.restore(at(40));
    assert!(matches!(exit, Exit::Failed { .. }) && text(&exit).contains("000000000000001e"), "{exit:?}");
    assert_eq!(status.listings, 6);
}

#[test]
fn a_store_that_never_answers_well_ends_the_restore() {
    for kind in [
        StoreErrorKind::Retry,
        StoreErrorKind::Ambiguous,
        StoreErrorKind::Denied,
        StoreErrorKind::Misconfigured,
    ] {
        let history = History::typical(512, true);
        let mut host = Host::new(history.store);
        host.hook = Some(Box::new(move |request, _| {
            matches!(request, StoreRequest::Get { .. }).then(|| StoreError::new(kind, "no"))
        }));
        let (exit, _) = host.restore(at(40));
        match kind {
            StoreErrorKind::Misconfigured => assert!(matches!(exit, Exit::Misconfigured { .. })),
            _ => assert!(matches!(exit, Exit::Failed { .. })),
        }
    }
}

#[test]
fn a_failed_write_leaves_the_target_alone() {
    let history = History::typical(512, true);
    let mut n = 0;
    loop {
        n += 1;
        let mut host = Host::new(history.store.clone()).seeded(n, 0);
        host.target = Some(b"old".to_vec());
        host.output_fails_at = Some(n);
        let (exit, _) = host.restore(RestoreConfig { replace: true, ..at(40) });
        if exit == Exit::Done {
            assert!(host.target.as_ref() == history.states.get(&40));
            break;
        }
        assert_eq!(host.target.as_deref(), Some(&b"old"[..]), "output request {n} failed");
        assert_eq!(host.output, None);
    }
    assert!(n > 5);
    let mut host = Host::new(history.store);
    host.target = Some(b"old".to_vec());
    let (exit, _) = host.restore(at(40));
    assert!(text(&exit).contains("-force"), "{exit:?}");
    assert_eq!(host.target.as_deref(), Some(&b"old"[..]));
}

#[test]
fn stopped_at_any_moment_it_leaves_the_target_whole() {
    let history = History::typical(512, true);
    for n in 0.. {
        let mut host = Host::new(history.store.clone()).seeded(n + 3, 40);
        host.target = Some(b"old".to_vec());
        host.shutdown_after = Some(n as usize);
        let (exit, _) = host.restore(RestoreConfig { replace: true, ..at(40) });
        assert_eq!(host.output, None, "nothing is left when stopped after {n} events");
        if exit == Exit::Done {
            assert!(host.target.as_ref() == history.states.get(&40));
            if host.shutdown_after.is_some_and(|at| at > 1000) {
                break;
            }
        } else {
            assert!(text(&exit).contains("interrupted"), "{exit:?}");
            assert_eq!(host.target.as_deref(), Some(&b"old"[..]));
        }
    }
}

#[test]
fn a_plan_is_found_where_there_is_one_and_nowhere_else() {
    let mut draw = 4u64;
    let mut next = |below: u64| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) % below
    };
    for _ in 0..3000 {
        let mut objects = Vec::new();
        for _ in 0..next(14) {
            let min = if next(4) == 0 { 1 } else { 1 + next(12) };
            let object = object(next(10) as u8, min, min + next(6));
            objects.push(Listed { object, len: 100 + next(900), modified: None });
        }
        objects.extend(objects.first().copied());
        let inventory = Inventory::new(objects.clone());
        let reachable: Vec<bool> = {
            let mut reachable = vec![false; 20];
            reachable[0] = true;
            for end in 1..20u64 {
                let files =
                    objects.iter().map(|it| it.object.range).filter(|&it| TxidRange::max(it).get() == end);
                let starts = |it: TxidRange| (it.min().get() - 1..end).any(|have| reachable[have as usize]);
                reachable[end as usize] =
                    files.clone().any(|it| it.is_snapshot() || (it.min().get() > 1 && starts(it)));
            }
            reachable
        };
        for end in 1..20 {
            match plan(&inventory, Target::At(txid(end))) {
                Ok(plan) => {
                    assert!(reachable[end as usize], "{objects:?} to {end}");
                    let mut have = 0;
                    for it in plan.files.iter().map(|it| it.object.range) {
                        assert!(it.min().get() <= have + 1 && it.max().get() > have);
                        have = it.max().get();
                    }
                    assert!(have == end && plan.files[0].object.range.is_snapshot());
                }
                Err(PlanError::Empty) => assert!(objects.is_empty()),
                Err(PlanError::NotExact { below, above, .. } | PlanError::Gap { have: below, above, .. }) => {
                    assert!(!reachable[end as usize], "{objects:?} to {end}");
                    let known =
                        |range: Vec<u64>| range.into_iter().find(|&n| reachable[n as usize]).map(txid);
                    assert_eq!(below, known((1..end).rev().collect()));
                    assert_eq!(above, known((end + 1..20).collect()));
                }
            }
        }
        let latest = plan(&inventory, Target::Latest).map(|plan| Some(plan.target));
        assert!(latest.is_err() || latest == Ok(inventory.highest()), "never an older state");
    }
}
