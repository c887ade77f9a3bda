//! Working the inbox off: ask for the object that events are about, put it into the mirror, let follow what follows, and the
//! events are done.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

use super::Inbox;
use crate::billing::mirror::{self, Found, Source, Subject};
use crate::clock::Timestamp;
use crate::db::storable;
use crate::db::stripe_events::{self as rows, EventState, ObjectKind, Outcome};
use crate::error::{Error, Result};

/// Objects that are looked up at once, and of these, those that are worked on at the same time. Stripe lets 25 requests a second
/// through in a sandbox. <https://docs.stripe.com/rate-limits>
const BATCH: i64 = 100;
const AT_ONCE: usize = 4;
/// How long asking for one object may take, with all its pages.
const PATIENCE: Duration = Duration::from_secs(100);
/// How long an object is claimed: longer than that, and than writing it down; so long others leave it alone when a process dies.
const LEASE: Duration = Duration::from_secs(120);
/// How often events are tried, with waits that double from a second to an hour: for about 18 hours.
const TRIES: i64 = 30;
const LONGEST: Duration = Duration::from_secs(3600);
/// As often is asked again for an object that is not there: somebody deleted it, or we were too quick.
const MISSING_TRIES: i64 = 3;
/// Longest note, in bytes.
const NOTE: usize = 1000;

/// What one round came to, in objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Asked for and written down.
    pub done: usize,
    /// Nothing of ours.
    pub ignored: usize,
    /// Could not be worked on, and are due again later.
    pub retried: usize,
    /// Could not be worked on for the last time.
    pub failed: usize,
    /// Another process was there first, or took over.
    pub lost: usize,
}

/// What working on one object came to.
enum Worked {
    Done,
    Ignored(&'static str),
    InVain(String),
    Missing,
    Lost,
}

impl<S: Source> Inbox<S> {
    /// Works on everything that is due.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Away`]. What Stripe does not answer is none: it is due again later.
    pub async fn round(&self) -> Result<Round> {
        let mut sum = Round::default();
        loop {
            let due = rows::due(&self.db, self.clock.now(), BATCH).await?;
            let work: Vec<BoxFuture<'_, _>> =
                due.into_iter().map(|(kind, id)| self.work_on(Subject { kind, id }).boxed()).collect();
            let rounds: Vec<_> = stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
            let before = sum;
            for round in rounds {
                sum = sum.plus(round?);
            }
            self.measure(self.clock.now()).await?;
            // What others are at is due again when they are done.
            if sum == before || sum.lost > before.lost {
                return Ok(sum);
            }
        }
    }

    /// Works on one object, if nobody else does.
    async fn work_on(&self, subject: Subject) -> Result<Round> {
        let now = self.clock.now();
        let (id, holder) = (subject.id.as_str(), self.holder.as_str());
        let Some(claim) = rows::claim(&self.db, id, holder, (now, now.plus(LEASE))).await? else {
            return Ok(Round { lost: 1, ..Round::default() });
        };
        let tries = rows::take(&self.db, id, claim).await?;
        let worked = match tries.len() {
            // Somebody else was done with them just before.
            0 => Worked::Lost,
            _ => self.mirror(&subject, claim, now).await?,
        };
        let most = tries.iter().copied().max().unwrap_or(0);
        let counts = (most, i64::try_from(tries.len()).unwrap_or(i64::MAX));
        self.finish(&subject, claim, counts, worked).await
    }

    /// Asks for an object and writes down what it is.
    async fn mirror(&self, subject: &Subject, claim: i64, at: Timestamp) -> Result<Worked> {
        if subject.kind == ObjectKind::Meter {
            tracing::error!(
                meter = subject.id,
                "Stripe accepted usage and could not count it; its dashboard says why, and `weir billing reconcile` what is \
                 missing"
            );
            return Ok(Worked::Done);
        }
        let found = match tokio::time::timeout(PATIENCE, self.source.fetch(subject)).await {
            Ok(Ok(found)) => found,
            Ok(Err(why)) => return Ok(Worked::InVain(why)),
            Err(_) => return Ok(Worked::InVain("no complete answer in time".to_owned())),
        };
        let fetched = match found {
            Found::Object(fetched) => fetched,
            Found::Nobodys => return Ok(Worked::Ignored("it has no customer")),
            Found::Nothing => return Ok(Worked::Missing),
        };
        let Some(tenant) = crate::db::mirror::tenant_of(&self.db, fetched.customer()).await? else {
            return Ok(Worked::Ignored("its customer is none of Weir's"));
        };
        let mut tx = self.db.begin().await?;
        if !rows::hold(&mut tx, &subject.id, &self.holder, claim).await? {
            return Ok(Worked::Lost);
        }
        match mirror::put(&mut tx, tenant, &fetched, at).await {
            Ok(()) => tx.commit().await?,
            Err(error) => return in_vain(error),
        }
        match self.follower.follow(tenant, &fetched, at).await {
            Ok(()) => Ok(Worked::Done),
            Err(error) => in_vain(error),
        }
    }

