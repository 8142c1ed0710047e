//! Each level holds its transactions without gaps, and level 0 without overlaps.
//!
//! A gap ends every restore that needs to cross it. At level 0 segments hold single transactions from
//! the first on; at other levels each begins where the one before it ends, or before that where a put of a
//! process that had died came late ([decision 0013](../../../../docs/decisions/0013-levels.md)). Each snapshot
//! begins with the first.

use driftless_core::ids::Level;
use driftless_core::machine::Object;

use super::super::violation::Violation;

/// Looks at all objects, in the order of level and transactions; answers how many are at level 0.
///
/// # Errors
/// At the first that does not follow upon the one before it.
pub fn check<'a>(objects: impl Iterator<Item = &'a Object>) -> Result<u64, Violation> {
    let (mut captures, mut before): (u64, Option<&Object>) = (0, None);
    // The highest transaction that the level holds so far.
    let mut front = 0;
    for object in objects {
        let (min, max) = (object.range.min().get(), object.range.max().get());
        let is_capture = object.level == Level::CAPTURES;
        if before.is_none_or(|before| before.level != object.level) {
            front = if is_capture { 0 } else { min - 1 };
        }
        let follows = match object.level {
            Level::CAPTURES => min == front + 1 && max == min,
            Level::SNAPSHOTS => min == 1,
            _ => min <= front + 1,
        };
        if !follows {
            let expected = front + 1;
            let text = format!("level {}: {min:x}-{max:x} where {expected:x} comes next", object.level);
            return Err(Violation::new("contiguity", text));
        }
        front = front.max(max);
        captures += u64::from(is_capture);
        before = Some(object);
    }
    Ok(captures)
}

#[cfg(test)]
mod tests {
    use driftless_core::ids::{Txid, TxidRange};

    use super::*;

    fn says(objects: &[(u8, u64, u64)]) -> Result<u64, &'static str> {
        let objects: Vec<Object> = objects
            .iter()
            .map(|(level, min, max)| Object {
                level: Level::new(*level).unwrap(),
                range: TxidRange::new(Txid::new(*min).unwrap(), Txid::new(*max).unwrap()).unwrap(),
            })
            .collect();
        check(objects.iter()).map_err(|violation| violation.oracle)
    }

    #[test]
    fn gaps_and_overlaps_are_found() {
        assert_eq!(says(&[]), Ok(0));
        assert_eq!(says(&[(0, 1, 1), (0, 2, 2), (1, 1, 2), (1, 3, 3), (9, 1, 5)]), Ok(2));
        assert_eq!(says(&[(1, 1, 4), (1, 1, 6), (1, 5, 7), (9, 1, 2), (9, 1, 7)]), Ok(0));
        for wrong in [
            &[(0, 2, 2)][..],
            &[(0, 1, 2)],
            &[(0, 1, 1), (0, 3, 3)],
            &[(0, 1, 1), (0, 1, 1)],
            &[(1, 1, 4), (1, 6, 7)],
            &[(9, 2, 4)],
        ] {
            assert_eq!(says(wrong), Err("contiguity"), "{wrong:?}");
        }
    }
}
