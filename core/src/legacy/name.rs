//! Names of Litestream 0.3's objects.

use alloc::format;
use alloc::string::String;
use core::fmt;

/// What all names of this layout begin with, below the replica's path.
pub const GENERATIONS_PREFIX: &str = "generations/";

/// An unbroken run of the WAL. Drawn at random: generations have no order.
///
/// Written as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// Reads exactly 16 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Generation> {
        if text.len() == 16 { hex(text).map(Generation) } else { None }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "G{:x}", self.0)
    }
}

/// What an object holds of its index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LegacyPart {
    /// The database file, copied while the WAL of this index was in use.
    Snapshot,
    /// Bytes of the WAL from an offset on.
    Wal {
        /// From the start of the WAL, in bytes.
        offset: u64,
    },
    /// The whole WAL in one file, as 0.3.0 to 0.3.4 kept it in directories. Known so that it is
    /// not passed over; not read.
    WholeWal {
        /// Whether it is an LZ4 frame; otherwise the bytes as they are.
        packed: bool,
    },
}

/// One object of a replica. Ordered by generation, index, and what comes first in a restore, which
/// is not the order of names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegacyObject {
    /// Its generation.
    pub generation: Generation,
    /// Which WAL file of the generation, from 0.
    pub index: u32,
    /// What it holds of it.
    pub part: LegacyPart,
}

impl LegacyObject {
    /// Reads a name as `Display` writes it, relative to the replica's path; `None` for everything
    /// else.
    pub fn parse(name: &str) -> Option<LegacyObject> {
        let (generation, rest) = name.strip_prefix(GENERATIONS_PREFIX)?.split_once('/')?;
        let generation = Generation::parse(generation)?;
        let (folder, file) = rest.split_once('/')?;
        let (index, part) = match folder {
            "snapshots" => (file.strip_suffix(".snapshot.lz4")?, LegacyPart::Snapshot),
            "wal" => wal_part(file)?,
            _ => return None,
        };
        let index = if index.len() == 8 { u32::try_from(hex(index)?).ok()? } else { return None };
        Some(LegacyObject { generation, index, part })
    }
}

/// The index and the kind that the name of a file among the WALs tells.
fn wal_part(file: &str) -> Option<(&str, LegacyPart)> {
    if let Some(index) = file.strip_suffix(".wal") {
        return Some((index, LegacyPart::WholeWal { packed: false }));
    }
    let stem = file.strip_suffix(".wal.lz4")?;
    let Some((index, offset)) = stem.split_once('_') else {
        return Some((stem, LegacyPart::WholeWal { packed: true }));
    };
    // Eight digits, and as many as it takes for a WAL beyond 4 GiB.
    let written = hex(offset).filter(|&number| format!("{number:08x}") == offset)?;
    Some((index, LegacyPart::Wal { offset: written }))
}

impl fmt::Display for LegacyObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LegacyObject { generation, index, part } = self;
        let file: String = match part {
            LegacyPart::Snapshot => format!("snapshots/{index:08x}.snapshot.lz4"),
            LegacyPart::Wal { offset } => format!("wal/{index:08x}_{offset:08x}.wal.lz4"),
            LegacyPart::WholeWal { packed: true } => format!("wal/{index:08x}.wal.lz4"),
            LegacyPart::WholeWal { packed: false } => format!("wal/{index:08x}.wal"),
        };
        write!(f, "{GENERATIONS_PREFIX}{generation}/{file}")
    }
}

impl fmt::Debug for LegacyObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of 1 to 16 lower-case hexadecimal digits.
fn hex(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn objects_are_named_as_litestream_0_3_named_them() {
        let check = |name: &str, index: u32, part: LegacyPart| {
            let object = LegacyObject { generation: Generation(0x0ccf_80b8_acbd_45e4), index, part };
            assert_eq!(LegacyObject::parse(name), Some(object));
            assert_eq!(object.to_string(), name);
        };
        check("generations/0ccf80b8acbd45e4/snapshots/00000001.snapshot.lz4", 1, LegacyPart::Snapshot);
        let wal = |offset| LegacyPart::Wal { offset };
        check("generations/0ccf80b8acbd45e4/wal/00000000_000080e0.wal.lz4", 0, wal(0x80e0));
        check("generations/0ccf80b8acbd45e4/wal/0000abcd_1000080e0.wal.lz4", 0xabcd, wal(0x1_0000_80e0));
        let whole = |packed| LegacyPart::WholeWal { packed };
        check("generations/0ccf80b8acbd45e4/wal/00000002.wal", 2, whole(false));
        check("generations/0ccf80b8acbd45e4/wal/00000002.wal.lz4", 2, whole(true));
    }

    #[test]
    fn other_names_are_none() {
        for name in [
            "",
            "generations",
            "generations/0ccf80b8acbd45e4",
            "generations/0CCF80B8ACBD45E4/snapshots/00000001.snapshot.lz4",
            "generations/0ccf80b8acbd45e/snapshots/00000001.snapshot.lz4",
            "generations/0ccf80b8acbd45e4/snapshots/00000001.snapshot.lz4.tmp",
            "generations/0ccf80b8acbd45e4/snapshots/00000001.snapshot",
            "generations/0ccf80b8acbd45e4/snapshots/0000001.snapshot.lz4",
            "generations/0ccf80b8acbd45e4/snapshots/x/00000001.snapshot.lz4",
            "generations/0ccf80b8acbd45e4/wal/00000000_000080E0.wal.lz4",
            "generations/0ccf80b8acbd45e4/wal/00000000_80e0.wal.lz4",
            "generations/0ccf80b8acbd45e4/wal/00000000_0000080e0.wal.lz4",
            "generations/0ccf80b8acbd45e4/wal/00000000_.wal.lz4",
            "generations/0ccf80b8acbd45e4/wal/000000000_000080e0.wal.lz4",
            "generations/0ccf80b8acbd45e4/ltx/00000001.snapshot.lz4",
            "ltx/0/0000000000000001-0000000000000001.ltx",
        ] {
            assert_eq!(LegacyObject::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_restore_takes_numbers_in_order_where_names_sort_otherwise() {
        let parse = |file: &str| {
            LegacyObject::parse(&format!("generations/0000000000000001/{file}")).expect("a name")
        };
        let (near, far) = (parse("wal/00000000_fffff000.wal.lz4"), parse("wal/00000000_100000f00.wal.lz4"));
        assert!(near < far && near.to_string() > far.to_string());
        assert!(parse("snapshots/00000001.snapshot.lz4") < parse("wal/00000001_00000000.wal.lz4"));
        assert!(parse("wal/00000000_00000020.wal.lz4") < parse("snapshots/00000001.snapshot.lz4"));
    }
}
