//! Whether somebody is billed for what tenants may owe. This asks the database.

use std::sync::Arc;

use super::super::report::{Line, Verdict};
use crate::clock::Timestamp;
use crate::config;
use crate::db::tenants::Unsubscribed;
use crate::db::{self, Db};
use crate::error::{Error, Result};
use crate::plans::{self, PlanName};
use crate::prices::{self, PriceVersion};

/// Plans that are read at once.
const PAGE: i64 = 100;
/// Names that a line has of each kind.
const NAMES: usize = 5;

const OWING: &str = "plans that may owe";
const AFTER: &str = "billing.after_plan";

/// Looks at plans and at who is on them. What cannot be read is a line as well: of whatever else is wrong there are others.
pub async fn check(db: &Db, config: &config::Billing, now: Timestamp) -> Vec<Line> {
    let owing = owing(db, now).await.unwrap_or_else(|error| vec![unread(OWING, &error)]);
    let after = after_plan(db, &config.after_plan, now).await.unwrap_or_else(|error| unread(AFTER, &error));
    owing.into_iter().chain([after]).collect()
}

/// The lines where there is no database to ask; why.
#[must_use]
pub fn unchecked(why: &str) -> Vec<Line> {
    let text = format!("not checked, because the database cannot be read: {why}");
    vec![Line::new(Verdict::Look, OWING, text.clone()), Line::new(Verdict::Look, AFTER, text)]
}

fn unread(what: &'static str, error: &Error) -> Line {
    Line::new(Verdict::Look, what, format!("not checked: {error}"))
}

/// Up to [`NAMES`] names of so many, as a list.
struct Named {
    count: usize,
    names: Vec<String>,
}

impl Named {
    fn new() -> Self {
        Self { count: 0, names: Vec::new() }
    }

    fn add(&mut self, count: usize, names: impl IntoIterator<Item = String>) {
        self.count += count;
        let room = NAMES.saturating_sub(self.names.len());
        self.names.extend(names.into_iter().take(room));
    }

    fn list(&self) -> String {
        let more = if self.count > self.names.len() { ", ..." } else { "" };
        format!("{} ({}{more})", self.count, self.names.join(", "))
    }
}

/// What is said of plans on which something may be owed, and of tenants on them of whom nobody collects it.
async fn owing(db: &Db, now: Timestamp) -> Result<Vec<Line>> {
    let (mut owing, mut closed, mut tenants) = (Named::new(), Named::new(), Named::new());
    let mut after = None;
    loop {
        let page = db::plans::priced(db, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        for plan in page {
            let versions = versions(db, &plan, now).await?;
            if !versions.iter().any(|version| version.terms.kind.may_owe()) {
                continue;
            }
            owing.add(1, [plan.to_string()]);
            if !versions.iter().any(|version| version.terms.self_service) {
                closed.add(1, [plan.to_string()]);
            }
            let limit = i64::try_from(NAMES).unwrap_or(i64::MAX);
            let Unsubscribed { count, names } = db::tenants::unsubscribed(db, plan.as_str(), limit).await?;
            tenants.add(usize::try_from(count).unwrap_or(0), names);
        }
    }
    let mut lines = Vec::new();
    if tenants.count > 0 {
        let text = format!(
            "{} on one without a subscription: what they use is counted at Stripe and billed to nobody; let them subscribe \
             (POST /billing/checkout), or put them on a plan of kind free or prepaid (weir tenant set-plan)",
            tenants.list()
        );
        lines.push(Line::new(Verdict::Look, "tenants that may owe", text));
    }
    let (verdict, text) = match (owing.count, closed.count) {
        (0, _) => (Verdict::There, "none is published".to_owned()),
        (_, 0) => (Verdict::There, format!("{}; tenants can subscribe to each", owing.list())),
        _ => (
            Verdict::Look,
            format!(
                "{} of {}: nobody can subscribe, so what is owed there is billed to nobody; publish terms with \
                 self_service, or of kind free or prepaid (weir plan publish)",
                closed.list(),
                owing.list()
            ),
        ),
    };
    lines.push(Line::new(verdict, OWING, text));
    Ok(lines)
}

/// The prices of a plan that are in force, and those that will be.
async fn versions(db: &Db, plan: &PlanName, now: Timestamp) -> Result<Vec<Arc<PriceVersion>>> {
    let history = prices::history(db, plan).await?;
    let current = history.at(now).cloned();
    let ahead = history.versions().iter().filter(|version| version.effective_at > now).cloned();
    Ok(current.into_iter().chain(ahead).collect())
}

/// What is said of the plan on which a tenant is after its subscription.
async fn after_plan(db: &Db, name: &str, now: Timestamp) -> Result<Line> {
    let plan: PlanName = name.parse()?;
    let versions = versions(db, &plan, now).await?;
    let is_there =
        name == plans::DEFAULT || !versions.is_empty() || db::plans::get(db, &plan).await?.is_some();
    let (verdict, text) = if !is_there {
        let text = "there is none of this name, so whoever has cancelled is on the plan default; make it (weir plan set), or name \
                    another";
        (Verdict::Wrong, text)
    } else if versions.is_empty() {
        let text = "has no prices, so whoever has cancelled is charged nothing; publish terms of kind free or prepaid \
                    (weir plan publish), or name another";
        (Verdict::Look, text)
    } else if versions.iter().any(|version| version.terms.is_subscribed()) {
        let text = "costs something that only a subscription pays, and whoever is on it has none; name one of kind free or \
                    prepaid without a base_fee";
        (Verdict::Look, text)
    } else {
        (Verdict::There, "owes nothing")
    };
    Ok(Line::new(verdict, AFTER, format!("{name}: {text}")))
}
