//! This process as one that settles calls: its meter, which others close when it is not seen any more, and the credits that it
//! gives back. What it leases is in [`super::lease`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::purse::{Known, Purse, Return};
use crate::accounts::events::Event;
use crate::accounts::{self, Period};
use crate::clock::{Clock, Timestamp};
use crate::db::{self, Db, Tx};
use crate::error::Result;
use crate::id::MeterId;
use crate::prices::{self, Book, History};
use crate::telemetry::metrics::Metrics;

/// Slabs that one transaction closes.
pub(super) const CLOSE: usize = 16;

/// When changes made by other processes were last looked for, on the monotonic clock, in microseconds.
pub type Heard = Box<dyn Fn() -> i64 + Send + Sync>;

/// The meter, and the way to the database.
pub(super) struct Meter {
    pub db: Db,
    pub clock: Clock,
    pub book: Arc<Book>,
    pub metrics: Arc<Metrics>,
    /// When changes were last looked for, on the monotonic clock.
    pub heard: Heard,
    /// For how long credits are held that nobody uses.
    pub idle: Duration,
    open: Mutex<Option<MeterId>>,
    opening: tokio::sync::Mutex<()>,
    /// Others closed a meter of this process, and not everybody here knows yet.
    lost: AtomicBool,
    /// Since when the database answered every time, on the monotonic clock; `i64::MAX`: it does not.
    well_since: AtomicI64,
}

impl Meter {
    pub fn new(
        db: Db,
        clock: Clock,
        book: Arc<Book>,
        metrics: Arc<Metrics>,
        heard: Heard,
        idle: Duration,
    ) -> Self {
        let well_since = AtomicI64::new(clock.monotonic_micros());
        Self {
            db,
            clock,
            book,
            metrics,
            heard,
            idle,
            open: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            lost: AtomicBool::new(false),
            well_since,
        }
    }

    /// The meter that is open, if any is.
    pub fn id(&self) -> Option<MeterId> {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open meter; opens one where none is.
    ///
    /// # Errors
    /// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
    pub async fn opened(&self) -> Result<MeterId> {
        if let Some(id) = self.id() {
            return Ok(id);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(id) = self.id() {
            return Ok(id);
        }
        let id = MeterId::new();
        db::meters::open(&self.db, id, self.clock.now()).await?;
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        Ok(id)
    }

    /// Others closed this meter, or it is at its end: nothing more is settled in its name.
    pub fn is_over(&self, id: MeterId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.take_if(|open| *open == id).is_some() {
            self.lost.store(true, Ordering::Release);
        }
    }

    /// Whether a meter was lost since this was last asked.
    pub fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::AcqRel)
    }

    /// Closes the meter: the end of this process. What is leased must have been given back.
    pub async fn end(&self) -> Result<()> {
        let Some(id) = self.id() else { return Ok(()) };
        let now = self.clock.now();
        db::meters::close(&self.db, id, now.plus(Duration::from_secs(1)), now).await?;
        self.is_over(id);
        Ok(())
    }

    /// Says that this process lives. `false`: others have closed its meter.
    pub async fn beat(&self) -> Result<bool> {
        let Some(id) = self.id() else { return Ok(true) };
        let alive = db::meters::beat(&self.db, id, self.clock.now()).await;
        let alive = alive.inspect_err(|_| self.well_since.store(i64::MAX, Ordering::Relaxed))?;
        if !alive {
            tracing::warn!(meter = %id, "this process was not seen for too long; what it held was given back");
            self.is_over(id);
        }
        Ok(alive)
    }

    /// Closes the meters of processes that were not seen for `lease`, gives back what they held and releases the keys of what
    /// they ran. Right after the database was away nobody is closed: nobody could be seen.
    pub async fn bury_the_dead(&self, lease: Duration) -> Result<()> {
        let (now, tick) = (self.clock.now(), self.clock.monotonic_micros());
        let before = now.minus(lease);
        let unseen = db::meters::unseen(&self.db, before).await;
        if unseen.is_err() {
            self.well_since.store(i64::MAX, Ordering::Relaxed);
        }
        let unseen = unseen?;
        let since = self.well_since.load(Ordering::Relaxed);
        if since == i64::MAX {
            self.well_since.store(tick, Ordering::Relaxed);
        }
        let patience = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        if since == i64::MAX || tick.saturating_sub(since) < patience {
            return Ok(());
        }
        for id in unseen.into_iter().filter(|id| Some(*id) != self.id()) {
            if db::meters::close(&self.db, id, before, now).await? {
                tracing::info!(meter = %id, "a process is gone; what it held is given back");
            }
        }
        for (tenant, slab) in db::meters::left_slabs(&self.db).await? {
            let mut tx = self.db.begin().await?;
            db::slabs::lock_account(&mut tx, tenant, now).await?;
            let events = self.close_in(&mut tx, &[Return::All(slab)], now).await?;
            tx.commit().await?;
            accounts::events::announce(&self.metrics, &events);
        }
        // Also where nothing was closed now: whoever closed it may have died before it came to the keys.
        db::meters::release_keys(&self.db).await.map(|_| ())
    }

