//! One request on its way through its limits: all of them, or none.

use std::sync::Arc;
use std::time::Duration;

use super::bucket::{self, Bucket, Owed, Source, Taking};
use super::shared::Shared;
use super::tenant::{self, Place, Tenant};
use super::values::MOMENT;
use super::{Admission, Level, Limited, Limits, Scope, Standing};
use crate::caller::Credential;
use crate::config::WithoutRedis;
use crate::credentials;
use crate::redis::limits::{Draw, Kind, Lease, Leased, Name};
use crate::telemetry::labels::Trip;

/// Buckets that a request goes through at most: credential, tenant, server, tool, bytes.
const MOST: usize = 5;

/// How often the other replicas are asked to give back places of a tenant that they do not use, in microseconds.
const RECALL: i64 = 500_000;
/// Nobody knows whether something is there.
const UNAVAILABLE: Limited = Limited { scope: Scope::Unavailable, limit: 0, retry_after: MOMENT };

/// Which bucket of the tenant it is.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    Tenant,
    Key(&'a Credential),
    Server(&'a str),
    Tool(&'a str, &'a str),
    Bytes,
}

/// One bucket on the way.
struct Stop<'a> {
    which: Which<'a>,
    taking: Taking,
    bucket: Arc<Bucket>,
    taken: Option<Source>,
}

impl Stop<'_> {
    /// What to lease from the bucket. `label` is that of the credential.
    fn draw<'b>(&'b self, label: &'b str, replicas: u32, now: i64) -> (Draw<'b>, Owed) {
        let name = match self.which {
            Which::Tenant => Name::Tenant,
            Which::Key(_) => Name::Key(label),
            Which::Server(server) => Name::Server(server),
            Which::Tool(server, tool) => Name::Tool(server, tool),
            Which::Bytes => Name::Bytes,
        };
        self.bucket.draw(name, self.taking, replicas, self.taken.is_none(), now)
    }
}

/// A place that is wanted.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// What for.
    pub(super) scope: Scope,
    /// How many the tenant has.
    pub(super) limit: u32,
}

impl Wanted {
    /// What is said where none is free.
    pub(super) fn limited(self) -> Limited {
        Limited { scope: self.scope, limit: self.limit, retry_after: MOMENT }
    }
}

/// A request. What it has taken is given back when this is dropped before the end.
pub(super) struct Visit<'a> {
    tenant: Arc<Tenant>,
    stops: [Option<Stop<'a>>; MOST],
    wanted: Option<Wanted>,
    place: Option<Place>,
    standing: Standing,
}

fn limited(taking: Taking, retry_after: Duration) -> Limited {
    Limited { scope: taking.scope, limit: taking.rate.burst, retry_after }
}

impl<'a> Visit<'a> {
    pub(super) fn new(tenant: Arc<Tenant>, wanted: Option<Wanted>) -> Self {
        let standing = Standing { limit: 0, remaining: u32::MAX, reset: Duration::ZERO };
        Self { tenant, stops: Default::default(), wanted, place: None, standing }
    }

    /// Adds a bucket. They are tried in this order.
    pub(super) fn through(&mut self, which: Which<'a>, taking: Taking, bucket: Arc<Bucket>) {
        if let Some(free) = self.stops.iter_mut().find(|stop| stop.is_none()) {
            *free = Some(Stop { which, taking, bucket, taken: None });
        }
    }

    /// Takes everything from what this process has for itself.
    ///
    /// # Errors
    /// What was not there.
    pub(super) fn take_here(&mut self, now: i64) -> Result<(), Limited> {
        for stop in self.stops.iter_mut().flatten() {
            let taken = stop.bucket.take_here(stop.taking, now);
            let level = taken.map_err(|wait| limited(stop.taking, wait))?;
            stop.taken = Some(Source::Own);
            note(&mut self.standing, stop.taking, level);
        }
        if let Some(wanted) = self.wanted {
            let place = self.tenant.take_here(wanted.scope, wanted.limit);
            self.place = Some(place.ok_or_else(|| wanted.limited())?);
        }
        Ok(())
    }

