//! The byte tables of `docs/FORMAT.md` against the code that writes the bytes.

use driftless_core::engine::{Point, Record, Step};
use driftless_core::ids::{DbChecksum, Incarnation, Lineage, PageNo, PageSize, Txid, TxidRange, Wall};
use driftless_core::ltx::{END_BYTES, Encoder, LTX_HEADER_BYTES, LtxHeader, TRAILER_BYTES, Trailer};
use driftless_core::machine::{PART_BYTES_MAX, SealRecord};
use driftless_core::wal::{
    FRAME_HEADER_BYTES, INDEX_BYTES, Salts, WAL_HEADER_BYTES, WalChecksum, WalPosition,
};

use crate::documents::rows;
use crate::{check, read};

/// One row of a byte table.
struct Field {
    offset: usize,
    bytes: usize,
    name: String,
}

/// The text from a heading to the next one.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let Some((_, rest)) = text.split_once(&format!("# {heading}\n")) else { return "" };
    rest.split("\n#").next().unwrap_or_default()
}

/// The byte table under a heading: offset, bytes, field.
fn fields(text: &str, heading: &str) -> Vec<Field> {
    rows(section(text, heading))
        .iter()
        .filter_map(|row| {
            let [offset, bytes, name, ..] = &row[..] else { return None };
            Some(Field { offset: offset.parse().ok()?, bytes: bytes.parse().ok()?, name: name.clone() })
        })
        .collect()
}

/// Complaints about a byte table against `written`, the bytes of each field where it has a value
/// of its own.
fn table(text: &str, heading: &str, total: usize, written: &[(&str, Vec<u8>)]) -> Vec<String> {
    let whole: Vec<u8> = written.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    let mut complaints = Vec::new();
    let mut end = 0;
    for field in fields(text, heading) {
        let Field { offset, bytes, name } = field;
        if offset != end {
            complaints
                .push(format!("{heading}: {name} is said to be at {offset}, the field before ends at {end}"));
        }
        end = offset + bytes;
        match written.iter().find(|(known, _)| name.contains(known)) {
            Some((_, value)) if whole.get(offset..end) == Some(value) => {}
            Some(_) => {
                complaints.push(format!("{heading}: {name} is not written at {offset}, {bytes} bytes"))
            }
            None => complaints.push(format!("{heading}: no field {name} is written")),
        }
    }
    if end != total || whole.len() != total {
        complaints.push(format!(
            "{heading}: the table ends at {end}, the code writes {} and says {total}",
            whole.len()
        ));
    }
    complaints
}

/// A header in which no two bytes of different fields are alike by chance, cut by field names.
fn header() -> (LtxHeader, Vec<(&'static str, Vec<u8>)>) {
    let txid = |n| Txid::new(n).unwrap();
    let range = TxidRange::new(txid(0x1112), txid(0x2122)).unwrap();
    let mut header = LtxHeader::new(PageSize::new(4096).unwrap(), 0x3132_3334, range, Wall(0x4142_4344));
    header.wal_offset = 0x5152;
    header.wal_size = 0x6162;
    header.wal_salts = Salts { one: 0x7172_7374, two: 0x8182_8384 };
    header.lineage = Lineage::new(0x9192);
    header.chain.pre = DbChecksum::from_stored(0xa1a2);
    header.chain.post = DbChecksum::from_stored(0xb1b2);
    header.chain.incarnation = Incarnation(0xc1c2);
    let u32 = |n: u32| n.to_be_bytes().to_vec();
    let u64 = |n: u64| n.to_be_bytes().to_vec();
    let written = vec![
        ("magic", b"LTX1".to_vec()),
        ("flags", u32(2)),
        ("page size", u32(4096)),
        ("commit", u32(0x3132_3334)),
        ("min TXID", u64(0x1112)),
        ("max TXID", u64(0x2122)),
        ("timestamp", u64(0x4142_4344)),
        ("pre-apply checksum", u64(0)),
        ("WAL offset", u64(0x5152)),
        ("WAL size", u64(0x6162)),
        ("WAL salt-1", u32(0x7172_7374)),
        ("WAL salt-2", u32(0x8182_8384)),
        ("lineage", u64(0x9192)),
        ("pre-state", u64(0xa1a2)),
        ("post-state", u64(0xb1b2)),
        ("incarnation", u32(0xc1c2)),
    ];
    (header, written)
}

fn header_table(text: &str) -> Vec<String> {
    let (header, written) = header();
    let whole: Vec<u8> = written.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(header.encode().to_vec(), whole, "the fields in this order are the header");
    table(text, "Header", LTX_HEADER_BYTES, &written)
}

fn frame_table(text: &str) -> Vec<String> {
    let (mut header, _) = header();
    header.commit = 0x0102_0304;
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&header, &mut file);
    encoder.page(PageNo::new(0x0102_0303).unwrap(), &[7; 4096], &mut file);
    let frame = &file[LTX_HEADER_BYTES..];
    let size = (frame.len() - 10) as u32;
    let written = vec![
        ("page number", 0x0102_0303u32.to_be_bytes().to_vec()),
        ("flags", 1u16.to_be_bytes().to_vec()),
        ("compressed size", size.to_be_bytes().to_vec()),
    ];
    let whole: Vec<u8> = written.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(frame[..10], whole, "a frame begins like this");
    table(text, "Page frame", 10, &written)
}

