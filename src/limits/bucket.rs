//! One bucket, as this process knows it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Level, Scope};
use crate::config::Rate;
use crate::redis::limits::Meter;

/// What one request takes out of a bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taking {
    /// Which limit it is.
    pub(super) scope: Scope,
    /// How much may be taken.
    pub(super) rate: Rate,
    /// How much is: one request, or its bytes.
    pub(super) amount: u32,
}

impl Taking {
    /// Whether more may be taken than is there, as long as anything is: how large a body is nobody can choose as they go.
    fn is_soft(self) -> bool {
        self.scope == Scope::Bytes
    }
}

/// A bucket.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    state: Mutex<Meter>,
}

impl Bucket {
    fn state(&self) -> MutexGuard<'_, Meter> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long until there is something, if there is nothing now.
    pub(super) fn look(&self, rate: Rate, now: i64) -> Option<Duration> {
        let mut meter = self.state();
        meter.drain(rate, now);
        (meter.free() < 1).then(|| meter.wait(rate))
    }

    /// Takes what is there.
    ///
    /// # Errors
    /// How long until there is something.
    pub(super) fn take(&self, taking: Taking, now: i64) -> Result<Level, Duration> {
        let mut meter = self.state();
        meter.drain(taking.rate, now);
        let least = if taking.is_soft() { 1 } else { i64::from(taking.amount) };
        if meter.free() < least {
            return Err(meter.wait(taking.rate));
        }
        meter.charge(taking.amount);
        Ok(meter.level(taking.rate, 0))
    }

    /// Gives back what a request took that was not let in after all.
    pub(super) fn put_back(&self, amount: u32) {
        self.state().forgive(amount);
    }

    /// Notes what was used already.
    pub(super) fn charge(&self, rate: Rate, amount: u32, now: i64) {
        let mut meter = self.state();
        meter.drain(rate, now);
        meter.charge(amount);
    }
}
