//! Limits: how much of Weir one tenant and one credential may use at once.
//!
//! Rates are token buckets (GCRA) per tenant and per credential, and for the servers and tools for which the tenant's plan has
//! rules; beside them stand counts of running calls, open sessions and open streams per tenant, and a bucket of bytes.
//! Everything is keyed by tenant and credential, never by session, so a client that opens a new session for each call
//! gains nothing.

mod bucket;
mod known;
mod tenant;
mod values;
mod visit;

use std::time::Duration;

use crate::caller::Caller;
use crate::clock::Clock;
use crate::policy::Permit;
use bucket::Taking;
use known::Known;
use visit::{Visit, Wanted};

pub use crate::redis::limits::Level;
/// What can run out.
pub use crate::telemetry::labels::Limit as Scope;
pub use tenant::Place;
pub use values::{EffectiveLimits, KeyLimits, PlanLimits, Rule};

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

/// What is left in the emptiest bucket that a request went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Size of that bucket.
    pub limit: u32,
    /// Tokens left in it.
    pub remaining: u32,
    /// Until it is full again.
    pub reset: Duration,
}

/// Proof that a request is within its limits. One that runs something holds a place for it.
#[derive(Debug)]
pub struct Admission {
    /// What is left.
    pub standing: Standing,
    place: Option<Place>,
}

/// What a request takes beside its one token of credential and tenant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Size of its body.
    pub bytes: usize,
    /// Server and name of the tool that it calls.
    pub tool: Option<(&'a str, &'a str)>,
    /// It runs something and needs a place.
    pub runs: bool,
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

/// All limits of this process.
pub struct Limits {
    clock: Clock,
    known: Known,
}

impl Limits {
    /// Limits of which nothing is used.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, known: Known::new() }
    }

    /// Whether a request of this caller would be refused for all that is known here. Takes nothing.
    ///
    /// # Errors
    /// Which bucket is empty and when it has a token again.
    pub fn look(&self, caller: &Caller) -> Result<(), Limited> {
        let (now, limits) = (self.clock.monotonic_micros(), caller.limits());
        let tenant = self.known.tenant(caller.tenant());
        let key = self.known.key(caller.principal());
        let buckets = [
            (Scope::Key, Some(limits.key), &key),
            (Scope::Tenant, Some(limits.tenant), &tenant.requests),
            (Scope::Bytes, limits.bytes, &tenant.bytes),
        ];
        for (scope, rate, bucket) in buckets {
            if let Some(rate) = rate
                && let Some(retry_after) = bucket.look(rate, now)
            {
                return Err(Limited { scope, limit: rate.burst, retry_after });
            }
        }
        Ok(())
    }

    /// Takes what a request needs from everything that limits it; from nothing where something is missing.
    ///
    /// # Errors
    /// What is missing and when it is there again.
    #[expect(clippy::unused_async, reason = "what replicas share is asked for over the network")]
    pub async fn admit(&self, caller: &Caller, asked: Asked<'_>) -> Result<Admission, Limited> {
        let limits = caller.limits();
        let tenant = self.known.tenant(caller.tenant());
        let wanted = Wanted { scope: Scope::Concurrency, limit: limits.concurrency };
        let mut visit = Visit::new(tenant.clone(), asked.runs.then_some(wanted));
        let one = |scope, rate| Taking { scope, rate, amount: 1 };
        visit.through(one(Scope::Key, limits.key), self.known.key(caller.principal()));
        visit.through(one(Scope::Tenant, limits.tenant), tenant.requests.clone());
        if let Some((server, tool)) = asked.tool {
            if let Some(rate) = limits.of_server(server) {
                let bucket = self.known.called(caller.tenant(), server, None);
                visit.through(one(Scope::Server, rate), bucket);
            }
            if let Some(rate) = limits.of_tool(tool) {
                let bucket = self.known.called(caller.tenant(), server, Some(tool));
                visit.through(one(Scope::Tool, rate), bucket);
            }
        }
        if let Some(rate) = limits.bytes {
            let amount = u32::try_from(asked.bytes).unwrap_or(u32::MAX);
            visit.through(Taking { scope: Scope::Bytes, rate, amount }, tenant.bytes.clone());
        }
        visit.take_here(self.clock.monotonic_micros())?;
        Ok(visit.admitted())
    }

    /// Turns a permit and an admission into a reservation. A call that comes back after a question has given up its place
    /// and takes another.
    ///
    /// # Errors
    /// Where the tenant has as many running calls as it may.
    pub async fn reserve<'a, T>(
        &self,
        permit: Permit<'a, T>,
        admission: &mut Admission,
    ) -> Result<Reservation<'a, T>, Limited> {
        let place = self.running(permit.caller(), admission).await?;
        Ok(Reservation { permit, _place: place })
    }

    /// The admission's place for something that runs, or another one.
    ///
    /// # Errors
    /// Where the tenant has as much running as it may.
    pub async fn running(&self, caller: &Caller, admission: &mut Admission) -> Result<Place, Limited> {
        match admission.place.take() {
            Some(place) => Ok(place),
            None => self.place(caller, Scope::Concurrency).await,
        }
    }

    /// Takes one of the tenant's places for what runs, for streams or for calls that wait for an answer.
    ///
    /// # Errors
    /// Where all are taken.
    #[expect(clippy::unused_async, reason = "what replicas share is asked for over the network")]
    pub async fn place(&self, caller: &Caller, scope: Scope) -> Result<Place, Limited> {
        self.place_here(caller, scope)
    }

    /// Takes one of the tenant's places in this process.
    ///
    /// # Errors
    /// Where all are taken.
    pub fn place_here(&self, caller: &Caller, scope: Scope) -> Result<Place, Limited> {
        let limits = caller.limits();
        let limit = match scope {
            Scope::Sessions => limits.sessions,
            Scope::Streams => limits.streams,
            Scope::Questions => limits.questions,
            _ => limits.concurrency,
        };
        let place = self.known.tenant(caller.tenant()).take(scope, limit);
        place.ok_or(Limited { scope, limit, retry_after: values::MOMENT })
    }

    /// Notes bytes that were sent to this caller. Whether they may be sent was decided when its request was let in; the next
    /// one has to wait for them.
    pub fn charge(&self, caller: &Caller, bytes: usize) {
        if let Some(rate) = caller.limits().bytes {
            let tenant = self.known.tenant(caller.tenant());
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            tenant.bytes.charge(rate, bytes, self.clock.monotonic_micros());
        }
    }
}
