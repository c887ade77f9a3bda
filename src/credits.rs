//! Credits: the unit of price. Integers of micro-credits in code and in the database; decimal text at the edges.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// Micro-credits in one credit.
const MICROS: i64 = 1_000_000;
/// Digits behind the point.
const PLACES: usize = 6;

/// An amount of credits, in micro-credits. Sums stop at the largest value instead of wrapping; amounts that are read are far
/// below it ([`Credits::MOST`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, sqlx::Type)]
#[sqlx(transparent)]
pub struct Credits(i64);

impl Credits {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount that is accepted anywhere: a billion credits.
    pub const MOST: Self = Self(1_000_000_000 * MICROS);

    /// From micro-credits.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// In micro-credits.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whether this is nothing.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// Whether this is more than nothing.
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// `self` × `times` ÷ `per`, rounded up to a whole micro-credit; stops at the largest value.
    #[must_use]
    pub fn share(self, times: u64, per: u64) -> Self {
        let per = i128::from(per.max(1));
        let product = i128::from(self.0).saturating_mul(i128::from(times));
        let up = product.div_euclid(per) + i128::from(product.rem_euclid(per) > 0);
        Self(i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX }))
    }
}

impl Add for Credits {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Credits {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Neg for Credits {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl AddAssign for Credits {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Credits {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Credits {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Credits {
    /// Decimal, without zeros at the end: `12.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000);
        let sign = if self.0 < 0 { "-" } else { "" };
        let decimals = format!("{rest:06}");
        match decimals.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            decimals => write!(f, "{sign}{whole}.{decimals}"),
        }
    }
}

impl fmt::Debug for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} credits")
    }
}

impl FromStr for Credits {
    type Err = Error;

    /// Reads a decimal that is not negative, with up to six digits behind the point.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::Invalid(format!(
                "{text:?}: expected credits as a decimal from 0 to {} with at most {PLACES} decimals, such as 0.25",
                Self::MOST
            ))
        };
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        let good = !whole.is_empty() && digits(whole) && digits(decimals) && decimals.len() <= PLACES;
        if !good || text.ends_with('.') {
            return Err(wrong());
        }
        let whole: i64 = whole.parse().map_err(|_| wrong())?;
        let micros: i64 = format!("{decimals:0<PLACES$}").parse().map_err(|_| wrong())?;
        let all = whole.checked_mul(MICROS).and_then(|all| all.checked_add(micros)).ok_or_else(wrong)?;
        if all > Self::MOST.0 { Err(wrong()) } else { Ok(Self(all)) }
    }
}

impl Serialize for Credits {
    /// As text, because a decimal number of JSON is a binary one in most readers.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Credits {
    /// From text or a number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Wire {
            Text(String),
            Number(serde_json::Number),
        }
        let text = match Wire::deserialize(deserializer) {
            Ok(Wire::Text(text)) => text,
            // Never with an exponent, as JSON's own text of small ones has it.
            Ok(Wire::Number(number)) => number.as_i64().map_or_else(
                || number.as_f64().map(|number| number.to_string()).unwrap_or_default(),
                |whole| whole.to_string(),
            ),
            Err(_) => return Err(serde::de::Error::custom("expected credits, such as \"0.25\" or 3")),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_exact_or_refused() {
        for (text, micros) in
            [("0", 0), ("0.25", 250_000), ("12.000001", 12_000_001), ("1000000000", Credits::MOST.0)]
        {
            let credits: Credits = text.parse().expect(text);
            assert_eq!((credits.micros(), credits.to_string().as_str()), (micros, text));
        }
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "0.0000001",
            "1000000000.000001",
            "1_000",
            "९",
            "99999999999999999999",
        ] {
            assert!(bad.parse::<Credits>().is_err(), "{bad:?}");
        }
        assert_eq!(Credits(-1_500_000).to_string(), "-1.5");
        let read = |text| serde_json::from_str::<Credits>(text).map(Credits::micros);
        assert_eq!(
            (read("\"0.1\"").ok(), read("0.1").ok(), read("3").ok(), read("0.000001").ok()),
            (Some(100_000), Some(100_000), Some(3_000_000), Some(1))
        );
        assert!(
            read("-3").is_err() && read("1e-7").is_err() && read("true").is_err() && read("1e30").is_err()
        );
    }

    proptest! {
        #[test]
        fn a_share_is_rounded_up_and_never_by_more_than_one(micros in 0..=Credits::MOST.0, times: u32, per in 1_u32..) {
            let share = Credits(micros).share(times.into(), per.into()).0;
            let (share, exact) = (i128::from(share), i128::from(micros) * i128::from(times));
            let per = i128::from(per);
            prop_assume!(share < i128::from(i64::MAX));
            prop_assert!(share * per >= exact && (share - 1) * per < exact);
        }

        #[test]
        fn what_is_printed_is_read(micros in 0..=Credits::MOST.0) {
            prop_assert_eq!(Credits(micros).to_string().parse::<Credits>().ok(), Some(Credits(micros)));
        }
    }
}
