//! Whether the Stripe account is as Weir needs it, and whether plans are such that somebody is billed. Changes nothing.

mod grace;
mod permissions;
pub mod plans;
mod webhook;

use stripe_billing::billing_meter::ListBillingMeter;

use super::report::{Line, Verdict};
use super::setup::Site;
use super::stripe::{Stripe, VERSION};
use crate::config;

/// Looks at everything at Stripe. `public_url` is where Stripe reaches Weir.
pub async fn examine(stripe: &Stripe, config: &config::Billing, public_url: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    lines.push(key(stripe).await);
    if lines.iter().any(|line| line.verdict == Verdict::Wrong) {
        return lines;
    }
    lines.extend(permissions::check(stripe).await);
    lines.extend(Site { stripe, config, public_url, may_change: false }.all().await);
    lines.push(webhook::check(stripe, public_url).await);
    lines.push(if config.webhook_secrets.is_empty() {
        let text = "billing.webhook_secrets is empty; set the signing secret of the webhook endpoint";
        Line::new(Verdict::Wrong, "webhook secret", text)
    } else {
        Line::new(Verdict::There, "webhook secret", format!("{} configured", config.webhook_secrets.len()))
    });
    lines.push(grace::check(stripe, config.finalization_grace_hours).await);
    lines
}

/// Whether Stripe takes the key and the version, and whether its objects are of the mode that the key says.
async fn key(stripe: &Stripe) -> Line {
    let mode = if stripe.is_live() { "live mode: money is real" } else { "test mode: no money moves" };
    match stripe.read(&ListBillingMeter::new().limit(1)).await {
        Ok(list) if list.data.iter().any(|meter| meter.livemode != stripe.is_live()) => {
            Line::new(Verdict::Wrong, "key", format!("is one of {mode}, but what it shows is not"))
        }
        Ok(_) => Line::new(Verdict::There, "key", format!("{mode}; API version {}", VERSION.as_str())),
        // It is known, and may not do this; the permissions say more.
        Err(error) if error.is_forbidden() => Line::new(Verdict::There, "key", format!("{mode}; restricted")),
        Err(error) => Line::new(Verdict::Wrong, "key", error.to_string()),
    }
}
