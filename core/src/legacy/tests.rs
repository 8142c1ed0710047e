//! Restores of the fixture and of replicas made here, whole and spoilt.

mod history;

use std::collections::BTreeMap;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use proptest::prelude::*;

use super::*;
use crate::ids::Wall;
use crate::ltx::lz4frame::{Block, FrameStream};
use crate::machine::{Exit, Machine, OpIds, ReplicaId, StoreError, StoreErrorKind, StoreRequest};
use crate::restore::tests::history::History;
use crate::restore::tests::{Host, fixture};
use crate::restore::{RestoreConfig, RestoreTarget};
use history::{GENERATION, LegacyHistory, lz4_frame};

type Objects = BTreeMap<LegacyObject, (Vec<u8>, Option<Wall>)>;

const LATEST: LegacyOrder = LegacyOrder { generation: None, target: LegacyTarget::Latest };

fn host(objects: Objects, seed: u64) -> Host {
    let mut host = Host::new(BTreeMap::new()).seeded(seed, 60);
    host.legacy = objects;
    host
}

fn restore(host: &mut Host, order: LegacyOrder) -> (Exit, LegacyStatus) {
    let ids = OpIds::new(ReplicaId(0), host.seed);
    let mut restorer = LegacyRestorer::new(order, RestoreConfig::default(), ids);
    let exit = host.run(&mut restorer);
    (exit, restorer.status())
}

/// Restores, and expects this state in the target's place.
#[track_caller]
fn check(objects: Objects, order: LegacyOrder, state: &[u8]) {
    let mut host = host(objects, 7);
    let (exit, status) = restore(&mut host, order);
    assert_eq!(exit, Exit::Done, "{order:?}");
    let target = host.target.expect("it stands in place");
    assert_eq!(target.len(), state.len(), "{order:?}");
    assert!(target == state, "{order:?}: another state");
    assert_eq!(status.pages as usize * status.page_size.unwrap().bytes(), state.len());
    assert!(host.output.is_none(), "nothing is left beside the target");
}

/// Expects an end with this code and words in its error, and a target that is as it was.
#[track_caller]
fn refused(objects: Objects, order: LegacyOrder, code: u8, words: &[&str]) -> Exit {
    let mut host = host(objects, 11);
    host.target = Some(b"what was there".to_vec());
    let (exit, _) = restore(&mut host, order);
    let error = exit.error().expect("it ends badly").to_string();
    assert_eq!(exit.code(), code, "{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not said: {error}");
    }
    assert_eq!(host.target.as_deref(), Some(&b"what was there"[..]), "the target is untouched");
    assert!(host.output.is_none(), "nothing is left beside the target");
    exit
}

fn load(dir: &Path) -> Objects {
    let mut objects = Objects::new();
    let generations = dir.join("generations");
    for generation in std::fs::read_dir(generations).unwrap() {
        for folder in ["snapshots", "wal"] {
            let path = generation.as_ref().unwrap().path();
            for file in std::fs::read_dir(path.join(folder)).unwrap() {
                let file = file.unwrap().path();
                let name = file.strip_prefix(dir).unwrap().to_str().unwrap();
                let object = LegacyObject::parse(name).expect("the name of an object");
                objects.insert(object, (std::fs::read(&file).unwrap(), None));
            }
        }
    }
    objects
}

/// Litestream's own restore gave 97 pages; the digest is checked end to end.
#[test]
fn the_fixture_of_litestream_0_3_13_restores_from_either_snapshot() {
    let objects = load(&fixture("wal-0.3.13-4k-plain").join("replica"));
    assert!(objects.len() > 20, "the fixture was read");
    let mut newest = host(objects.clone(), 3);
    let (exit, status) = restore(&mut newest, LATEST);
    assert_eq!((exit, status.pages, status.plan.len()), (Exit::Done, 97, 2));
    let newest = newest.target.unwrap();
    let (mut older, mut wal) = (objects.clone(), 0);
    older.retain(|it, _| (it.index, it.part) != (1, LegacyPart::Snapshot));
    older.keys().for_each(|it| wal += usize::from(it.part != LegacyPart::Snapshot));
    let mut older = host(older, 4);
    let (exit, status) = restore(&mut older, LATEST);
    assert_eq!((exit, status.pages, status.plan.len()), (Exit::Done, 97, 1 + wal));
    assert!(older.target.unwrap() == newest, "the snapshot and the wal give the same");
    let generation = Some(GENERATION);
    let order = LegacyOrder { generation, target: LegacyTarget::Index(0) };
    let mut earlier = host(objects, 5);
    assert_eq!(restore(&mut earlier, order).0, Exit::Done);
    assert!(earlier.target.unwrap() != newest);
}

