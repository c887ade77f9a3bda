//! Price versions: how prices are published, and which of them is in force at an instant.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde_json::json;

use super::Terms;
use crate::audit::{self, Actor, By, Subject};
use crate::clock::{Clock, Timestamp};
use crate::db::invalidations::{self, Kind};
use crate::db::price_versions::{self, Row};
use crate::db::{self, Db, Listed, Page, Tx};
use crate::error::{Error, Result};
use crate::id::PriceVersionId;
use crate::plans::{DEFAULT, PlanName};

/// Prices of a plan from an instant on, until another version takes their place. Never changed, never deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceVersion {
    /// Its id, which every charge names.
    pub id: PriceVersionId,
    /// The plan whose prices these are.
    pub plan: PlanName,
    /// Counts the versions of the plan, from 1.
    pub number: i64,
    /// From when on it is in force.
    pub effective_at: Timestamp,
    /// When it was published.
    pub published_at: Timestamp,
    /// Who published it, as the audit trail has it.
    pub published_by: String,
    /// What it says.
    pub terms: Terms,
    /// SHA-256 of the JSON of its terms, in hexadecimal.
    pub digest: String,
}

impl TryFrom<Row> for PriceVersion {
    type Error = Error;

    /// A row whose terms are not those that were published is refused: nobody may be charged by it.
    fn try_from(row: Row) -> Result<Self> {
        let name = || format!("price version {} of plan {} ({})", row.number, row.plan, row.id);
        if digest_of(&row.terms) != row.digest {
            return Err(Error::Internal(format!("{}: its terms do not fit its digest", name())));
        }
        let terms = serde_json::from_str(&row.terms)
            .map_err(|error| Error::Internal(format!("{}: its terms cannot be read: {error}", name())))?;
        let Row { id, plan, number, effective_at, published_at, published_by, digest, .. } = row;
        Ok(Self { id, plan, number, effective_at, published_at, published_by, terms, digest })
    }
}

fn digest_of(terms: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, terms.as_bytes()).as_ref())
}

/// All price versions of one plan. Without any, the plan charges nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// By the instant from which they are in force, then by number.
    versions: Vec<Arc<PriceVersion>>,
}

impl History {
    /// The history that these versions make, in whatever order they come.
    #[must_use]
    pub fn new(mut versions: Vec<Arc<PriceVersion>>) -> Self {
        versions.sort_by_key(|version| (version.effective_at, version.number));
        Self { versions }
    }

    /// The version in force at this instant: the one that came into force last, of several at once the one with the highest
    /// number. None before the first.
    #[must_use]
    pub fn at(&self, instant: Timestamp) -> Option<&Arc<PriceVersion>> {
        let begun = self.versions.partition_point(|version| version.effective_at <= instant);
        self.versions[..begun].last()
    }

    /// The version that comes into force first.
    #[must_use]
    pub fn first(&self) -> Option<&Arc<PriceVersion>> {
        self.versions.first()
    }

    /// Whether the plan never had prices.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Every version, in the order in which they come into force.
    #[must_use]
    pub fn versions(&self) -> &[Arc<PriceVersion>] {
        &self.versions
    }
}

fn history_of(rows: Vec<Row>) -> Result<History> {
    let versions = rows.into_iter().map(|row| Ok(Arc::new(row.try_into()?)));
    Ok(History::new(versions.collect::<Result<_>>()?))
}

/// The price versions of a plan; none where it has no prices, or is not there.
///
/// # Errors
/// [`Error::Internal`], naming the version whose terms are not those that were published; [`Error::Database`].
pub async fn history(db: &Db, plan: &PlanName) -> Result<History> {
    history_of(price_versions::history(db, plan).await?)
}

/// The same, as a transaction sees it.
pub(crate) async fn history_in(tx: &mut Tx, plan: &PlanName) -> Result<History> {
    history_of(price_versions::history_in(tx, plan).await?)
}

/// One page of a plan's price versions, by number.
///
/// # Errors
/// As of [`history`].
pub async fn list(db: &Db, plan: &PlanName, page: Page<i64>) -> Result<Listed<PriceVersion>> {
    let Listed { rows, more } = price_versions::list(db, plan, page).await?;
    let rows = rows.into_iter().map(PriceVersion::try_from).collect::<Result<_>>()?;
    Ok(Listed { rows, more })
}

/// The plans whose prices change after this instant.
pub(crate) async fn ahead(db: &Db, now: Timestamp) -> Result<Vec<PlanName>> {
    price_versions::plans_ahead(db, now).await
}

/// One price version.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Internal`] where its terms are not those that were published; [`Error::Database`].
pub async fn get(db: &Db, id: PriceVersionId) -> Result<PriceVersion> {
    price_versions::get(db, id).await?.ok_or(Error::NotFound("price version"))?.try_into()
}

/// Publishes prices of a plan, which is made where there is none: in force from `from` on, or as soon as may be. That is at
/// once where nobody is on the plan, else after `lead`, in which every process hears of them. What was published last is not
/// published again unless `from` is given.
///
/// # Errors
/// [`Error::Invalid`] for terms that are none, and for a `from` that is too soon; [`Error::Database`].
pub async fn publish(
    db: &Db,
    clock: &Clock,
    actor: Actor,
    plan: &PlanName,
    terms: &Terms,
    (from, lead): (Option<Timestamp>, Duration),
) -> Result<PriceVersion> {
    terms.validate()?;
    let mut tx = db.begin().await?;
    let made = db::plans::lock_or_make(&mut tx, plan, clock.now()).await?;
    // Not before the plan is locked: versions with higher numbers are published later.
    let by = By { actor, at: clock.now() };
    let before = history_in(&mut tx, plan).await?;
    let last = before.versions().iter().max_by_key(|version| version.number);
    if let Some(same) = last.filter(|last| from.is_none() && last.terms == *terms) {
        return Ok(PriceVersion::clone(same));
    }
    // Who makes a tenant, which is on the default plan at first, does not hold the plan.
    let used = plan.as_str() == DEFAULT || price_versions::in_use(&mut tx, plan, by.at).await?;
    let soonest = if used { by.at.plus(lead) } else { by.at };
    if let Some(from) = from.filter(|from| *from < soonest) {
        return Err(Error::Invalid(format!("from: the soonest is {soonest}, found {from}")));
    }
    if made {
        audit::record(&mut tx, by, "plan.create", Subject::Plan(plan), &json!({ "limits": {} })).await?;
    }
    let text = serde_json::to_string(terms).map_err(|error| Error::Internal(error.to_string()))?;
    let row = Row {
        id: PriceVersionId::new(),
        plan: plan.clone(),
        number: last.map_or(0, |last| last.number) + 1,
        effective_at: from.unwrap_or(soonest),
        published_at: by.at,
        published_by: actor.to_string(),
        digest: digest_of(&text),
        terms: text,
    };
    price_versions::insert(&mut tx, &row).await?;
    let detail = json!({ "version": row.id, "number": row.number, "effective_at": row.effective_at, "digest": row.digest });
    audit::record(&mut tx, by, "plan.publish", Subject::Plan(plan), &detail).await?;
    invalidations::insert(&mut tx, by.at, Kind::Plan, plan.to_string()).await?;
    tx.commit().await?;
    row.try_into()
}
