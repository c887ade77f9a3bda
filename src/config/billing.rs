//! `[billing]`: Stripe, and what is set up there.

use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::Millis;
use super::validate::{Invalid, is_safe_url, millis, range, require, require_at};
use crate::credits::Credits;
use crate::plans::PlanName;

/// Most decimal places of an amount, and most digits before them. <https://docs.stripe.com/api/prices/create>
const DIGITS: (usize, usize) = (12, 8);
/// Most sizes of top-ups.
const MAX_TOP_UPS: usize = 20;
/// The largest amount that Stripe takes. <https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>
const MAX_AMOUNT: u32 = 99_999_999;
/// Decimal places of a credit: what Stripe counts are micro-credits, so that a price has so many fewer.
const MICRO: usize = 6;

/// `[billing]`: Stripe, and what is set up there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Billing {
    /// Does not print. Empty: there is no Stripe.
    pub stripe_key: SecretString,
    pub stripe_url: String,
    /// Do not print.
    pub webhook_secrets: Vec<SecretString>,
    #[serde(rename = "timeout_ms")]
    pub timeout: Millis,
    pub attempts: u32,
    pub prefix: String,
    pub product_name: String,
    pub credit_price: String,
    pub currency: String,
    pub finalization_grace_hours: u32,
    #[serde(rename = "export_every_ms")]
    pub export_every: Millis,
    #[serde(rename = "reconcile_every_ms")]
    pub reconcile_every: Millis,
    #[serde(rename = "inbox_every_ms")]
    pub inbox_every: Millis,
    #[serde(rename = "sweep_every_ms")]
    pub sweep_every: Millis,
    pub keep_event_bodies_days: u32,
    pub after_plan: String,
    pub grace_days: u32,
    pub restricted_days: u32,
    pub top_ups: Vec<TopUp>,
    pub return_url: String,
    pub automatic_tax: bool,
}

/// Credits that are sold as one, written as `CREDITS=AMOUNT`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct TopUp {
    /// How many.
    pub credits: Credits,
    /// What they cost, in the smallest unit of `billing.currency`.
    pub amount: u32,
}

impl TryFrom<String> for TopUp {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let parts = text.split_once('=').and_then(|(credits, amount)| {
            Some(Self { credits: credits.trim().parse().ok()?, amount: amount.trim().parse().ok()? })
        });
        parts.ok_or("expected CREDITS=AMOUNT, such as \"1000=2500\"")
    }
}

impl Billing {
    /// Whether there is a Stripe.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        !self.stripe_key.expose_secret().is_empty()
    }

    /// How long after a period's end its invoice becomes final.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.finalization_grace_hours) * 3600)
    }

    /// Whether money is real: the key is one of live mode. <https://docs.stripe.com/keys>
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.stripe_key.expose_secret().split('_').nth(1) == Some("live")
    }

    /// What the meter, its events, the product and the price of an overage credit are called.
    #[must_use]
    pub fn credits_name(&self) -> String {
        format!("{}_credits", self.prefix)
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let key = self.stripe_key.expose_secret();
        let secret = key.starts_with("sk_") || key.starts_with("rk_");
        require("billing.stripe_key", key.is_empty() || (secret && is_word(key, 8..=255)), || {
            "expected a secret (sk_...) or restricted (rk_...) key of Stripe, or an empty string for none"
                .to_owned()
        })?;
        require("billing.stripe_url", is_safe_url(&self.stripe_url) && is_bare(&self.stripe_url), || {
            "expected an https URL (http on loopback only) without a path, such as https://api.stripe.com"
                .to_owned()
        })?;
        require("billing.webhook_secrets", self.webhook_secrets.len() <= 2, || {
            "expected at most two: the one in use and, while it is changed, the next".to_owned()
        })?;
        for (place, secret) in self.webhook_secrets.iter().enumerate() {
            let secret = secret.expose_secret();
            let good = secret.starts_with("whsec_") && is_word(secret, 16..=255);
            require_at("billing.webhook_secrets", place, good, || {
                "expected the signing secret of a webhook endpoint, whsec_...".to_owned()
            })?;
        }
        millis("billing.timeout_ms", self.timeout, 10..=120_000)?;
        range("billing.attempts", self.attempts.into(), 1..=10)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let good = (1..=32).contains(&self.prefix.len()) && self.prefix.chars().all(plain);
        require("billing.prefix", good, || "expected 1 to 32 of a-z, 0-9 and _".to_owned())?;
        let name = self.product_name.trim();
        require("billing.product_name", (1..=200).contains(&name.chars().count()), || {
            "expected a name of 1 to 200 characters".to_owned()
        })?;
        let price = &self.credit_price;
        let good = per_micro(price).is_some_and(|price| price != "0");
        require("billing.credit_price", good || (price.is_empty() && !self.is_configured()), || {
            format!(
                "expected the price of a credit in the smallest unit of the currency, more than 0, with at most \
                 {} decimal places, such as \"0.25\"",
                DIGITS.0 - MICRO
            )
        })?;
        let good = self.currency.len() == 3 && self.currency.chars().all(|c| c.is_ascii_lowercase());
        require("billing.currency", good, || "expected three lower-case letters, such as usd".to_owned())?;
        range("billing.finalization_grace_hours", self.finalization_grace_hours.into(), 1..=72)?;
        millis("billing.export_every_ms", self.export_every, 100..=3_600_000)?;
        millis("billing.reconcile_every_ms", self.reconcile_every, 100..=86_400_000)?;
        millis("billing.inbox_every_ms", self.inbox_every, 50..=3_600_000)?;
        // Stripe tries to deliver for three days, and lists events for thirty.
        millis("billing.sweep_every_ms", self.sweep_every, 100..=20 * 86_400_000)?;
        range("billing.keep_event_bodies_days", self.keep_event_bodies_days.into(), 0..=60)?;
        self.validate_shop()
    }
}

