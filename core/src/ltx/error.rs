//! What can be wrong with a segment, sorted by what to do about it.

use core::fmt;

use super::DictionaryId;

/// Why bytes could not be read as a segment. Offsets are in bytes from the start of the file,
/// except from [`decode_frame`](super::decode_frame), which counts from the frame it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LtxError {
    /// Nothing is wrong yet: the piece given is shorter than what it should hold. Fetch a piece
    /// of at least `bytes` and ask again.
    NeedMore {
        /// The length that the next try needs at least.
        bytes: u64,
    },
    /// The file ends before the format does.
    Truncated {
        /// Where it ends.
        offset: u64,
        /// The part of the file that is cut.
        what: &'static str,
    },
    /// A field contradicts the format, another field or a checksum.
    Corrupt {
        /// Where the field stands.
        offset: u64,
        /// What the field is.
        what: &'static str,
        /// What should be there.
        expected: Expected,
        /// What is there.
        found: u64,
    },
    /// Compressed with a dictionary that is not at hand.
    Dictionary {
        /// Which.
        id: DictionaryId,
    },
    /// Sound as far as it goes, but written with something that this version cannot read.
    Unsupported {
        /// Where it says so.
        offset: u64,
        /// What it uses.
        what: &'static str,
        /// The field's value.
        found: u64,
    },
}

/// What a corrupt field should have held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// Exactly this number.
    Value(u64),
    /// A number of at least this.
    AtLeast(u64),
    /// A number of at most this.
    AtMost(u64),
    /// A checksum or magic number, shown in hexadecimal.
    Bits(u64),
    /// Something that takes a sentence.
    Rule(&'static str),
}

impl LtxError {
    /// `what` at `offset` holds `found` and not `expected`.
    pub(crate) const fn corrupt(offset: u64, what: &'static str, expected: Expected, found: u64) -> LtxError {
        LtxError::Corrupt { offset, what, expected, found }
    }
}

impl fmt::Display for LtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            LtxError::NeedMore { bytes } => write!(f, "at least {bytes} bytes needed"),
            LtxError::Truncated { offset, what } => {
                write!(f, "the file ends at byte {offset} within its {what}")
            }
            LtxError::Corrupt { offset, what, expected, found } => {
                write!(f, "corrupt {what} at byte {offset}: expected {expected}, found ")?;
                match expected {
                    Expected::Bits(_) => write!(f, "{found:#x}"),
                    _ => write!(f, "{found}"),
                }
            }
            LtxError::Dictionary { id } => {
                write!(f, "dictionary {id}, with which it was compressed, is missing")
            }
            LtxError::Unsupported { offset, what, found } => {
                write!(f, "unsupported {what} at byte {offset}: {found:#x}")
            }
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Value(n) => write!(f, "{n}"),
            Expected::AtLeast(n) => write!(f, "at least {n}"),
            Expected::AtMost(n) => write!(f, "at most {n}"),
            Expected::Bits(n) => write!(f, "{n:#x}"),
            Expected::Rule(rule) => f.write_str(rule),
        }
    }
}

impl core::error::Error for LtxError {}
