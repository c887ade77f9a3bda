//! What a plan costs each month, whatever is used: a product per plan, and a price per amount. Made when somebody first subscribes to it.
//! <https://docs.stripe.com/api/prices>

use std::collections::HashMap;

use stripe_product::price::{
    CreatePrice, CreatePriceRecurring, CreatePriceRecurringInterval, CreatePriceRecurringUsageType,
    UpdatePrice,
};
use stripe_product::product::CreateProduct;
use stripe_shared::Price;
use stripe_types::Currency;

use super::super::report::Problem;
use super::super::stripe::Key;
use super::{MARK, Site, price, product};
use crate::plans::PlanName;

/// The id of the price at which a plan costs so much a month, in the smallest unit of `billing.currency`; made where there is none.
/// There is one for each amount: a subscription keeps the one it has.
pub(in crate::billing) async fn ensure(
    site: &Site<'_>,
    plan: &PlanName,
    amount: u32,
) -> Result<String, Problem> {
    let product = format!("{}_plan_{plan}", site.config.prefix);
    let name = format!("{product}_{amount}");
    let good = |price: &Price| fits(price, &product, amount, &site.config.currency);
    match price::find(site, &name).await? {
        Some(price) if !good(&price) => {
            return Err(Problem(format!(
                "{} has the lookup key {name} and is not {amount} {} a month for {product}; take the key off it",
                price.id.as_str(),
                site.config.currency
            )));
        }
        Some(price) if price.active => return Ok(price.id.as_str().to_owned()),
        Some(price) => {
            site.stripe.send(&UpdatePrice::new(price.id.clone()).active(true), Key::Fresh).await?;
            return Ok(price.id.as_str().to_owned());
        }
        None => {}
    }
    if product::find(site, &product).await?.is_none() {
        let request = CreateProduct::new(plan.as_str())
            .id(&product)
            .metadata(HashMap::from([(MARK.to_owned(), site.config.prefix.clone())]));
        site.make(&request, "", || product::find(site, &product)).await?;
    }
    let mut recurring = CreatePriceRecurring::new(CreatePriceRecurringInterval::Month);
    recurring.usage_type = Some(CreatePriceRecurringUsageType::Licensed);
    // Parsing never fails: what the crate does not know goes out as it is.
    let Ok(currency) = site.config.currency.parse::<Currency>();
    let request = CreatePrice::new(currency)
        .product(&product)
        .lookup_key(&name)
        .unit_amount(i64::from(amount))
        .recurring(recurring);
    let made =
        site.make(&request, "", || async { Ok(price::find(site, &name).await?.filter(&good)) }).await?;
    Ok(made.id.as_str().to_owned())
}

fn fits(price: &Price, product: &str, amount: u32, currency: &str) -> bool {
    let monthly = price.recurring.as_ref().is_some_and(|recurring| {
        recurring.usage_type.to_string() == "licensed"
            && recurring.interval.to_string() == "month"
            && recurring.interval_count == 1
    });
    monthly
        && price.unit_amount == Some(i64::from(amount))
        && price.currency.to_string() == currency
        && price.product.id().as_str() == product
}
