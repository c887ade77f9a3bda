//! The calls of a tenant, in the order in which they began: each by itself, and what all of them together say of slabs, keys
//! and days.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::report::{Check, Report, holds};
use super::sources::{self, Drawn};
use super::sums::Days;
use super::{Scope, prices};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::Tx;
use crate::db::ledger::checks::{self, CallFacts, CorrectionFacts, PeriodFacts, SlabFacts};
use crate::error::Result;
use crate::id::{CallId, PeriodId, SlabId};

/// Keys that are remembered before old ones are looked for.
const KEYS: usize = 65_536;
/// Slabs that are remembered from one page to the next.
const SLABS: usize = 8192;

/// One walk over a tenant's calls.
pub(super) struct Walk<'a> {
    scope: &'a Scope<'a>,
    periods: &'a [PeriodFacts],
    /// The first period that ends after the call that was looked at last.
    next: usize,
    /// What calls drew, by period; of periods that are over it has been compared.
    drawn: HashMap<PeriodId, Drawn>,
    /// What draws have to fit. Only slabs of calls of one page and what came shortly before.
    slabs: HashMap<SlabId, SlabFacts>,
    corrections: HashMap<PeriodId, Vec<CorrectionFacts>>,
    /// What was taken back of calls that were not looked at yet.
    taken_back: HashMap<CallId, Vec<CorrectionFacts>>,
    keys: Keys,
    days: Days,
}

impl<'a> Walk<'a> {
    pub(super) async fn new(tx: &mut Tx, scope: &'a Scope<'a>, periods: &'a [PeriodFacts]) -> Result<Self> {
        let mut corrections = HashMap::new();
        let mut taken_back = HashMap::<CallId, Vec<CorrectionFacts>>::new();
        for period in periods {
            let found = checks::corrections(tx, period.id).await?;
            for correction in found.iter().filter(|found| found.kind == "not_released") {
                if let Some(call) = correction.call_id {
                    taken_back.entry(call).or_default().push(correction.clone());
                }
            }
            corrections.insert(period.id, found);
        }
        Ok(Self {
            days: Days::read(tx, scope).await?,
            scope,
            periods,
            next: 0,
            drawn: HashMap::new(),
            slabs: HashMap::new(),
            corrections,
            taken_back,
            keys: Keys::default(),
        })
    }

    /// Looks at every call, and then at what they add up to.
    pub(super) async fn run(
        mut self,
        tx: &mut Tx,
        book: &mut prices::Book,
        report: &mut Report,
    ) -> Result<()> {
        let mut after = (Timestamp::from_micros(i64::MIN), String::new());
        loop {
            let page = checks::calls(tx, self.scope.tenant, (after.0, &after.1)).await?;
            let Some(last) = page.last() else { break };
            after = (last.started_at, last.id.to_string());
            let draws: Vec<_> = page.iter().map(draws_of).collect();
            self.look_up(tx, &draws).await?;
            for (call, draws) in page.iter().zip(draws) {
                self.periods_before(tx, call.started_at, report).await?;
                self.call(tx, book, (call, draws), report).await?;
            }
        }
        self.periods_before(tx, Timestamp::from_micros(i64::MAX), report).await?;
        self.days.finish(tx, self.scope, report).await?;
        rest(self.scope, &self.corrections, &self.taken_back, report);
        Ok(())
    }

    /// Compares slabs of periods that are over at this instant.
    async fn periods_before(&mut self, tx: &mut Tx, at: Timestamp, report: &mut Report) -> Result<()> {
        while let Some(period) = self.periods.get(self.next).filter(|period| period.ends_at <= at) {
            self.next += 1;
            let drawn = self.drawn.remove(&period.id).unwrap_or_default();
            if self.scope.is_whole(period.starts_at) {
                let corrections = self.corrections.get(&period.id).map_or(&[][..], Vec::as_slice);
                sources::slabs(tx, period.id, corrections, drawn, report).await?;
            }
        }
        Ok(())
    }

