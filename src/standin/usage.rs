//! Usage: what was accepted for each meter and customer, which identifiers are taken, and what can be seen of it.

use std::collections::{HashMap, VecDeque};

use crate::clock::Timestamp;

/// Seconds for which an identifier is taken; at the last of them it is free again. STANDIN-USAGE-1
pub const TAKEN_FOR: i64 = 24 * 3600;
/// Events that are kept.
const MOST_EVENTS: usize = 5_000_000;

/// One accepted event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When the usage was, in seconds.
    pub timestamp: i64,
    /// How much.
    pub value: i64,
    /// From when on, in microseconds, summaries show it; `None` is never: it was dropped after 200.
    pub visible: Option<Timestamp>,
}

/// All usage.
#[derive(Default)]
pub struct Usage {
    /// By meter and customer, in the order in which it came.
    events: HashMap<(String, String), Vec<Event>>,
    count: usize,
    /// Identifiers, and until when they are taken.
    taken: HashMap<String, Timestamp>,
    leaving: VecDeque<(Timestamp, String)>,
}

impl Usage {
    /// Takes an identifier. False where it is taken already.
    pub fn take(&mut self, identifier: &str, now: Timestamp) -> bool {
        while let Some((until, identifier)) = self.leaving.pop_front_if(|(until, _)| *until <= now) {
            // A later event may have it by now.
            if self.taken.get(&identifier) == Some(&until) {
                self.taken.remove(&identifier);
            }
        }
        if self.taken.contains_key(identifier) {
            return false;
        }
        let until = now.plus(std::time::Duration::from_secs(TAKEN_FOR.unsigned_abs()));
        self.taken.insert(identifier.to_owned(), until);
        self.leaving.push_back((until, identifier.to_owned()));
        true
    }

    /// Keeps an event. False where there is no more room.
    pub fn add(&mut self, meter: &str, customer: &str, event: Event) -> bool {
        let fits = self.count < MOST_EVENTS;
        if fits {
            self.count += 1;
            self.events.entry((meter.to_owned(), customer.to_owned())).or_default().push(event);
        }
        fits
    }

    /// The sum, the number and the last value of what is in `[from, to)`; of what can be seen at `seen`, or with `None` of
    /// all that will ever count.
    pub fn sums(&self, meter: &str, customer: &str, span: (i64, i64), seen: Option<Timestamp>) -> Sums {
        let events = self.events.get(&(meter.to_owned(), customer.to_owned()));
        let mut sums = Sums::default();
        for event in events.into_iter().flatten() {
            let counts = event.visible.is_some_and(|visible| seen.is_none_or(|seen| visible <= seen));
            if counts && span.0 <= event.timestamp && event.timestamp < span.1 {
                sums.count += 1;
                sums.sum = sums.sum.saturating_add(event.value);
                if sums.last.is_none_or(|(at, _)| at <= event.timestamp) {
                    sums.last = Some((event.timestamp, event.value));
                }
            }
        }
        sums
    }

    /// Makes everything that was accepted visible.
    pub fn show_all(&mut self, now: Timestamp) {
        let events = self.events.values_mut().flatten();
        events.filter_map(|event| event.visible.as_mut()).for_each(|visible| *visible = (*visible).min(now));
    }
}

/// What came together over a span of time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// Events.
    pub count: i64,
    /// Of their values.
    pub sum: i64,
    /// Time and value of the latest.
    pub last: Option<(i64, i64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600 * 1_000_000;

    #[test]
    fn an_identifier_is_taken_for_exactly_a_day() {
        let at = Timestamp::from_micros;
        let mut usage = Usage::default();
        assert!(usage.take("a", at(5)));
        assert!(!usage.take("a", at(5)));
        assert!(!usage.take("a", at(DAY + 4)));
        assert!(usage.take("b", at(DAY + 4)));
        assert!(usage.take("a", at(DAY + 5)), "the day is over");
        assert!(!usage.take("a", at(2 * DAY + 4)));
        assert!(usage.take("a", at(2 * DAY + 5)));
        assert_eq!(usage.taken.len(), usage.leaving.len());
    }

    #[test]
    fn sums_are_of_what_can_be_seen() {
        let mut usage = Usage::default();
        for (timestamp, value, visible) in
            [(60, 1, Some(10)), (119, 2, Some(20)), (120, 4, Some(0)), (60, 8, None)]
        {
            let visible = visible.map(Timestamp::from_micros);
            assert!(usage.add("m", "c", Event { timestamp, value, visible }));
        }
        let sum = |span, seen: Option<i64>| usage.sums("m", "c", span, seen.map(Timestamp::from_micros)).sum;
        assert_eq!(sum((60, 120), Some(9)), 0);
        assert_eq!(sum((60, 120), Some(10)), 1);
        assert_eq!(sum((60, 120), Some(20)), 3);
        assert_eq!(sum((60, 180), None), 7, "what was dropped never counts");
        assert_eq!(usage.sums("m", "c", (0, 180), None).last, Some((120, 4)));
        assert_eq!(usage.sums("m", "other", (0, 180), None), Sums::default());
    }
}
