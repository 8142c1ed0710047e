//! What stands for a seed on a command line, and which seeds a commit tries.
//!
//! A number is itself. A commit stands for a seed as well, so that each commit tries other seeds
//! than the one before and everybody can say which: the first seven digits of its hash, read as a
//! hexadecimal number, modulo [`COMMIT_SEEDS`], after [`COMMIT_FROM`]. The short and the long form
//! of a hash are the same seed. The seeds of the model of SQLite that a commit tries come
//! [`MODEL_FROM`] minus [`COMMIT_FROM`] later, those with levels [`LEVELS_FROM`] minus that,
//! and those of a process of many databases [`TIERS_FROM`] minus that.

use std::ops::Range;

use crate::bad_input::BadInput;
use crate::ring0::plan::{LEVELS_FROM, MODEL_FROM, TIERS_FROM};

/// The seeds of commits begin here: those before have stories to keep.
pub const COMMIT_FROM: u64 = 2_000_000;
/// So many seeds a commit's first one may be.
pub const COMMIT_SEEDS: u64 = 7_900_000;
/// Digits of a hash that count.
const DIGITS: usize = 7;

/// The seed that a text stands for: a number, a commit with a letter among its digits, or
/// `commit:` and a commit.
///
/// # Errors
/// When it is neither.
pub fn parse(text: &str) -> Result<u64, BadInput> {
    if let Some(hash) = text.strip_prefix("commit:") {
        return of_commit(hash).ok_or_else(|| not_a_seed(text, "a commit has 7 to 40 hexadecimal digits"));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| not_a_seed(text, "the largest seed is 18446744073709551615"));
    }
    let hint = "a seed is a number (29), or a commit (24b2acc, commit:1234567)";
    of_commit(text).ok_or_else(|| not_a_seed(text, hint))
}

fn not_a_seed(text: &str, hint: &str) -> BadInput {
    BadInput::new(format!("{text:?} is no seed")).hint(hint)
}

/// The first seed of a commit, given by 7 to 40 digits of its hash.
pub fn of_commit(hash: &str) -> Option<u64> {
    let is_hash = (DIGITS..=40).contains(&hash.len()) && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let first = hash.get(..DIGITS).filter(|_| is_hash)?;
    let number = u64::from_str_radix(first, 16).ok()?;
    Some(COMMIT_FROM + number % COMMIT_SEEDS)
}

/// The seed on the model of SQLite that goes with a commit's seed.
pub const fn on_the_model(seed: u64) -> u64 {
    MODEL_FROM + (seed - COMMIT_FROM)
}

/// The seed with levels that goes with a commit's seed.
pub const fn with_levels(seed: u64) -> u64 {
    LEVELS_FROM + (seed - COMMIT_FROM)
}

/// The seed of a process of many databases that goes with a commit's seed.
pub const fn with_tiers(seed: u64) -> u64 {
    TIERS_FROM + (seed - COMMIT_FROM)
}

/// The seeds that once failed, each with its story. They run first, always.
pub fn kept() -> impl Iterator<Item = (u64, &'static str)> {
    let lines =
        include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| {
        let (seed, story) = line.split_once(' ').expect("a seed and its story");
        (seed.parse().expect("a seed is a number"), story)
    })
}

/// Several seeds: `A..B` without B, `A+N` for N of them, or one.
///
/// # Errors
/// When a part is no seed, or none is among them.
pub fn parse_range(text: &str) -> Result<Range<u64>, BadInput> {
    let range = if let Some((from, to)) = text.split_once("..") {
        parse(from)?..parse(to)?
    } else if let Some((from, count)) = text.split_once('+') {
        let count: u64 = count
            .parse()
            .map_err(|_| BadInput::new(format!("{count:?} is no count of seeds")).hint("24b2acc+500"))?;
        let from = parse(from)?;
        from..from.saturating_add(count)
    } else {
        let seed = parse(text)?;
        seed..seed.saturating_add(1)
    };
    match range.is_empty() {
        true => Err(BadInput::new(format!("no seed is in {text}")).hint("A..B has A and not B: 0..1000")),
        false => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_commits_are_seeds() {
        assert_eq!(parse("29"), Ok(29));
        assert_eq!(parse("0000029"), Ok(29), "a number, though it could be a commit");
        assert_eq!(parse("24b2acc").unwrap(), COMMIT_FROM + 0x24b_2acc % COMMIT_SEEDS);
        let long = "24b2acc0000000000000000000000000000000ff";
        assert_eq!(parse(long), parse("24b2acc"));
        assert_eq!(parse("commit:1234567").unwrap(), COMMIT_FROM + 0x123_4567 % COMMIT_SEEDS);
        assert_eq!(parse("commit:24B2ACC"), parse("24b2acc"));
    }

    #[test]
    fn what_is_no_seed_is_refused_with_a_hint() {
        let long = "1".repeat(41);
        for text in ["", "x", "-1", "24b2ac", "24b2acg", "1.5", "commit:", "commit:24b2ac", &long] {
            let error = parse(text).unwrap_err();
            assert!(error.text.contains("is no seed") && !error.hint.is_empty(), "{error:?}");
        }
    }

    #[test]
    fn kept_seeds_have_stories() {
        assert!(kept().count() > 20 && kept().all(|(_, story)| story.len() >= 8));
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(parse_range("3..5"), Ok(3..5));
        assert_eq!(parse_range("3+5"), Ok(3..8));
        assert_eq!(parse_range("7"), Ok(7..8));
        let first = parse("24b2acc").unwrap();
        assert_eq!(parse_range("24b2acc+500"), Ok(first..first + 500));
        for text in ["5..5", "6..5", "..", "3..", "a..b", "3+x", "3+0", "3+-1"] {
            assert!(!parse_range(text).unwrap_err().hint.is_empty(), "{text}");
        }
    }
}