    /// Asks the database about the account of a tenant on this plan. Prices in memory count where nothing can have changed
    /// since `since`.
    pub async fn learn(&self, purse: &Purse, plan: &str, since: i64) -> Result<()> {
        let (epoch, as_of) = (purse.state().epoch, self.clock.monotonic_micros());
        let standing = accounts::standing(&self.db, purse.tenant, self.clock.now()).await?;
        let prices = match &standing.current {
            Some(period) => self.prices(period, since).await?,
            None => Arc::default(),
        };
        // Prices that are to come open the first period when they do, and nobody will say so then.
        let free_until = match &standing.current {
            Some(_) => None,
            None => {
                let coming = prices::history(&self.db, &plan.parse()?).await?;
                coming.first().map(|version| version.effective_at)
            }
        };
        let mut state = purse.state();
        if state.epoch == epoch {
            let (period, next) = (standing.current, standing.next);
            state.known = Some(Known { period, next, prices, free_until, as_of });
        }
        Ok(())
    }

    /// The prices of a period's plan, from memory where they can be trusted: changes were looked for since `since`, and the version
    /// that the period began with is among them. The first prices of a plan hold at once, so others may not have heard of those.
    async fn prices(&self, period: &Period, since: i64) -> Result<Arc<History>> {
        if (self.heard)() >= since {
            let known = self.book.of(&period.plan).await?;
            if known.versions().iter().any(|version| version.id == period.price_version_id) {
                return Ok(known);
            }
            self.book.forget(period.plan.as_str());
        }
        prices::history(&self.db, &period.plan).await.map(Arc::new)
    }

    /// Closes slabs of a tenant whose account the transaction holds.
    pub(super) async fn close_in(&self, tx: &mut Tx, slabs: &[Return], now: Timestamp) -> Result<Vec<Event>> {
        let mut periods = Vec::new();
        let mut slabs = slabs.to_vec();
        // As settlements do, so that none waits for the other.
        slabs.sort_unstable_by_key(|slab| match slab {
            Return::All(id) | Return::AllBut(id, _) => *id,
        });
        for slab in slabs {
            let id = match slab {
                Return::All(id) => id,
                Return::AllBut(id, amount) => {
                    db::slabs::shrink(tx, id, amount, now).await?;
                    continue;
                }
            };
            if let Some(closed) = db::slabs::close(tx, id, now).await?
                && closed.used.is_positive()
                && !periods.contains(&closed.period_id)
            {
                periods.push(closed.period_id);
            }
        }
        let mut events = Vec::new();
        for period in periods {
            events.extend(accounts::events::note(tx, period, now).await?);
        }
        Ok(events)
    }

    /// Closes what is out of use in this purse; takes out of use what nobody used for as long as `idle`.
    pub async fn give_back(&self, purse: &Purse, idle: Duration) -> Result<()> {
        let (now, tick) = (self.clock.now(), self.clock.monotonic_micros());
        purse.state().retire((now, tick), idle);
        loop {
            let some: Vec<_> = {
                let mut state = purse.state();
                let count = state.returned.len().min(CLOSE);
                state.returned.drain(..count).collect()
            };
            if some.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.close_some(purse, &some, now).await {
                purse.state().returned.extend(some);
                return Err(error);
            }
        }
    }

    async fn close_some(&self, purse: &Purse, slabs: &[Return], now: Timestamp) -> Result<()> {
        let mut tx = self.db.begin().await?;
        db::slabs::lock_account(&mut tx, purse.tenant, now).await?;
        let events = self.close_in(&mut tx, slabs, now).await?;
        tx.commit().await?;
        accounts::events::announce(&self.metrics, &events);
        Ok(())
    }
}
