//! A whole database, page for page.
//!
//! States of a database differ in few pages. So an image shares the pages that it has in common
//! with the one that it was made from, and a page knows the numbers that stand for its content.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, OnceLock};

use driftless_core::checksum::{DbXor, page_checksum};
use driftless_core::ids::{DbChecksum, PageNo};

/// One page at its place.
struct Page {
    bytes: Box<[u8]>,
    /// Stands for the content and the place.
    mark: u64,
    /// What it adds to the checksum of the LTX chain.
    checksum: OnceLock<u64>,
}

impl Page {
    fn new(no: usize, bytes: &[u8]) -> Arc<Page> {
        Arc::new(Page { mark: mark(no, bytes), bytes: bytes.into(), checksum: OnceLock::new() })
    }

    fn checksum(&self, no: usize) -> u64 {
        *self
            .checksum
            .get_or_init(|| page_checksum(PageNo::new(no as u32).expect("counted from 1"), &self.bytes))
    }
}

/// A number for bytes at a place, by which two pages that differ are told apart quickly.
fn mark(no: usize, bytes: &[u8]) -> u64 {
    let fold = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut hash = fold(0x51_7cc1_b727_220a, (no as u64) << 32 | bytes.len() as u64);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        hash = fold(hash, u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    words.remainder().iter().fold(hash, |hash, byte| fold(hash, u64::from(*byte)))
}

/// One state of a database. The lock page reads as zeros.
#[derive(Clone, Default)]
pub struct Image {
    page_bytes: usize,
    pages: Vec<Arc<Page>>,
    /// The marks of all pages in one.
    mark: u64,
}

impl PartialEq for Image {
    fn eq(&self, other: &Image) -> bool {
        let alike = self.mark == other.mark
            && self.page_bytes == other.page_bytes
            && self.pages.len() == other.pages.len();
        let mut pairs = self.pages.iter().zip(&other.pages);
        alike && pairs.all(|(a, b)| Arc::ptr_eq(a, b) || a.bytes == b.bytes)
    }
}

impl Eq for Image {}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages of {} ({:x})", self.pages(), self.page_bytes, self.digest())
    }
}

impl Image {
    /// A database without a page.
    pub fn empty(page_bytes: usize) -> Image {
        Image { page_bytes, ..Image::default() }
    }

    /// Makes the image of these bytes, of which a last page may be incomplete. Pages that are as in
    /// `like` are shared with it.
    pub fn of_bytes(page_bytes: usize, bytes: &[u8], like: &Image) -> Image {
        let mut image = Image::empty(page_bytes);
        if page_bytes == 0 {
            // No database at all, which differs from none.
            let page = Page::new(1, bytes);
            (image.mark, image.pages) = (page.mark, vec![page]);
            return image;
        }
        let known = if like.page_bytes == page_bytes { like.pages.as_slice() } else { &[] };
        for (n, bytes) in bytes.chunks(page_bytes).enumerate() {
            let whole;
            let bytes = match bytes.len() == page_bytes {
                true => bytes,
                false => {
                    whole = [bytes, &vec![0; page_bytes - bytes.len()]].concat();
                    &whole
                }
            };
            let page = match known.get(n) {
                Some(page) if *page.bytes == *bytes => Arc::clone(page),
                _ => Page::new(n + 1, bytes),
            };
            image.mark ^= page.mark;
            image.pages.push(page);
        }
        image
    }

    /// A number for the state without what SQLite puts into page 1 of a copy by itself.
    pub fn mark_as_copied(&self) -> u64 {
        let mut image = self.clone();
        if image.pages() > 0 && image.page_bytes() >= 512 {
            let mut first = image.page(1).to_vec();
            [18..20, 24..28, 92..100].into_iter().for_each(|range| first[range].fill(0));
            image.set_page(1, &first);
        }
        image.mark()
    }

    /// Bytes in a page; 0 for no database.
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Pages in the database.
    pub fn pages(&self) -> usize {
        if self.page_bytes == 0 { 0 } else { self.pages.len() }
    }