impl Billing {
    fn validate_shop(&self) -> Result<(), Invalid> {
        require("billing.after_plan", self.after_plan.parse::<PlanName>().is_ok(), || {
            "expected the name of a plan".to_owned()
        })?;
        range("billing.grace_days", self.grace_days.into(), 0..=365)?;
        range("billing.restricted_days", self.restricted_days.into(), 0..=365)?;
        require("billing.top_ups", self.top_ups.len() <= MAX_TOP_UPS, || {
            format!("expected at most {MAX_TOP_UPS}")
        })?;
        for (place, top_up) in self.top_ups.iter().enumerate() {
            let good = top_up.credits.is_positive() && (1..=MAX_AMOUNT).contains(&top_up.amount);
            require_at("billing.top_ups", place, good, || {
                format!("expected credits, more than 0, and an amount of 1 to {MAX_AMOUNT}")
            })?;
        }
        let url = &self.return_url;
        require("billing.return_url", url.is_empty() || is_safe_url(url), || {
            "expected an https URL (http on loopback only), or an empty string".to_owned()
        })
    }
}

/// A decimal number without sign and exponent in its one plain form (`0.25`, `3`); nothing, where it is none or has too
/// many digits. For comparing what is configured with what Stripe has.
#[must_use]
pub fn exact_decimal(text: &str) -> Option<String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    if part.len() > DIGITS.0 || whole.len() > DIGITS.1 {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") })
}

/// What so many credits cost at this price of one, in the smallest unit of the currency, rounded half up as invoices are; nothing,
/// where the price is no plain decimal or the amount is too large. <https://docs.stripe.com/products-prices/pricing-models#rounding>
#[must_use]
pub fn amount_of(credits: Credits, price: &str) -> Option<i64> {
    let price = exact_decimal(price)?;
    let (whole, part) = price.split_once('.').unwrap_or((&price, ""));
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    let unit = 10_i128.checked_pow(u32::try_from(part.len() + MICRO).ok()?)?;
    let product = digits.checked_mul(i128::from(credits.micros()))?;
    i64::try_from((product.checked_mul(2)?.checked_add(unit)?).div_euclid(unit * 2)).ok()
}

/// The price of a micro-credit where this is the price of a credit; nothing, where that is no plain decimal or has too many
/// digits.
#[must_use]
pub fn per_micro(price: &str) -> Option<String> {
    let price = exact_decimal(price)?;
    let (whole, part) = price.split_once('.').unwrap_or((&price, ""));
    let whole = format!("{whole:0>width$}", width = MICRO + 1);
    let (whole, moved) = whole.split_at(whole.len() - MICRO);
    exact_decimal(&format!("{whole}.{moved}{part}"))
}