#[test]
fn each_prefix_of_segments_restores_to_the_state_it_leads_to() {
    for (seed, page_bytes) in [(1, 512), (2, 512), (3, 4096), (4, 65_536)] {
        let history = LegacyHistory::typical(page_bytes, seed);
        assert!(history.states.len() > 6);
        for (last, state) in &history.states {
            check(history.up_to(*last), LATEST, state);
            // With what came later as well, by the index and by the time.
            let generation = Some(GENERATION);
            let ends_index = !history.objects.keys().any(|it| it.index == last.index && it > last);
            if ends_index {
                let order = LegacyOrder { generation, target: LegacyTarget::Index(last.index) };
                check(history.objects.clone(), order, state);
            }
            let (_, at) = &history.objects[last];
            let at = at.unwrap();
            for target in [LegacyTarget::Time(at), LegacyTarget::Time(Wall(at.0 + 999))] {
                check(history.objects.clone(), LegacyOrder { generation: None, target }, state);
            }
        }
    }
}

/// Litestream takes a snapshot while the WAL is in use: what is in the file already comes again.
#[test]
fn a_snapshot_from_the_middle_of_its_wal_is_brought_to_its_end() {
    let mut history = LegacyHistory::new(512, 9, 5);
    history.frame(5, 9);
    history.send();
    history.commit(30, 9);
    history.send();
    history.snapshot();
    let state = history.pages.concat();
    check(history.objects.clone(), LATEST, &state);
    history.commit(25, 3);
    history.commit(40, 6);
    let last = history.send();
    let state = history.pages.concat();
    check(history.objects.clone(), LATEST, &state);
    // Where the WAL does not reach as far as the snapshot, its pages are of two states.
    let mut short = history.objects;
    let first = short.keys().find(|it| it.part != LegacyPart::Snapshot).copied().unwrap();
    short.retain(|it, _| it.part == LegacyPart::Snapshot || *it == first);
    assert!(first < last);
    refused(short, LATEST, 4, &["00000000.snapshot.lz4", "parts of a later one"]);
}

#[test]
fn a_removed_segment_is_an_error_that_names_it() {
    let history = LegacyHistory::typical(512, 6);
    let newest_snapshot =
        history.objects.keys().rfind(|it| it.part == LegacyPart::Snapshot).copied().unwrap();
    let (mut middles, mut tails) = (0, 0);
    let segments: Vec<LegacyObject> = history.states.iter().map(|(it, _)| *it).collect();
    for (at, segment) in segments.iter().enumerate() {
        let Some(next) = segments.get(at + 1) else { continue };
        let mut objects = history.objects.clone();
        objects.remove(segment);
        if segment.index < newest_snapshot.index {
            let state = history.pages.concat();
            check(objects, LATEST, &state);
            continue;
        }
        if next.index == segment.index || segment.part == (LegacyPart::Wal { offset: 0 }) {
            refused(objects, LATEST, 4, &[&segment.to_string(), &next.to_string(), "is missing"]);
            middles += 1;
        } else {
            tails += 1;
        }
    }
    assert!(middles > 2 && tails > 0, "{middles} in the middle, {tails} at ends");
    // A whole index.
    let mut objects = history.objects.clone();
    let index = newest_snapshot.index;
    objects.retain(|it, _| it.index != index || it.part == LegacyPart::Snapshot);
    refused(objects, LATEST, 4, &[&format!("{index:08x}_00000000.wal.lz4"), "is missing"]);
}

/// The end of a WAL that another follows can be missed only by what came with it.
#[test]
fn growth_without_its_pages_is_an_error() {
    let mut history = LegacyHistory::new(512, 9, 7);
    history.commit(12, 2);
    history.send();
    history.commit(30, 2);
    let grown = history.send();
    history.restart();
    history.commit(35, 2);
    let next = history.send();
    let mut objects = history.objects.clone();
    objects.remove(&grown);
    refused(objects, LATEST, 4, &[&next.to_string(), "page 13 does not come with it"]);
}

