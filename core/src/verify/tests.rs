//! Verifications of sound and of damaged replicas.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::machine::{ReplicaId, StoreRequest};
use crate::restore::tests::Host;
use crate::restore::tests::history::{History, object};

fn run(store: &BTreeMap<Object, Vec<u8>>, seed: u64, trouble: u64) -> (Exit, VerifyStatus) {
    let mut host = Host::new(store.clone()).seeded(seed, trouble);
    let mut verifier = Verifier::new(VerifyConfig::default(), OpIds::new(ReplicaId(0), 3));
    let exit = host.run(&mut verifier);
    (exit, verifier.status())
}

/// The faults, all in one text.
fn faults(store: &BTreeMap<Object, Vec<u8>>) -> String {
    let (exit, status) = run(store, 9, 0);
    assert!(matches!(exit, Exit::Corrupt { .. }), "{exit:?}");
    status.faults.join("\n")
}

#[test]
fn a_sound_replica_is_sound() {
    for chained in [true, false] {
        let history = History::typical(512, chained);
        for seed in 1..5 {
            let (exit, status) = run(&history.store, seed, seed * 30);
            assert_eq!(exit, Exit::Done, "{:?}", status.faults);
            assert_eq!((status.objects, status.checked), (42, 42));
            assert_eq!((status.chained, status.unchained), if chained { (42, 0) } else { (0, 42) });
        }
    }
    let (exit, _) = run(&BTreeMap::new(), 1, 0);
    assert!(matches!(exit, Exit::NothingToRestore { .. }));
}

#[test]
fn each_damaged_byte_is_found() {
    let mut history = History::new(512, true);
    history.commit(5, &[]);
    history.commit(6, &[2]);
    let victim = object(0, 2, 2);
    for at in 0..history.store[&victim].len() {
        let mut store = history.store.clone();
        store.get_mut(&victim).unwrap()[at] ^= 0x20;
        let found = faults(&store);
        assert!(found.contains("0/0000000000000002-0000000000000002.ltx: "), "byte {at}: {found}");
    }
    let mut store = history.store.clone();
    store.get_mut(&victim).unwrap().clear();
    assert!(faults(&store).contains("ends at byte 0"));
}

#[test]
fn what_does_not_fit_is_named() {
    let mut history = History::typical(512, true);
    let sound = history.store.clone();

    let mut store = sound.clone();
    store.remove(&object(0, 30, 30));
    assert!(faults(&store).contains("transactions 000000000000001e to 000000000000001e are missing"));
    store.remove(&object(9, 1, 20));
    store.remove(&object(9, 1, 1));
    store.remove(&object(0, 1, 1));
    assert!(
        faults(&store)
            .contains("transactions 0000000000000001 to 0000000000000001 are missing: nothing stands alone")
    );

    // A file under another's name.
    let mut store = sound.clone();
    let other = store[&object(0, 31, 31)].clone();
    store.insert(object(0, 30, 30), other);
    assert!(
        faults(&store)
            .contains("transactions at byte 16: expected 000000000000001e-000000000000001e as in its name")
    );

    // A successor from another state, and a writer that came back from the dead.
    history.post = Some(crate::ids::DbChecksum::from_xor(5));
    history.commit(400, &[3]);
    assert!(
        faults(&history.store)
            .contains("0/0000000000000029-0000000000000029.ltx: pre-state at byte 80: expected")
    );
    history.store = sound.clone();
    history.incarnation = 0;
    history.commit(400, &[3]);
    history.store.remove(&object(0, 42, 42));
    let mut store = sound;
    history.incarnation = 3;
    store.insert(object(0, 41, 41), history.encode(41, 41, &[1], None, None));
    history.incarnation = 2;
    store.insert(object(0, 42, 42), history.encode(42, 42, &[1], None, None));
    assert!(faults(&store).contains("incarnation at byte 96: expected at least 3"));

    // Another page size, and not every page of it.
    history.page_size = crate::ids::PageSize::new(1024).unwrap();
    history.pages = (0..9u8).map(|n| std::vec![n; 1024]).collect();
    store.insert(object(0, 42, 42), history.encode(42, 42, &[1], None, None));
    assert!(faults(&store).contains("page size at byte 8: expected 512"));
}

#[test]
fn objects_that_go_meanwhile_cost_a_listing() {
    let history = History::typical(512, true);
    let mut host = Host::new(history.store.clone());
    let mut gets = 0;
    host.hook = Some(Box::new(move |request, store| {
        if let StoreRequest::Get { .. } = request {
            gets += 1;
            if gets == 5 {
                store.retain(|it, _| it.level.get() == 9 || it.range.min().get() > 20);
            }
        }
        None
    }));
    let mut verifier = Verifier::new(VerifyConfig::default(), OpIds::new(ReplicaId(0), 3));
    assert_eq!(host.run(&mut verifier), Exit::Done);
    assert_eq!(verifier.status().objects, 22);
}
