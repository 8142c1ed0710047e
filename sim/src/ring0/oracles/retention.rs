//! Nothing is deleted that a restore may need, looked at after each deletion.
//!
//! The end stays restorable. What went is held by another file: at level 0 by one that has stood for the
//! grace period, elsewhere by a snapshot that is older than all that must stay restorable. Level 0 goes from
//! its start, never more than a block out of order, and its newest files stay, so that a writer that looks
//! back finds what it looks for.

use driftless_core::ids::Level;
use driftless_core::machine::Object;
use driftless_core::retain::TENURE_BACK;

use super::super::violation::Violation;

/// A file that is there, and for how many milliseconds it has been.
pub type Aged = (Object, u64);

/// The times of a plan, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// How long each end of a level stays restorable.
    pub snapshot_ms: u64,
    /// How long a file stays after another holds what it does.
    pub grace_ms: u64,
}

/// `gone` was deleted, `left` is what is there still, in any order; `end` is the highest transaction that ever
/// was on the replica.
///
/// # Errors
/// What should have kept it.
pub fn check(gone: &Object, left: &[Aged], end: u64, times: Times) -> Result<(), Violation> {
    let fail = |text: String| Err(Violation::new("retention", format!("{gone} was deleted: {text}")));
    if !left.iter().any(|(it, _)| it.range.max().get() == end) {
        return fail(format!("nothing that is left ends with {end:x}"));
    }
    let max = gone.range.max();
    let outdated = left.iter().any(|(it, age)| {
        let snapshot = it.level == Level::SNAPSHOTS && it.range.is_snapshot();
        snapshot && it.range.max() >= max && *age >= times.snapshot_ms
    });
    let holds = |it: &Object| it.range.min() <= gone.range.min() && it.range.max() >= max;
    let compacted = gone.level == Level::CAPTURES
        && left.iter().any(|(it, age)| it.level > gone.level && holds(it) && *age >= times.grace_ms);
    if !outdated && !compacted {
        return fail("nothing holds it that has stood for as long as it must".into());
    }
    if gone.level != Level::CAPTURES {
        return Ok(());
    }
    let captures = || left.iter().filter(|(it, _)| it.level == Level::CAPTURES);
    if (captures().filter(|(it, _)| it.range > gone.range).count() as u64) < TENURE_BACK {
        return fail(format!("fewer than {TENURE_BACK} newer ones are left"));
    }
    let before = captures().map(|(it, _)| it.range.min()).min().filter(|min| *min < gone.range.min());
    match before.filter(|min| gone.range.min().get() - min.get() >= TENURE_BACK) {
        Some(min) => fail(format!("{min} is there still, before it")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use driftless_core::ids::{Txid, TxidRange};

    use super::*;

    fn object(level: u8, min: u64, max: u64) -> Object {
        let range = TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap();
        Object { level: Level::new(level).unwrap(), range }
    }

    fn says(gone: Object, left: &[(u8, u64, u64, u64)]) -> Result<(), String> {
        let left: Vec<Aged> = left.iter().map(|(n, min, max, age)| (object(*n, *min, *max), *age)).collect();
        let times = Times { snapshot_ms: 1_000, grace_ms: 10 };
        check(&gone, &left, 60, times).map_err(|violation| violation.text)
    }

    #[test]
    fn each_deletion_that_must_not_be_is_found() {
        let newest = (41..=60).map(|txid| (0, txid, txid, 0));
        let with =
            |more: &[(u8, u64, u64, u64)]| newest.clone().chain(more.iter().copied()).collect::<Vec<_>>();
        let held = [(1, 1, 10, 10)];
        assert_eq!(says(object(0, 3, 3), &with(&held)), Ok(()));
        assert_eq!(says(object(1, 3, 3), &with(&[(9, 1, 20, 1_000)])), Ok(()));
        assert_eq!(says(object(9, 1, 10), &with(&[(9, 1, 20, 1_000)])), Ok(()));
        let wrong = |said: Result<(), String>, text: &str| {
            assert!(said.as_ref().is_err_and(|it| it.contains(text)), "{said:?}");
        };
        wrong(says(object(0, 3, 3), &held), "nothing that is left ends with 3c");
        wrong(says(object(0, 3, 3), &with(&[(1, 1, 10, 9)])), "nothing holds it");
        wrong(says(object(0, 3, 3), &with(&[(1, 4, 10, 99)])), "nothing holds it");
        wrong(says(object(1, 3, 3), &with(&[(2, 1, 10, 99)])), "nothing holds it");
        wrong(says(object(9, 1, 10), &with(&[(9, 1, 20, 999)])), "nothing holds it");
        wrong(says(object(0, 45, 45), &with(&[(1, 1, 60, 10)])), "fewer than 16 newer");
        wrong(says(object(0, 30, 30), &with(&[(0, 3, 3, 50), (1, 1, 60, 10)])), "is there still");
    }
}
