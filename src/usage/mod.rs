//! Usage: what was called, by whom, how it ended, and what it cost.
//!
//! The line of a call passes here twice. [`Usage::reserve`] finds the call's price and sets aside the most that it can cost;
//! [`Usage::settle`] closes the line: a call that costs something is part of the ledger before its reply leaves. Calls that
//! cost nothing go to the journal, which writes them in batches beside the reply; a kill can lose the last batch of those, never
//! a charge.
//!
//! What a process may spend it has leased from the database before ([`meter`]), so that reserving is a subtraction in memory
//! ([`purse`]) and caps hold over all replicas; many settlements share a transaction ([`settler`]). Redis has no part in
//! this.

mod give_back;
mod journal;
mod keys;
mod meter;
mod purse;
mod reservation;
mod settler;
mod upkeep;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};
use tokio::sync::Notify;

use crate::caller::Caller;
use crate::calls::CallRecord;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::credits::Credits;
use crate::db::Db;
use crate::db::settlements::{Answer, SettledCall};
use crate::error::{Error, Result};
use crate::hooks::CallEnd;
use crate::id::{CallId, TenantId};
use crate::limits::Place;
use crate::mcp::content::ToolResult;
use crate::policy::{Guarded, Permit};
use crate::prices::{Book, Measured, Price, Unpriced};
use crate::seal::Sealer;
use crate::telemetry::labels::{Label, Refused};
use crate::telemetry::metrics::Metrics;
use give_back::GiveBacks;
use keys::Keys;
pub use meter::Heard;
use meter::{Leased, Meter};
use purse::{Purse, Source, Terms};
use settler::{Entry, Queue, Unsettled};

pub use journal::{Journal, Writer};
pub use keys::{Claimed, Key, KeyTrouble, MAX_KEY, Stored};
pub use reservation::Reservation;
use reservation::Tariff;
pub use upkeep::Work;

/// Tenants of whom something is held or known.
const PURSES: usize = 100_000;
/// Looks at account and purse that one reservation may take.
const LOOKS: u32 = 8;
/// How often, and after which time, it is asked again whether others gave back what they held.
const RECALLS: u32 = 3;
const RECALL_PAUSE: Duration = Duration::from_millis(100);
/// Longest kept name of a server or a tool, in bytes.
const MAX_NAME: usize = 256;

/// What a settled call is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The call.
    pub call: CallId,
    /// What it cost, where the tenant has an account.
    pub credits: Option<Credits>,
    /// What the tenant has left, caps considered, as far as this process knows; nothing where that has no end.
    pub left: Option<Credits>,
    /// It is an answer that was given before.
    pub replayed: bool,
}

/// How much went in and came out, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The arguments.
    pub request: usize,
    /// The result.
    pub result: usize,
}

/// Why a call may not be made, or not be answered. Nothing was charged.
#[derive(Debug)]
pub enum Refusal {
    /// The plan has no price for the tool, and does not give away what has none.
    Unpriced,
    /// The tenant has less left than the call may cost.
    Exhausted {
        /// What the call may cost.
        price: Credits,
        /// What is left.
        left: Credits,
    },
    /// What the call cost cannot be made sure of now.
    Unavailable(Error),
}

/// Something that a process asks others for: to give back what they hold of a tenant's credits.
pub type Recall = Box<dyn Fn(TenantId) + Send + Sync>;

/// Reserves and settles calls.
#[derive(Clone)]
pub struct Usage(Arc<Inner>);

struct Inner {
    journal: Journal,
    meter: Arc<Meter>,
    purses: Cache<TenantId, Arc<Purse>, UnitWeighter, DefaultHashBuilder, InUse>,
    queue: Queue,
    give_backs: Arc<GiveBacks>,
    keys: Arc<Keys>,
    config: config::Metering,
    recall: Option<Recall>,
    /// Purses to empty.
    asked: Mutex<Vec<Arc<Purse>>>,
    /// Wakes the upkeep.
    nudge: Notify,
}

/// What [`Usage`] is built from.
pub struct Foundation {
    /// Where calls that cost nothing are recorded.
    pub journal: Journal,
    /// The truth.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// Prices.
    pub book: Arc<Book>,
    /// Seals answers that are kept.
    pub sealer: Arc<Sealer>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// `[metering]`.
    pub config: config::Metering,
    /// When changes made by other processes were last looked for, on the monotonic clock, in microseconds.
    pub heard: Heard,
    /// Asks other replicas to give back; nothing where there are none.
    pub recall: Option<Recall>,
}

