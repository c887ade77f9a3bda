//! Objects as Stripe's API has them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use stripe_client::{RequestBuilder, StripeMethod};

use super::objects::{
    Line, Page, RawCharge, RawCheckout, RawCustomer, RawDispute, RawInvoice, RawSubscription,
};
use super::{Current, Found, Source, Subject};
use crate::billing::stripe::{Stripe, StripeError};
use crate::db::stripe_events::ObjectKind;

/// Lines of an invoice that are asked for at once, the most that Stripe gives. <https://docs.stripe.com/api/pagination>
const LINES: u32 = 100;
/// Pages of them that are read.
const MOST_PAGES: usize = 100;

/// An account at Stripe.
pub struct Account {
    stripe: Stripe,
    /// The product of metered usage.
    metered: String,
}

#[derive(Serialize)]
struct Cursor<'a> {
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    starting_after: Option<&'a str>,
}

#[derive(Serialize)]
struct OfCharge<'a> {
    charge: &'a str,
    limit: u32,
}

#[derive(Serialize)]
struct OfCustomer<'a> {
    customer: &'a str,
    limit: u32,
}

/// A customer's subscriptions that have not ended, newest first, as Stripe has them now; at most so many.
/// <https://docs.stripe.com/api/subscriptions/list>
pub(in crate::billing) async fn subscriptions(
    stripe: &Stripe,
    customer: &str,
    limit: u32,
) -> Result<Vec<Current>, StripeError> {
    let query = OfCustomer { customer, limit };
    let request = RequestBuilder::new(StripeMethod::Get, "/subscriptions").query(&query);
    let page: Page<RawSubscription> = stripe.read_json(request).await?;
    Ok(page.data.into_iter().filter_map(RawSubscription::current).collect())
}

impl Account {
    /// This account. `metered` is the product of metered usage there.
    #[must_use]
    pub fn new(stripe: Stripe, metered: String) -> Self {
        Self { stripe, metered }
    }

    /// What is at a path now; nothing, where Stripe says that nothing is.
    async fn get<T: DeserializeOwned>(&self, path: String) -> Result<Option<T>, String> {
        match self.stripe.read_json(RequestBuilder::new(StripeMethod::Get, path)).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// An invoice and all its lines. Those of one that is final do not change any more; those of a draft may while they are read, and
    /// then another event says so.
    async fn invoice(&self, id: &str) -> Result<Found, String> {
        let Some(mut invoice) = self.get::<RawInvoice>(format!("/invoices/{id}")).await? else {
            return Ok(Found::Nothing);
        };
        let mut lines: Vec<Line> = std::mem::take(&mut invoice.lines.data);
        if invoice.lines.has_more {
            lines = self.lines(invoice.id()).await?;
        }
        Ok(invoice.kept(&lines, &self.metered))
    }

    /// A charge and how its newest dispute stands, which it does not say itself.
    async fn charge(&self, id: &str) -> Result<Found, String> {
        let Some(charge) = self.get::<RawCharge>(format!("/charges/{id}")).await? else {
            return Ok(Found::Nothing);
        };
        if !charge.disputed {
            return Ok(charge.kept(None));
        }
        let query = OfCharge { charge: id, limit: 1 };
        let request = RequestBuilder::new(StripeMethod::Get, "/disputes").query(&query);
        let page: Page<RawDispute> =
            self.stripe.read_json(request).await.map_err(|error| error.to_string())?;
        Ok(charge.kept(page.data.into_iter().next()))
    }

    async fn lines(&self, invoice: &str) -> Result<Vec<Line>, String> {
        let mut lines: Vec<Line> = Vec::new();
        for _ in 0..MOST_PAGES {
            let cursor = Cursor { limit: LINES, starting_after: lines.last().map(|line| line.id.as_str()) };
            let request =
                RequestBuilder::new(StripeMethod::Get, format!("/invoices/{invoice}/lines")).query(&cursor);
            let page: Page<Line> = self.stripe.read_json(request).await.map_err(|error| error.to_string())?;
            let is_over = !page.has_more || page.data.is_empty();
            lines.extend(page.data);
            if is_over {
                return Ok(lines);
            }
        }
        Err(format!("{invoice} has more than {} lines", lines.len()))
    }
}

impl Source for Account {
    async fn fetch(&self, Subject { kind, id }: &Subject) -> Result<Found, String> {
        let nothing = Found::Nothing;
        Ok(match kind {
            ObjectKind::Subscription => {
                self.get(format!("/subscriptions/{id}")).await?.map_or(nothing, RawSubscription::kept)
            }
            ObjectKind::Invoice => self.invoice(id).await?,
            ObjectKind::Checkout => {
                self.get(format!("/checkout/sessions/{id}")).await?.map_or(nothing, RawCheckout::kept)
            }
            ObjectKind::Charge => self.charge(id).await?,
            ObjectKind::Customer => {
                self.get(format!("/customers/{id}")).await?.map_or(nothing, RawCustomer::kept)
            }
            ObjectKind::Meter | ObjectKind::Other => Found::Nobodys,
        })
    }
}
