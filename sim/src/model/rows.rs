//! What the model's databases hold: pages that can be told to be whole.
//!
//! Page 1 is the header, page 2 holds the number of the last transaction, every other page holds
//! rows or is free. A page names itself and the seed of its content, so that a page in the wrong
//! place, of another moment or in two halves is found. There are no keys: work touches about as
//! many pages as the same work on rows with an index would.

use super::code::Code;
use super::pager::Pager;
use crate::ring0::app::Work;
use crate::ring0::reading::be32;

const MAGIC: [u8; 4] = *b"page";
/// Magic, page number, kind, number of bytes or page; then the seed, or the number.
const HEAD: usize = 24;

const NUMBER: u32 = 1;
const ROWS: u32 = 2;
const FREE: u32 = 3;

/// Where page 1 has the first free page, and how many there are.
const FREE_FIRST: usize = 32;
const FREE_COUNT: usize = 36;

/// The page of the number.
const NUMBER_PAGE: u32 = 2;

fn put32(page: &mut [u8], at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed | 1;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// Writes a page anew.
fn lay(pager: &mut Pager, no: u32, kind: u32, field: u32, word: u64) -> Result<(), Code> {
    let page = pager.change(no)?;
    page[..4].copy_from_slice(&MAGIC);
    put32(page, 4, no);
    put32(page, 8, kind);
    put32(page, 12, field);
    page[16..HEAD].copy_from_slice(&word.to_be_bytes());
    let used = if kind == ROWS { field as usize } else { 0 };
    fill(&mut page[HEAD..HEAD + used], word);
    page[HEAD + used..].fill(0);
    Ok(())
}

/// Kind and field of a page that names itself.
fn head(pager: &mut Pager, no: u32) -> Result<(u32, u32), Code> {
    let page = pager.get(no)?;
    if page[..4] != MAGIC || be32(page, 4) != no {
        return Err(Code::Corrupt);
    }
    Ok((be32(page, 8), be32(page, 12)))
}

/// Pages with rows: number and bytes used.
fn leaves(pager: &mut Pager) -> Result<Vec<(u32, u32)>, Code> {
    let mut leaves = Vec::new();
    for no in 3..=pager.pages() {
        if no == pager.lock_page() {
            continue;
        }
        let (kind, used) = head(pager, no)?;
        if kind == ROWS {
            leaves.push((no, used));
        }
    }
    Ok(leaves)
}

/// Makes the tables where they are missing.
pub(super) fn create(pager: &mut Pager) -> Result<(), Code> {
    if pager.pages() >= 4 {
        return Ok(());
    }
    build(pager, 0, 0)
}

/// The number of the last transaction.
pub(super) fn number(pager: &mut Pager) -> Result<i64, Code> {
    let (kind, _) = head(pager, NUMBER_PAGE)?;
    if kind != NUMBER {
        return Err(Code::Corrupt);
    }
    let page = pager.get(NUMBER_PAGE)?;
    Ok(i64::from_be_bytes(page[16..HEAD].try_into().expect("eight bytes")))
}

/// Sets it.
pub(super) fn set_number(pager: &mut Pager, number: i64) -> Result<(), Code> {
    let (_, tail) = head(pager, NUMBER_PAGE)?;
    lay(pager, NUMBER_PAGE, NUMBER, tail, number as u64)
}

/// The work of the `n`-th transaction.
pub(super) fn work(pager: &mut Pager, work: Work, n: i64) -> Result<(), Code> {
    match work {
        Work::Insert { rows, bytes } => insert(pager, rows, bytes)?,
        Work::Update { of } => update(pager, of, n)?,
        Work::Delete { of } => delete(pager, of, n)?,
        Work::Nothing => return Ok(()),
    }
    let number = number(pager)?;
    set_number(pager, number + 1)
}

/// Adds rows at the end, and touches the pages of an index.
pub(super) fn insert(pager: &mut Pager, rows: u32, bytes: u32) -> Result<(), Code> {
    let mut left = rows * (bytes + 8);
    let (_, mut tail) = head(pager, NUMBER_PAGE)?;
    let (_, mut used) = head(pager, tail)?;
    let capacity = (pager.page_bytes - HEAD) as u32;
    loop {
        let taken = left.min(capacity - used);
        if taken > 0 {
            let seed = pager.machine.random();
            lay(pager, tail, ROWS, used + taken, seed)?;
        }
        left -= taken;
        if left == 0 {
            break;
        }
        (tail, used) = (allocate(pager)?, 0);
        lay(pager, tail, ROWS, 0, 0)?;
    }
    let number = number(pager)?;
    lay(pager, NUMBER_PAGE, NUMBER, tail, number as u64)?;
    for _ in 0..1 + rows / 8 {
        let no = 3 + (pager.machine.random() % u64::from(pager.pages() - 2)) as u32;
        if no != pager.lock_page()
            && let (ROWS, used) = head(pager, no)?
        {
            let seed = pager.machine.random();
            lay(pager, no, ROWS, used, seed)?;
        }
    }
    Ok(())
}

/// Whether the work strikes a page, one out of `of`.
fn strikes(no: u32, of: u32, n: i64) -> bool {
    (u64::from(no).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).wrapping_add(n as u64) % u64::from(of.max(1))
        == 0
}

fn update(pager: &mut Pager, of: u32, n: i64) -> Result<(), Code> {
    for (no, used) in leaves(pager)? {
        if strikes(no, of.div_ceil(2), n) {
            let seed = pager.machine.random();
            lay(pager, no, ROWS, used, seed)?;
        }
    }
    Ok(())
}

/// Empties pages, which become free, and takes something out of as many others.
fn delete(pager: &mut Pager, of: u32, n: i64) -> Result<(), Code> {
    let (_, tail) = head(pager, NUMBER_PAGE)?;
    for (no, used) in leaves(pager)? {
        if no != tail && strikes(no, of, n) {
            free(pager, no)?;
        } else if strikes(no, of, n + 1) {
            let seed = pager.machine.random();
            lay(pager, no, ROWS, used / 2, seed)?;
        }
    }
    Ok(())
}

fn free(pager: &mut Pager, no: u32) -> Result<(), Code> {
    let (next, count) = free_list(pager)?;
    lay(pager, no, FREE, next, 0)?;
    set_free_list(pager, no, count + 1)
}

fn free_list(pager: &mut Pager) -> Result<(u32, u32), Code> {
    let page = pager.get(1)?;
    Ok((be32(page, FREE_FIRST), be32(page, FREE_COUNT)))
}

fn set_free_list(pager: &mut Pager, first: u32, count: u32) -> Result<(), Code> {
    let page = pager.change(1)?;
    put32(page, FREE_FIRST, first);
    put32(page, FREE_COUNT, count);
    Ok(())
}

/// A free page, or one more at the end.
fn allocate(pager: &mut Pager) -> Result<u32, Code> {
    let (first, count) = free_list(pager)?;
    if first > 0 {
        let (kind, next) = head(pager, first)?;
        if kind != FREE {
            return Err(Code::Corrupt);
        }
        set_free_list(pager, next, count - 1)?;
        return Ok(first);
    }
    let next = pager.pages() + 1;
    let no = if next == pager.lock_page() { next + 1 } else { next };
    pager.set_pages(no)?;
    Ok(no)
}

/// The bytes of all rows.
pub(super) fn total(pager: &mut Pager) -> Result<u64, Code> {
    Ok(leaves(pager)?.iter().map(|(_, used)| u64::from(*used)).sum())
}

/// Writes the whole database anew: so many bytes of rows, and the number.
pub(super) fn build(pager: &mut Pager, total: u64, number: i64) -> Result<(), Code> {
    let capacity = (pager.page_bytes - HEAD) as u64;
    let leaves = total.div_ceil(capacity).max(2) as u32;
    let lock_page = pager.lock_page();
    let places: Vec<u32> = (3..).filter(|no| *no != lock_page).take(leaves as usize).collect();
    let tail = *places.last().expect("at least two");
    pager.set_pages(tail)?;
    set_free_list(pager, 0, 0)?;
    lay(pager, NUMBER_PAGE, NUMBER, tail, number as u64)?;
    let mut left = total;
    for no in places {
        let used = left.min(capacity);
        left -= used;
        let seed = pager.machine.random();
        lay(pager, no, ROWS, used as u32, seed)?;
    }
    Ok(())
}

/// What is wrong with the database, or "ok".
pub(super) fn integrity(pager: &mut Pager) -> Result<String, Code> {
    let (mut next, count) = free_list(pager)?;
    let mut listed = std::collections::BTreeSet::new();
    while next > 0 && listed.insert(next) && next <= pager.pages() {
        next = head(pager, next)?.1;
    }
    if listed.len() as u32 != count || next > 0 {
        return Ok(format!("{} pages on the free list, {count} were counted", listed.len()));
    }
    for no in 2..=pager.pages() {
        if no == pager.lock_page() {
            continue;
        }
        let (kind, used) = head(pager, no)?;
        let page = pager.get(no)?;
        let sound = match kind {
            NUMBER => no == NUMBER_PAGE,
            FREE => listed.contains(&no),
            ROWS => {
                let mut expected = vec![0; page.len()];
                let seed = u64::from_be_bytes(page[16..HEAD].try_into().expect("eight bytes"));
                fill(&mut expected[HEAD..HEAD + used as usize], seed);
                page[HEAD..] == expected[HEAD..]
            }
            _ => false,
        };
        if !sound {
            return Ok(format!("page {no} of kind {kind} is not whole"));
        }
    }
    Ok("ok".into())
}

/// How many pages speak of a replicator.
pub(super) fn traces(pager: &mut Pager) -> Result<i64, Code> {
    let mut traces = 0;
    for no in 1..=pager.pages() {
        let page = pager.get(no)?;
        let names = |word: &[u8]| page.windows(word.len()).any(|bytes| bytes == word);
        traces += i64::from(names(b"litestream") || names(b"driftless"));
    }
    Ok(traces)
}
