//! The meter of credits at Stripe. Whole numbers only, so what it counts are micro-credits.
//! <https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api>

use std::collections::HashMap;

use stripe_billing::BillingMeterStatus;
use stripe_billing::billing_meter_event::CreateBillingMeterEvent;
use stripe_billing::billing_meter_event_summary::ListIdBillingMeterEventSummary;
use stripe_client::{RequestStrategy, StripeRequest};
use tokio::sync::OnceCell;

use super::export::{Answer, Event, Meter};
use super::setup::meter::{CUSTOMER_KEY, VALUE_KEY, named};
use super::stripe::{Fate, Stripe, StripeError, Trouble};
use crate::clock::Timestamp;
use crate::config;
use crate::credits::Credits;

/// Whole numbers up to here are exact in an answer of Stripe's, whose sums are floating-point numbers.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The meter that `weir billing setup` made.
pub struct CreditsMeter {
    stripe: Stripe,
    name: String,
    /// Found when it is first needed.
    id: OnceCell<String>,
}

impl CreditsMeter {
    /// The meter of this account.
    #[must_use]
    pub fn new(stripe: Stripe, config: &config::Billing) -> Self {
        Self { stripe, name: config.credits_name(), id: OnceCell::new() }
    }

    async fn id(&self) -> Result<&str, String> {
        let find = async || {
            let all = named(&self.stripe, &self.name).await.map_err(|error| error.to_string())?;
            let active = all.into_iter().find(|meter| meter.status == BillingMeterStatus::Active);
            let missing =
                || format!("there is no active meter of {} events; run `weir billing setup`", self.name);
            Ok(active.ok_or_else(missing)?.id.as_str().to_owned())
        };
        self.id.get_or_try_init(find).await.map(String::as_str)
    }
}

impl Meter for CreditsMeter {
    /// Once: when to try again is up to the rules of exports.
    async fn send(&self, event: &Event) -> Answer {
        let payload = HashMap::from([
            (CUSTOMER_KEY.to_owned(), event.customer.clone()),
            (VALUE_KEY.to_owned(), event.credits.micros().to_string()),
        ]);
        let request = CreateBillingMeterEvent::new(&self.name, payload)
            .identifier(&event.identifier)
            .timestamp(event.at.as_seconds());
        match request.customize().request_strategy(RequestStrategy::Once).send(&self.stripe).await {
            Ok(_) => Answer::Accepted,
            Err(error) => answer(&error),
        }
    }

    async fn counted(&self, customer: &str, (from, to): (Timestamp, Timestamp)) -> Result<Credits, String> {
        if from >= to {
            return Ok(Credits::ZERO);
        }
        let request = ListIdBillingMeterEventSummary::new(
            self.id().await?,
            customer,
            to.as_seconds(),
            from.as_seconds(),
        );
        let summaries = self.stripe.read(&request).await.map_err(|error| error.to_string())?;
        let micros: f64 = summaries.data.iter().map(|summary| summary.aggregated_value).sum();
        if micros.fract() != 0.0 || micros.abs() > EXACT {
            return Err(format!("{micros} is no exact number of micro-credits"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "whole and small enough, as was just seen")]
        Ok(Credits::from_micros(micros as i64))
    }
}

/// What an error says of an event. That Stripe has its identifier already means that it was taken before.
/// <https://docs.stripe.com/api/billing/meter-event/create>
fn answer(error: &StripeError) -> Answer {
    let is_there = |text: &str| text.contains("already exists");
    let known = error.status == Some(400) && error.said.as_ref().is_some_and(|said| is_there(&said.message));
    match (error.fate, &error.trouble) {
        _ if known => Answer::Accepted,
        (Fate::Happened, _) => Answer::Accepted,
        (Fate::Refused, Trouble::Unreachable(_)) => Answer::NotTaken { why: error.to_string(), after: None },
        (Fate::Refused, _) if error.status == Some(429) => {
            Answer::NotTaken { why: error.to_string(), after: None }
        }
        (Fate::Refused, _) => Answer::Refused(error.to_string()),
        (Fate::Unclear, _) => Answer::Unclear(error.to_string()),
    }
}
