//! What is sold: plans that tenants may take by themselves, and credits.

use serde::Serialize;

use super::Shop;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db;
use crate::error::{Error, Result};
use crate::plans::PlanName;
use crate::prices::{self, Kind, PriceVersion};

/// A plan that tenants may take by themselves. Amounts are in the smallest unit of `billing.currency`.
#[derive(Debug, Clone, Serialize)]
pub struct Offer {
    /// Its name.
    pub plan: PlanName,
    /// How it is paid for.
    pub kind: Kind,
    /// What a month costs, whatever is used.
    pub base_fee: u32,
    /// Credits that a month includes.
    pub included: Credits,
    /// What a credit beyond those costs, as an exact decimal; nothing, where none can be had.
    pub credit_price: Option<String>,
    /// Days for which a first subscription costs nothing.
    pub trial_days: u32,
}

/// Everything that is sold.
#[derive(Debug, Clone, Serialize)]
pub struct Offers {
    /// Three lower-case letters.
    pub currency: String,
    /// By name.
    pub plans: Vec<Offer>,
    /// Credits to be bought at once.
    pub top_ups: Vec<TopUpOffer>,
}

/// Credits that are sold as one.
#[derive(Debug, Clone, Serialize)]
pub struct TopUpOffer {
    /// How many.
    pub credits: Credits,
    /// What they cost.
    pub amount: u32,
}

impl Shop {
    /// What is sold now.
    ///
    /// # Errors
    /// [`Error::Internal`] for prices that are not what was published, [`Error::Database`], [`Error::Away`].
    pub async fn offers(&self) -> Result<Offers> {
        let now = self.clock.now();
        let mut plans = Vec::new();
        for plan in db::price_versions::plans_of(&self.db, now).await? {
            if let Some(version) = version(&self.db, &plan, now).await?.filter(|v| v.terms.self_service) {
                plans.push(self.offer(&version));
            }
        }
        let top_ups = self.config.top_ups.iter();
        let top_ups = top_ups.map(|it| TopUpOffer { credits: it.credits, amount: it.amount }).collect();
        Ok(Offers { currency: self.config.currency.clone(), plans, top_ups })
    }

    fn offer(&self, version: &PriceVersion) -> Offer {
        let terms = &version.terms;
        Offer {
            plan: version.plan.clone(),
            kind: terms.kind,
            base_fee: terms.base_fee,
            included: terms.included,
            credit_price: terms.kind.may_owe().then(|| self.config.credit_price.clone()),
            trial_days: terms.trial_days,
        }
    }

    /// The prices of a plan that a tenant may take by itself.
    pub(super) async fn offered(&self, plan: &PlanName) -> Result<PriceVersion> {
        let version = version(&self.db, plan, self.clock.now()).await?;
        version.filter(|version| version.terms.self_service).ok_or_else(|| {
            Error::Invalid(format!("plan: {plan} is not one that can be taken; GET /billing lists those"))
        })
    }
}

/// The prices of a plan at an instant.
pub(super) async fn version(db: &db::Db, plan: &PlanName, at: Timestamp) -> Result<Option<PriceVersion>> {
    Ok(prices::history(db, plan).await?.at(at).map(|version| PriceVersion::clone(version)))
}