impl Usage {
    /// Nothing is held yet. What is handed back must be [run](Work::run).
    #[must_use]
    pub fn new(foundation: Foundation) -> (Self, Work) {
        let Foundation { journal, db, clock, book, sealer, metrics, config, heard, recall } = foundation;
        let meter = Arc::new(Meter::new(db, clock, book, metrics, heard));
        let give_backs = Arc::new(GiveBacks::default());
        let (queue, settler) = settler::queue(meter.clone(), give_backs.clone());
        let keep = Duration::from_secs(u64::from(config.replay_hours) * 3600);
        let keys = Arc::new(Keys::new(meter.clone(), sealer, keep, config.replay_bytes));
        let weight = u64::try_from(PURSES).unwrap_or(u64::MAX);
        let inner = Inner {
            journal,
            meter,
            purses: Cache::with(PURSES, weight, UnitWeighter, Default::default(), InUse),
            queue,
            give_backs,
            keys,
            config,
            recall,
            asked: Mutex::default(),
            nudge: Notify::new(),
        };
        let usage = Self(Arc::new(inner));
        (usage.clone(), Work::new(usage, settler))
    }

    /// Takes an idempotency key for a call, or finds the answer of the call that had it.
    ///
    /// # Errors
    /// Why the call cannot be made under this key.
    pub async fn claim(
        &self,
        caller: &Caller,
        (key, call): (&str, CallId),
        target: (&str, &str),
        arguments: Option<&[u8]>,
        patience: Duration,
    ) -> Result<Claimed, KeyTrouble> {
        self.0.keys.claim(caller, (key, call), target, arguments, patience).await
    }

