//! One token bucket: the generic cell rate algorithm, as a leaky bucket (ITU-T I.371, annex A, gives both forms).
//!
//! What was taken is owed and drains at the bucket's rate; a taker is let in where what is owed leaves room for it. Only
//! integers: micro-tokens and microseconds, so that a rate of one token per second drains one micro-token per
//! microsecond, and so that the script in Redis, whose numbers are doubles, comes to the same results: everything stays
//! below 2⁵³.

use std::time::Duration;

use crate::config::Rate;

/// Micro-tokens per token.
const TOKEN: i64 = 1_000_000;
/// Most that can be owed, in micro-tokens.
const MOST: i64 = 8_000_000_000_000_000;

/// A bucket as it was last looked at. The rate is not kept: it comes with every look, so that another one counts at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    /// What is owed, in micro-tokens.
    debt: i64,
    /// When that was so, in microseconds of any one clock.
    at: i64,
    /// The bucket's size then, in tokens.
    burst: u32,
}

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Whole tokens left.
    pub remaining: u32,
    /// Until the bucket is full.
    pub reset: Duration,
}

impl Default for Meter {
    /// A full bucket, at any time.
    fn default() -> Self {
        Self { debt: 0, at: i64::MIN, burst: u32::MAX }
    }
}

impl Meter {
    /// A bucket of which this much is owed, in micro-tokens.
    #[must_use]
    pub fn owing(debt: i64, at: i64, burst: u32) -> Self {
        Self { debt, at, burst }
    }

    /// Lets drain what has drained by `now`. A clock that stepped back costs what would have drained meanwhile. A bucket
    /// that was made smaller is empty at worst. Says whether either was so, which a later look would not see.
    pub fn drain(&mut self, rate: Rate, now: i64) -> bool {
        let mut changed = self.at > now;
        let elapsed = now.saturating_sub(self.at).max(0);
        let drained = elapsed.saturating_mul(i64::from(rate.per_second));
        self.debt = self.debt.saturating_sub(drained).max(0);
        let most = i64::from(rate.burst) * TOKEN;
        if rate.burst < self.burst && self.debt > most {
            self.debt = most;
            changed = true;
        }
        (self.at, self.burst) = (now, rate.burst);
        changed
    }

    /// Notes that so many tokens were taken, whether or not they are there.
    pub fn charge(&mut self, tokens: u32) {
        self.debt = (self.debt + i64::from(tokens) * TOKEN).min(MOST);
    }

    /// Takes back a charge.
    pub fn forgive(&mut self, tokens: u32) {
        self.debt = (self.debt - i64::from(tokens) * TOKEN).max(0);
    }

    /// Whole tokens that are there; below 0 where more is owed than the bucket holds.
    #[must_use]
    pub fn free(&self) -> i64 {
        (i64::from(self.burst) * TOKEN - self.debt).div_euclid(TOKEN)
    }

    /// Whether at least half of the bucket is left when `tokens` are taken.
    #[must_use]
    pub fn is_plentiful(&self, tokens: u32) -> bool {
        self.debt + i64::from(tokens) * TOKEN <= i64::from(self.burst) * TOKEN / 2
    }

    /// What is owed, in micro-tokens.
    #[must_use]
    pub fn debt(&self) -> i64 {
        self.debt
    }

    /// What is owed, in tokens begun.
    #[must_use]
    pub fn owed(&self) -> u32 {
        u32::try_from((self.debt + TOKEN - 1) / TOKEN).unwrap_or(u32::MAX)
    }

    /// Until there is a token.
    #[must_use]
    pub fn wait(&self, rate: Rate) -> Duration {
        let missing = TOKEN - (i64::from(self.burst) * TOKEN - self.debt);
        let rate = i64::from(rate.per_second.max(1));
        micros((missing + rate - 1) / rate)
    }

    /// What is left, counting `held` tokens that are owed but not used.
    #[must_use]
    pub fn level(&self, rate: Rate, held: i64) -> Level {
        let remaining = (self.free() + held).clamp(0, i64::from(self.burst));
        let debt = (self.debt - held.saturating_mul(TOKEN)).max(0);
        Level {
            remaining: u32::try_from(remaining).unwrap_or(0),
            reset: micros(debt / i64::from(rate.per_second.max(1))),
        }
    }
}

fn micros(value: i64) -> Duration {
    Duration::from_micros(u64::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(meter: &mut Meter, rate: Rate, now: i64) -> Result<u32, Duration> {
        meter.drain(rate, now);
        if meter.free() < 1 {
            return Err(meter.wait(rate));
        }
        meter.charge(1);
        Ok(meter.level(rate, 0).remaining)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate { per_second: 10, burst: 3 };
        let mut meter = Meter::default();
        let left: Vec<_> = (0..3).map(|_| take(&mut meter, rate, 0)).collect();
        assert_eq!(left, [Ok(2), Ok(1), Ok(0)]);
        assert_eq!(take(&mut meter, rate, 0), Err(Duration::from_millis(100)));
        assert_eq!(take(&mut meter, rate, 100_000), Ok(0));
        meter.forgive(1);
        assert_eq!(take(&mut meter, rate, 100_000), Ok(0));
        assert_eq!(meter.level(rate, 1), Level { remaining: 1, reset: Duration::from_millis(200) });
    }

    #[test]
    fn another_rate_counts_at_once() {
        let (large, small) = (Rate { per_second: 100, burst: 1000 }, Rate { per_second: 2, burst: 4 });
        let mut meter = Meter::default();
        meter.drain(large, 0);
        meter.charge(1000);
        assert_eq!(take(&mut meter, small, 0), Err(Duration::from_millis(500)), "four are owed, no thousand");
        assert_eq!(take(&mut meter, large, 0), Ok(995));
    }

    #[test]
    fn a_clock_that_steps_back_stops_nothing() {
        let rate = Rate { per_second: 1, burst: 1 };
        let mut meter = Meter::default();
        assert!(take(&mut meter, rate, 3_600_000_000).is_ok());
        assert_eq!(take(&mut meter, rate, 0), Err(Duration::from_secs(1)));
        assert!(take(&mut meter, rate, 1_000_000).is_ok());
    }

    proptest! {
        #![proptest_config(crate::fuzz::config(256))]

        /// Whatever the arrivals: never more than burst + rate × time, and a refused caller who waits as long as he
        /// was told is served.
        #[test]
        fn never_more_than_the_rate_allows(
            per_second in 1_u32..2000,
            burst in 1_u32..50,
            gaps in proptest::collection::vec(0_i64..50_000, 1..300),
        ) {
            let rate = Rate { per_second, burst };
            let mut meter = Meter::default();
            let (mut now, mut served) = (0_i64, 0_i64);
            for gap in gaps {
                now += gap;
                if let Err(wait) = take(&mut meter, rate, now) {
                    now += i64::try_from(wait.as_micros()).expect("short");
                    prop_assert!(take(&mut meter, rate, now).is_ok());
                }
                served += 1;
                let allowed = i64::from(burst) + now * i64::from(per_second) / TOKEN;
                prop_assert!(served <= allowed, "{served} of {allowed}");
            }
        }
    }
}
