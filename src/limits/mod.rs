//! Limits: how much of Weir one tenant and one credential may use at once.
//!
//! Rates are token buckets (GCRA), per tenant and per credential; beside them stand counts of running calls, open
//! sessions and open streams per tenant. Everything is keyed by tenant and credential, never by session, so a client
//! that opens a new session for each call gains nothing. State is in this process; nothing is allocated for a tenant
//! that is already known.

mod bucket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;

use crate::caller::{Caller, Principal};
use crate::clock::Clock;
use crate::config;
use crate::id::TenantId;
use crate::policy::Permit;

/// What can run out.
pub use crate::telemetry::labels::Limit as Scope;
pub use bucket::{Bucket, Level};

/// Tenants and credentials whose buckets are remembered. One that is forgotten starts with a full bucket, so this is
/// also the number of callers that must be active between two requests of one for it to gain anything.
const REMEMBERED: usize = 100_000;

/// A limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Which one.
    pub scope: Scope,
    /// Its size: a burst, or a count.
    pub limit: u32,
    /// When it is worth coming back.
    pub retry_after: Duration,
}

/// Proof that a request is within the rates. Says how much is left in the bucket that is emptier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Size of that bucket.
    pub limit: u32,
    /// Tokens left in it.
    pub remaining: u32,
    /// Until it is full again.
    pub reset: Duration,
}

/// Proof that a permitted call is within all limits; gives its place back when dropped.
#[derive(Debug)]
pub struct Reservation<'a, T> {
    permit: Permit<'a, T>,
    _place: Place,
}

impl<T> Reservation<'_, T> {
    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        self.permit.caller()
    }

    /// What is called.
    #[must_use]
    pub fn tool(&self) -> &T {
        self.permit.tool()
    }
}

/// One of a counted number of places; given back when dropped.
#[derive(Debug)]
pub struct Place {
    state: Arc<TenantState>,
    scope: Scope,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.count(self.scope).fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug)]
struct TenantState {
    bucket: Bucket,
    running: AtomicU32,
    sessions: AtomicU32,
    streams: AtomicU32,
    questions: AtomicU32,
}

impl TenantState {
    fn count(&self, scope: Scope) -> &AtomicU32 {
        match scope {
            Scope::Sessions => &self.sessions,
            Scope::Streams => &self.streams,
            Scope::Questions => &self.questions,
            Scope::Tenant | Scope::Key | Scope::Concurrency => &self.running,
        }
    }
}

/// All limits of this process.
pub struct Limits {
    clock: Clock,
    config: config::Limits,
    tenants: Cache<TenantId, Arc<TenantState>>,
    keys: Cache<Principal, Arc<Bucket>>,
}

impl Limits {
    /// Limits as configured, with nothing used.
    #[must_use]
    pub fn new(config: &config::Limits, clock: Clock) -> Self {
        Self { clock, config: config.clone(), tenants: Cache::new(REMEMBERED), keys: Cache::new(REMEMBERED) }
    }

    fn tenant(&self, tenant: TenantId) -> Arc<TenantState> {
        let fresh = || {
            Ok::<_, std::convert::Infallible>(Arc::new(TenantState {
                bucket: Bucket::new(self.config.tenant.rate()),
                running: AtomicU32::new(0),
                sessions: AtomicU32::new(0),
                streams: AtomicU32::new(0),
                questions: AtomicU32::new(0),
            }))
        };
        match self.tenants.get_or_insert_with(&tenant, fresh) {
            Ok(state) => state,
            Err(never) => match never {},
        }
    }

    fn key(&self, principal: &Principal) -> Arc<Bucket> {
        let fresh = || Ok::<_, std::convert::Infallible>(Arc::new(Bucket::new(self.config.key)));
        match self.keys.get_or_insert_with(principal, fresh) {
            Ok(bucket) => bucket,
            Err(never) => match never {},
        }
    }

    /// Takes one request from the buckets of the credential and the tenant; from neither where one is empty.
    ///
    /// # Errors
    /// Which bucket is empty and when it has a token again.
    pub fn admit(&self, caller: &Caller) -> Result<Admission, Limited> {
        let now = self.clock.monotonic_micros();
        let key = self.key(caller.principal());
        let of_key = key.take(now).map_err(|retry_after| Limited {
            scope: Scope::Key,
            limit: self.config.key.burst,
            retry_after,
        })?;
        let of_tenant = match self.tenant(caller.tenant()).bucket.take(now) {
            Ok(level) => level,
            Err(retry_after) => {
                key.give_back();
                return Err(Limited { scope: Scope::Tenant, limit: self.config.tenant.burst, retry_after });
            }
        };
        Ok(if of_key.remaining <= of_tenant.remaining {
            Admission { limit: self.config.key.burst, remaining: of_key.remaining, reset: of_key.reset }
        } else {
            Admission {
                limit: self.config.tenant.burst,
                remaining: of_tenant.remaining,
                reset: of_tenant.reset,
            }
        })
    }

    /// Turns a permit and an admission into a reservation: one more running call of the tenant.
    ///
    /// # Errors
    /// Where the tenant has as many running calls as it may.
    pub fn reserve<'a, T>(
        &self,
        permit: Permit<'a, T>,
        admission: Admission,
    ) -> Result<Reservation<'a, T>, Limited> {
        let _ = admission;
        let place = self.place(permit.caller().tenant(), Scope::Concurrency)?;
        Ok(Reservation { permit, _place: place })
    }

    /// Takes one of the tenant's places for sessions, streams or calls that wait for an answer.
    ///
    /// # Errors
    /// Where all are taken.
    pub fn place(&self, tenant: TenantId, scope: Scope) -> Result<Place, Limited> {
        let limit = match scope {
            Scope::Sessions => self.config.tenant.sessions,
            Scope::Streams => self.config.tenant.streams,
            Scope::Questions => self.config.tenant.questions,
            Scope::Tenant | Scope::Key | Scope::Concurrency => self.config.tenant.concurrency,
        };
        let state = self.tenant(tenant);
        let taken = state
            .count(scope)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < limit).then_some(n + 1));
        match taken {
            Ok(_) => Ok(Place { state, scope }),
            Err(_) => Err(Limited { scope, limit, retry_after: Duration::from_secs(1) }),
        }
    }

    /// What the configuration allows a tenant and a credential.
    #[must_use]
    pub fn config(&self) -> &config::Limits {
        &self.config
    }
}