    /// Turns a permit and a place into a reservation: the price is found, and the most that the call can cost set aside.
    ///
    /// # Errors
    /// Why the call may not be made.
    pub async fn reserve<'a, T: Guarded>(
        &self,
        permit: Permit<'a, T>,
        place: Place,
        key: Option<Key>,
    ) -> Result<Reservation<'a, T>, Refusal> {
        let tariff = match permit.caller().data().metered {
            false => Tariff::None,
            true => self.tariff(permit.caller().tenant(), permit.tool()).await.inspect_err(|refusal| {
                self.0.meter.metrics.metering.calls_refused.inc(refusal.label());
            })?,
        };
        Ok(Reservation { permit, place, tariff, key })
    }

    /// What the tenant pays for a call of this tool that begins now, and the credits for it.
    async fn tariff(&self, tenant: TenantId, tool: &impl Guarded) -> Result<Tariff, Refusal> {
        let inner = &*self.0;
        let purse = inner.purse(tenant);
        let mut recalls = 0;
        for _ in 0..LOOKS {
            let (now, tick) = (inner.meter.clock.now(), inner.meter.clock.monotonic_micros());
            let terms = purse.state().terms(now, (inner.meter.heard)(), tick - inner.trust());
            let (period, version) = match terms {
                Some(Terms::Priced { period, version }) => (period, version),
                Some(Terms::Free) => return Ok(Tariff::None),
                None if tool.is_free() => return Ok(Tariff::None),
                None => {
                    inner.learn(&purse).await.map_err(Refusal::Unavailable)?;
                    continue;
                }
            };
            let price = match version.terms.price_of(tool.server(), tool.name()).copied() {
                _ if tool.is_free() => Price::default(),
                Some(price) => price,
                None if version.terms.unpriced == Unpriced::Free => Price::default(),
                None => return Err(Refusal::Unpriced),
            };
            let hold = if price.is_free() {
                None
            } else {
                // Without the database it could not be settled.
                if !inner.meter.db.breaker().is_up() {
                    return Err(Refusal::Unavailable(Error::Away("database")));
                }
                match purse.reserve(price.most(), period, now, tick) {
                    Ok(hold) => Some(hold),
                    Err(_) => match inner.lease(&purse, price.most()).await.map_err(Refusal::Unavailable)? {
                        Leased::Short { left, held } => {
                            let worth =
                                held.is_positive() && left + held >= price.most() && recalls < RECALLS;
                            if !worth || !inner.call_back(tenant, &mut recalls).await {
                                return Err(Refusal::Exhausted { price: price.most(), left });
                            }
                            continue;
                        }
                        Leased::Enough | Leased::PeriodOver => continue,
                    },
                }
            };
            return Ok(Tariff::Priced { period, version: version.id, price, hold, purse });
        }
        Err(Refusal::Unavailable(Error::Internal(
            "an account changes faster than it can be looked at".to_owned(),
        )))
    }

    /// Ends a call. One that costs something, or that came with a key, is durable when this returns; where that cannot be made
    /// sure of, it is not charged, and its answer must not leave.
    ///
    /// # Errors
    /// Why it cannot be made sure of.
    pub async fn settle<T: Guarded>(
        &self,
        reservation: Reservation<'_, T>,
        end: &CallEnd<'_>,
        (started_at, sizes): (Timestamp, Sizes),
        result: Option<&ToolResult>,
    ) -> Result<Receipt> {
        let inner = &*self.0;
        let Reservation { permit, place, tariff, key } = reservation;
        let record = record(permit.caller(), end, started_at, sizes, &tariff);
        drop(place);
        let measured = Measured {
            outcome: end.outcome,
            result_bytes: record.result_bytes,
            duration_us: u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
        };
        let (credits, used) = tariff.charge(measured);
        let key = match (key, result) {
            (Some(key), Some(_)) => Some(key),
            (Some(key), None) => {
                key.give_free().await;
                None
            }
            (None, _) => None,
        };
        let receipt = |left| Receipt { call: end.start.id, credits, left, replayed: false };
        let charge = credits.unwrap_or_default();
        if charge.is_zero() && key.is_none() {
            let left = used.map(|used| used.left(started_at));
            inner.journal.call(record).await;
            return Ok(receipt(left.flatten()));
        }
        let (purse, parts) = used.map_or((None, Vec::new()), |used| {
            let (purse, parts) = used.parts;
            (Some((purse, used.period)), parts)
        });
        let answer = match (&key, result) {
            (Some(key), Some(result)) => Some(Answer {
                tenant_id: key.name.tenant,
                credential: key.name.credential.clone(),
                key_hash: key.name.hash.clone(),
                call: end.start.id,
                credits: charge.micros(),
                result: inner.keys.seal(key, result)?,
            }),
            _ => None,
        };
        let mut meters = parts.iter().map(|part| part.meter).chain(key.as_ref().map(|key| key.meter));
        let meter = meters.next().filter(|first| meters.all(|other| other == *first));
        let Some(meter) = meter else { return Err(inner.unsettled(Unsettled::Over, &purse, &parts)) };
        let call = settled_call(&record, charge, &parts, key.as_ref());
        let owner = purse.as_ref().map(|(purse, _)| purse.clone());
        let started = inner.meter.clock.monotonic_micros();
        let entry = |done| Entry { call, parts, purse: owner, answer, meter, done };
        let settled = inner.queue.settle(inner.config.settle_timeout.get(), entry).await;
        inner
            .meter
            .metrics
            .metering
            .settle_duration
            .observe(inner.meter.clock.elapsed_since(started).as_secs_f64());
        match settled {
            Ok(()) => {
                if let Some(key) = key {
                    key.settled();
                }
                let now = inner.meter.clock.now();
                Ok(receipt(purse.and_then(|(purse, period)| purse.left(period, now))))
            }
            Err(why) => {
                inner.meter.metrics.metering.calls_unsettled.inc();
                tracing::warn!(call = %end.start.id, ?why, "a call could not be settled; it is not charged, and its result is held back");
                Err(Error::Away("ledger"))
            }
        }
    }

    /// Records a call that was not made, because it was refused or its answer was there.
    pub async fn record(&self, caller: &Caller, end: &CallEnd<'_>, started_at: Timestamp, sizes: Sizes) {
        self.0.journal.call(record(caller, end, started_at, sizes, &Tariff::None)).await;
    }

    /// Waits until everything that was settled so far can be read.
    pub async fn flush(&self) {
        self.0.journal.flush().await;
    }

    /// Where credits can be bought for this tenant, if the operator said so.
    #[must_use]
    pub fn top_up_url(&self, tenant: TenantId) -> Option<String> {
        let url = &self.0.config.top_up_url;
        (!url.is_empty()).then(|| url.replace("{tenant}", &tenant.to_string()))
    }

    /// What is known of this tenant's account is no longer true; what is held of its credits goes back.
    pub fn account_changed(&self, tenant: TenantId) {
        let Some(purse) = self.0.purses.peek(&tenant) else { return };
        purse.state().forget();
        self.0.soon(purse);
    }

    /// What is known of accounts on this plan is no longer true.
    pub fn plan_changed(&self, plan: &str) {
        for (_, purse) in self.0.purses.iter() {
            let mut state = purse.state();
            let on_it = |known: &purse::Known| {
                known.period.as_ref().is_none_or(|period| period.plan.as_str() == plan)
            };
            if state.known.as_ref().is_none_or(on_it) {
                state.forget();
            }
        }
    }
}

/// Keeps purses in which something is.
#[derive(Debug, Clone)]
struct InUse;

impl Lifecycle<TenantId, Arc<Purse>> for InUse {
    type RequestState = ();

    fn is_pinned(&self, _: &TenantId, purse: &Arc<Purse>) -> bool {
        !purse.is_empty(i64::MAX)
    }

    fn begin_request(&self) {}
}

