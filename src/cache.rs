//! What was looked up, kept for a while: bounded, one look-up at a time per key, and forgotten on demand.

use std::borrow::Borrow;
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;

use crate::clock::Clock;
use crate::error::Error;

/// How long a stale value stands in before the database is tried again.
const STALE_RETRY: Duration = Duration::from_secs(1);

/// Look-ups that are tried again because something was forgotten meanwhile; after that, one that is not kept.
const MAX_TRIES: usize = 3;

/// Why a look-up found nothing.
pub(crate) trait Setback {
    /// Whether that says nothing of what was looked for: what was found before may stand in.
    fn will_pass(&self) -> bool;
}

impl Setback for Error {
    fn will_pass(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Away(_))
    }
}

/// A value and its age, in microseconds of the monotonic clock.
#[derive(Clone)]
struct Kept<V> {
    value: V,
    read_at: i64,
    fresh_until: i64,
}

/// A cache of values that cost little to clone. A hit allocates nothing.
pub(crate) struct Fresh<K, V> {
    cache: Cache<K, Kept<V>>,
    ttl: i64,
    /// While the database is away, what was read before stands in for this long, counted from when it was read. A revocation
    /// that this process cannot hear of takes effect after it at the latest.
    stale: i64,
    /// Counts what was forgotten: a look-up that began before must not be kept after.
    epoch: AtomicU64,
    clock: Clock,
}

impl<K: Eq + Hash + Clone, V: Clone> Fresh<K, V> {
    /// A cache of `entries` values, each of which is used for `ttl` before it is read again, and up to `stale` after it was
    /// read where it cannot be.
    pub(crate) fn new(entries: usize, (ttl, stale): (Duration, Duration), clock: Clock) -> Self {
        let (ttl, stale) = (micros(ttl), micros(stale));
        Self { cache: Cache::new(entries.max(1)), ttl, stale, epoch: AtomicU64::new(0), clock }
    }

    /// The value that is kept and fresh.
    pub(crate) fn hit<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let kept = self.cache.get(key)?;
        (self.clock.monotonic_micros() < kept.fresh_until).then_some(kept.value)
    }

    /// The value that stands in while the database is away.
    pub(crate) fn stand_in(&self, key: &K) -> Option<V> {
        let kept = self.cache.get(key)?;
        self.may_stand_in(&kept, self.clock.monotonic_micros()).then_some(kept.value)
    }

    fn may_stand_in(&self, kept: &Kept<V>, now: i64) -> bool {
        now - kept.read_at < self.stale
    }

    /// The kept value, or what `load` finds. Of several callers at once, one loads and the others wait for it. A
    /// failure is not kept.
    pub(crate) async fn get<F, Fut, E>(&self, key: &K, load: F) -> Result<V, E>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<V, E>>,
        E: Setback,
    {
        for _ in 0..MAX_TRIES {
            let epoch = self.epoch.load(Ordering::Acquire);
            let now = self.clock.monotonic_micros();
            let stale = match self.cache.get(key) {
                Some(kept) if now < kept.fresh_until => return Ok(kept.value),
                other => other,
            };
            if let Some(old) = &stale {
                self.cache.remove_if(key, |kept| kept.fresh_until == old.fresh_until);
            }
            let mut restore = Restore { cache: self, key: key.clone(), epoch, kept: stale.clone() };
            let renewed = self.cache.get_or_insert_async(key, self.renew(stale, &load)).await;
            restore.kept = None;
            let kept = renewed?;
            if self.epoch.load(Ordering::Acquire) == epoch {
                return Ok(kept.value);
            }
            self.cache.remove(key);
        }
        load().await
    }

    async fn renew<F, Fut, E>(&self, stale: Option<Kept<V>>, load: &F) -> Result<Kept<V>, E>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<V, E>>,
        E: Setback,
    {
        // Taken before the look-up: the value is as old as the question, not as the answer.
        let now = self.clock.monotonic_micros();
        match (load().await, stale) {
            (Ok(value), _) => Ok(Kept { value, read_at: now, fresh_until: now.saturating_add(self.ttl) }),
            (Err(setback), Some(old)) if setback.will_pass() && self.may_stand_in(&old, now) => {
                Ok(Kept { fresh_until: now.saturating_add(micros(STALE_RETRY)), ..old })
            }
            (Err(setback), _) => Err(setback),
        }
    }

    /// Forgets every value that `gone` picks, and what is being looked up now.
    pub(crate) fn forget(&self, gone: impl Fn(&K, &V) -> bool) {
        // The epoch first: a look-up that ends after the sweep then sees that it is too old.
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.cache.retain(|key, kept| !gone(key, &kept.value));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.cache.len()
    }
}

