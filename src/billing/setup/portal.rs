//! What customers may do in Stripe's customer portal: see invoices, change how they pay and where they live, and cancel at the
//! end of their period. Plans are changed through Weir, which knows what they mean.
//! <https://docs.stripe.com/api/customer_portal/configurations>

use std::collections::HashMap;

use stripe_billing::billing_portal_configuration as portal;
use stripe_billing::{BillingPortalConfiguration, PortalFeatures};

use super::super::report::{Problem, Verdict};
use super::super::stripe::Key;
use super::{Done, MARK, Site};

/// What customers may change of themselves.
const UPDATES: [&str; 5] = ["address", "email", "name", "phone", "tax_id"];

pub(super) async fn ensure(site: &Site<'_>) -> Result<Done, Problem> {
    let detail = "invoices, payment methods, addresses, cancelling at the end of the period".to_owned();
    let done = |found: &BillingPortalConfiguration, verdict, detail| Done {
        id: found.id.as_str().to_owned(),
        verdict,
        detail,
    };
    let Some(found) = find(site).await? else {
        site.change("is not there")?;
        let request = create(site);
        let made = site.make(&request, "", || find(site)).await?;
        return Ok(done(&made, Verdict::Made, detail));
    };
    let mut differences = differences(&found.features);
    if !found.active {
        differences.push("it was inactive".to_owned());
    }
    if found.default_return_url.as_deref() != Some(site.public_url) {
        differences.push("it led back elsewhere".to_owned());
    }
    if differences.is_empty() {
        return Ok(done(&found, Verdict::There, detail));
    }
    let differences = differences.join(", ");
    site.change(&format!("{}: {differences}", found.id.as_str()))?;
    let request = portal::UpdateBillingPortalConfiguration::new(found.id.clone())
        .active(true)
        .default_return_url(site.public_url)
        .features(wanted());
    site.stripe.send(&request, Key::Fresh).await?;
    Ok(done(&found, Verdict::Changed, format!("{detail}; {differences}")))
}

/// Ours; the oldest, should there be several.
pub(in crate::billing) async fn find(site: &Site<'_>) -> Result<Option<BillingPortalConfiguration>, Problem> {
    let page = |after: Option<&str>| {
        let list = portal::ListBillingPortalConfiguration::new().limit(100);
        match after {
            Some(after) => list.starting_after(after),
            None => list,
        }
    };
    let all: Vec<BillingPortalConfiguration> = site.stripe.all(page).await?;
    let is_ours = |found: &BillingPortalConfiguration| {
        found.metadata.as_ref().and_then(|metadata| metadata.get(MARK)) == Some(&site.config.prefix)
    };
    let ours = all.into_iter().filter(is_ours);
    Ok(ours.min_by(|a, b| (a.created, a.id.as_str()).cmp(&(b.created, b.id.as_str()))))
}

fn create(site: &Site<'_>) -> portal::CreateBillingPortalConfiguration {
    use portal::{
        CreateBillingPortalConfigurationFeatures as Features,
        CreateBillingPortalConfigurationFeaturesCustomerUpdate as CustomerUpdate,
        CreateBillingPortalConfigurationFeaturesSubscriptionCancel as Cancel,
        CreateBillingPortalConfigurationFeaturesSubscriptionCancelMode as CancelMode,
        CreateBillingPortalConfigurationFeaturesSubscriptionUpdate as Update,
    };
    let mut customer = CustomerUpdate::new(true);
    customer.allowed_updates = Some(UPDATES.iter().filter_map(|update| update.parse().ok()).collect());
    let mut cancel = Cancel::new(true);
    cancel.mode = Some(CancelMode::AtPeriodEnd);
    let mut features = Features::new();
    features.customer_update = Some(customer);
    features.invoice_history = Some(portal::InvoiceListParam::new(true));
    features.payment_method_update = Some(portal::PaymentMethodUpdateParam::new(true));
    features.subscription_cancel = Some(cancel);
    features.subscription_update = Some(Update::new(false));
    portal::CreateBillingPortalConfiguration::new(features)
        .default_return_url(site.public_url)
        .metadata(HashMap::from([(MARK.to_owned(), site.config.prefix.clone())]))
}

/// The same features as [`create`] asks for, in the types of an update.
fn wanted() -> portal::UpdateBillingPortalConfigurationFeatures {
    use portal::{
        UpdateBillingPortalConfigurationFeatures as Features,
        UpdateBillingPortalConfigurationFeaturesCustomerUpdate as CustomerUpdate,
        UpdateBillingPortalConfigurationFeaturesSubscriptionCancel as Cancel,
        UpdateBillingPortalConfigurationFeaturesSubscriptionCancelMode as CancelMode,
        UpdateBillingPortalConfigurationFeaturesSubscriptionUpdate as Update,
    };
    let mut customer = CustomerUpdate::new();
    customer.enabled = Some(true);
    customer.allowed_updates = Some(UPDATES.iter().filter_map(|update| update.parse().ok()).collect());
    let mut cancel = Cancel::new();
    cancel.enabled = Some(true);
    cancel.mode = Some(CancelMode::AtPeriodEnd);
    let mut update = Update::new();
    update.enabled = Some(false);
    let mut features = Features::new();
    features.customer_update = Some(customer);
    features.invoice_history = Some(portal::InvoiceListParam::new(true));
    features.payment_method_update = Some(portal::PaymentMethodUpdateParam::new(true));
    features.subscription_cancel = Some(cancel);
    features.subscription_update = Some(update);
    features
}

fn differences(found: &PortalFeatures) -> Vec<String> {
    let mut updates: Vec<_> =
        found.customer_update.allowed_updates.iter().map(|update| update.as_str()).collect();
    updates.sort_unstable();
    let cancel = &found.subscription_cancel;
    let table = [
        ("customer_update", found.customer_update.enabled && updates == UPDATES),
        ("invoice_history", found.invoice_history.enabled),
        ("payment_method_update", found.payment_method_update.enabled),
        ("subscription_cancel", cancel.enabled && cancel.mode.as_str() == "at_period_end"),
        ("subscription_update", !found.subscription_update.enabled),
    ];
    table
        .iter()
        .filter(|(_, good)| !good)
        .map(|(feature, _)| format!("{feature} was set otherwise"))
        .collect()
}
