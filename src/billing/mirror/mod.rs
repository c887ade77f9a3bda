//! The mirror: what Stripe says of subscriptions, invoices, Checkout sessions, charges and customers, asked for whenever something
//! happened to one. What is known of an object is a function of what Stripe says of it now, never of what events said, nor of
//! their order.

mod objects;
pub mod stripe;

use std::future::Future;

use crate::clock::Timestamp;
use crate::db::Tx;
use crate::db::mirror::charges::Charge;
use crate::db::mirror::checkouts::Checkout;
use crate::db::mirror::invoices::Invoice;
use crate::db::mirror::subscriptions::Subscription;
use crate::db::mirror::{charges, checkouts, invoices, subscriptions};
use crate::db::stripe_events::ObjectKind;
use crate::error::Result;
use crate::id::TenantId;

pub use objects::Reference;

/// An object at Stripe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Of which kind.
    pub kind: ObjectKind,
    /// Its id. For a kind that is not asked for, as much as is known.
    pub id: String,
}

/// An object as Stripe says it is now. Those without a customer are nobody's, and have no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// A subscription.
    Subscription(Subscription),
    /// An invoice, over all its lines.
    Invoice(Invoice),
    /// A Checkout session.
    Checkout(Checkout),
    /// A charge.
    Charge(Charge),
    /// A customer.
    Customer(Customer),
}

/// A customer, as far as it is looked at. <https://docs.stripe.com/api/customers/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// `cus_...`.
    pub id: String,
    /// Whether it is deleted, with all its subscriptions, for good.
    pub deleted: bool,
}

impl Fetched {
    /// The customer whose it is.
    #[must_use]
    pub fn customer(&self) -> &str {
        match self {
            Self::Subscription(Subscription { customer, .. })
            | Self::Invoice(Invoice { customer, .. })
            | Self::Checkout(Checkout { customer, .. })
            | Self::Charge(Charge { customer, .. }) => customer,
            Self::Customer(customer) => &customer.id,
        }
    }
}

/// A subscription as it is now, with what Weir noted at it for its changes and the mirror does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// What the mirror keeps.
    pub subscription: Subscription,
    /// What the month that runs is paid for with, where its items have another price already.
    pub paid: Option<Paid>,
}

/// What a month is paid for with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paid {
    /// Until when that is so.
    pub until: Timestamp,
    /// The price of the base fee; nothing, where there was none.
    pub price: Option<String>,
    /// That fee, in the smallest unit of the currency.
    pub amount: i64,
}

/// What came of asking for an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is so.
    Object(Box<Fetched>),
    /// It is there, and nobody's.
    Nobodys,
    /// It is not there.
    Nothing,
}

/// Where objects are asked for.
pub trait Source: Send + Sync {
    /// What an object is now. What it was before this was called never comes back.
    ///
    /// # Errors
    /// A sentence, where that cannot be found out.
    fn fetch(&self, subject: &Subject) -> impl Future<Output = Result<Found, String>> + Send;
}

/// Puts what was fetched in the place of what was known, within the transaction that holds the object.
pub(super) async fn put(tx: &mut Tx, tenant: TenantId, fetched: &Fetched, at: Timestamp) -> Result<()> {
    match fetched {
        Fetched::Subscription(row) => subscriptions::upsert(tx, tenant, row, at).await,
        Fetched::Invoice(row) => invoices::upsert(tx, tenant, row, at).await,
        Fetched::Checkout(row) => checkouts::upsert(tx, tenant, row, at).await,
        Fetched::Charge(row) => charges::upsert(tx, tenant, row, at).await,
        // Of a customer nothing is kept but that it is gone, and that follows.
        Fetched::Customer(_) => Ok(()),
    }
}

/// An object that was known is no longer there: only drafts of invoices go away like that.
pub(super) async fn gone(tx: &mut Tx, subject: &Subject, at: Timestamp) -> Result<()> {
    if subject.kind == ObjectKind::Invoice {
        invoices::gone(tx, &subject.id, at).await?;
    }
    Ok(())
}
