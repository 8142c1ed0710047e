//! The checksum of each page of the copy, as it was at the source, and of all of them together.

use alloc::vec::Vec;

use crate::checksum::DbXor;
use crate::ids::{DbChecksum, PageNo, PageSize};

/// Eight bytes a page.
#[derive(Clone, PartialEq)]
pub(super) struct Table {
    page_size: PageSize,
    lock_page: PageNo,
    /// Zero for a page that nobody has given.
    sums: Vec<u64>,
    xor: DbXor,
}

impl core::fmt::Debug for Table {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "[{} pages, state {}]", self.sums.len(), self.state())
    }
}

impl Table {
    pub(super) fn new(page_size: PageSize, pending_byte: u64) -> Table {
        let lock_page = page_size.lock_page(pending_byte);
        Table { page_size, lock_page, sums: Vec::new(), xor: DbXor::new() }
    }

    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    pub(super) fn pages(&self) -> u32 {
        self.sums.len() as u32
    }

    pub(super) fn state(&self) -> DbChecksum {
        self.xor.finish()
    }

    /// Cuts pages off, or makes room for those to come.
    pub(super) fn resize(&mut self, pages: u32) {
        for sum in self.sums.drain((pages as usize).min(self.sums.len())..) {
            toggle(&mut self.xor, sum);
        }
        self.sums.resize(pages as usize, 0);
    }

    /// Takes a page's checksum, and says whether that changes it. SQLite's lock page has none.
    pub(super) fn set(&mut self, page: PageNo, sum: u64) -> bool {
        if page == self.lock_page {
            return false;
        }
        let slot = &mut self.sums[page.get() as usize - 1];
        let changed = *slot != sum;
        toggle(&mut self.xor, *slot);
        toggle(&mut self.xor, sum);
        *slot = sum;
        changed
    }

    /// All pages with a checksum, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PageNo, u64)> + '_ {
        let known = self.sums.iter().zip(1..).filter(|(sum, _)| **sum != 0);
        known.filter_map(|(sum, no)| Some((PageNo::new(no)?, *sum)))
    }

    /// The first page from `from` on that nobody has given.
    pub(super) fn missing(&self, from: u32) -> Option<PageNo> {
        let unset = |page: &PageNo| *page != self.lock_page && self.sums[page.get() as usize - 1] == 0;
        (from.max(1)..=self.pages()).filter_map(PageNo::new).find(unset)
    }
}

fn toggle(xor: &mut DbXor, sum: u64) {
    if sum != 0 {
        xor.toggle(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_that_of_the_pages_that_are_there() {
        let page = |n| PageNo::new(n).unwrap();
        let size = PageSize::new(512).unwrap();
        let mut table = Table::new(size, 512);
        table.resize(3);
        assert_eq!(table.missing(1), Some(page(1)));
        assert!(table.set(page(1), 5) && !table.set(page(1), 5));
        assert!(!table.set(page(2), 6), "the lock page");
        assert_eq!(table.missing(1), Some(page(3)));
        assert!(table.set(page(3), 9));
        assert_eq!(table.missing(1), None);
        assert_eq!(table.state(), DbChecksum::from_xor(5 ^ 9));
        table.resize(1);
        assert_eq!(table.state(), DbChecksum::from_xor(5));
        table.resize(4);
        assert_eq!(table.missing(2), Some(page(3)));
        assert_eq!(table.state(), DbChecksum::from_xor(5));
    }
}
