//! What a price version says, and what follows from it for a call. Pure: the same call costs the same today and in a year.

use serde::{Deserialize, Serialize};

use crate::credits::Credits;
use crate::error::{Error, Result};
use crate::policy::Pattern;
use crate::telemetry::labels::Outcome;

/// Most rules of a price version.
const MAX_RULES: usize = 512;
/// Most that a month may cost: what Stripe takes as an amount. <https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>
const MAX_BASE_FEE: u32 = 99_999_999;
/// Most days of a trial: within a month, whatever its length.
const MAX_TRIAL: u32 = 28;
/// Bytes in one KiB.
const KIB: u64 = 1024;
/// Microseconds in a second.
const SECOND: u64 = 1_000_000;

/// How a plan is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// With the credits that are included; nothing is ever owed.
    Free,
    /// After use; nothing is included.
    Usage,
    /// A base fee with credits included, and what is used beyond them.
    Hybrid,
    /// Before use: with credits that were bought; nothing is ever owed.
    Prepaid,
}

impl Kind {
    /// Whether its tenants may use more than they were granted, and owe it.
    #[must_use]
    pub fn may_owe(self) -> bool {
        matches!(self, Self::Usage | Self::Hybrid)
    }
}

/// How long a period is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cycle {
    /// A month of the calendar, in UTC.
    #[default]
    Calendar,
    /// A month from the day on which the tenant came to a plan with prices.
    Anchored,
}

/// What becomes of calls of tools that no rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unpriced {
    /// They are refused.
    #[default]
    Refuse,
    /// They are free.
    Free,
}

/// What one call of a tool costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Price {
    /// For the call.
    pub per_call: Credits,
    /// For every 1024 bytes of its result, in proportion.
    pub per_kib: Credits,
    /// For every second that it took, in proportion.
    pub per_second: Credits,
    /// The most that one call costs; needed where size or time counts, because so much is set aside before the call.
    pub most: Option<Credits>,
    /// Whether a business error (a result with `isError`) costs as much as a success. Otherwise it is free.
    pub errors: bool,
}

/// The price of the tools whose names fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ToolPriceWire", into = "ToolPriceWire")]
pub struct ToolPrice {
    /// The tool's name, with `*` for any run of characters.
    pub name: Pattern,
    /// Only tools of servers whose name fits; all, where it is left out.
    pub server: Option<Pattern>,
    /// What a call costs.
    pub price: Price,
}

/// As it is written: in one object, because serde cannot refuse unknown fields of one that is flattened into another.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolPriceWire {
    name: Pattern,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<Pattern>,
    per_call: Credits,
    #[serde(default, skip_serializing_if = "Credits::is_zero")]
    per_kib: Credits,
    #[serde(default, skip_serializing_if = "Credits::is_zero")]
    per_second: Credits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    most: Option<Credits>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    errors: bool,
}

impl From<ToolPriceWire> for ToolPrice {
    fn from(wire: ToolPriceWire) -> Self {
        let ToolPriceWire { name, server, per_call, per_kib, per_second, most, errors } = wire;
        Self { name, server, price: Price { per_call, per_kib, per_second, most, errors } }
    }
}

impl From<ToolPrice> for ToolPriceWire {
    fn from(rule: ToolPrice) -> Self {
        let ToolPrice { name, server, price: Price { per_call, per_kib, per_second, most, errors } } = rule;
        Self { name, server, per_call, per_kib, per_second, most, errors }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a price version says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// How it is paid for.
    pub kind: Kind,
    /// Credits that every period begins with; they expire with it.
    #[serde(default)]
    pub included: Credits,
    /// Owed credits of a period of which the tenant is told at 80 % and at 100 %; nothing stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_cap: Option<Credits>,
    /// The most that can be owed in a period; nothing is done beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard_cap: Option<Credits>,
    /// What a month costs, whatever is used: in the smallest unit of `billing.currency`, such as cents.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub base_fee: u32,
    /// Days that a tenant's first subscription is free for; it owes nothing in them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trial_days: u32,
    /// Whether tenants may put themselves on this plan, by a subscription or, where it costs nothing, at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub self_service: bool,
    /// How long a period is.
    #[serde(default)]
    pub cycle: Cycle,
    /// Tools that no rule fits.
    #[serde(default)]
    pub unpriced: Unpriced,
    /// The first rule that fits counts.
    #[serde(default)]
    pub tools: Vec<ToolPrice>,
}

/// What of a call decides what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// How it ended.
    pub outcome: Outcome,
    /// Size of its result, as the call's record has it.
    pub result_bytes: u64,
    /// How long it took, in microseconds, as the call's record has it.
    pub duration_us: u64,
}

