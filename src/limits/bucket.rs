//! One token bucket, as the generic cell rate algorithm: a single instant in one atomic.
//!
//! The instant is the theoretical arrival time: when the bucket would be full again. A request moves it on by one
//! interval and is refused where that would move it further than one burst ahead of now.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::config::Rate;

/// A token bucket.
#[derive(Debug)]
pub struct Bucket {
    /// Nanoseconds on the limits' clock at which the bucket is full.
    full_at: AtomicI64,
    /// Nanoseconds per token.
    interval: i64,
    /// Nanoseconds for a whole bucket.
    burst: i64,
}

/// What is left after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Whole tokens left.
    pub remaining: u32,
    /// Until the bucket is full.
    pub reset: Duration,
}

impl Bucket {
    /// A full bucket. A rate or burst of 0 counts as 1.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let interval = 1_000_000_000 / i64::from(rate.per_second.max(1));
        let burst = interval.saturating_mul(i64::from(rate.burst.max(1)));
        Self { full_at: AtomicI64::new(i64::MIN / 2), interval, burst }
    }

    /// Takes one token at `now`, microseconds of a clock that never steps back.
    ///
    /// # Errors
    /// How long until there is a token.
    pub fn take(&self, now: i64) -> Result<Level, Duration> {
        let now = now.saturating_mul(1000);
        let mut wait = 0;
        let taken = self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, |full_at| {
            let next = full_at.max(now) + self.interval;
            wait = next - now - self.burst;
            (wait <= 0).then_some(next)
        });
        match taken {
            Ok(before) => {
                let ahead = before.max(now) + self.interval - now;
                let remaining = u32::try_from((self.burst - ahead) / self.interval).unwrap_or(0);
                Ok(Level { remaining, reset: nanos(ahead) })
            }
            Err(_) => Err(nanos(wait)),
        }
    }

    /// Gives back the token of a request that was not served after all.
    pub fn give_back(&self) {
        self.full_at.fetch_sub(self.interval, Ordering::AcqRel);
    }
}

fn nanos(value: i64) -> Duration {
    Duration::from_nanos(u64::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let bucket = Bucket::new(Rate { per_second: 10, burst: 3 });
        let left: Vec<_> = (0..3).map(|_| bucket.take(0).map(|l| l.remaining)).collect();
        assert_eq!(left, [Ok(2), Ok(1), Ok(0)]);
        assert_eq!(bucket.take(0), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(100_000).map(|l| l.remaining), Ok(0));
        bucket.give_back();
        assert!(bucket.take(100_000).is_ok());
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
            let bucket = Bucket::new(Rate { per_second, burst });
            let (mut now, mut served) = (0_i64, 0_u64);
            for gap in gaps {
                now += gap;
                match bucket.take(now) {
                    Ok(_) => served += 1,
                    Err(wait) => {
                        now += i64::try_from(wait.as_micros()).unwrap_or(0) + 1;
                        prop_assert!(bucket.take(now).is_ok());
                        served += 1;
                    }
                }
                let interval = 1_000_000_000 / u64::from(per_second);
                let allowed = u64::from(burst) + u64::try_from(now).unwrap_or(0) * 1000 / interval;
                prop_assert!(served <= allowed, "{served} of {allowed}");
            }
        }
    }
}
