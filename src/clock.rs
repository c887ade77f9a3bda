//! The time, passed in. Nothing else in the crate asks the system what time it is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Microseconds since 1970-01-01T00:00:00Z; what every time column holds, on both engines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This instant plus `span`; stops at the largest value instead of wrapping.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This instant minus `span`; stops at the smallest value instead of wrapping.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The same instant as `jiff` knows it, for calendar questions. Out-of-range values become the epoch.
    #[must_use]
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(value: jiff::Timestamp) -> Self {
        Self(value.as_microsecond())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, as the API prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.to_jiff())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let parsed: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(parsed.into())
    }
}

/// Where the time comes from: the system, or a hand that a test moves, here or elsewhere.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System { started: Instant },
    Manual(Arc<AtomicI64>),
    Elsewhere(Arc<dyn Fn() -> Timestamp + Send + Sync>),
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.0))))
    }

    /// A clock with its hand elsewhere, which is looked at whenever somebody asks: for processes that share their time.
    #[must_use]
    pub fn elsewhere(hand: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Source::Elsewhere(Arc::new(hand)))
    }

    /// The wall-clock time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => jiff::Timestamp::now().into(),
            Source::Manual(hand) => Timestamp(hand.load(Ordering::Acquire)),
            Source::Elsewhere(hand) => hand(),
        }
    }

    /// Microseconds on a clock that never steps back; its zero means nothing. For limits and idle times.
    #[must_use]
    pub fn monotonic_micros(&self) -> i64 {
        match &self.0 {
            Source::System { started } => i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX),
            Source::Manual(hand) => hand.load(Ordering::Acquire),
            Source::Elsewhere(hand) => hand().as_micros(),
        }
    }

    /// How long ago `started` was, a value of [`Clock::monotonic_micros`].
    #[must_use]
    pub fn elapsed_since(&self, started: i64) -> Duration {
        Duration::from_micros(u64::try_from(self.monotonic_micros() - started).unwrap_or(0))
    }

    /// Moves a manual clock on. Others take no notice.
    pub fn advance(&self, span: Duration) {
        if let Source::Manual(hand) = &self.0 {
            hand.fetch_add(i64::try_from(span.as_micros()).unwrap_or(0), Ordering::AcqRel);
        }
    }
}
