//! Cycles: months that follow one another for ever. Pure.

use std::ops::Range;

use jiff::Span;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::clock::Timestamp;
use crate::prices::Cycle;

/// The cycle that an instant is in, its end not included. An anchored month begins at the time of day of the anchor, on its
/// day of the month or on the last one of a shorter month: always counted from the anchor, so that 31 January is followed
/// by 28 February and 31 March. There are cycles before the anchor, too.
#[must_use]
pub fn containing(cycle: Cycle, anchor: Timestamp, at: Timestamp) -> Range<Timestamp> {
    let anchor = match cycle {
        // Midnight, the first of a month.
        Cycle::Calendar => civil(Timestamp::from_micros(0)),
        Cycle::Anchored => civil(anchor),
    };
    let date = civil(at);
    let years = i64::from(date.year()) - i64::from(anchor.year());
    let mut months = years * 12 + i64::from(date.month()) - i64::from(anchor.month());
    // In the month of `at` a cycle begins, but maybe later in it.
    if start(anchor, months) > at {
        months -= 1;
    }
    start(anchor, months)..start(anchor, months + 1)
}

/// How long a span of time is, in microseconds.
#[must_use]
pub(super) fn micros(span: &Range<Timestamp>) -> u64 {
    u64::try_from(span.end.as_micros().saturating_sub(span.start.as_micros())).unwrap_or(0)
}

fn civil(at: Timestamp) -> DateTime {
    Offset::UTC.to_datetime(at.to_jiff())
}

/// The beginning of a month that is counted from the anchor; the end of time beyond what the calendar knows.
fn start(anchor: DateTime, months: i64) -> Timestamp {
    let limit = if months < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let span = Span::new().try_months(months);
    let date = span.and_then(|span| anchor.checked_add(span));
    date.and_then(|date| Offset::UTC.to_timestamp(date)).unwrap_or(limit).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::Timestamp>().expect("an instant").into()
    }

    fn day(instant: Timestamp) -> String {
        instant.to_string().replace("T00:00:00.000000Z", "")
    }

    #[test]
    fn months_of_the_calendar() {
        for (instant, from, to) in [
            ("2026-11-21T20:00:00Z", "2026-11-01", "2026-12-01"),
            ("2026-12-31T23:59:59.999999Z", "2026-12-01", "2027-01-01"),
            ("2027-01-01T00:00:00Z", "2027-01-01", "2027-02-01"),
            ("2028-02-29T12:00:00Z", "2028-02-01", "2028-03-01"),
            ("1969-12-31T23:00:00Z", "1969-12-01", "1970-01-01"),
        ] {
            let span = containing(Cycle::Calendar, at("2020-05-05T05:05:05Z"), at(instant));
            assert_eq!((day(span.start), day(span.end)), (from.to_owned(), to.to_owned()), "{instant}");
        }
    }

    #[test]
    fn months_from_an_anchor_come_back_to_its_day() {
        let anchor = at("2027-10-31T00:00:00Z");
        let mut instant = anchor;
        let mut begins = Vec::new();
        for _ in 0..7 {
            let span = containing(Cycle::Anchored, anchor, instant);
            assert_eq!(span.start, instant);
            begins.push(day(span.start));
            instant = span.end;
        }
        let expected = [
            "2027-10-31",
            "2027-11-30",
            "2027-12-31",
            "2028-01-31",
            "2028-02-29",
            "2028-03-31",
            "2028-04-30",
        ];
        assert_eq!(begins, expected);
        let before = containing(Cycle::Anchored, anchor, at("2027-10-30T23:59:59Z"));
        assert_eq!((day(before.start), day(before.end)), ("2027-09-30".to_owned(), "2027-10-31".to_owned()));
    }

    proptest! {
        #[test]
        fn cycles_are_contiguous_and_never_longer_than_a_month(
            anchored: bool,
            anchor in -62_000_000_000_i64..250_000_000_000,
            instant in -62_000_000_000_i64..250_000_000_000,
            micros in 0_i64..1_000_000,
        ) {
            let cycle = if anchored { Cycle::Anchored } else { Cycle::Calendar };
            let anchor = Timestamp::from_micros(anchor * 1_000_000 + micros);
            let instant = Timestamp::from_micros(instant * 1_000_000);
            let span = containing(cycle, anchor, instant);
            prop_assert!(span.contains(&instant), "{instant} is not in {span:?}");
            let days = super::micros(&span) / 86_400_000_000;
            prop_assert!((28..=31).contains(&days), "{days} days: {span:?}");
            let (first, last) = (span.start, Timestamp::from_micros(span.end.as_micros() - 1));
            prop_assert_eq!(containing(cycle, anchor, first), span.clone());
            prop_assert_eq!(containing(cycle, anchor, last), span.clone());
            prop_assert_eq!(containing(cycle, anchor, span.end).start, span.end);
            if anchored {
                prop_assert_eq!(containing(cycle, anchor, anchor).start, anchor);
            }
        }
    }
}