/// Puts an old value back when the request that was renewing it is given up: it may have to stand in while the database
/// is away.
struct Restore<'a, K: Eq + Hash + Clone, V: Clone> {
    cache: &'a Fresh<K, V>,
    key: K,
    epoch: u64,
    kept: Option<Kept<V>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Drop for Restore<'_, K, V> {
    fn drop(&mut self) {
        let Some(kept) = self.kept.take() else { return };
        let unchanged = self.cache.epoch.load(Ordering::Acquire) == self.epoch;
        if unchanged && self.cache.cache.peek(&self.key).is_none() {
            self.cache.cache.insert(self.key.clone(), kept);
        }
        if self.cache.epoch.load(Ordering::Acquire) != self.epoch {
            self.cache.cache.remove(&self.key);
        }
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::clock::Timestamp;
    use crate::credentials::Refused;

    const TTL: Duration = Duration::from_secs(60);
    const STALE: Duration = Duration::from_secs(600);

    fn found(value: u32) -> Result<u32, Refused> {
        Ok(value)
    }

    fn cache(entries: usize) -> (Fresh<u32, u32>, Clock) {
        let clock = Clock::manual(Timestamp::from_micros(1_000_000));
        (Fresh::new(entries, (TTL, STALE), clock.clone()), clock)
    }

    #[tokio::test]
    async fn a_value_is_read_once_until_it_is_old() {
        let (cache, clock) = cache(10);
        let reads = AtomicUsize::new(0);
        let load = || async { found(u32::try_from(reads.fetch_add(1, Ordering::Relaxed)).expect("few")) };
        assert_eq!(cache.get(&1, load).await, Ok(0));
        assert_eq!(cache.get(&1, load).await, Ok(0));
        assert_eq!(cache.hit(&1), Some(0));
        clock.advance(TTL);
        assert_eq!(cache.hit(&1), None);
        assert_eq!(cache.get(&1, load).await, Ok(1));
    }

    #[tokio::test]
    async fn callers_at_once_share_one_read() {
        let (cache, _) = cache(10);
        let reads = AtomicUsize::new(0);
        let gate = Semaphore::new(0);
        let load = || async {
            reads.fetch_add(1, Ordering::Relaxed);
            gate.acquire().await.expect("open").forget();
            found(7)
        };
        let open = async {
            tokio::task::yield_now().await;
            gate.add_permits(1);
        };
        let (a, b, c, ()) = tokio::join!(cache.get(&1, load), cache.get(&1, load), cache.get(&1, load), open);
        assert_eq!((a, b, c), (Ok(7), Ok(7), Ok(7)));
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn failures_are_not_kept() {
        let (cache, _) = cache(10);
        assert_eq!(cache.get(&1, || async { Err(Refused::Invalid) }).await, Err(Refused::Invalid));
        assert_eq!(cache.get(&1, || async { found(1) }).await, Ok(1));
    }

    #[tokio::test]
    async fn what_is_forgotten_during_a_read_is_read_again() {
        let (cache, _) = cache(10);
        let reads = AtomicUsize::new(0);
        let load = || async {
            let read = reads.fetch_add(1, Ordering::Relaxed);
            if read == 0 {
                // The answer is on its way; what it says is changed before it arrives.
                cache.forget(|_, _| true);
                return Ok(1);
            }
            Err(Refused::Invalid)
        };
        assert_eq!(cache.get(&1, load).await, Err(Refused::Invalid));
        assert_eq!(cache.len(), 0);
    }

    #[tokio::test]
    async fn an_old_value_stands_in_for_an_absent_database_for_a_while() {
        let (cache, clock) = cache(10);
        let down = || async { Err(Refused::Unavailable) };
        assert_eq!(cache.get(&1, || async { found(1) }).await, Ok(1));
        clock.advance(TTL);
        assert_eq!((cache.hit(&1), cache.stand_in(&1)), (None, Some(1)));
        assert_eq!(cache.get(&1, down).await, Ok(1));
        clock.advance(STALE_RETRY);
        assert_eq!(cache.get(&1, || async { Err(Refused::Invalid) }).await, Err(Refused::Invalid));

        assert_eq!(cache.get(&2, || async { found(2) }).await, Ok(2));
        clock.advance(STALE);
        assert_eq!(cache.stand_in(&2), None);
        assert_eq!(cache.get(&2, down).await, Err(Refused::Unavailable));

        assert_eq!(cache.get(&3, || async { found(3) }).await, Ok(3));
        clock.advance(TTL);
        cache.forget(|_, _| true);
        assert_eq!(cache.get(&3, down).await, Err(Refused::Unavailable));
    }

    #[tokio::test]
    async fn the_bound_holds() {
        let (cache, _) = cache(50);
        for key in 0..1000 {
            assert_eq!(cache.get(&key, || async move { found(key) }).await, Ok(key));
        }
        assert!(cache.len() <= 50, "{} entries", cache.len());
    }
}
