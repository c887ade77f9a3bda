//! Price versions: whether they are as they were published, and what calls cost by them.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::report::{Check, Report, holds};
use crate::db::Tx;
use crate::db::ledger::checks::{self, CallFacts};
use crate::db::price_versions::Row;
use crate::error::Result;
use crate::prices::{History, Measured, PriceVersion, Terms};
use crate::telemetry::labels::{Label, Outcome};

/// Plans whose prices are kept at hand.
const KEPT: usize = 64;

/// Checks every price version.
pub(super) async fn verify(tx: &mut Tx, report: &mut Report) -> Result<()> {
    let mut last = (String::new(), 0);
    loop {
        let page = checks::versions(tx, (&last.0, last.1)).await?;
        if page.is_empty() {
            return Ok(());
        }
        for row in page {
            let expected = if last.0 == row.plan.as_str() { last.1 + 1 } else { 1 };
            report.add(Check::Versions, version(&row, expected));
            last = (row.plan.to_string(), row.number);
        }
    }
}

fn version(row: &Row, number: i64) -> Result<(), String> {
    let id = row.id;
    holds(row.number == number, || {
        format!("{id}: number {} of plan {} where {number} comes next", row.number, row.plan)
    })?;
    let found = HEXLOWER.encode(digest(&SHA256, row.terms.as_bytes()).as_ref());
    holds(found == row.digest, || format!("{id}: its terms do not fit its digest"))?;
    let terms: Terms = serde_json::from_str(&row.terms)
        .map_err(|error| format!("{id}: its terms cannot be read: {error}"))?;
    terms.validate().map_err(|error| format!("{id}: {error}"))
}

/// The prices of plans, as far as they can be read.
#[derive(Default)]
pub(super) struct Book(HashMap<String, Arc<History>>);

impl Book {
    pub(super) async fn of(&mut self, tx: &mut Tx, plan: &str) -> Result<Arc<History>> {
        if let Some(known) = self.0.get(plan) {
            return Ok(known.clone());
        }
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        let rows = checks::versions_of(tx, plan).await?;
        let history = Arc::new(History::new(rows.into_iter().filter_map(readable).collect()));
        self.0.insert(plan.to_owned(), history.clone());
        Ok(history)
    }
}

/// A version, whether or not its terms are those that were published: that is for [`verify`] to say.
fn readable(row: Row) -> Option<Arc<PriceVersion>> {
    let terms = serde_json::from_str(&row.terms).ok()?;
    let Row { id, plan, number, effective_at, published_at, published_by, digest, .. } = row;
    Some(Arc::new(PriceVersion { id, plan, number, effective_at, published_at, published_by, terms, digest }))
}

/// Whether the charge of a call is what these prices say. Tools that are free by themselves cost nothing under any prices.
pub(super) fn rate(
    call: &CallFacts,
    plan: &str,
    history: &History,
    free: &[(&str, &str)],
) -> Result<(), String> {
    let id = call.id;
    let Some(named) = call.price_version_id else {
        return holds(call.credits.is_zero(), || format!("{id}: {} without a price version", call.credits));
    };
    let known = history.versions().iter().find(|version| version.id == named);
    let version = known.ok_or_else(|| format!("{id}: plan {plan} has no readable price version {named}"))?;
    let in_force = history.at(call.started_at).map(|version| version.id);
    holds(in_force == Some(named), || format!("{id}: {named} was not in force at {}", call.started_at))?;
    let expected = outcome(&call.outcome).map_or_else(Default::default, |outcome| {
        let whole = |count: i64| u64::try_from(count).unwrap_or(0);
        let measured = Measured {
            outcome,
            result_bytes: whole(call.result_bytes),
            duration_us: whole(call.duration_us),
        };
        let price = version.terms.price_of(&call.server, &call.tool);
        price.map(|price| price.charge(measured)).unwrap_or_default()
    });
    let is_free = call.credits.is_zero()
        && call.draws.is_none()
        && free.contains(&(call.server.as_str(), call.tool.as_str()));
    holds(is_free || call.credits == expected, || {
        format!("{id}: charged {}, where {named} says {expected}", call.credits)
    })
}

/// The outcome of this name. None for words of rows that are never charged, such as replays.
pub(super) fn outcome(text: &str) -> Option<Outcome> {
    Outcome::ALL.iter().copied().find(|outcome| outcome.text() == text)
}
