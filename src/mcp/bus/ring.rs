//! What was said last, by position. Who listens keeps a position and reads on from there.

use std::collections::VecDeque;

/// Entries that a listener may lag behind.
const CAPACITY: usize = 1024;

/// The newest entries, each at a position above those before it.
#[derive(Debug)]
pub(super) struct Ring<T> {
    entries: VecDeque<(u64, T)>,
    /// Everything above this position is in `entries`.
    floor: u64,
    last: u64,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), floor: 0, last: 0 }
    }
}

/// Something was said after the listener's position that is no longer known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missed;

impl<T: Clone> Ring<T> {
    /// Says something. Where the deployment gives it a position, the ring takes that over; a position that is not above the
    /// last one counts as the next.
    pub(super) fn push(&mut self, position: Option<u64>, entry: T) {
        let next = self.last + 1;
        self.last = position.unwrap_or(next).max(next);
        self.entries.push_back((self.last, entry));
        if self.entries.len() > CAPACITY
            && let Some((gone, _)) = self.entries.pop_front()
        {
            self.floor = gone;
        }
    }

    /// The position of what was said last.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The first entry after this position, and its position.
    pub(super) fn after(&self, position: u64) -> Result<Option<(u64, T)>, Missed> {
        if position < self.floor {
            return Err(Missed);
        }
        let place = self.entries.partition_point(|(at, _)| *at <= position);
        Ok(self.entries.get(place).cloned())
    }

    /// Forgets everything: whoever lags behind has missed something. So has whoever does not, for all that is known.
    pub(super) fn miss(&mut self) {
        self.entries.clear();
        self.last += 1;
        self.floor = self.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_reads_on_from_its_place() {
        let mut ring = Ring::default();
        assert_eq!(ring.after(0), Ok(None));
        ring.push(None, 'a');
        ring.push(Some(70), 'b');
        ring.push(Some(60), 'c');
        assert_eq!(ring.last(), 71);
        assert_eq!(ring.after(0), Ok(Some((1, 'a'))));
        assert_eq!(ring.after(1), Ok(Some((70, 'b'))));
        assert_eq!(ring.after(69), Ok(Some((70, 'b'))), "a place of another replica");
        assert_eq!(ring.after(70), Ok(Some((71, 'c'))));
        assert_eq!(ring.after(71), Ok(None));
        ring.miss();
        assert_eq!(ring.after(71), Err(Missed));
        assert_eq!(ring.after(ring.last()), Ok(None));
    }

    #[test]
    fn who_falls_behind_is_told_so() {
        let mut ring = Ring::default();
        for n in 0..=CAPACITY {
            ring.push(None, n);
        }
        assert_eq!(ring.after(0), Err(Missed));
        assert_eq!(ring.after(1), Ok(Some((2, 1))));
    }
}