#[test]
fn a_wal_that_ends_within_a_transaction_is_applied_up_to_its_last_commit() {
    let mut history = LegacyHistory::new(512, 9, 8);
    history.commit(20, 3);
    let whole = history.send();
    let state = history.pages.concat();
    for page in 1..9 {
        history.pages[page as usize - 1][100] ^= 0xff;
        history.frame(page, 0);
    }
    history.send();
    let mut host = host(history.objects.clone(), 3);
    let (exit, status) = restore(&mut host, LATEST);
    assert_eq!((exit, status.pages), (Exit::Done, 20));
    assert!(host.target.as_deref() == Some(&state[..]), "what was not committed is not there");
    assert!(host.remarks().contains("in the middle of a transaction"), "{}", host.remarks());
    // Not so where another WAL follows.
    history.restart();
    history.commit(20, 1);
    history.send();
    refused(history.objects, LATEST, 4, &["in the middle of a transaction", "after frame"]);
    assert_eq!(whole.index, 0);
}

#[test]
fn every_flipped_byte_is_an_error_that_names_its_object() {
    let mut history = LegacyHistory::new(512, 3, 9);
    history.commit(4, 1);
    history.send();
    history.commit(5, 2);
    history.send();
    let state = history.pages.concat();
    let (mut refusals, mut bytes) = (0, 0);
    for (object, (body, _)) in &history.objects {
        for at in 0..body.len() {
            let mut objects = history.objects.clone();
            objects.get_mut(object).unwrap().0[at] ^= 1 << (at % 8);
            let mut host = host(objects, 11);
            let (exit, _) = restore(&mut host, LATEST);
            match exit {
                Exit::Corrupt { error, .. } => assert!(error.contains(&object.to_string()), "{error}"),
                // Another way of LZ4 to say the same.
                Exit::Done => assert!(host.target == Some(state.clone()), "{object}, byte {at}"),
                other => panic!("{object}, byte {at}: {other:?}"),
            }
            refusals += usize::from(host.target.is_none());
            bytes += 1;
        }
    }
    assert!(refusals * 100 > bytes * 95, "{refusals} of {bytes} flips were seen");
}

#[test]
fn a_frame_that_is_not_the_wals_is_an_error_although_its_object_is_whole() {
    let mut history = LegacyHistory::new(512, 5, 10);
    history.commit(6, 1);
    history.send();
    history.commit(7, 1);
    let object = history.send();
    let body = &history.objects[&object].0;
    let mut stream = FrameStream::new();
    stream.push(body);
    let Ok(Block::Content(content)) = stream.next_block() else { panic!("a block") };
    for at in [0, 3, 8, 15, 16, 23, 24, 500] {
        let mut content = content.clone();
        content[at] ^= 1;
        let mut objects = history.objects.clone();
        objects.get_mut(&object).unwrap().0 = lz4_frame(&content, 4, false);
        refused(objects, LATEST, 4, &[&object.to_string(), "wal frame"]);
    }
    // A frame cut short, in an object that is whole.
    let mut objects = history.objects.clone();
    objects.get_mut(&object).unwrap().0 = lz4_frame(&content[..content.len() - 8], 4, false);
    refused(objects, LATEST, 4, &[&object.to_string(), "ends within a frame"]);
    // A segment of a generation with another page size, and one that reaches into the next.
    let mut objects = history.objects.clone();
    let first = LegacyObject { part: LegacyPart::Wal { offset: 0 }, ..object };
    objects.insert(first, LegacyHistory::typical(1024, 1).objects[&first].clone());
    refused(objects, LATEST, 4, &[&first.to_string(), "page size"]);
    let mut objects = history.objects;
    let mut longer = content.clone();
    longer.extend_from_slice(&content);
    objects.get_mut(&first).unwrap().0 = lz4_frame(&longer, 4, false);
    refused(objects, LATEST, 4, &[&first.to_string()]);
}