impl Terms {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the field.
    pub fn validate(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Invalid(text));
        let included = self.included.is_positive();
        match self.kind {
            Kind::Usage | Kind::Prepaid if included => {
                return wrong(
                    "included: a plan of this kind includes no credits; use hybrid or free".to_owned(),
                );
            }
            Kind::Free | Kind::Prepaid if self.soft_cap.or(self.hard_cap).is_some() => {
                return wrong(
                    "soft_cap, hard_cap: nothing is ever owed on a plan of this kind; leave them out"
                        .to_owned(),
                );
            }
            _ => {}
        }
        self.validate_subscription()?;
        if self.soft_cap.is_some_and(|cap| cap.is_zero()) {
            return wrong("soft_cap: expected more than 0".to_owned());
        }
        if let (Some(soft), Some(hard)) = (self.soft_cap, self.hard_cap)
            && soft > hard
        {
            return wrong(format!("soft_cap: expected at most the hard cap of {hard}, found {soft}"));
        }
        if self.tools.len() > MAX_RULES {
            return wrong(format!("tools: expected at most {MAX_RULES} rules, found {}", self.tools.len()));
        }
        for (at, rule) in self.tools.iter().enumerate() {
            rule.price.validate().or_else(|text| wrong(format!("tools[{at}].{text}")))?;
        }
        Ok(())
    }

    fn validate_subscription(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::Invalid(text.to_owned()));
        if self.base_fee > MAX_BASE_FEE {
            return Err(Error::Invalid(format!(
                "base_fee: expected at most {MAX_BASE_FEE} of the smallest unit, found {}",
                self.base_fee
            )));
        }
        match self.kind {
            Kind::Free if self.base_fee > 0 => {
                return wrong("base_fee: a plan of this kind costs nothing; use hybrid or prepaid");
            }
            // Whoever comes and goes would get them again and again.
            Kind::Hybrid if self.self_service && self.base_fee == 0 && self.included.is_positive() => {
                return wrong(
                    "base_fee: needed where tenants may take credits that are included by themselves",
                );
            }
            _ => {}
        }
        if self.trial_days > 0 && self.base_fee == 0 {
            return wrong("trial_days: there is nothing to try without a base_fee; leave it out");
        }
        if self.trial_days > MAX_TRIAL {
            return Err(Error::Invalid(format!(
                "trial_days: expected at most {MAX_TRIAL}, found {}",
                self.trial_days
            )));
        }
        Ok(())
    }

    /// Whether a tenant on it needs a subscription.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.base_fee > 0 || self.kind.may_owe()
    }

    /// What a call of this tool costs, `is_free` where the tool costs nothing by itself; none, where the call is to be refused.
    #[must_use]
    pub fn price_for(&self, server: &str, tool: &str, is_free: bool) -> Option<Price> {
        if is_free {
            return Some(Price::default());
        }
        let given_away = || (self.unpriced == Unpriced::Free).then(Price::default);
        self.price_of(server, tool).copied().or_else(given_away)
    }

    /// The price of this tool; nothing, where no rule fits.
    #[must_use]
    pub fn price_of(&self, server: &str, tool: &str) -> Option<&Price> {
        let fits = |rule: &&ToolPrice| {
            rule.name.matches(tool) && rule.server.as_ref().is_none_or(|pattern| pattern.matches(server))
        };
        self.tools.iter().find(fits).map(|rule| &rule.price)
    }
}

impl Price {
    pub(super) fn validate(&self) -> Result<(), String> {
        let grows = self.per_kib.is_positive() || self.per_second.is_positive();
        match self.most {
            None if grows => Err("most: needed where per_kib or per_second is given".to_owned()),
            Some(most) if most < self.per_call => {
                Err(format!("most: expected at least per_call, {}, found {most}", self.per_call))
            }
            _ => Ok(()),
        }
    }

    /// Whether no call costs anything.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.most().is_zero()
    }

    /// The most that one call costs.
    #[must_use]
    pub fn most(&self) -> Credits {
        self.most.unwrap_or(self.per_call)
    }

    /// What a call costs that ended like this. Size and time count in proportion, each rounded up to a micro-credit.
    #[must_use]
    pub fn charge(&self, call: Measured) -> Credits {
        match call.outcome {
            Outcome::Ok => {}
            Outcome::ToolError if self.errors => {}
            _ => return Credits::ZERO,
        }
        let size = self.per_kib.share(call.result_bytes, KIB);
        let time = self.per_second.share(call.duration_us, SECOND);
        (self.per_call + size + time).min(self.most())
    }
}
