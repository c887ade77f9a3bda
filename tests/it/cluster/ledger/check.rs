//! What the clients of a case were told, against the record of the tool and the books.

use std::collections::{HashMap, HashSet};

use weir::prices::{Measured, Price, Terms};
use weir::telemetry::labels::Outcome;

use super::books::{Books, Call};
use super::play::{Answer, Told};
use super::schedule::Fault;
use super::sums;

/// How much, over everything that was played.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub cases: usize,
    pub calls: usize,
    pub charged: usize,
    pub replayed: usize,
    pub refused: usize,
    pub failed: usize,
    pub faults: usize,
    /// Charged, and nobody was told.
    pub lost: usize,
    /// Charged, and taken back.
    pub corrected: usize,
}

impl Tally {
    /// Both.
    pub fn and(self, other: Self) -> Self {
        Self {
            cases: self.cases + other.cases,
            calls: self.calls + other.calls,
            charged: self.charged + other.charged,
            replayed: self.replayed + other.replayed,
            refused: self.refused + other.refused,
            failed: self.failed + other.failed,
            faults: self.faults + other.faults,
            lost: self.lost + other.lost,
            corrected: self.corrected + other.corrected,
        }
    }
}

/// What the tool says that it did.
#[derive(Default)]
pub struct Record {
    /// What each call worked on.
    begun: HashMap<String, (String, String)>,
    /// How often each call came to its end.
    ended: HashMap<String, usize>,
    /// How often each piece of work did.
    done: HashMap<String, usize>,
}

impl Record {
    /// What stands in this file.
    pub fn read(path: &std::path::Path) -> Self {
        let mut record = Self::default();
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.splitn(4, ' ').map(str::to_owned);
            let mut word = || words.next().expect("a word");
            let (what, tenant, call, piece) = (word(), word(), word(), word());
            if what == "end" {
                *record.ended.entry(call.clone()).or_default() += 1;
                *record.done.entry(piece.clone()).or_default() += 1;
            }
            record.begun.insert(call, (tenant, piece));
        }
        record
    }

    /// How many calls have begun.
    pub fn begun_count(&self) -> usize {
        self.begun.len()
    }
}

/// What is to be looked at.
pub struct Trial<'a> {
    pub books: &'a Books,
    pub record: &'a Record,
    pub told: &'a [Told],
    pub faults: &'a [Fault],
}

