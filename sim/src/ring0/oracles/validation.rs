//! A validation tells of a fault only where there is one.
//!
//! What retention and compaction take away while it reads is none, nor is what a store answers wrongly now and then:
//! what seems damaged is read again, and what does not fit is listed again, twice. A store that answers the
//! same validation wrongly more often is believed, as it must be.

use driftless_core::machine::Verdict;

use super::super::violation::Violation;

/// Wrong answers that a validation must see through.
pub const LIES_SEEN_THROUGH: u64 = 2;

/// What the truth says of a validation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// What can be.
    Right,
    /// An alarm about nothing, for which the store has to answer.
    Misled,
}

/// A validation has come to a verdict on a replica that holds `damaged` objects that are not whole, or lacks
/// something, and whose store has answered it wrongly so often.
///
/// # Errors
/// When it tells of a fault and there is none.
pub fn check(verdict: &Verdict, damaged: u64, lies: u64) -> Result<Told, Violation> {
    match verdict {
        Verdict::Faulty { .. } if damaged > 0 => Ok(Told::Right),
        Verdict::Faulty { .. } if lies > LIES_SEEN_THROUGH => Ok(Told::Misled),
        Verdict::Faulty { fault, more } => {
            let text =
                format!("nothing is wrong with the replica, {lies} wrong answers: {fault} (and {more} more)");
            Err(Violation::new("validation", text))
        }
        Verdict::Sound | Verdict::Undone { .. } => Ok(Told::Right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_about_nothing_is_found() {
        let faulty = Verdict::Faulty { fault: "0/1: gone".into(), more: 0 };
        let undone = Verdict::Undone { error: "503".into(), hint: String::new(), wait_ms: 1 };
        for quiet in [Verdict::Sound, undone] {
            assert_eq!(check(&quiet, 0, 0), Ok(Told::Right));
            assert_eq!(check(&quiet, 0, 9), Ok(Told::Right));
        }
        assert_eq!(check(&faulty, 1, 0), Ok(Told::Right));
        assert_eq!(check(&faulty, 0, 3), Ok(Told::Misled));
        for lies in [0, 2] {
            let violation = check(&faulty, 0, lies).unwrap_err();
            assert_eq!(violation.oracle, "validation");
            assert!(violation.text.contains("0/1: gone"), "{violation}");
        }
    }
}
