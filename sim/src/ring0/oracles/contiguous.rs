//! Each level holds its transactions without gaps and without overlaps.
//!
//! A gap ends every restore that needs to cross it. At level 0 segments hold single transactions from
//! the first on; at other levels each begins where the one before it ends.

use driftless_core::ids::Level;
use driftless_core::machine::Object;

use super::super::violation::Violation;

/// Looks at all objects, in the order of level and transactions; answers how many are at level 0.
///
/// # Errors
/// At the first that does not follow upon the one before it.
pub fn check<'a>(objects: impl Iterator<Item = &'a Object>) -> Result<u64, Violation> {
    let (mut captures, mut before): (u64, Option<&Object>) = (0, None);
    for object in objects {
        let (min, max) = (object.range.min().get(), object.range.max().get());
        let is_capture = object.level == Level::CAPTURES;
        let expected = match before {
            Some(before) if before.level == object.level => before.range.max().get() + 1,
            _ if is_capture => 1,
            _ => min,
        };
        if min != expected || (is_capture && max != min) {
            let text = format!("level {}: {min:x}-{max:x} where {expected:x} comes next", object.level);
            return Err(Violation::new("contiguity", text));
        }
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
        for wrong in [
            &[(0, 2, 2)][..],
            &[(0, 1, 2)],
            &[(0, 1, 1), (0, 3, 3)],
            &[(1, 1, 4), (1, 4, 5)],
            &[(1, 1, 4), (1, 6, 7)],
        ] {
            assert_eq!(says(wrong), Err("contiguity"), "{wrong:?}");
        }
    }
}