    /// Takes what was leased, and says whether that was everything.
    ///
    /// # Errors
    /// What is not there for anybody.
    pub(super) fn take_leased(&mut self, replicas: u32, now: i64) -> Result<bool, Limited> {
        let mut everything = true;
        for stop in self.stops.iter_mut().flatten().filter(|stop| stop.taken.is_none()) {
            match stop.bucket.take_leased(stop.taking, replicas, now) {
                bucket::Reached::Got(level) => {
                    stop.taken = Some(Source::Leased);
                    note(&mut self.standing, stop.taking, level);
                }
                bucket::Reached::Short => everything = false,
                bucket::Reached::Empty(wait) => return Err(limited(stop.taking, wait)),
            }
        }
        if let (Some(wanted), None) = (self.wanted, &self.place) {
            match self.tenant.take_leased(wanted.scope, wanted.limit) {
                tenant::Reached::Got(place) => self.place = Some(place),
                tenant::Reached::Short => everything = false,
                tenant::Reached::Full => return Err(wanted.limited()),
            }
        }
        Ok(everything)
    }

    /// Takes what is missing from the share that this replica has while Redis is away.
    ///
    /// # Errors
    /// What was not there, or that nobody is let in now.
    pub(super) fn take_share(&mut self, limits: &Limits, replicas: u32, now: i64) -> Result<(), Limited> {
        if limits.without_redis == WithoutRedis::Refuse {
            return Err(UNAVAILABLE);
        }
        for stop in self.stops.iter_mut().flatten().filter(|stop| stop.taken.is_none()) {
            let taken = stop.bucket.take_share(stop.taking, replicas, now);
            let level = taken.map_err(|wait| limited(stop.taking, wait))?;
            stop.taken = Some(Source::Share);
            note(&mut self.standing, stop.taking, level);
        }
        if let (Some(wanted), None) = (self.wanted, &self.place) {
            let place = self.tenant.take_share(wanted.scope, wanted.limit, replicas);
            self.place = Some(place.ok_or_else(|| wanted.limited())?);
        }
        Ok(())
    }

    /// Leases what is missing and takes it. Of the requests of a tenant that come to this one asks at a time, for itself and
    /// for all that wait behind it.
    ///
    /// # Errors
    /// What was not there.
    pub(super) async fn take_missing(&mut self, limits: &Limits, shared: &Shared) -> Result<(), Limited> {
        let waiting = self.wait();
        let tenant = self.tenant.clone();
        let began = limits.clock.monotonic_micros();
        let gate = tenant.gate.lock().await;
        let (now, replicas) = (limits.clock.monotonic_micros(), shared.replicas());
        if self.take_leased(replicas, now)? {
            return Ok(());
        }
        // Whoever was before us may have found that there is nobody to ask.
        let asked = if limits.may_ask(shared) && !limits.was_down_since(began) {
            self.lease(limits, shared, replicas).await
        } else {
            None
        };
        drop((gate, waiting));
        match asked {
            Some(answer) => answer,
            None => self.take_share(limits, shared.replicas(), limits.clock.monotonic_micros()),
        }
    }

    /// Counts this request among those that wait for what it has not got.
    fn wait(&self) -> Waiting {
        let missing = self.stops.iter().flatten().filter(|stop| stop.taken.is_none());
        let buckets: Vec<_> = missing.map(|stop| stop.bucket.clone()).collect();
        buckets.iter().for_each(|bucket| bucket.wait(true));
        let place = self.wanted.filter(|_| self.place.is_none());
        let place = place.map(|wanted| (self.tenant.clone(), wanted.scope));
        place.iter().for_each(|(tenant, scope)| tenant.wait(*scope, true));
        Waiting { buckets, place }
    }

