//! Daily sums: whether they are those of the calls, counted here once more and not by the database.

use std::collections::{BTreeSet, HashMap};

use jiff::civil::Date;

use super::Scope;
use super::report::{Check, Report, holds};
use crate::credits::Credits;
use crate::db::Tx;
use crate::db::ledger::checks::{self, CallFacts, CorrectionFacts};
use crate::db::usage_days::{self, Sums};
use crate::error::Result;
use crate::ledger::days;

/// Credential, server and tool.
type Group = (String, String, String);

/// Counts the calls of one day after the other.
pub(super) struct Days {
    /// Days whose sums should be right.
    rolled: BTreeSet<Date>,
    /// Of these, the ones that have sums and were not compared yet.
    waiting: BTreeSet<Date>,
    day: Date,
    sums: HashMap<Group, Sums>,
}

impl Days {
    pub(super) async fn read(tx: &mut Tx, scope: &Scope<'_>) -> Result<Self> {
        let rolled = usage_days::rolled_in(tx, ("0000", "9999-12-31")).await?;
        let good = rolled.iter().filter(|day| day.stale.is_none());
        let good = good.filter_map(|day| day.day.parse::<Date>().ok());
        let rolled: BTreeSet<_> = good.filter(|day| scope.floor.has_all_of(*day)).collect();
        let summed = checks::summed_days(tx, scope.tenant).await?;
        let waiting = summed.iter().filter_map(|day| day.parse().ok()).filter(|day| rolled.contains(day));
        Ok(Self { waiting: waiting.collect(), rolled, day: Date::MIN, sums: HashMap::new() })
    }

    /// One more call, which began no earlier than those before, and what was taken back of it.
    pub(super) async fn count(
        &mut self,
        tx: &mut Tx,
        scope: &Scope<'_>,
        (call, taken_back): (&CallFacts, &[CorrectionFacts]),
        report: &mut Report,
    ) -> Result<()> {
        let day = days::day_of(call.started_at);
        if day != self.day {
            self.compare_before(tx, scope, day, report).await?;
            self.day = day;
        }
        let group = (call.credential.clone(), call.server.clone(), call.tool.clone());
        *self.sums.entry(group).or_default() += sums_of(call, taken_back);
        Ok(())
    }

    /// Compares the days that have not been yet.
    pub(super) async fn finish(mut self, tx: &mut Tx, scope: &Scope<'_>, report: &mut Report) -> Result<()> {
        self.compare_before(tx, scope, Date::MAX, report).await
    }

    async fn compare_before(
        &mut self,
        tx: &mut Tx,
        scope: &Scope<'_>,
        day: Date,
        report: &mut Report,
    ) -> Result<()> {
        let sums = std::mem::take(&mut self.sums);
        if !sums.is_empty() && self.rolled.contains(&self.day) {
            self.waiting.remove(&self.day);
            compare(tx, scope, self.day, sums, report).await?;
        }
        while let Some(empty) = self.waiting.first().copied().filter(|waiting| *waiting < day) {
            self.waiting.remove(&empty);
            compare(tx, scope, empty, HashMap::new(), report).await?;
        }
        Ok(())
    }
}

async fn compare(
    tx: &mut Tx,
    scope: &Scope<'_>,
    day: Date,
    mut sums: HashMap<Group, Sums>,
    report: &mut Report,
) -> Result<()> {
    let text = day.to_string();
    for row in usage_days::kept_rows(tx, scope.tenant, &text).await? {
        let group = (row.credential, row.server, row.tool);
        let counted = sums.remove(&group).unwrap_or_default();
        let verdict = holds(counted == row.sums, || different(scope, &text, &group, &row.sums, &counted));
        report.add(Check::Sums, verdict);
    }
    for (group, counted) in sums {
        report.add(Check::Sums, Err(different(scope, &text, &group, &Sums::default(), &counted)));
    }
    Ok(())
}

fn different(scope: &Scope<'_>, day: &str, group: &Group, says: &Sums, counted: &Sums) -> String {
    let (credential, server, tool) = group;
    format!(
        "{} {day} {credential} {server}/{tool}: says {} calls and {} credits, where calls say {} and {}{}",
        scope.tenant,
        says.calls,
        says.credits,
        counted.calls,
        counted.credits,
        if (says.calls, says.credits) == (counted.calls, counted.credits) {
            "; other sums differ"
        } else {
            ""
        },
    )
}

fn sums_of(call: &CallFacts, taken_back: &[CorrectionFacts]) -> Sums {
    let is_call = !matches!(call.outcome.as_str(), "input_required" | "replay");
    let failed = is_call && !matches!(call.outcome.as_str(), "ok" | "denied");
    let back = |kind: Option<&str>| -> Credits {
        let of_kind = taken_back.iter().filter(|k| kind.is_none_or(|kind| kind_of(k) == kind));
        of_kind.map(|k| k.credits).sum()
    };
    Sums {
        calls: i64::from(is_call),
        charged: i64::from(call.credits.is_positive()) - i64::from(!taken_back.is_empty()),
        failed: i64::from(failed),
        credits: call.credits + back(None),
        included: call.included + back(Some("included")),
        promotional: call.promotional + back(Some("promotional")),
        prepaid: call.prepaid + back(Some("prepaid")),
        overage: call.overage + back(Some("overage")),
        request_bytes: call.request_bytes,
        result_bytes: call.result_bytes,
        duration_us: call.duration_us,
    }
}

fn kind_of(correction: &CorrectionFacts) -> &str {
    match correction.grant_id {
        None => "overage",
        Some(_) => correction.grant_kind.as_deref().unwrap_or(""),
    }
}
