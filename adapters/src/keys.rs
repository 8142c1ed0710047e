//! Object names, Litestream's two layouts among them.
//!
//! A replica in a directory and one in an object store name the same segment differently, and
//! both ways are Litestream's, so that it can read what Driftless writes and the other way round:
//!
//! | layout | name |
//! |---|---|
//! | [`ReplicaLayout::Directory`] | `ltx/<level>/<min>-<max>.ltx`, the level in decimal |
//! | [`ReplicaLayout::Object`] | `<level>/<min>-<max>.ltx`, the level as four hexadecimal digits |
//!
//! What Litestream 0.3 wrote has names of a third kind, `generations/…`, alike in both
//! ([`legacy_key`]). It is read only.
//!
//! Identifiers are sixteen lower-case hexadecimal digits, so that names sort as numbers do.
//! Directories are shared with people and programs: half-written `….ltx.tmp` files of Litestream,
//! `.DS_Store`, copies with a `~`. [`parse_segment_key`] answers `None` for all of these and never
//! guesses, since a misread name would be a hole in a history or a second one.

use std::borrow::Borrow;
use std::fmt;

use driftless_core::ids::{Level, Txid, TxidRange};
use driftless_core::legacy::{GENERATIONS_PREFIX, LegacyObject};
use driftless_core::ltx::DictionaryId;

/// The name of an object: relative, components separated by `/`, none of them empty, `.` or `..`,
/// no NUL anywhere, at most [`Key::BYTES_MAX`] bytes of UTF-8.
///
/// So a key joined to a directory stays below it, and every store can hold it. Ordered by bytes,
/// which is how listings are sorted. Of two keys neither may be a directory of the other (`a` and
/// `a/b`): a filesystem cannot hold both, and no layout here produces them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

impl Key {
    /// The longest key in bytes: what S3 takes.
    pub const BYTES_MAX: usize = 1024;

    /// Checks a name. See [`KeyError`] for what it may be refused for.
    pub fn new(text: impl Into<String>) -> Result<Key, KeyError> {
        let text = text.into();
        let problem = if text.len() > Key::BYTES_MAX {
            Some(KeyProblem::TooLong)
        } else if text.contains('\0') {
            Some(KeyProblem::Nul)
        } else {
            text.split('/').find_map(|part| match part {
                "" => Some(KeyProblem::EmptyComponent),
                "." | ".." => Some(KeyProblem::DotComponent),
                _ => None,
            })
        };
        match problem {
            None => Ok(Key(text.into())),
            Some(problem) => Err(KeyError { text, problem }),
        }
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// All components but the last, without the slash; empty for a key of one component.
    pub fn directory(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(directory, _)| directory)
    }

    /// This key below `base`: `base/self`. `TooLong` is the only error.
    pub fn under(&self, base: &Key) -> Result<Key, KeyError> {
        Key::new(format!("{base}/{self}"))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Key {
    type Error = KeyError;

    fn try_from(text: &str) -> Result<Key, KeyError> {
        Key::new(text)
    }
}

/// Why a name cannot be a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyProblem {
    /// Nothing at all, a slash at either end, or two in a row.
    EmptyComponent,
    /// A component `.` or `..`, which would leave the replica or stay in place.
    DotComponent,
    /// A NUL byte, which no filesystem takes.
    Nul,
    /// More than [`Key::BYTES_MAX`] bytes.
    TooLong,
}

/// A name that cannot be a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyError {
    /// The name as it was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: KeyProblem,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object name {:?} ", self.text)?;
        match self.problem {
            KeyProblem::EmptyComponent => f.write_str("has an empty component"),
            KeyProblem::DotComponent => f.write_str("has a component \".\" or \"..\""),
            KeyProblem::Nul => f.write_str("holds a nul byte"),
            KeyProblem::TooLong => write!(f, "is longer than {} bytes", Key::BYTES_MAX),
        }
    }
}

impl std::error::Error for KeyError {}

/// Which of Litestream's two layouts a replica has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaLayout {
    /// In a directory: `ltx/<level>/<min>-<max>.ltx`.
    Directory,
    /// In an object store: `<level as four hexadecimal digits>/<min>-<max>.ltx`.
    Object,
}

/// The name of a dictionary, relative to the replica's path: `dictionaries/<id>.zstd` in both layouts, where
/// nothing that lists segments looks, Litestream included.
pub fn dictionary_key(id: DictionaryId) -> Key {
    Key::new(format!("dictionaries/{id}.zstd")).expect("an identifier makes a valid key")
}

/// The name of a segment, relative to the replica's path.
pub fn segment_key(layout: ReplicaLayout, level: Level, range: TxidRange) -> Key {
    let name = format!("{}{range}.ltx", level_prefix(layout, level));
    Key::new(name).expect("levels and identifiers make a valid key")
}

/// Reads a name as [`segment_key`] writes it, relative to the replica's path; `None` for
/// everything else, down to upper-case digits.
pub fn parse_segment_key(layout: ReplicaLayout, key: &str) -> Option<(Level, TxidRange)> {
    let (level, name) = match layout {
        ReplicaLayout::Directory => key.strip_prefix("ltx/")?.split_once('/')?,
        ReplicaLayout::Object => key.split_once('/')?,
    };
    let (min, max) = name.strip_suffix(".ltx")?.split_once('-')?;
    let range = TxidRange::new(Txid::parse_hex16(min)?, Txid::parse_hex16(max)?)?;
    let level = parse_level(layout, level)?;
    Some((level, range))
}