    /// Asks the shared state; `None` where that does not answer.
    async fn lease(
        &mut self,
        limits: &Limits,
        shared: &Shared,
        replicas: u32,
    ) -> Option<Result<(), Limited>> {
        let now = limits.clock.monotonic_micros();
        let label = self.stops.iter().flatten().find_map(|stop| match stop.which {
            Which::Key(credential) => Some(credentials::label(credential)),
            _ => None,
        });
        let label = label.as_deref().unwrap_or_default();
        let stops = self.stops.iter().flatten();
        let (draws, owed): (Vec<_>, Vec<_>) = stops.map(|stop| stop.draw(label, replicas, now)).unzip();
        let kind = self.wanted.filter(|_| self.place.is_none()).and_then(|wanted| {
            let kind = tenant::shared_kind(wanted.scope)?;
            Some((kind, self.tenant.hold(kind, wanted.limit, replicas)))
        });
        let lease =
            Lease { tenant: self.tenant.id, draws, holds: kind.iter().map(|(_, hold)| *hold).collect() };
        let unsure = Unsure(kind.map(|_| self.tenant.clone()));
        let leased = limits.ask(shared, &self.tenant, &lease, Trip::Request).await.ok()?;
        unsure.settled();
        let (kind, now) = (kind.map(|(kind, _)| kind), limits.clock.monotonic_micros());
        Some(self.answered(shared, &leased, &owed, kind, now))
    }

    /// Takes over what was leased, and takes from it what this request wants.
    fn answered(
        &mut self,
        shared: &Shared,
        leased: &Leased,
        owed: &[Owed],
        kind: Option<Kind>,
        now: i64,
    ) -> Result<(), Limited> {
        for ((stop, drawn), owed) in self.stops.iter().flatten().zip(&leased.draws).zip(owed) {
            stop.bucket.leased(stop.taking.rate, *drawn, *owed, now);
        }
        if let (Some(kind), Some(held)) = (kind, leased.holds.first()) {
            self.tenant.leased(kind, *held);
        }
        let mut missing = None;
        for stop in self.stops.iter_mut().flatten().filter(|stop| stop.taken.is_none()) {
            if leased.granted {
                stop.taken = Some(Source::Leased);
                let level = stop.bucket.take_granted(stop.taking, now);
                note(&mut self.standing, stop.taking, level);
            } else if let Some(wait) = stop.bucket.is_empty(stop.taking.rate, now) {
                missing = missing.or(Some(limited(stop.taking, wait)));
            }
        }
        match (leased.granted, self.wanted.filter(|_| self.place.is_none()), missing) {
            (true, Some(wanted), _) => self.place = Some(self.tenant.take_granted(wanted.scope)),
            (true, None, _) => {}
            (false, _, Some(missing)) => return Err(missing),
            (false, Some(wanted), None) => {
                let others = leased.holds.iter().any(|held| held.total > held.leased);
                if others && self.tenant.may_recall(now, RECALL) {
                    shared.recall(self.tenant.id);
                }
                return Err(wanted.limited());
            }
            (false, None, None) => return Err(UNAVAILABLE),
        }
        Ok(())
    }

    /// What the request was let in with.
    pub(super) fn admitted(mut self) -> Admission {
        self.stops = Default::default();
        Admission { standing: self.standing, place: self.place.take() }
    }

    /// The place that was wanted.
    pub(super) fn into_place(mut self) -> Option<Place> {
        self.place.take()
    }
}

/// Keeps what is said of the emptiest bucket.
fn note(standing: &mut Standing, taking: Taking, level: Level) {
    if taking.scope != Scope::Bytes && level.remaining < standing.remaining {
        let Level { remaining, reset } = level;
        *standing = Standing { limit: taking.rate.burst, remaining, reset };
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        for stop in self.stops.iter().flatten() {
            if let Some(source) = stop.taken {
                stop.bucket.put_back(stop.taking.amount, source);
            }
        }
    }
}

/// A request that waits.
struct Waiting {
    buckets: Vec<Arc<Bucket>>,
    place: Option<(Arc<Tenant>, Scope)>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.buckets.iter().for_each(|bucket| bucket.wait(false));
        self.place.iter().for_each(|(tenant, scope)| tenant.wait(*scope, false));
    }
}

/// Places that were asked for and that no answer came for yet.
struct Unsure(Option<Arc<Tenant>>);

impl Unsure {
    fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for Unsure {
    fn drop(&mut self) {
        if let Some(tenant) = &self.0 {
            tenant.queue(false);
        }
    }
}