    /// Writes down what became of the events that were taken, and lets go of the object.
    async fn finish(
        &self,
        subject: &Subject,
        claim: i64,
        (tries, events): (i64, i64),
        worked: Worked,
    ) -> Result<Round> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let (round, outcome, word) = match worked {
            Worked::Lost => {
                rows::release(&mut tx, &subject.id, &self.holder, claim).await?;
                tx.commit().await?;
                return Ok(Round { lost: 1, ..Round::default() });
            }
            Worked::Done => (Round { done: 1, ..Round::default() }, ended(EventState::Done, "", now), "done"),
            Worked::Ignored(why) => {
                (Round { ignored: 1, ..Round::default() }, ended(EventState::Ignored, why, now), "ignored")
            }
            Worked::Missing if tries + 1 >= MISSING_TRIES => {
                if rows::hold(&mut tx, &subject.id, &self.holder, claim).await? {
                    mirror::gone(&mut tx, subject, now).await?;
                }
                let outcome = ended(EventState::Ignored, "Stripe has no such object", now);
                (Round { ignored: 1, ..Round::default() }, outcome, "ignored")
            }
            Worked::Missing => vain(tries, "Stripe has no such object", now),
            Worked::InVain(why) => vain(tries, &why, now),
        };
        rows::finish(&mut tx, &subject.id, claim, &outcome).await?;
        rows::release(&mut tx, &subject.id, &self.holder, claim).await?;
        tx.commit().await?;
        self.metrics.events_worked.with_label_values(&[word]).inc_by(u64::try_from(events).unwrap_or(0));
        let (object, kind, why) = (&subject.id, subject.kind, &outcome.note);
        match outcome.state {
            EventState::Failed => {
                tracing::error!(%object, %kind, why, "events are given up; `weir billing events --failed` lists them");
            }
            EventState::New => {
                tracing::info!(%object, %kind, why, "events could not be worked on; trying again")
            }
            EventState::Done | EventState::Ignored => {
                tracing::debug!(%object, %kind, why, "events are worked on")
            }
        }
        Ok(round)
    }
}

/// What an error means: an outage is the same for all objects, anything else is about this one.
fn in_vain(error: Error) -> Result<Worked> {
    if error.is_outage() { Err(error) } else { Ok(Worked::InVain(error.to_string())) }
}

fn ended(state: EventState, why: &str, now: Timestamp) -> Outcome {
    Outcome { state, in_vain: false, due_at: now, note: why.to_owned() }
}

/// One more try in vain.
fn vain(tries: i64, why: &str, now: Timestamp) -> (Round, Outcome, &'static str) {
    let note = storable(why, NOTE);
    if tries + 1 >= TRIES {
        let outcome = Outcome { state: EventState::Failed, in_vain: true, due_at: now, note };
        return (Round { failed: 1, ..Round::default() }, outcome, "failed");
    }
    let doubled =
        Duration::from_secs(1_u64.checked_shl(u32::try_from(tries).unwrap_or(0)).unwrap_or(u64::MAX));
    let due_at = now.plus(doubled.min(LONGEST));
    let outcome = Outcome { state: EventState::New, in_vain: true, due_at, note };
    (Round { retried: 1, ..Round::default() }, outcome, "retried")
}

impl Round {
    fn plus(self, other: Self) -> Self {
        Self {
            done: self.done + other.done,
            ignored: self.ignored + other.ignored,
            retried: self.retried + other.retried,
            failed: self.failed + other.failed,
            lost: self.lost + other.lost,
        }
    }
}