impl Trial<'_> {
    /// What is wrong, and how much there was.
    pub fn verdict(&self) -> (Vec<String>, Tally) {
        let mut wrong = Vec::new();
        let mut tally = Tally { calls: self.told.len(), ..Tally::default() };
        for told in self.told {
            match &told.answer {
                Answer::Done { call, credits, replayed, is_error, .. } => {
                    tally.replayed += usize::from(*replayed);
                    self.answered(told, (call, *credits, *is_error), &mut wrong);
                }
                Answer::Refused { .. } => tally.refused += 1,
                Answer::Failed { .. } => tally.failed += 1,
                Answer::Asked(_) | Answer::Broken | Answer::Nowhere | Answer::Left => {}
            }
        }
        let heard: HashSet<&str> = self.told.iter().filter_map(call_of).collect();
        for call in self.books.calls.values() {
            self.rated(call, &mut wrong);
            if call.credits == 0 {
                continue;
            }
            tally.charged += 1;
            self.recorded(call, &mut wrong);
            if self.books.net(call) == 0 {
                tally.corrected += 1;
            } else if !heard.contains(&*call.id) {
                tally.lost += 1;
                self.lost(call, &mut wrong);
            }
        }
        self.keys(&mut wrong);
        (wrong, tally)
    }

    /// What a client was told is in the ledger.
    fn answered(
        &self,
        told: &Told,
        (id, credits, is_error): (&str, Option<i64>, bool),
        wrong: &mut Vec<String>,
    ) {
        let Some(call) = self.books.calls.get(id) else {
            // The last batch of calls that cost nothing may go with its process, or wait too long for its database.
            if credits.unwrap_or(0) > 0 || told.keyed || self.faults.is_empty() {
                wrong.push(format!("{told:?} is not in the ledger"));
            }
            return;
        };
        let outcome = if is_error { "tool_error" } else { "ok" };
        // Arguments that do not fit and prices that are not there are results, too.
        if call.outcome != outcome || call.tenant_id != told.tenant || credits.unwrap_or(0) != call.credits {
            wrong.push(format!("{told:?} is {call:?}"));
        }
        if call.credits != self.books.net(call) {
            wrong.push(format!("{told:?} was taken back: {call:?}"));
        }
    }

    /// A call costs what the prices in force say.
    fn rated(&self, call: &Call, wrong: &mut Vec<String>) {
        let Some(period) = call.period_id.as_ref().map(|id| &self.books.periods[id]) else {
            let within = self.books.periods.values().find(|period| {
                period.tenant_id == call.tenant_id
                    && (period.starts_at..period.ends_at).contains(&call.started_at)
            });
            if call.credits != 0 || (call.tool == "work" && call.is_answer() && within.is_some()) {
                wrong.push(format!("{call:?} is in no period, and {within:?} was there"));
            }
            return;
        };
        if call.started_at < period.starts_at || call.started_at >= period.ends_at {
            wrong.push(format!("{call:?} is not within {period:?}"));
        }
        let Some(version) = self.books.in_force(&period.plan, call.started_at) else {
            wrong.push(format!("{call:?} is charged on a plan without prices: {period:?}"));
            return;
        };
        if call.price_version_id.as_ref() != Some(&version.id) {
            wrong.push(format!("{call:?}: {version:?} was in force, on {}", period.plan));
            return;
        }
        let outcome = match call.outcome.as_str() {
            "ok" => Outcome::Ok,
            "tool_error" => Outcome::ToolError,
            _ => return,
        };
        let terms: Terms = serde_json::from_str(&version.terms).expect("terms");
        let measured = Measured {
            outcome,
            result_bytes: u64::try_from(call.result_bytes).expect("a size"),
            duration_us: u64::try_from(call.duration_us).expect("a time"),
        };
        let price = terms.price_of(&call.server, &call.tool).copied().unwrap_or(Price::default());
        let costs = price.charge(measured).micros();
        if costs != call.credits {
            wrong.push(format!("{call:?} costs {costs}"));
        }
    }

    /// The tool did what is charged, once under this id.
    fn recorded(&self, call: &Call, wrong: &mut Vec<String>) {
        let tenant = self.record.begun.get(&call.id).map(|(tenant, _)| tenant);
        let ended = self.record.ended.get(&call.id).copied().unwrap_or(0);
        if tenant != Some(&call.tenant_id) || ended != 1 {
            wrong.push(format!("{call:?} was done {ended} times, for {tenant:?}"));
        }
    }

    /// Nobody was told of a charge: only where the client left or a process died.
    fn lost(&self, call: &Call, wrong: &mut Vec<String>) {
        let piece = self.record.begun.get(&call.id).map_or("", |(_, piece)| piece);
        let attempts: Vec<_> = self.told.iter().filter(|told| told.piece == piece).collect();
        let left = attempts.iter().any(|told| told.answer == Answer::Left);
        let broke = attempts.iter().any(|told| told.answer == Answer::Broken);
        let killed = self.faults.iter().any(|fault| fault.kills());
        let dead = call.meter_id.as_ref().is_some_and(|id| self.books.closed_meters.contains_key(id));
        if !(left || killed && (broke || dead)) {
            wrong.push(format!("{call:?} was charged, and its client told {attempts:#?}"));
        }
    }

    /// However often a key comes, its call is charged once and has one answer.
    fn keys(&self, wrong: &mut Vec<String>) {
        let mut pieces: HashMap<&str, Vec<&Told>> = HashMap::new();
        for told in self.told.iter().filter(|told| told.keyed) {
            pieces.entry(&told.piece).or_default().push(told);
        }
        let mut charged: HashMap<&str, Vec<&Call>> = HashMap::new();
        for call in self.books.calls.values().filter(|call| self.books.net(call) > 0) {
            if let Some((_, piece)) = self.record.begun.get(&call.id) {
                charged.entry(piece).or_default().push(call);
            }
        }
        for (piece, told) in pieces {
            let mut answers = told.iter().filter_map(|told| match &told.answer {
                Answer::Done { call, credits, content, is_error, .. } => {
                    Some((call, credits, content, is_error))
                }
                _ => None,
            });
            let first = answers.next();
            if answers.any(|other| Some(other) != first) {
                wrong.push(format!("one key, several answers: {told:#?}"));
            }
            let once = told.iter().all(|t| matches!(t.answer, Answer::Done { .. } | Answer::Asked(_)));
            let done = self.record.done.get(piece).copied().unwrap_or(0);
            if done > 1 && once && self.faults.is_empty() {
                wrong.push(format!("{piece} was done {done} times: {told:#?}"));
            }
        }
        for (piece, calls) in charged.iter().filter(|(_, calls)| calls.len() > 1) {
            wrong.push(format!("{piece} was charged more than once: {calls:#?}"));
        }
    }
}

/// Who was refused for want of credits while nothing else of its tenant ran had less than the price, over all processes.
pub fn refusals(books: &Books, probes: &[Told]) -> Vec<String> {
    let (owed, paid) = sums::charged(books);
    let mut wrong = Vec::new();
    for told in probes {
        let Answer::Refused { reason, price, .. } = &told.answer else { continue };
        let span = (told.began.as_micros(), told.ended.as_micros());
        let over = |end: Option<i64>| end.is_some_and(|end| end <= span.1);
        let period = books.periods.values().find(|period| {
            period.tenant_id == told.tenant && period.starts_at <= span.0 && period.ends_at > span.1
        });
        // Between two periods, either counts.
        let Some(period) = period.filter(|_| reason == "exhausted") else { continue };
        let of = |sums: &HashMap<String, i64>, id: &str| sums.get(id).copied().unwrap_or(0);
        let usable = books.grants.values().filter(|grant| {
            grant.tenant_id == told.tenant
                && grant.granted_at <= span.0
                && !over(grant.expires_at)
                && !over(grant.voided_at)
        });
        let granted: i64 =
            usable.map(|grant| grant.granted - grant.expired - grant.voided - of(&paid, &grant.id)).sum();
        let left = period.hard_cap.map(|cap| granted + cap - of(&owed, &period.id));
        if left.is_none_or(|left| left >= *price) {
            wrong.push(format!("{left:?} were left: {told:?}, {period:?}"));
        }
    }
    wrong
}

fn call_of(told: &Told) -> Option<&str> {
    match &told.answer {
        Answer::Done { call, .. } => Some(call),
        _ => None,
    }
}