#[test]
fn what_is_not_there_is_told() {
    let history = LegacyHistory::typical(512, 12);
    let objects = || history.objects.clone();
    let order = |generation, target| LegacyOrder { generation, target };
    refused(Objects::new(), LATEST, 3, &["holds no generation"]);
    let other = Some(Generation(5));
    refused(objects(), order(other, LegacyTarget::Latest), 3, &["no generation 0000000000000005"]);
    let this = Some(GENERATION);
    refused(objects(), order(this, LegacyTarget::Index(77)), 3, &["0000004d", "00000000 to 00000004"]);
    refused(objects(), order(None, LegacyTarget::Time(Wall(5))), 3, &["no snapshot was written", "1000 ms"]);
    let mut timeless = objects();
    timeless.values_mut().for_each(|it| it.1 = None);
    refused(timeless, order(None, LegacyTarget::Time(Wall(5))), 2, &["does not tell when"]);
    let mut bare = objects();
    bare.retain(|it, _| it.part != LegacyPart::Snapshot);
    refused(bare, LATEST, 4, &["holds no snapshot"]);
    let mut hollow = objects();
    hollow.values_mut().last().unwrap().0.clear();
    refused(hollow, LATEST, 4, &["holds nothing"]);
    let mut sealed = objects();
    sealed.values_mut().last().unwrap().0 = b"age-encryption.org/v1\n-> X25519 x".to_vec();
    refused(sealed, LATEST, 4, &["encrypted by age"]);
    let mut old = objects();
    let part = LegacyPart::WholeWal { packed: false };
    old.insert(LegacyObject { generation: GENERATION, index: 4, part }, (vec![1], None));
    refused(old, LATEST, 2, &["00000004.wal", "whole wal"]);
}

/// Two generations: the one that was written last counts, or the one that is named.
#[test]
fn of_several_generations_the_last_written_counts() {
    let (first, second) = (LegacyHistory::typical(512, 13), LegacyHistory::typical(512, 14));
    let older = Generation(0xffff);
    let mut objects = second.objects.clone();
    let later = |at: Option<Wall>| at.map(|at| Wall(at.0 + 1_000_000));
    objects.values_mut().for_each(|it| it.1 = later(it.1));
    for (object, body) in &first.objects {
        objects.insert(LegacyObject { generation: older, ..*object }, body.clone());
    }
    let (old, new) = (first.pages.concat(), second.pages.concat());
    check(objects.clone(), LATEST, &new);
    check(objects.clone(), LegacyOrder { generation: Some(older), ..LATEST }, &old);
    check(objects.clone(), LegacyOrder { generation: None, target: LegacyTarget::Time(Wall(900_000)) }, &old);
    objects.values_mut().for_each(|it| it.1 = None);
    refused(objects.clone(), LATEST, 2, &["cannot be told", "000000000000ffff"]);
    check(objects, LegacyOrder { generation: Some(older), ..LATEST }, &old);
}

#[test]
fn an_object_that_goes_while_it_is_wanted_begins_a_new_listing() {
    let history = LegacyHistory::typical(512, 15);
    let state = history.pages.concat();
    let mut host = host(history.objects.clone(), 9);
    let mut gone = false;
    host.hook = Some(std::boxed::Box::new(move |request, _| match request {
        StoreRequest::GetLegacy { .. } if !gone => {
            gone = true;
            Some(StoreError::new(StoreErrorKind::NotFound, "404"))
        }
        _ => None,
    }));
    let (exit, status) = restore(&mut host, LATEST);
    assert_eq!((exit, status.listings), (Exit::Done, 2));
    assert!(host.target.as_deref() == Some(&state[..]));
}

#[test]
fn whatever_step_fails_leaves_the_target_as_it_was() {
    let history = LegacyHistory::typical(512, 16);
    let mut ends = 0;
    for step in 1.. {
        let mut host = host(history.objects.clone(), step);
        host.output_fails_at = Some(step);
        let (exit, _) = restore(&mut host, LATEST);
        if exit == Exit::Done {
            assert_eq!(host.outputs, step - 1, "every step was tried");
            break;
        }
        assert!(matches!(exit, Exit::Failed { .. }), "{exit:?}");
        assert!(host.target.is_none());
        ends += 1;
    }
    assert!(ends > 5);
    let mut stops = 0;
    for n in 0..400 {
        let mut host = host(history.objects.clone(), 2);
        host.shutdown_after = Some(n);
        let (exit, _) = restore(&mut host, LATEST);
        if exit == Exit::Done {
            break;
        }
        assert!(exit.error().unwrap().contains("interrupted"), "{exit:?}");
        assert!(host.target.is_none() && host.output.is_none());
        stops += 1;
    }
    assert!(stops > 20);
}