    /// Reads the slabs that calls of a page drew from.
    async fn look_up(&mut self, tx: &mut Tx, draws: &[Draws]) -> Result<()> {
        if self.slabs.len() > SLABS {
            self.slabs.clear();
        }
        let all = draws.iter().flat_map(|draws| draws.iter().flatten()).map(|(slab, _)| *slab);
        let unknown: BTreeSet<_> = all.filter(|slab| !self.slabs.contains_key(slab)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<_> = unknown.into_iter().collect();
        let found = checks::slabs(tx, &unknown, self.scope.is_sqlite).await?;
        self.slabs.extend(found.into_iter().map(|slab| (slab.id, slab)));
        Ok(())
    }

    async fn call(
        &mut self,
        tx: &mut Tx,
        book: &mut prices::Book,
        (call, draws): (&CallFacts, Draws),
        report: &mut Report,
    ) -> Result<()> {
        let never = !matches!(call.outcome.as_str(), "ok" | "tool_error");
        report.add(
            Check::Uncharged,
            holds(!never || call.credits.is_zero(), || {
                format!("{}: charged {} although it ended with {}", call.id, call.credits, call.outcome)
            }),
        );
        report.add(Check::Parts, parts(call));
        if let Some(id) = call.period_id {
            let period = self.periods.iter().find(|period| period.id == id);
            report.add(Check::InPeriod, in_period(call, id, period));
            if let Some(period) = period {
                let history = book.of(tx, &period.plan).await?;
                report.add(Check::Rates, prices::rate(call, &period.plan, &history, self.scope.free));
            }
        } else if call.price_version_id.is_some() {
            report.add(Check::Rates, Err(format!("{}: names prices, but no period", call.id)));
        }
        let taken_back = self.taken_back.remove(&call.id).unwrap_or_default();
        if call.credits.is_positive() || call.draws.is_some() {
            report.add(Check::Draws, self.draws(call, draws.as_deref()));
        }
        if !taken_back.is_empty() {
            report.add(Check::Corrections, correction(call, draws.as_deref(), &taken_back, self.scope.now));
        }
        if let (Some(key), Some(_)) = (&call.idempotency_key, call.settled_at)
            && !matches!(&*call.outcome, "replay" | "not_released")
            && taken_back.is_empty()
        {
            report.add(Check::Keys, self.keys.add(call, key, self.scope.replay));
        }
        self.days.count(tx, self.scope, (call, &taken_back), report).await
    }

    /// Whether the draws of a call fit; and adds them to what their slabs should say.
    fn draws(
        &mut self,
        call: &CallFacts,
        draws: Option<&[(SlabId, i64)]>,
    ) -> std::result::Result<(), String> {
        let id = call.id;
        let Some(draws) = draws else {
            return Err(format!("{id}: its draws cannot be read"));
        };
        let mut parts = HashMap::<&str, Credits>::new();
        let mut wrong = None;
        for (slab, micros) in draws {
            let credits = Credits::from_micros(*micros);
            if let Some(period) = call.period_id {
                *self.drawn.entry(period).or_default().entry(*slab).or_default() += credits;
            }
            let Some(facts) = self.slabs.get(slab) else {
                // Slabs of periods that are final go with the calls below the floor.
                if self.scope.is_whole(call.started_at) {
                    wrong = wrong.or(Some(format!("{id}: draws from {slab}, which is not there")));
                }
                continue;
            };
            *parts.entry(facts.kind.as_deref().unwrap_or("overage")).or_default() += credits;
            let fits = facts.tenant_id == self.scope.tenant
                && Some(facts.period_id) == call.period_id
                && Some(facts.meter_id) == call.meter_id
                && credits.is_positive();
            if !fits {
                wrong = wrong.or(Some(format!("{id}: draws from {slab}, which it cannot draw from")));
            }
        }
        let all: Credits = draws.iter().map(|(_, micros)| Credits::from_micros(*micros)).sum();
        holds(all == call.credits, || format!("{id}: draws {all}, where it was charged {}", call.credits))?;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let known = draws.iter().all(|(slab, _)| self.slabs.contains_key(slab));
        let of = |kind: &str| parts.get(kind).copied().unwrap_or_default();
        let drawn = (of("included"), of("promotional"), of("prepaid"), of("overage"));
        holds(!known || drawn == (call.included, call.promotional, call.prepaid, call.overage), || {
            format!("{id}: its parts are not those of the slabs that it draws from")
        })
    }
}

/// What a call drew from which slab; none where that cannot be read.
type Draws = Option<Vec<(SlabId, i64)>>;

fn draws_of(call: &CallFacts) -> Draws {
    match &call.draws {
        None => Some(Vec::new()),
        Some(text) => serde_json::from_str(text).ok(),
    }
}

fn parts(call: &CallFacts) -> std::result::Result<(), String> {
    let parts = [call.included, call.promotional, call.prepaid, call.overage];
    let sum: Credits = parts.into_iter().sum();
    holds(sum == call.credits, || {
        format!("{}: its parts add up to {sum}, where it was charged {}", call.id, call.credits)
    })?;
    holds(parts.iter().all(|part| *part >= Credits::ZERO), || {
        format!("{}: a part of its charge is less than nothing", call.id)
    })?;
    let whole = call.settled_at.is_some() && call.period_id.is_some() && call.meter_id.is_some();
    holds(whole || call.credits.is_zero(), || {
        format!("{}: charged {} without settlement, period or meter", call.id, call.credits)
    })
}

fn in_period(
    call: &CallFacts,
    id: PeriodId,
    period: Option<&PeriodFacts>,
) -> std::result::Result<(), String> {
    let Some(period) = period else {
        return Err(format!("{}: names the period {id}, which its tenant does not have", call.id));
    };
    let within = period.starts_at <= call.started_at && call.started_at < period.ends_at;
    holds(within, || format!("{}: began at {}, which is not in {id}", call.id, call.started_at))
}

/// What was taken back of a call has to be all that it drew. It is taken back draw by draw.
fn correction(
    call: &CallFacts,
    draws: Option<&[(SlabId, i64)]>,
    taken_back: &[CorrectionFacts],
    now: Timestamp,
) -> std::result::Result<(), String> {
    let mut drawn: Vec<_> = draws.unwrap_or_default().to_vec();
    let slab = |k: &CorrectionFacts| k.slab_id.map(|slab| (slab, -k.credits.micros()));
    let mut back: Vec<_> = taken_back.iter().filter_map(slab).collect();
    if taken_back.iter().any(|k| k.at.plus(sources::GRACE) > now) {
        drawn.retain(|draw| back.contains(draw));
    }
    drawn.sort_unstable();
    back.sort_unstable();
    holds(back.len() == taken_back.len() && drawn == back, || {
        let back: Credits = taken_back.iter().map(|k| -k.credits).sum();
        format!("{}: {back} were taken back ({}), which is not what it drew", call.id, taken_back[0].id)
    })?;
    holds(taken_back.iter().all(|k| Some(k.period_id) == call.period_id), || {
        format!("{}: was taken back ({}) in another period", call.id, taken_back[0].id)
    })
}

/// Corrections that no call was there for.
fn rest(
    scope: &Scope<'_>,
    all: &HashMap<PeriodId, Vec<CorrectionFacts>>,
    taken_back: &HashMap<CallId, Vec<CorrectionFacts>>,
    report: &mut Report,
) {
    let missing = taken_back.iter().filter(|(call, _)| !scope.floor.may_lack(**call));
    for correction in missing.flat_map(|(_, corrections)| corrections) {
        let text = format!("{}: takes back a call that is not there", correction.id);
        report.add(Check::Corrections, Err(text));
    }
    for correction in all.values().flatten() {
        let whole = match correction.kind.as_str() {
            "not_released" => correction.call_id.is_some(),
            _ => {
                correction.grant_id.is_some()
                    && correction.booked == "source"
                    && correction.credits.is_positive()
            }
        };
        report.add(
            Check::Corrections,
            holds(whole, || format!("{}: is no whole {}", correction.id, correction.kind)),
        );
    }
}

/// When keys were last settled, as far as that is not too long ago.
#[derive(Default)]
struct Keys {
    last: HashMap<(u64, String), Timestamp>,
    /// How many there may be before old ones are looked for.
    room: usize,
}

impl Keys {
    fn add(
        &mut self,
        call: &CallFacts,
        key: &str,
        replay: std::time::Duration,
    ) -> std::result::Result<(), String> {
        if self.last.len() >= self.room.max(KEYS) {
            self.last.retain(|_, at| at.plus(replay) > call.started_at);
            self.room = self.last.len() * 2;
        }
        let mut credential = DefaultHasher::new();
        call.credential.hash(&mut credential);
        match self.last.entry((credential.finish(), key.to_owned())) {
            Entry::Vacant(entry) => {
                entry.insert(call.started_at);
                Ok(())
            }
            Entry::Occupied(mut entry) => {
                let before = entry.insert(call.started_at);
                holds(before.plus(replay) <= call.started_at, || {
                    format!("{}: was settled again under the key of the call of {before}", call.id)
                })
            }
        }
    }
}