fn is_word(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_bare(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.path() == "/" && url.query().is_none() && url.fragment().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Layers};

    fn load(settings: &[(&str, &str)]) -> Result<Config, String> {
        let flags = settings.iter().map(|(key, value)| (format!("billing.{key}"), (*value).to_owned()));
        Layers { flags: flags.collect(), ..Layers::default() }.load().map_err(|error| error.to_string())
    }

    #[test]
    fn decimals_have_one_form() {
        for (text, form) in
            [("1", "1"), ("0.250", "0.25"), ("007", "7"), ("0", "0"), ("0.0", "0"), ("10", "10")]
        {
            assert_eq!(exact_decimal(text).as_deref(), Some(form), "{text}");
        }
        for odd in
            ["", ".", "1.", ".5", "-1", "+1", "1e2", "1,5", " 1", "0.0000000000001", "123456789", "\u{661}"]
        {
            assert_eq!(exact_decimal(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_credits_cost_is_rounded_half_up_once() {
        for (micros, price, amount) in [
            (1_000_000, "0.25", 0),
            (2_000_000, "0.25", 1),
            (1_999_999, "0.25", 0),
            (6_000_000, "0.25", 2),
            (-2_000_000, "0.25", 0),
            (-6_000_000, "0.25", -1),
            (1, "12345678", 12),
            (1_000_000_000_000_000, "99.999999999999", 100_000_000_000),
            (0, "1", 0),
        ] {
            assert_eq!(amount_of(Credits::from_micros(micros), price), Some(amount), "{micros} at {price}");
        }
        assert_eq!(amount_of(Credits::from_micros(1), "x"), None);
        assert_eq!(amount_of(Credits::from_micros(i64::MAX), "99999999"), None);
    }

    proptest::proptest! {
        /// The rounded amount is never farther than half a unit from the exact one, and parts lose nothing that the whole has.
        #[test]
        fn no_amount_is_off_by_more_than_half(micros in 0_i64..1_000_000_000_000_000, hundredths in 1_u32..10_000) {
            let price = format!("{}.{:02}", hundredths / 100, hundredths % 100);
            let amount = amount_of(Credits::from_micros(micros), &price).expect("an amount");
            let exact = i128::from(micros) * i128::from(hundredths);
            let off = i128::from(amount) * 100_000_000 - exact;
            proptest::prop_assert!(off > -50_000_001 && off <= 50_000_000, "{off}");
        }
    }

    #[test]
    fn a_micro_credit_costs_a_millionth() {
        for (credit, micro) in [
            ("1", "0.000001"),
            ("0.25", "0.00000025"),
            ("12345678", "12.345678"),
            ("0.000001", "0.000000000001"),
            ("1000000", "1"),
            ("0", "0"),
        ] {
            assert_eq!(per_micro(credit).as_deref(), Some(micro), "{credit}");
        }
        assert_eq!(per_micro("0.0000001"), None);
    }

    #[test]
    fn without_a_key_nothing_else_is_needed() {
        let config = load(&[]).expect("the defaults").billing;
        assert!(!config.is_configured());
        assert!(config.webhook_secrets.is_empty());
        assert_eq!(config.credits_name(), "weir_credits");
    }

    #[test]
    fn wrong_values_are_named_and_not_shown() {
        let key = ("stripe_key", "sk_test_hunter2");
        assert!(load(&[key, ("credit_price", "0.25")]).is_ok());
        assert!(load(&[("stripe_url", "http://127.0.0.1:9/")]).is_ok());
        assert!(load(&[("webhook_secrets", "whsec_0123456789,whsec_9876543210")]).is_ok());
        for (setting, wrong) in [
            ("stripe_key", "hunter2"),
            ("stripe_key", "pk_test_hunter2"),
            ("stripe_key", "sk_test_hunter2 x"),
            ("stripe_url", "http://hunter2.example"),
            ("stripe_url", "https://hunter2.example/v1"),
            ("stripe_url", ""),
            ("webhook_secrets", "whsec_hunter2hunter2,whsec_hunter2hunter3,whsec_hunter2hunter4"),
            ("webhook_secrets", "hunter2"),
            ("timeout_ms", "0"),
            ("attempts", "0"),
            ("prefix", "Hunter2"),
            ("prefix", ""),
            ("product_name", " "),
            ("credit_price", "hunter2"),
            ("credit_price", "0"),
            ("currency", "USD"),
            ("finalization_grace_hours", "73"),
        ] {
            let error = load(&[(setting, wrong)]).expect_err(wrong);
            assert!(error.contains(&format!("billing.{setting}")), "{error}");
            assert!(!error.to_lowercase().contains("hunter2"), "{error}");
        }
        let error = load(&[key]).expect_err("no price");
        assert!(error.contains("billing.credit_price"), "{error}");
        let config =
            load(&[key, ("credit_price", "1"), ("webhook_secrets", "whsec_hunter2hunter2")]).expect("good");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