fn either(host: &mut Host, target: RestoreTarget, order: Option<LegacyOrder>) -> (Exit, EitherStatus) {
    let config = RestoreConfig { target, ..RestoreConfig::default() };
    let mut restorer = EitherRestorer::new(config, order, OpIds::new(ReplicaId(0), host.seed));
    let exit = host.run(&mut restorer);
    (exit, restorer.status())
}

/// Both layouts on one path: the last written counts, and what is asked for by name.
#[test]
fn of_two_layouts_the_last_written_counts() {
    let (legacy, ltx) = (LegacyHistory::typical(512, 17), History::typical(512, true));
    let (old, new) = (legacy.pages.concat(), ltx.pages.concat());
    let end = legacy.objects.values().filter_map(|it| it.1).max().unwrap();
    let check = |written: Option<Wall>, target, order, expected: &[u8]| {
        let mut host = host(legacy.objects.clone(), 21);
        host.store.clone_from(&ltx.store);
        host.written = written;
        let (exit, _) = either(&mut host, target, order);
        assert_eq!(exit, Exit::Done, "{written:?} {target:?} {order:?}");
        assert!(host.target.as_deref() == Some(expected), "{written:?} {target:?} {order:?}");
    };
    let (before, after) = (Some(Wall(end.0 - 1)), Some(Wall(end.0 + 1)));
    check(after, RestoreTarget::Latest, None, &new);
    check(Some(end), RestoreTarget::Latest, None, &new);
    check(before, RestoreTarget::Latest, None, &old);
    check(None, RestoreTarget::Latest, Some(LATEST), &old);
    check(None, RestoreTarget::At(ltx_last(&ltx)), None, &new);
    // A time: LTX is stamped 1 s, 2 s, …; before that there is only the other.
    check(after, RestoreTarget::Time(Wall(40_000)), None, &new);
    let first = legacy.states[0].1.clone();
    let at = legacy.objects[&legacy.states[0].0].1.unwrap();
    let mut host = host(legacy.objects.clone(), 22);
    host.store = ltx.store.into_iter().filter(|(it, _)| it.range.max().get() > 20).collect();
    host.written = after;
    assert_eq!(either(&mut host, RestoreTarget::Time(at), None).0, Exit::Done);
    assert!(host.target.as_deref() == Some(&first[..]), "{}", host.remarks());
    host.target = None;
    host.written = None;
    let (exit, _) = either(&mut host, RestoreTarget::Latest, None);
    assert!(exit.code() == 2 && exit.error().unwrap().contains("which are newer"), "{exit:?}");
}

fn ltx_last(history: &History) -> crate::ids::Txid {
    crate::restore::tests::txid(history.last)
}

#[test]
fn one_layout_alone_needs_no_choice() {
    let (legacy, ltx) = (LegacyHistory::typical(512, 18), History::typical(512, true));
    let mut only = host(legacy.objects.clone(), 1);
    assert_eq!(either(&mut only, RestoreTarget::Latest, None).0, Exit::Done);
    assert!(only.target.as_deref() == Some(&legacy.pages.concat()[..]));
    let mut only = Host::new(ltx.store.clone()).seeded(2, 60);
    let (exit, status) = either(&mut only, RestoreTarget::Latest, None);
    assert_eq!(exit, Exit::Done);
    assert!(matches!(status, EitherStatus::Ltx(status) if status.target == Some(ltx_last(&ltx))));
    let mut nothing = Host::new(BTreeMap::new());
    assert_eq!(either(&mut nothing, RestoreTarget::Latest, None).0.code(), 3);
    let mut unheard = host(legacy.objects, 3);
    unheard.hook = Some(std::boxed::Box::new(|_, _| Some(StoreError::new(StoreErrorKind::Denied, "403"))));
    let (exit, _) = either(&mut unheard, RestoreTarget::Latest, None);
    assert!(exit.code() == 1 && exit.error().unwrap().contains("403"), "{exit:?}");
}