fn trailer_table(text: &str) -> Vec<String> {
    let trailer = Trailer { post_apply: 0x0102, file_checksum: 0x0304 };
    let written = vec![
        ("post-apply checksum", trailer.post_apply.to_be_bytes().to_vec()),
        ("file checksum", trailer.file_checksum.to_be_bytes().to_vec()),
    ];
    let whole: Vec<u8> = written.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(trailer.encode().to_vec(), whole, "the trailer is these two");
    table(text, "Trailer", TRAILER_BYTES, &written)
}

/// The name of a row's first cell in backticks and the number in its second.
fn named_numbers(text: &str, heading: &str) -> Vec<(String, usize)> {
    rows(section(text, heading))
        .iter()
        .filter_map(|row| {
            let name = row.first()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((name.to_string(), row.get(1)?.replace(',', "").parse().ok()?))
        })
        .collect()
}

fn constants(text: &str) -> Vec<String> {
    let known = [
        ("LTX_HEADER_BYTES", LTX_HEADER_BYTES),
        ("END_BYTES", END_BYTES),
        ("TRAILER_BYTES", TRAILER_BYTES),
        ("PART_BYTES_MAX", PART_BYTES_MAX),
        ("WAL_HEADER_BYTES", WAL_HEADER_BYTES),
        ("FRAME_HEADER_BYTES", FRAME_HEADER_BYTES),
        ("INDEX_BYTES", INDEX_BYTES),
    ];
    let told = named_numbers(text, "Constants");
    known
        .iter()
        .filter(|(name, value)| !told.contains(&(name.to_string(), *value)))
        .map(|(name, value)| format!("Constants: {name} is {value}, the table says otherwise"))
        .collect()
}

/// Complaints about the table of the journal's record kinds: kind, name, bytes at the least.
fn records(text: &str) -> Vec<String> {
    let wal = WalPosition { salts: Salts::default(), frame: 1, checksum: WalChecksum(0, 0) };
    let to = Point {
        txid: Txid::FIRST,
        stamp: Wall(0),
        page_size: PageSize::new(512).unwrap(),
        pages: 0,
        post: DbChecksum::from_xor(0),
        file: (0, 0),
        wal: None,
    };
    let seal = SealRecord { device: 0, inode: 0, size: 0, ctime_ns: 0, boot_id: String::new() };
    let known = [
        ("Identity", Record::Identity { lineage: Lineage::new(1).unwrap(), incarnation: Incarnation(1) }),
        ("Intent", Record::Intent(Step { pre: None, to, full: true, sums: Vec::new() })),
        ("Done", Record::Done(Txid::FIRST)),
        ("Sealed", Record::Sealed { seal, wal }),
        ("Moved", Record::Moved { file: (0, 0), wal }),
        ("Reset", Record::Reset),
    ];
    let rows = rows(section(text, "Record kinds"));
    let mut complaints = Vec::new();
    for (name, record) in known {
        let stored = record.encode();
        let wanted = (stored[0].to_string(), name.to_string(), stored.len().to_string());
        let told = rows.iter().any(|row| {
            let least = row.get(2).and_then(|cell| cell.split(' ').next()).unwrap_or_default();
            row.len() > 2 && (row[0].clone(), row[1].clone(), least.to_string()) == wanted
        });
        if !told {
            complaints.push(format!("Record kinds: no row says {wanted:?}"));
        }
    }
    complaints
}

/// Complaints about the journal's frame, whose constants are private to `state`, the source.
fn journal_frame(text: &str, state: &str) -> Vec<String> {
    let bytes: usize = fields(text, "Journal").iter().map(|field| field.bytes).sum();
    let mut complaints = Vec::new();
    if !state.contains(&format!("const FRAME_BYTES: usize = {bytes};")) {
        complaints.push(format!("Journal: a frame head of {bytes} bytes is not what the code reads"));
    }
    if !(state.contains("b\"DRFTJRN1\"") && section(text, "Journal").contains("`DRFTJRN1`")) {
        complaints.push("Journal: the magic number differs".into());
    }
    complaints
}

fn all(text: &str) -> Vec<String> {
    let state = read("runtime/src/port/state/frames.rs");
    let checks = [header_table(text), frame_table(text), trailer_table(text), constants(text), records(text)];
    checks.into_iter().flatten().chain(journal_frame(text, &state)).collect()
}

#[test]
fn byte_tables_agree_with_the_code() {
    check(&all(&read("docs/FORMAT.md")));
}

#[test]
fn a_wrong_byte_table_is_caught() {
    let text = read("docs/FORMAT.md");
    let planted = |from: &str, to: &str, part: &str| {
        assert!(text.contains(from), "{from:?} stands in the document");
        let complaints = all(&text.replacen(from, to, 1));
        assert!(
            complaints.iter().any(|complaint| complaint.contains(part)),
            "{part:?} not in {complaints:#?}"
        );
    };
    planted("| 88 | 8 | post-state |", "| 88 | 8 | pre-state |", "pre-state is not written at 88");
    planted("| 4 | 2 | flags |", "| 4 | 2 | words |", "no field words");
    planted("| 8 | 8 | file checksum |", "| 9 | 8 | file checksum |", "said to be at 9");
    planted("| `END_BYTES` | 6 |", "| `END_BYTES` | 8 |", "END_BYTES is 6");
    planted("| 3 | Done | 9 |", "| 3 | Done | 8 |", "Done");
    planted("| 8 | 8 | checksum |", "| 8 | 4 | checksum |", "12 bytes");
}
