//! What is to happen, in order of time; what happens at the same time, in the order of the dice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::dice::Dice;

/// Things to come.
#[derive(Debug)]
pub struct Queue<T> {
    dice: Dice,
    /// Time, tie, number and place; the heap moves these about, and not what is to come.
    heap: BinaryHeap<Reverse<(u64, u64, u64, usize)>>,
    places: Vec<Option<T>>,
    free: Vec<usize>,
    next: u64,
}

impl<T> Queue<T> {
    /// Nothing to come.
    pub fn new(dice: Dice) -> Queue<T> {
        Queue { dice, heap: BinaryHeap::new(), places: Vec::new(), free: Vec::new(), next: 0 }
    }

    /// `entry` is to happen at `at_ns`.
    pub fn push(&mut self, at_ns: u64, entry: T) {
        self.next += 1;
        let tie = self.dice.draw("tie", "", self.next);
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(entry);
        self.heap.push(Reverse((at_ns, tie, self.next, place)));
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at_ns, _, _, place)) = self.heap.pop()?;
        let entry = self.places[place].take().expect("what stands in the heap has its place");
        self.free.push(place);
        Some((at_ns, entry))
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ns, ..))| *at_ns)
    }

    /// All that is to come, in no particular order of time.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_orders_and_dice_break_ties() {
        let order = |seed| {
            let mut queue = Queue::new(Dice::new(seed));
            (0..8).for_each(|n| queue.push(5, n));
            queue.push(1, 100);
            std::iter::from_fn(move || queue.pop()).map(|(_, n)| n).collect::<Vec<_>>()
        };
        assert_eq!(order(1)[0], 100);
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
