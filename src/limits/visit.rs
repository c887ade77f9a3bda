//! One request on its way through its limits: all of them, or none.

use std::sync::Arc;

use super::bucket::{Bucket, Taking};
use super::tenant::{Place, Tenant};
use super::values::MOMENT;
use super::{Admission, Level, Limited, Scope, Standing};

/// Buckets that a request goes through at most: credential, tenant, server, tool, bytes.
const MOST: usize = 5;

/// One bucket on the way.
struct Stop {
    taking: Taking,
    bucket: Arc<Bucket>,
    taken: bool,
}

/// A place that is wanted.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// What for.
    pub(super) scope: Scope,
    /// How many the tenant has.
    pub(super) limit: u32,
}

/// A request. What it has taken is given back when this is dropped before the end.
pub(super) struct Visit {
    tenant: Arc<Tenant>,
    stops: [Option<Stop>; MOST],
    wanted: Option<Wanted>,
    place: Option<Place>,
    standing: Standing,
}

impl Visit {
    pub(super) fn new(tenant: Arc<Tenant>, wanted: Option<Wanted>) -> Self {
        let standing = Standing { limit: 0, remaining: u32::MAX, reset: std::time::Duration::ZERO };
        Self { tenant, stops: Default::default(), wanted, place: None, standing }
    }

    /// Adds a bucket. They are tried in this order.
    pub(super) fn through(&mut self, taking: Taking, bucket: Arc<Bucket>) {
        if let Some(free) = self.stops.iter_mut().find(|stop| stop.is_none()) {
            *free = Some(Stop { taking, bucket, taken: false });
        }
    }

    /// Takes everything from the buckets of this process.
    ///
    /// # Errors
    /// What was not there.
    pub(super) fn take_here(&mut self, now: i64) -> Result<(), Limited> {
        for stop in self.stops.iter_mut().flatten() {
            let Taking { scope, rate, .. } = stop.taking;
            let level = stop.bucket.take(stop.taking, now).map_err(|retry_after| Limited {
                scope,
                limit: rate.burst,
                retry_after,
            })?;
            stop.taken = true;
            note(&mut self.standing, stop.taking, level);
        }
        if let Some(Wanted { scope, limit }) = self.wanted {
            let place = self.tenant.take(scope, limit);
            self.place = Some(place.ok_or(Limited { scope, limit, retry_after: MOMENT })?);
        }
        Ok(())
    }

    /// What the request was let in with.
    pub(super) fn admitted(mut self) -> Admission {
        self.stops = Default::default();
        Admission { standing: self.standing, place: self.place.take() }
    }
}

/// Keeps what is said of the emptiest bucket.
fn note(standing: &mut Standing, taking: Taking, level: Level) {
    if taking.scope != Scope::Bytes && level.remaining < standing.remaining {
        let Level { remaining, reset } = level;
        *standing = Standing { limit: taking.rate.burst, remaining, reset };
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        for stop in self.stops.iter().flatten().filter(|stop| stop.taken) {
            stop.bucket.put_back(stop.taking.amount);
        }
    }
}
