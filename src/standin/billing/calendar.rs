//! Billing periods: counted from an anchor, so that a month that is too short does not shorten the ones after it
//! (docs.stripe.com/billing/subscriptions/billing-cycle). Times are seconds since 1970, days are those of UTC.

use jiff::Span;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::super::look::{text, whole};

const DAY: i64 = 24 * 3600;

#[derive(Debug, Clone, Copy)]
enum Step {
    Days(i64),
    Months(i64),
}

/// A row of periods.
#[derive(Debug, Clone, Copy)]
pub struct Cycle {
    anchor: i64,
    step: Step,
}

impl Cycle {
    /// The periods of a price's `recurring`, of which one begins at `anchor`.
    pub fn new(recurring: &Value, anchor: i64) -> Self {
        let count = whole(recurring, "interval_count").max(1);
        let step = match text(recurring, "interval") {
            "day" => Step::Days(count),
            "week" => Step::Days(count.saturating_mul(7)),
            "year" => Step::Months(count.saturating_mul(12)),
            _ => Step::Months(count),
        };
        Self { anchor, step }
    }

    /// When the period of this number begins; that of number 0 begins at the anchor. A day that its month does not
    /// have is the month's last.
    pub fn start(self, number: i64) -> i64 {
        match self.step {
            Step::Days(days) => self.anchor.saturating_add(number.saturating_mul(days * DAY)),
            Step::Months(months) => {
                months_after(self.anchor, number.saturating_mul(months)).unwrap_or(i64::MAX)
            }
        }
    }

    /// The number of the first period that begins after this time.
    fn number_after(self, time: i64) -> i64 {
        let (shortest, longest) = match self.step {
            Step::Days(days) => (days, days),
            Step::Months(months) => (months.saturating_mul(28), months.saturating_mul(31)),
        };
        let span = time.saturating_sub(self.anchor);
        let longest_step = if span < 0 { shortest } else { longest };
        // At or before the one that is looked for, and close to it.
        let mut number = span.div_euclid(longest_step.saturating_mul(DAY).max(1));
        while self.start(number) <= time {
            number += 1;
        }
        number
    }

    /// When the next period begins, after this time.
    pub fn next_after(self, time: i64) -> i64 {
        self.start(self.number_after(time))
    }

    /// The beginning of the period that ends at `end`, and `end`.
    pub fn ending(self, end: i64) -> (i64, i64) {
        (self.start(self.number_after(end.saturating_sub(1)) - 1), end)
    }
}

fn months_after(anchor: i64, months: i64) -> Option<i64> {
    let from = jiff::Timestamp::from_second(anchor).ok()?.to_zoned(TimeZone::UTC).datetime();
    let to = from.checked_add(Span::new().try_months(months).ok()?).ok()?;
    Some(to.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().expect("a time").as_second()
    }

    #[test]
    fn months_are_counted_from_the_anchor() {
        let anchor = at("2027-01-31T10:30:00Z");
        let cycle = Cycle::new(&json!({ "interval": "month", "interval_count": 1 }), anchor);
        let mut time = anchor;
        let mut ends = Vec::new();
        for _ in 0..14 {
            time = cycle.next_after(time);
            ends.push(jiff::Timestamp::from_second(time).expect("a time").to_string()[..10].to_owned());
            assert_eq!(cycle.ending(time).1, time);
        }
        let expected = [
            "2027-02-28",
            "2027-03-31",
            "2027-04-30",
            "2027-05-31",
            "2027-06-30",
            "2027-07-31",
            "2027-08-31",
            "2027-09-30",
            "2027-10-31",
            "2027-11-30",
            "2027-12-31",
            "2028-01-31",
            "2028-02-29",
            "2028-03-31",
        ];
        assert_eq!(ends, expected);
        assert_eq!(cycle.ending(at("2027-03-31T10:30:00Z")).0, at("2027-02-28T10:30:00Z"));
        assert_eq!(cycle.ending(anchor).0, at("2026-12-31T10:30:00Z"), "there is one before the first");
        assert_eq!(cycle.next_after(anchor - 1), anchor);
        assert_eq!(cycle.next_after(at("2026-11-30T10:29:59Z")), at("2026-11-30T10:30:00Z"));
    }

    #[test]
    fn weeks_and_years_have_their_length() {
        let anchor = at("2028-02-29T00:00:00Z");
        let cycle = |interval: &str| Cycle::new(&json!({ "interval": interval }), anchor);
        assert_eq!(cycle("year").next_after(anchor), at("2029-02-28T00:00:00Z"));
        assert_eq!(cycle("year").start(4), at("2032-02-29T00:00:00Z"));
        assert_eq!(cycle("week").next_after(anchor + 1), anchor + 7 * DAY);
        assert_eq!(cycle("day").ending(anchor + DAY), (anchor, anchor + DAY));
    }
}