/// What the names of all segments of a level start with, slash included: the prefix to list.
pub fn level_prefix(layout: ReplicaLayout, level: Level) -> String {
    match layout {
        ReplicaLayout::Directory => format!("ltx/{level}/"),
        ReplicaLayout::Object => format!("{:04x}/", level.get()),
    }
}

/// What the names of all segments start with, and hardly any other name: what a replica may clear
/// away where it shares its place with others.
pub fn segments_prefix(layout: ReplicaLayout) -> &'static str {
    match layout {
        ReplicaLayout::Directory => "ltx/",
        ReplicaLayout::Object => "000",
    }
}

/// The name of an object of Litestream 0.3's layout, the same in directories and object stores,
/// relative to the replica's path.
pub fn legacy_key(object: LegacyObject) -> Key {
    Key::new(object.to_string()).expect("numbers make a valid key")
}

/// Reads a name as [`legacy_key`] writes it; `None` for everything else.
pub fn parse_legacy_key(key: &str) -> Option<LegacyObject> {
    LegacyObject::parse(key)
}

/// What the names of that layout start with: the prefix to list.
pub const LEGACY_PREFIX: &str = GENERATIONS_PREFIX;

fn parse_level(layout: ReplicaLayout, text: &str) -> Option<Level> {
    let digits = match layout {
        ReplicaLayout::Directory => text,
        ReplicaLayout::Object => text.strip_prefix("000")?,
    };
    match digits.as_bytes() {
        [digit @ b'0'..=b'9'] => Level::new(digit - b'0'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: u64, max: u64) -> TxidRange {
        TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap()
    }

    #[test]
    fn segments_are_named_as_litestream_names_them() {
        let check = |layout, level, (min, max), name: &str| {
            let (level, range) = (Level::new(level).unwrap(), range(min, max));
            let key = segment_key(layout, level, range);
            assert_eq!(key.as_str(), name);
            assert_eq!(parse_segment_key(layout, name), Some((level, range)));
            assert!(name.starts_with(&level_prefix(layout, level)));
            assert!(name.starts_with(segments_prefix(layout)));
        };
        use ReplicaLayout::{Directory, Object};
        check(Directory, 0, (1, 1), "ltx/0/0000000000000001-0000000000000001.ltx");
        check(Directory, 9, (1, 0xabc), "ltx/9/0000000000000001-0000000000000abc.ltx");
        check(Object, 0, (0x10, 0x1f), "0000/0000000000000010-000000000000001f.ltx");
        check(Object, 9, (1, u64::MAX), "0009/0000000000000001-ffffffffffffffff.ltx");
    }

    #[test]
    fn objects_of_litestream_0_3_have_keys_of_their_own() {
        for name in [
            "generations/0ccf80b8acbd45e4/snapshots/00000001.snapshot.lz4",
            "generations/0ccf80b8acbd45e4/wal/ffffffff_ffffffffffffffff.wal.lz4",
        ] {
            let object = parse_legacy_key(name).unwrap();
            assert_eq!(legacy_key(object).as_str(), name);
            assert!(name.starts_with(LEGACY_PREFIX));
            for layout in [ReplicaLayout::Directory, ReplicaLayout::Object] {
                assert_eq!(parse_segment_key(layout, name), None);
                assert!(!name.starts_with(segments_prefix(layout)));
            }
        }
    }

    #[test]
    fn foreign_names_are_none() {
        use ReplicaLayout::{Directory, Object};
        for (layout, name) in [
            (Directory, "ltx/0/0000000000000001-0000000000000001.ltx.tmp"),
            (Directory, "ltx/0/.0000000000000001-0000000000000001.ltx.12-0.tmp"),
            (Directory, "ltx/0/000000000000000A-000000000000000A.ltx"),
            (Directory, "ltx/0/0000000000000002-0000000000000001.ltx"),
            (Directory, "ltx/0/0000000000000000-0000000000000001.ltx"),
            (Directory, "ltx/0/01-01.ltx"),
            (Directory, "ltx/00/0000000000000001-0000000000000001.ltx"),
            (Directory, "ltx/10/0000000000000001-0000000000000001.ltx"),
            (Directory, "ltx/+1/0000000000000001-0000000000000001.ltx"),
            (Directory, "ltx/0/x/0000000000000001-0000000000000001.ltx"),
            (Directory, "0000/0000000000000001-0000000000000001.ltx"),
            (Directory, "ltx/0/.DS_Store"),
            (Directory, "ltx/0"),
            (Directory, ""),
            (Object, "0/0000000000000001-0000000000000001.ltx"),
            (Object, "000a/0000000000000001-0000000000000001.ltx"),
            (Object, "0010/0000000000000001-0000000000000001.ltx"),
            (Object, "ltx/0/0000000000000001-0000000000000001.ltx"),
        ] {
            assert_eq!(parse_segment_key(layout, name), None, "{name}");
        }
    }

    #[test]
    fn keys_stay_below_their_root() {
        for text in ["a", "a/b", ".hidden", "...", "a b/ü", "a\\b"] {
            assert_eq!(Key::new(text).unwrap().as_str(), text);
        }
        let check =
            |text: &str, problem| assert_eq!(Key::new(text).unwrap_err().problem, problem, "{text:?}");
        for text in ["", "/a", "a/", "a//b"] {
            check(text, KeyProblem::EmptyComponent);
        }
        for text in [".", "..", "a/../b", "./a"] {
            check(text, KeyProblem::DotComponent);
        }
        check("a\0", KeyProblem::Nul);
        check(&"k".repeat(1025), KeyProblem::TooLong);
        let key = Key::new("c/d").unwrap().under(&Key::new("a/b").unwrap()).unwrap();
        assert_eq!((key.directory(), key.name()), ("a/b/c", "d"));
    }
}
