//! One bucket, as this process knows it.
//!
//! Alone, the process has the bucket itself. Beside others it has tokens that it leased from the shared one, and knows how
//! that one stood when it was last heard of; without Redis it has a share of the bucket.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Level, Scope};
use crate::config::Rate;
use crate::redis::limits::{Draw, Drawn, Meter, Name};

/// Of a bucket, all replicas together have at most one part in this many ahead of use.
const PARTS: u32 = 8;

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

    fn least(self) -> i64 {
        if self.is_soft() { 1 } else { i64::from(self.amount) }
    }

    /// Tokens that one of so many replicas may have ahead.
    fn spare(self, replicas: u32) -> u32 {
        self.rate.burst / PARTS.saturating_mul(replicas)
    }
}

/// Where the tokens of a request came from, and go to when it is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The bucket itself.
    Own,
    /// What was leased.
    Leased,
    /// The share.
    Share,
}

/// What came of reaching into what was leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// There was enough.
    Got(Level),
    /// There was not; more must be leased.
    Short,
    /// There is none anywhere for so long.
    Empty(Duration),
}

/// Tokens that were used without being leased, as a lease reports them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Owed {
    leased: u32,
    share: u32,
}

#[derive(Debug, Default)]
struct State {
    /// The bucket, or what was last heard of it.
    meter: Meter,
    /// Tokens leased and not used; below 0, used and not leased.
    ahead: i64,
    /// Requests that wait for more of them.
    waiting: u32,
    /// At this rate there is nothing until then, on our clock.
    empty: Option<(Rate, i64)>,
    /// What was taken while Redis was away. The shared bucket hears of it afterwards.
    share: Meter,
    /// The rate of what was charged last.
    charged: Option<Rate>,
}

/// A bucket.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    state: Mutex<State>,
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// The part of a rate that one of so many replicas has.
fn share(rate: Rate, replicas: u32) -> Rate {
    let part = |whole: u32| (whole / replicas.max(1)).max(1);
    Rate { per_second: part(rate.per_second), burst: part(rate.burst) }
}

impl State {
    fn empty_for(&mut self, rate: Rate, now: i64) -> Option<Duration> {
        let (at, until) = self.empty?;
        if at == rate && now < until {
            return Some(Duration::from_micros(u64::try_from(until - now).unwrap_or(0)));
        }
        self.empty = None;
        None
    }

    fn level(&mut self, rate: Rate, now: i64) -> Level {
        self.meter.drain(rate, now);
        self.meter.level(rate, self.ahead)
    }

    /// Gives up what a replica may not have ahead: there are more replicas, or the bucket has become smaller, or who waited
    /// has gone.
    fn trim(&mut self, taking: Taking, replicas: u32) {
        let most = i64::from(taking.spare(replicas)) + i64::from(self.waiting);
        self.ahead = self.ahead.min(most);
    }
}

impl Bucket {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long until there is something, if there is nothing in our own bucket now.
    pub(super) fn look_here(&self, rate: Rate, now: i64) -> Option<Duration> {
        let mut state = self.state();
        state.meter.drain(rate, now);
        (state.meter.free() < 1).then(|| state.meter.wait(rate))
    }

    /// How long until there is something, if nothing in the shared bucket is known to be there now.
    pub(super) fn look_leased(&self, rate: Rate, now: i64) -> Option<Duration> {
        self.state().empty_for(rate, now)
    }

    /// Takes from our own bucket.
    ///
    /// # Errors
    /// How long until there is something.
    pub(super) fn take_here(&self, taking: Taking, now: i64) -> Result<Level, Duration> {
        let meter = &mut self.state().meter;
        take(meter, taking, now).map(|()| meter.level(taking.rate, 0))
    }

    /// Takes from what was leased.
    pub(super) fn take_leased(&self, taking: Taking, replicas: u32, now: i64) -> Reached {
        let mut state = self.state();
        if let Some(wait) = state.empty_for(taking.rate, now) {
            return Reached::Empty(wait);
        }
        state.trim(taking, replicas);
        if state.ahead < i64::from(taking.amount) {
            return Reached::Short;
        }
        state.ahead -= i64::from(taking.amount);
        Reached::Got(state.level(taking.rate, now))
    }

    /// Takes from this replica's share, while Redis is away.
    ///
    /// # Errors
    /// How long until there is something.
    pub(super) fn take_share(&self, taking: Taking, replicas: u32, now: i64) -> Result<Level, Duration> {
        let part = Taking { rate: share(taking.rate, replicas), ..taking };
        let share = &mut self.state().share;
        take(share, part, now).map(|()| share.level(part.rate, 0))
    }

    /// Gives back what a request took that was not let in after all.
    pub(super) fn put_back(&self, amount: u32, source: Source) {
        let mut state = self.state();
        match source {
            Source::Own => state.meter.forgive(amount),
            Source::Leased => state.ahead += i64::from(amount),
            Source::Share => state.share.forgive(amount),
        }
    }

