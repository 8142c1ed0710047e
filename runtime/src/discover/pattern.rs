//! A pattern for file names: `*`, `?`, `[a-z]`, `[^a-z]` and `\` before a character that stands for
//! itself, as Go's `filepath.Match` has them and so Litestream's `pattern`. It is matched against
//! the whole of a name, never against a path.

use std::fmt;

/// A pattern that can be matched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    /// Any characters, or none.
    Some,
    /// One character.
    Any,
    /// This character.
    One(char),
    /// One character in these ranges, or with `not` in none of them.
    Class { not: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let mut parts = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            parts.push(match c {
                '*' => Part::Some,
                '?' => Part::Any,
                '[' => class(&mut rest)?,
                '\\' => Part::One(rest.next().ok_or("it ends with a backslash")?),
                '/' => return Err("it has a slash, and is matched against names of files".to_owned()),
                c => Part::One(c),
            });
        }
        if parts.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(Pattern { text: text.to_owned(), parts })
    }

    /// Whether a name is of this pattern.
    pub fn matches(&self, name: &str) -> bool {
        let (parts, mut at) = (&self.parts, 0);
        let mut rest = name.chars();
        // Where the last star stands, and what it left: only that one need ever take more.
        let mut star = None;
        loop {
            let before = rest.clone();
            match (parts.get(at), rest.next()) {
                (None, None) => return true,
                (Some(Part::Some), _) => {
                    at += 1;
                    rest = before.clone();
                    star = Some((at, before));
                }
                (Some(part), Some(c)) if part.takes(c) => at += 1,
                _ => {
                    let Some((after, left)) = &mut star else { return false };
                    if left.next().is_none() {
                        return false;
                    }
                    (at, rest) = (*after, left.clone());
                }
            }
        }
    }
}

impl Part {
    fn takes(&self, c: char) -> bool {
        match self {
            Part::Some => unreachable!("a star takes what is left"),
            Part::Any => true,
            Part::One(one) => *one == c,
            Part::Class { not, ranges } => {
                *not != ranges.iter().any(|(low, high)| (*low..=*high).contains(&c))
            }
        }
    }
}

/// What stands between brackets, the first of which was taken already.
fn class(rest: &mut std::str::Chars<'_>) -> Result<Part, String> {
    let open = || "a bracket is not closed".to_owned();
    let not = rest.as_str().starts_with('^');
    if not {
        rest.next();
    }
    let mut ranges = Vec::new();
    let next = |rest: &mut std::str::Chars<'_>| match rest.next().ok_or_else(open)? {
        '\\' => rest.next().ok_or_else(open),
        '-' => Err("a dash in brackets has no beginning".to_owned()),
        '/' => Err("it has a slash, and is matched against names of files".to_owned()),
        c => Ok(c),
    };
    loop {
        if rest.as_str().starts_with(']') && !ranges.is_empty() {
            rest.next();
            return Ok(Part::Class { not, ranges });
        }
        if rest.as_str().starts_with(']') {
            return Err("brackets hold nothing".to_owned());
        }
        let low = next(rest)?;
        let mut high = low;
        if rest.as_str().starts_with('-') {
            rest.next();
            if rest.as_str().starts_with(']') {
                return Err("a dash in brackets has no end".to_owned());
            }
            high = next(rest)?;
        }
        ranges.push((low, high));
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_a_whole() {
        let check = |pattern: &str, names: &[&str], others: &[&str]| {
            let parsed = Pattern::parse(pattern).unwrap();
            for name in names {
                assert!(parsed.matches(name), "{pattern} {name}");
            }
            for name in others {
                assert!(!parsed.matches(name), "{pattern} {name}");
            }
        };
        check("*.db", &["a.db", ".db", "a.b.db", ".hidden.db"], &["a.db2", "db", "a.db-wal", ""]);
        check("*", &["a", "", "ä"], &[]);
        check("a?c", &["abc", "aäc"], &["ac", "abbc"]);
        check("t[0-9][^x].db", &["t0a.db", "t9].db"], &["ta0.db", "t0x.db", "t0.db"]);
        check("a*b*c", &["abc", "axbxbxc"], &["ab", "acb"]);
        check("**x", &["x", "yx"], &["xy"]);
        check(r"\*.db", &["*.db"], &["a.db"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (pattern, what) in [
            ("", "empty"),
            ("a[", "not closed"),
            ("a[]", "hold nothing"),
            ("[a", "not closed"),
            ("a\\", "backslash"),
            ("*/x.db", "slash"),
            ("[-a]", "no beginning"),
        ] {
            assert!(Pattern::parse(pattern).unwrap_err().contains(what), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = Pattern::parse(&"a*".repeat(50)).unwrap();
        assert!(!pattern.matches(&"b".repeat(10_000)));
        assert!(!Pattern::parse(&("*a".repeat(50) + "b")).unwrap().matches(&"a".repeat(2_000)));
    }
}