impl Inner {
    fn asked_back(&self) -> MutexGuard<'_, Vec<Arc<Purse>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn purse(&self, tenant: TenantId) -> Arc<Purse> {
        let fresh = || Ok::<_, std::convert::Infallible>(Arc::new(Purse::new(tenant)));
        match self.purses.get_or_insert_with(&tenant, fresh) {
            Ok(purse) => purse,
            Err(never) => match never {},
        }
    }

    /// For how long something is true that was true when changes were last looked for: whoever changes it announces it
    /// `lead_ms` ahead, and may take a while to commit.
    fn trust(&self) -> i64 {
        i64::try_from(self.config.lead.get().as_micros() * 2 / 5).unwrap_or(i64::MAX)
    }

    async fn learn(&self, purse: &Purse) -> Result<()> {
        let _one_at_a_time = purse.asking.lock().await;
        let (now, tick) = (self.meter.clock.now(), self.meter.clock.monotonic_micros());
        if purse.state().terms(now, (self.meter.heard)(), tick - self.trust()).is_some() {
            return Ok(());
        }
        Box::pin(self.meter.learn(purse, tick - self.trust())).await
    }

    /// Leases what a call of this price needs, unless somebody else just did.
    async fn lease(&self, purse: &Arc<Purse>, price: Credits) -> Result<Leased> {
        let _one_at_a_time = purse.asking.lock().await;
        let (now, tick) = (self.meter.clock.now(), self.meter.clock.monotonic_micros());
        let Some(period) = purse.state().known.as_ref().and_then(|known| known.period.clone()) else {
            return Ok(Leased::PeriodOver);
        };
        match purse.reserve(price, period.id, now, tick) {
            Ok(_given_back) => Ok(Leased::Enough),
            Err(missing) => {
                let leased = Box::pin(self.meter.lease(purse, &period, missing)).await;
                if matches!(leased, Ok(Leased::PeriodOver)) {
                    purse.state().forget();
                }
                leased
            }
        }
    }

    /// Asks others to give back what they hold, and waits a moment.
    async fn call_back(&self, tenant: TenantId, recalls: &mut u32) -> bool {
        let Some(recall) = &self.recall else { return false };
        *recalls += 1;
        recall(tenant);
        tokio::time::sleep(RECALL_PAUSE).await;
        true
    }

    /// Ends a call that never came as far as the queue.
    fn unsettled(
        &self,
        why: Unsettled,
        purse: &Option<(Arc<Purse>, crate::id::PeriodId)>,
        parts: &[purse::Part],
    ) -> Error {
        if let Some((purse, _)) = purse {
            parts.iter().for_each(|part| purse.release(*part, Credits::ZERO));
        }
        self.meter.metrics.metering.calls_unsettled.inc();
        tracing::warn!(?why, "a call could not be settled; it is not charged, and its result is held back");
        Error::Away("ledger")
    }
}

impl Refusal {
    fn label(&self) -> Refused {
        match self {
            Self::Unpriced => Refused::Unpriced,
            Self::Exhausted { .. } => Refused::Exhausted,
            Self::Unavailable(_) => Refused::Unavailable,
        }
    }
}

fn record(
    caller: &Caller,
    end: &CallEnd<'_>,
    started_at: Timestamp,
    sizes: Sizes,
    tariff: &Tariff,
) -> CallRecord {
    let (period, version) = tariff.stamp();
    CallRecord {
        id: end.start.id,
        principal: caller.principal().clone(),
        server: Arc::clone(end.start.server),
        tool: Arc::clone(end.start.tool),
        outcome: end.outcome.text(),
        started_at,
        duration: end.duration,
        request_bytes: sizes.request as u64,
        result_bytes: sizes.result as u64,
        correlation_id: end.start.id.to_string(),
        period,
        version,
    }
}

fn settled_call(
    record: &CallRecord,
    credits: Credits,
    parts: &[purse::Part],
    key: Option<&Key>,
) -> SettledCall {
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let of =
        |source| parts.iter().filter(|part| part.source == source).map(|part| part.credits.micros()).sum();
    let draws: Vec<_> = parts.iter().map(|part| (part.slab, part.credits.micros())).collect();
    SettledCall {
        id: record.id,
        tenant_id: record.principal.tenant,
        credential: crate::credentials::label(&record.principal.credential),
        server: crate::db::storable(&record.server, MAX_NAME),
        tool: crate::db::storable(&record.tool, MAX_NAME),
        outcome: record.outcome,
        started_at: record.started_at.as_micros(),
        duration_us: i64::try_from(record.duration.as_micros()).unwrap_or(i64::MAX),
        request_bytes: whole(record.request_bytes),
        result_bytes: whole(record.result_bytes),
        period_id: record.period,
        price_version_id: record.version,
        credits: credits.micros(),
        included: of(Source::Included),
        promotional: of(Source::Promotional),
        prepaid: of(Source::Prepaid),
        overage: of(Source::Overage),
        draws: (!draws.is_empty()).then(|| serde_json::to_string(&draws).unwrap_or_default()),
        idempotency_key: key.map(|key| key.name.hash.clone()),
    }
}