    /// Notes what was used already, from our own bucket.
    pub(super) fn charge_here(&self, rate: Rate, amount: u32, now: i64) {
        let meter = &mut self.state().meter;
        meter.drain(rate, now);
        meter.charge(amount);
    }

    /// Notes what was used already, from what was leased. Says whether the shared bucket has to hear of it.
    pub(super) fn charge_leased(&self, rate: Rate, amount: u32) -> bool {
        let mut state = self.state();
        state.charged = Some(rate);
        state.ahead -= i64::from(amount);
        state.ahead < 0
    }

    /// Notes what was used already, from the share.
    pub(super) fn charge_share(&self, rate: Rate, amount: u32, replicas: u32, now: i64) {
        let meter = &mut self.state().share;
        meter.drain(share(rate, replicas), now);
        meter.charge(amount);
    }

    /// One more, or one less, waits for a lease.
    pub(super) fn wait(&self, waits: bool) {
        let waiting = &mut self.state().waiting;
        *waiting = if waits { *waiting + 1 } else { *waiting - 1 };
    }

    /// What to lease: for everybody who waits where this request is `short`, else what it takes to have enough ahead.
    pub(super) fn draw<'a>(
        &self,
        name: Name<'a>,
        taking: Taking,
        replicas: u32,
        short: bool,
        now: i64,
    ) -> (Draw<'a>, Owed) {
        let mut state = self.state();
        let owed = state.owed(taking.rate, replicas, now);
        let spare = taking.spare(replicas);
        let ahead = u32::try_from(state.ahead).unwrap_or(0);
        let want = match (short, taking.is_soft()) {
            (false, _) => 0,
            (true, true) => taking.amount.saturating_sub(ahead).max(1),
            (true, false) => state.waiting.saturating_sub(ahead).max(1),
        };
        let more = if short || ahead < spare / 2 { spare.saturating_sub(ahead) } else { 0 };
        let draw = Draw {
            name,
            rate: taking.rate,
            owed: owed.leased.saturating_add(owed.share),
            want,
            ahead: more,
            soft: taking.is_soft(),
        };
        (draw, owed)
    }

    /// What to report where nobody waits: bytes that were sent. `None` where there is nothing to report.
    pub(super) fn report<'a>(&self, name: Name<'a>, replicas: u32, now: i64) -> Option<(Draw<'a>, Owed)> {
        let mut state = self.state();
        let rate = state.charged.filter(|_| state.ahead < 0)?;
        let owed = state.owed(rate, replicas, now);
        let owed_in_all = owed.leased.saturating_add(owed.share);
        Some((Draw { name, rate, owed: owed_in_all, want: 0, ahead: 0, soft: true }, owed))
    }

    /// Takes over what a lease brought, and says how the bucket stands now.
    pub(super) fn leased(&self, rate: Rate, drawn: Drawn, owed: Owed, now: i64) {
        let mut state = self.state();
        state.meter = Meter::owing(drawn.debt, now, rate.burst);
        state.ahead += i64::from(drawn.granted) + i64::from(owed.leased);
        state.share.forgive(owed.share);
    }

    /// Takes what was just leased for this request.
    pub(super) fn take_granted(&self, taking: Taking, now: i64) -> Level {
        let mut state = self.state();
        state.empty = None;
        state.ahead -= i64::from(taking.amount);
        state.level(taking.rate, now)
    }

    /// How long until there is something, where the shared bucket was just heard to be empty.
    pub(super) fn is_empty(&self, rate: Rate, now: i64) -> Option<Duration> {
        let mut state = self.state();
        if state.meter.free() >= 1 {
            return None;
        }
        let wait = state.meter.wait(rate);
        state.empty = Some((rate, now.saturating_add(micros(wait))));
        Some(wait)
    }

    /// Gives up what was leased: the bucket that it came from is no more.
    pub(super) fn forget_leased(&self) {
        let mut state = self.state();
        (state.ahead, state.empty) = (state.ahead.min(0), None);
    }
}

impl State {
    /// What the shared bucket has not heard of.
    fn owed(&mut self, rate: Rate, replicas: u32, now: i64) -> Owed {
        if self.share != Meter::default() {
            self.share.drain(share(rate, replicas), now);
        }
        let leased = u32::try_from(self.ahead.saturating_neg().max(0)).unwrap_or(u32::MAX);
        Owed { leased, share: self.share.owed() }
    }
}

fn take(meter: &mut Meter, taking: Taking, now: i64) -> Result<(), Duration> {
    meter.drain(taking.rate, now);
    if meter.free() < taking.least() {
        return Err(meter.wait(taking.rate));
    }
    meter.charge(taking.amount);
    Ok(())
}
