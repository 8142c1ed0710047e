//! Names of segments: `<min>-<max>.ltx`, each 16 lower-case hexadecimal digits.

use alloc::format;
use alloc::string::String;

use crate::ids::{Txid, TxidRange};

/// The file name of the segment that holds `range`, without its directory.
///
/// ```
/// use driftless_core::ids::{Txid, TxidRange};
/// use driftless_core::ltx::{file_name, parse_file_name};
///
/// let range = TxidRange::new(Txid::FIRST, Txid::new(0x23).unwrap()).unwrap();
/// assert_eq!(file_name(range), "0000000000000001-0000000000000023.ltx");
/// assert_eq!(parse_file_name("0000000000000001-0000000000000023.ltx"), Some(range));
/// ```
pub fn file_name(range: TxidRange) -> String {
    format!("{range}.ltx")
}

/// The range that a file name stands for; `None` for names of other things, among them those
/// with upper-case digits, a zero, or min above max.
pub fn parse_file_name(name: &str) -> Option<TxidRange> {
    let (min, max) = name.strip_suffix(".ltx")?.split_once('-')?;
    TxidRange::new(Txid::parse_hex16(min)?, Txid::parse_hex16(max)?)
}
