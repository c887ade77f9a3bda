//! The price of what the meter counts, micro-credits: metered, monthly, the same for each. <https://docs.stripe.com/api/prices>
//!
//! A price never changes. Another amount is another price, which takes over the lookup key; subscriptions keep theirs until they
//! are moved.

use stripe_product::price::{
    CreatePrice, CreatePriceRecurring, CreatePriceRecurringInterval, CreatePriceRecurringUsageType,
    ListPrice, UpdatePrice,
};
use stripe_shared::Price;
use stripe_types::Currency;

use super::super::report::{Problem, Verdict};
use super::super::stripe::Key;
use super::{Done, Site};
use crate::config::{Billing as Config, exact_decimal, per_micro};

pub(super) async fn ensure(site: &Site<'_>, meter: &str, product: &str) -> Result<Done, Problem> {
    let name = site.config.credits_name();
    let Config { credit_price, currency, .. } = site.config;
    let amount =
        per_micro(credit_price).ok_or_else(|| "billing.credit_price is no exact decimal".to_owned())?;
    let detail = format!(
        "{credit_price} of the smallest unit of {currency} per credit, {amount} per millionth, as {name}"
    );
    let done = |price: &Price, verdict, detail| Done { id: price.id.as_str().to_owned(), verdict, detail };
    let before = find(site, &name).await?;
    let differences = match &before {
        None => vec!["is not there".to_owned()],
        Some(price) if price.product.id().as_str() != product => {
            return Err(Problem(format!(
                "{} has the lookup key {name} and belongs to the product {}, not to {product}; take the key off it, or set \
                 another billing.prefix",
                price.id.as_str(),
                price.product.id().as_str(),
            )));
        }
        Some(price) => differences(price, &amount, &site.config.currency, meter),
    };
    if let Some(price) = &before {
        if differences.is_empty() && price.active {
            return Ok(done(price, Verdict::There, detail));
        }
        if differences.is_empty() {
            site.change(&format!("{} is archived", price.id.as_str()))?;
            site.stripe.send(&UpdatePrice::new(price.id.clone()).active(true), Key::Fresh).await?;
            return Ok(done(price, Verdict::Changed, format!("no longer archived; {detail}")));
        }
    }
    let differences = differences.join(", ");
    let old = before.as_ref().map(|price| price.id.as_str().to_owned());
    site.change(&old.as_ref().map_or_else(|| differences.clone(), |old| format!("{old}: {differences}")))?;
    let request = request(site, meter, product, &amount).transfer_lookup_key(old.is_some());
    let look = || async {
        let found = find(site, &name).await?;
        Ok(found.filter(|price| self::differences(price, &amount, &site.config.currency, meter).is_empty()))
    };
    let made = site.make(&request, old.as_deref().unwrap_or_default(), look).await?;
    Ok(match old {
        None => done(&made, Verdict::Made, detail),
        Some(old) => {
            done(&made, Verdict::Changed, format!("{detail}; before it was {old}, whose {differences}"))
        }
    })
}

fn request(site: &Site<'_>, meter: &str, product: &str, amount: &str) -> CreatePrice {
    let mut recurring = CreatePriceRecurring::new(CreatePriceRecurringInterval::Month);
    recurring.usage_type = Some(CreatePriceRecurringUsageType::Metered);
    recurring.meter = Some(meter.to_owned());
    // Parsing never fails: what the crate does not know goes out as it is.
    let Ok(currency) = site.config.currency.parse::<Currency>();
    CreatePrice::new(currency)
        .product(product)
        .lookup_key(site.config.credits_name())
        .unit_amount_decimal(amount)
        .recurring(recurring)
}

/// The price that has the lookup key. There is at most one.
pub(in crate::billing) async fn find(site: &Site<'_>, name: &str) -> Result<Option<Price>, Problem> {
    let request = ListPrice::new().lookup_keys([name.to_owned()]).limit(1);
    Ok(site.stripe.read(&request).await?.data.into_iter().next())
}

/// In what a price is not the one that is wanted.
fn differences(price: &Price, amount: &str, currency: &str, meter: &str) -> Vec<String> {
    let found = price.unit_amount_decimal.as_deref().and_then(exact_decimal);
    let recurring = price.recurring.as_ref();
    let found = [
        ("amount", found.unwrap_or_else(|| "unknown".to_owned()), amount),
        ("currency", price.currency.to_string(), currency),
        ("billing scheme", price.billing_scheme.to_string(), "per_unit"),
        ("quantity divisor", price.transform_quantity.as_ref().map_or(1, |by| by.divide_by).to_string(), "1"),
        (
            "interval",
            recurring.map_or_else(String::new, |r| format!("{} {}", r.interval_count, r.interval)),
            "1 month",
        ),
        ("usage type", recurring.map_or_else(String::new, |r| r.usage_type.to_string()), "metered"),
        ("meter", recurring.and_then(|r| r.meter.clone()).unwrap_or_default(), meter),
    ];
    let wrong = found.iter().filter(|(_, found, wanted)| found != wanted);
    wrong.map(|(field, found, wanted)| format!("{field} is {found:?} and should be {wanted:?}")).collect()
}
