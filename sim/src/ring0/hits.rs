//! Which faults struck, and how often: a fault that no seed ever meets proves nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A count by the name of the fault.
///
/// A name says where and what, as `store: answer lost`; all names of one place sort together.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Hits(BTreeMap<Cow<'static, str>, u64>);

impl Hits {
    /// Counts one hit.
    pub fn hit(&mut self, name: &'static str) {
        *self.0.entry(Cow::Borrowed(name)).or_default() += 1;
    }

    /// Adds what another run met.
    pub fn add(&mut self, other: &Hits) {
        for (name, count) in &other.0 {
            *self.0.entry(name.clone()).or_default() += count;
        }
    }

    /// How often this fault struck.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Names and counts, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (&**name, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_add_up_by_name() {
        let mut hits = Hits::default();
        hits.hit("store: refused");
        hits.hit("disk: torn");
        hits.hit("store: refused");
        let mut sum = hits.clone();
        sum.add(&hits);
        assert_eq!((sum.of("store: refused"), sum.of("store: gone"), sum.total()), (4, 0, 6));
        assert_eq!(sum.iter().next(), Some(("disk: torn", 2)));
    }
}