#[test]
fn a_dry_run_ends_with_the_plan_and_reads_no_object() {
    let history = LegacyHistory::typical(512, 19);
    let mut host = host(history.objects, 1);
    let config = RestoreConfig { dry_run: true, ..RestoreConfig::default() };
    let mut restorer = LegacyRestorer::new(LATEST, config, OpIds::new(ReplicaId(0), 1));
    assert_eq!(host.run(&mut restorer), Exit::Done);
    let status = restorer.status();
    assert_eq!((status.generation, status.index), (Some(GENERATION), Some(4)));
    assert_eq!(status.plan[0].object.part, LegacyPart::Snapshot);
    assert!(status.plan.is_sorted_by_key(|it| it.object));
    assert_eq!((host.read_bytes, host.outputs), (0, 0));
}

/// Decodes a frame that comes in pieces.
fn decode(frame: &[u8], piece: usize) -> Result<Vec<u8>, String> {
    let (mut stream, mut content) = (FrameStream::new(), Vec::new());
    for bytes in frame.chunks(piece) {
        stream.push(bytes);
        loop {
            match stream.next_block().map_err(|error| error.to_string())? {
                Block::Content(block) => content.extend_from_slice(&block),
                Block::NeedMore => break,
                Block::End => return Ok(content),
            }
        }
    }
    Err(format!("the frame does not end; at {}", stream.offset()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every prefix leads to its state; and whatever is done to an object, there is the state that
    /// was asked for, or an error, and never another state.
    #[test]
    fn a_spoilt_replica_never_gives_another_state(
        seed in any::<u64>(),
        size in 0usize..3,
        harm in 0u8..3,
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
    ) {
        let history = LegacyHistory::typical([512, 1024, 4096][size], seed);
        let (last, state) = &history.states[place.index(history.states.len())];
        check(history.up_to(*last), LATEST, state);
        let state = history.pages.concat();
        let mut objects = history.objects.clone();
        let object = *objects.keys().nth(which.index(objects.len())).unwrap();
        let segment = which.get(&history.states).0;
        match harm {
            0 => {
                let body = &mut objects.get_mut(&object).unwrap().0;
                let at = place.index(body.len());
                body[at] ^= 1 << (seed % 8);
            }
            1 => {
                let body = &mut objects.get_mut(&object).unwrap().0;
                body.truncate(place.index(body.len()));
            }
            _ => {
                let other = place.get(&history.states).0;
                // Nothing in a segment says of which WAL it is: the beginning of one in the place of the
                // only segment of another is a sound WAL.
                let begins = other.part == LegacyPart::Wal { offset: 0 };
                let alone = history.states.iter().filter(|(it, _)| it.index == segment.index).count() == 1;
                prop_assume!(other == segment || !begins || !alone);
                let body = history.objects[&other].clone();
                objects.insert(segment, body);
            }
        }
        let mut host = host(objects, 1 + seed % 1000);
        match restore(&mut host, LATEST).0 {
            Exit::Done => prop_assert!(host.target == Some(state), "another state"),
            exit => {
                prop_assert_eq!(exit.code(), 4, "{:?}", exit);
                prop_assert!(host.target.is_none() && host.output.is_none());
            }
        }
    }

    #[test]
    fn frames_of_any_kind_are_read_in_any_pieces(
        len in 0usize..700_000,
        code in 4u8..8,
        linked in any::<bool>(),
        piece in 1usize..300_000,
        seed in any::<u64>(),
    ) {
        let mut draw = seed;
        let content: Vec<u8> = (0..len).map(|at| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if at % 7 < 4 { b'x' } else { (draw >> 60) as u8 }
        }).collect();
        let frame = lz4_frame(&content, code, linked);
        prop_assert_eq!(decode(&frame, piece), Ok(content));
        let mut flipped = frame.clone();
        let at = seed as usize % frame.len();
        flipped[at] ^= 1;
        prop_assert!(decode(&flipped, piece).is_err(), "byte {} of {}", at, frame.len());
        prop_assert!(decode(&frame[..frame.len() - 1], piece).is_err());
        prop_assert!(decode(&[&frame[..], &[0]].concat(), usize::MAX).is_err());
    }
}