    /// A page, counted from 1.
    pub fn page(&self, no: usize) -> &[u8] {
        &self.pages[no - 1].bytes
    }

    /// Puts a page in its place, counted from 1.
    pub fn set_page(&mut self, no: usize, bytes: &[u8]) {
        self.set_page_like(no, bytes, &Image::default());
    }

    /// As [`set_page`](Image::set_page), sharing the page with `like` if it is the same there.
    pub fn set_page_like(&mut self, no: usize, bytes: &[u8], like: &Image) {
        let place = &mut self.pages[no - 1];
        if *place.bytes != *bytes {
            self.mark ^= place.mark;
            *place = match like.pages.get(no - 1) {
                Some(page) if *page.bytes == *bytes => Arc::clone(page),
                _ => Page::new(no, bytes),
            };
            self.mark ^= place.mark;
        }
    }

    /// Cuts pages off, or adds pages of zeros.
    pub fn resize(&mut self, pages: usize) {
        while self.pages.len() > pages {
            self.mark ^= self.pages.pop().expect("there are more").mark;
        }
        while self.pages.len() < pages {
            let page = Page::new(self.pages.len() + 1, &vec![0; self.page_bytes]);
            self.mark ^= page.mark;
            self.pages.push(page);
        }
    }

    /// Makes the page that covers `pending_byte` read as zeros.
    pub fn blank_lock_page(&mut self, pending_byte: u64) {
        let no = (pending_byte as usize).checked_div(self.page_bytes).map_or(0, |before| before + 1);
        if (1..=self.pages()).contains(&no) {
            self.set_page(no, &vec![0; self.page_bytes]);
        }
    }

    /// A number that tells images apart quickly; equal ones may still differ.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// A number that stands for the content, the same in every version of this simulator.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_usize(self.page_bytes);
        hasher.write_usize(self.pages.iter().map(|page| page.bytes.len()).sum());
        self.pages.iter().for_each(|page| hasher.write(&page.bytes));
        hasher.finish()
    }

    /// The checksum of the LTX chain.
    pub fn checksum(&self, pending_byte: u64) -> DbChecksum {
        let lock_page = pending_byte as usize / self.page_bytes.max(1) + 1;
        let mut xor = DbXor::new();
        for no in (1..=self.pages()).filter(|no| *no != lock_page) {
            xor.toggle(self.pages[no - 1].checksum(no));
        }
        xor.finish()
    }

    /// The first pages on which two images differ, for people.
    pub fn differences(&self, other: &Image) -> String {
        if self.page_bytes != other.page_bytes || self.pages() != other.pages() {
            return format!("{self:?} against {other:?}");
        }
        let differ: Vec<usize> = (1..=self.pages()).filter(|no| self.page(*no) != other.page(*no)).collect();
        format!("{self:?}: {} pages differ, the first are {:?}", differ.len(), &differ[..differ.len().min(8)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_are_equal_images_however_they_came_to_be() {
        let old = Image::of_bytes(4, &[1; 12], &Image::default());
        let mut made = old.clone();
        made.set_page(2, &[2; 4]);
        made.resize(4);
        made.resize(2);
        let read = Image::of_bytes(4, &[1, 1, 1, 1, 2, 2, 2, 2], &old);
        assert!(made == read && made.mark() == read.mark() && made.digest() == read.digest());
        assert_eq!(made.checksum(1 << 30), read.checksum(1 << 30));
        assert!(made != old && made.mark() != old.mark());
        made.blank_lock_page(5);
        assert_eq!((made.page(1), made.page(2)), (&[1; 4][..], &[0; 4][..]));
    }

    #[test]
    fn a_page_in_another_place_is_another_state() {
        let one = Image::of_bytes(8, &[&[1; 8][..], &[2; 8]].concat(), &Image::default());
        let other = Image::of_bytes(8, &[&[2; 8][..], &[1; 8]].concat(), &Image::default());
        assert!(one != other && one.mark() != other.mark());
        assert_eq!(Image::of_bytes(8, &[1; 12], &one).page(2), [1, 1, 1, 1, 0, 0, 0, 0]);
    }
}
