//! Usage: what was called, by whom, how it ended, and what it cost.
//!
//! The line of a call passes here twice. [`Usage::reserve`] finds the call's price and sets aside the most that it can cost;
//! [`Usage::settle`] closes the line: a call that costs something is part of the ledger before its reply leaves. Calls that
//! cost nothing go to the journal, which writes them in batches beside the reply; a kill can lose the last batch of those, never
//! a charge.
//!
//! What a process may spend it has leased from the database before (`meter`), so that reserving is a subtraction in memory
//! (`purse`) and caps hold over all replicas; many settlements share a transaction (`settler`). Redis has no part in
//! this.

mod give_back;
mod journal;
mod keys;
mod lease;
mod meter;
mod purse;
mod reservation;
mod reserve;
mod settle;
mod settler;
mod upkeep;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};
use tokio::sync::Notify;

use crate::caller::Caller;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::credits::Credits;
use crate::db::Db;
use crate::error::Error;
use crate::hooks::CallEnd;
use crate::id::{CallId, TenantId};
use crate::prices::Book;
use crate::seal::Sealer;
use crate::telemetry::labels::Refused;
use crate::telemetry::metrics::Metrics;
use give_back::GiveBacks;
use keys::Keys;
use meter::Meter;
use purse::Purse;
use settler::Queue;

pub use journal::{Journal, Writer};
pub use keys::{Claimed, Key, KeyTrouble, MAX_KEY, Stored};
pub use meter::Heard;
pub use reservation::Reservation;
pub use upkeep::Work;

/// Tenants of whom something is held or known.
const PURSES: usize = 100_000;
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
    /// The tenant's account is suspended, because an invoice is not paid.
    Suspended,
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
    /// Tenants whose purses are to be emptied.
    asked: Mutex<HashSet<TenantId>>,
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
        let meter = Arc::new(Meter::new(db, clock, book, metrics, heard, config.idle.get()));
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

    /// Records a call that was not made, because it was refused or its answer was there.
    pub async fn record(&self, caller: &Caller, end: &CallEnd<'_>, started_at: Timestamp, sizes: Sizes) {
        self.0.journal.call(settle::record(caller, end, started_at, sizes, (None, None))).await;
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
        self.0.soon(tenant);
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
        // Whoever else has it is about to put something in.
        Arc::strong_count(purse) > 1 || !purse.is_empty(i64::MAX)
    }

    fn begin_request(&self) {}
}

impl Inner {
    fn asked_back(&self) -> MutexGuard<'_, HashSet<TenantId>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn purse(&self, tenant: TenantId) -> Arc<Purse> {
        let fresh = || Ok::<_, std::convert::Infallible>(Arc::new(Purse::new(tenant)));
        match self.purses.get_or_insert_with(&tenant, fresh) {
            Ok(purse) => purse,
            Err(never) => match never {},
        }
    }
}

impl Refusal {
    fn label(&self) -> Refused {
        match self {
            Self::Unpriced => Refused::Unpriced,
            Self::Exhausted { .. } => Refused::Exhausted,
            Self::Suspended => Refused::Suspended,
            Self::Unavailable(_) => Refused::Unavailable,
        }
    }
}
