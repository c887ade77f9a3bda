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
use super::stripe::{Fate, Said, Stripe, StripeError};
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
    let is_there = |said: &Said| said.message.contains("already exists");
    if error.status == Some(400) && error.said.as_ref().is_some_and(is_there) {
        return Answer::Accepted;
    }
    match (error.fate, error.status) {
        (Fate::Happened, _) => Answer::Accepted,
        (Fate::Unclear, _) => Answer::Unclear(error.to_string()),
        // Never reached, or too much at once.
        (Fate::Refused, None | Some(429)) => Answer::NotTaken { why: error.to_string(), after: None },
        (Fate::Refused, Some(_)) => Answer::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use stripe_client::StripeClientErr;

    use super::super::stripe::Trouble;
    use super::*;

    #[test]
    fn an_error_says_what_became_of_an_event() {
        let said = |message: &str| Said { message: message.to_owned(), ..Said::default() };
        let error = |fate, trouble, status, said| StripeError {
            fate,
            trouble,
            status,
            said,
            ..StripeError::deserialize_err("")
        };
        let there = Some(said("An event already exists with identifier weir_exp_1."));
        let no = Some(said("No such customer."));
        for (error, expected) in [
            (error(Fate::Refused, Trouble::Status, Some(400), there), "accepted"),
            (error(Fate::Refused, Trouble::Status, Some(400), no.clone()), "refused"),
            (error(Fate::Refused, Trouble::Status, Some(401), no.clone()), "refused"),
            (error(Fate::Refused, Trouble::Status, Some(429), no), "not taken"),
            (error(Fate::Refused, Trouble::Unreachable(String::new()), None, None), "not taken"),
            (error(Fate::Refused, Trouble::Timeout, None, None), "not taken"),
            (error(Fate::Unclear, Trouble::Timeout, None, None), "unclear"),
            (error(Fate::Unclear, Trouble::Broken(String::new()), None, None), "unclear"),
            (error(Fate::Unclear, Trouble::Status, Some(502), None), "unclear"),
            (error(Fate::Happened, Trouble::TooLarge, Some(200), None), "accepted"),
        ] {
            let found = match answer(&error) {
                Answer::Accepted => "accepted",
                Answer::NotTaken { .. } => "not taken",
                Answer::Refused(_) => "refused",
                Answer::Unclear(_) => "unclear",
            };
            assert_eq!(found, expected, "{error}");
        }
    }
}
