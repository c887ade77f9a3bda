//! Minutes: which one an event gets.

use crate::clock::Timestamp;

/// A minute, in microseconds.
pub(crate) const MINUTE: i64 = 60_000_000;

/// The beginning of the newest minute that is over by then.
pub(super) fn newest(to: Timestamp) -> Timestamp {
    Timestamp::from_micros((to.as_micros().div_euclid(MINUTE) - 1) * MINUTE)
}

/// The newest full minute from `from` on and before `to` that is not used, `used` being all that are within the newest
/// `used.len()` or more of them, newest first.
pub(super) fn newest_free(from: Timestamp, to: Timestamp, used: &[Timestamp]) -> Option<Timestamp> {
    let first = from.as_micros().div_euclid(MINUTE) + i64::from(from.as_micros().rem_euclid(MINUTE) > 0);
    let mut minute = newest(to).as_micros().div_euclid(MINUTE);
    for used in used {
        if used.as_micros().div_euclid(MINUTE) < minute {
            break;
        }
        minute = used.as_micros().div_euclid(MINUTE) - 1;
    }
    (minute >= first).then(|| Timestamp::from_micros(minute * MINUTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn the_newest_full_minute_that_is_free_is_found() {
        for (from, to, used, expected) in [
            (0, 60, &[][..], Some(0)),
            (0, 59, &[], None),
            (1, 119, &[], None),
            (1, 120, &[], Some(60)),
            (0, 600, &[], Some(540)),
            (0, 605, &[540], Some(480)),
            (0, 605, &[540, 480, 300], Some(420)),
            (0, 605, &[480], Some(540)),
            (480, 605, &[540, 480], None),
            (0, 0, &[], None),
        ] {
            let used: Vec<_> = used.iter().map(|used| at(*used)).collect();
            assert_eq!(newest_free(at(from), at(to), &used), expected.map(at), "{from} {to} {used:?}");
        }
    }
}
