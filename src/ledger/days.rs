//! Days of the ledger: days of the calendar, in UTC.

use std::ops::Range;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// The day of an instant.
#[must_use]
pub fn day_of(at: Timestamp) -> Date {
    at.to_jiff().to_zoned(TimeZone::UTC).date()
}

/// The day as a span of time.
#[must_use]
pub fn span(day: Date) -> Range<Timestamp> {
    start(day)..day.tomorrow().map_or(Timestamp::from_micros(i64::MAX), start)
}

/// Reads a day as it is written.
///
/// # Errors
/// [`Error::Invalid`] for anything but `YYYY-MM-DD`.
pub fn parse(text: &str) -> Result<Date> {
    let read: Option<Date> = text.parse().ok();
    read.filter(|day| day.to_string() == text)
        .ok_or_else(|| Error::Invalid(format!("{text:?} is not a day; expected YYYY-MM-DD, in UTC")))
}

/// The first day of the month of `day`, or of the month that many before it.
#[must_use]
pub fn month(day: Date, before: u32) -> Date {
    let back = jiff::Span::new().months(i64::from(before.min(12_000)));
    day.first_of_month().checked_sub(back).unwrap_or(Date::MIN)
}

/// The day that is so many days after 1970-01-01.
pub(crate) fn of_number(number: i64) -> Date {
    let days = jiff::Span::new().try_days(number);
    let day = days.and_then(|days| jiff::civil::date(1970, 1, 1).checked_add(days));
    day.unwrap_or(Date::MAX)
}

fn start(day: Date) -> Timestamp {
    day.to_zoned(TimeZone::UTC).map_or(Timestamp::from_micros(i64::MIN), |zoned| zoned.timestamp().into())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn days_and_months_are_those_of_utc() {
        let last = Timestamp::from_micros(951_868_799_999_999);
        assert_eq!(day_of(last), date(2000, 2, 29));
        assert_eq!(span(date(2000, 2, 29)).end, Timestamp::from_micros(951_868_800_000_000));
        assert_eq!(of_number(951_868_799_999_999 / 86_400_000_000), date(2000, 2, 29));
        assert_eq!(
            (month(date(2001, 3, 31), 0), month(date(2001, 1, 31), 2)),
            (date(2001, 3, 1), date(2000, 11, 1))
        );
    }
}
