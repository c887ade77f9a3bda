//! The meter: adds up the credits of its events, per customer. <https://docs.stripe.com/api/billing/meter>

use stripe_billing::billing_meter::{
    CreateBillingMeter, CreateBillingMeterCustomerMapping, CreateBillingMeterCustomerMappingType as Mapping,
    CreateBillingMeterDefaultAggregation as Aggregation,
    CreateBillingMeterDefaultAggregationFormula as Formula, CreateBillingMeterValueSettings,
    ListBillingMeter, ReactivateBillingMeter,
};
use stripe_billing::{BillingMeter, BillingMeterStatus};

use super::super::report::{Problem, Verdict};
use super::super::stripe::{Key, Stripe, StripeError};
use super::{Done, Site};

/// Keys of an event's payload: whose it is, and how much.
pub(in crate::billing) const CUSTOMER_KEY: &str = "stripe_customer_id";
/// See [`CUSTOMER_KEY`].
pub(in crate::billing) const VALUE_KEY: &str = "value";

pub(super) async fn ensure(site: &Site<'_>) -> Result<Done, Problem> {
    let name = site.config.credits_name();
    let detail = format!("adds up `{VALUE_KEY}` of {name} events by `{CUSTOMER_KEY}`");
    let all = named(site.stripe, &name).await?;
    if let Some(meter) = all.iter().find(|meter| meter.status == BillingMeterStatus::Active) {
        judge(meter)?;
        return Ok(Done { id: meter.id.as_str().to_owned(), verdict: Verdict::There, detail });
    }
    // One that was switched off counts again, if it counts right.
    if let Some(meter) = all.iter().find(|meter| judge(meter).is_ok()) {
        site.change(&format!("{} is inactive", meter.id.as_str()))?;
        site.stripe.send(&ReactivateBillingMeter::new(meter.id.clone()), Key::Fresh).await?;
        let detail = format!("active again; {detail}");
        return Ok(Done { id: meter.id.as_str().to_owned(), verdict: Verdict::Changed, detail });
    }
    site.change("is not there")?;
    let request = CreateBillingMeter::new(Aggregation::new(Formula::Sum), &site.config.product_name, &name)
        .customer_mapping(CreateBillingMeterCustomerMapping::new(CUSTOMER_KEY, Mapping::ById))
        .value_settings(CreateBillingMeterValueSettings::new(VALUE_KEY));
    let old: Vec<_> = all.iter().map(|meter| meter.id.as_str()).collect();
    let look = || async {
        let all = named(site.stripe, &name).await?;
        Ok(all.into_iter().find(|meter| meter.status == BillingMeterStatus::Active))
    };
    let made = site.make(&request, &old.join(" "), look).await?;
    judge(&made)?;
    Ok(Done { id: made.id.as_str().to_owned(), verdict: Verdict::Made, detail })
}

/// All meters of events with this name.
pub(in crate::billing) async fn named(stripe: &Stripe, name: &str) -> Result<Vec<BillingMeter>, StripeError> {
    let page = |after: Option<&str>| {
        let list = ListBillingMeter::new().limit(100);
        match after {
            Some(after) => list.starting_after(after),
            None => list,
        }
    };
    let all: Vec<BillingMeter> = stripe.all(page).await?;
    Ok(all.into_iter().filter(|meter| meter.event_name == name).collect())
}

/// Whether a meter counts as Weir means it. Meters cannot be changed.
fn judge(meter: &BillingMeter) -> Result<(), Problem> {
    let found = [
        ("default_aggregation.formula", meter.default_aggregation.formula.as_str(), "sum"),
        ("customer_mapping.type", meter.customer_mapping.type_.as_str(), "by_id"),
        ("customer_mapping.event_payload_key", &meter.customer_mapping.event_payload_key, CUSTOMER_KEY),
        ("value_settings.event_payload_key", &meter.value_settings.event_payload_key, VALUE_KEY),
        (
            "event_time_window",
            meter.event_time_window.as_ref().map_or("none", |window| window.as_str()),
            "none",
        ),
    ];
    let wrong: Vec<_> = found
        .iter()
        .filter(|(_, found, wanted)| found != wanted)
        .map(|(field, found, wanted)| format!("{field} is {found} and should be {wanted}"))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let (id, wrong) = (meter.id.as_str(), wrong.join(", "));
    Err(Problem(format!(
        "{id}: {wrong}; a meter cannot be changed: deactivate it, or set another billing.prefix"
    )))
}
