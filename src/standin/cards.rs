//! Test cards, as Stripe has them: what each does is written on the card (docs.stripe.com/testing).

use serde_json::{Value, json};

use super::refusal::Refusal;

/// Why a card is declined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decline {
    /// `code` of the error.
    pub code: &'static str,
    /// `decline_code`, which says more.
    pub reason: Option<&'static str>,
    /// For a person.
    pub message: &'static str,
}

impl From<Decline> for Refusal {
    fn from(decline: Decline) -> Self {
        Self::card(decline.code, decline.reason, decline.message)
    }
}

/// What happens with a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// It pays.
    Pays,
    /// It cannot even be attached to a customer. STANDIN-CARD-1
    Refused(Decline),
    /// It can be attached, and pays nothing.
    Declined(Decline),
    /// It pays, and its owner disputes the payment for this reason at once. STANDIN-DISPUTE-1
    Disputes(&'static str),
}

/// A test card.
#[derive(Debug)]
pub struct Card {
    /// What comes after `pm_card_`.
    pub name: &'static str,
    /// Its number.
    pub number: &'static str,
    brand: &'static str,
    /// What happens with it.
    pub conduct: Conduct,
}

const fn no(code: &'static str, reason: &'static str, message: &'static str) -> Decline {
    Decline { code, reason: Some(reason), message }
}

const fn card(name: &'static str, number: &'static str, brand: &'static str, conduct: Conduct) -> Card {
    Card { name, number, brand, conduct }
}

const GENERIC: Decline = no("card_declined", "generic_decline", "Your card was declined.");
const FUNDS: Decline = no("card_declined", "insufficient_funds", "Your card has insufficient funds.");
const LOST: Decline = no("card_declined", "lost_card", "Your card was declined.");
const STOLEN: Decline = no("card_declined", "stolen_card", "Your card was declined.");
const EXPIRED: Decline = Decline { code: "expired_card", reason: None, message: "Your card has expired." };
const CVC: Decline =
    Decline { code: "incorrect_cvc", reason: None, message: "Your card's security code is incorrect." };
const PROCESSING: Decline = Decline {
    code: "processing_error",
    reason: None,
    message: "An error occurred while processing your card. Try again in a little bit.",
};

/// The cards that are known.
pub const CARDS: &[Card] = &[
    card("visa", "4242424242424242", "visa", Conduct::Pays),
    card("visa_debit", "4000056655665556", "visa", Conduct::Pays),
    card("mastercard", "5555555555554444", "mastercard", Conduct::Pays),
    card("amex", "378282246310005", "amex", Conduct::Pays),
    card("chargeCustomerFail", "4000000000000341", "visa", Conduct::Declined(GENERIC)),
    card("chargeDeclined", "4000000000000002", "visa", Conduct::Refused(GENERIC)),
    card("chargeDeclinedInsufficientFunds", "4000000000009995", "visa", Conduct::Refused(FUNDS)),
    card("chargeDeclinedLostCard", "4000000000009987", "visa", Conduct::Refused(LOST)),
    card("chargeDeclinedStolenCard", "4000000000009979", "visa", Conduct::Refused(STOLEN)),
    card("chargeDeclinedExpiredCard", "4000000000000069", "visa", Conduct::Refused(EXPIRED)),
    card("chargeDeclinedIncorrectCvc", "4000000000000127", "visa", Conduct::Refused(CVC)),
    card("chargeDeclinedProcessingError", "4000000000000119", "visa", Conduct::Refused(PROCESSING)),
    card("createDispute", "4000000000000259", "visa", Conduct::Disputes("fraudulent")),
    card(
        "createDisputeProductNotReceived",
        "4000000000002685",
        "visa",
        Conduct::Disputes("product_not_received"),
    ),
];

/// A card that a customer without any is charged with.
pub const NO_CARD: Decline = Decline {
    code: "missing",
    reason: None,
    message: "This customer has no attached payment source or default payment method.",
};

/// The card of a `pm_card_...`, of its name, or of its number, with or without spaces.
pub fn find(what: &str) -> Option<&'static Card> {
    let plain: String = what.chars().filter(|letter| !letter.is_whitespace()).collect();
    let name = plain.strip_prefix("pm_card_").unwrap_or(&plain);
    CARDS.iter().find(|card| card.name == name || card.number == plain)
}

impl Card {
    /// The card of a payment method.
    pub fn of(method: &Value) -> Option<&'static Self> {
        let name = method["card"]["fingerprint"].as_str()?.strip_prefix("standin_")?;
        CARDS.iter().find(|card| card.name == name)
    }

    /// Why it does not pay, if it does not.
    pub fn decline(&self) -> Option<Decline> {
        match self.conduct {
            Conduct::Refused(decline) | Conduct::Declined(decline) => Some(decline),
            Conduct::Pays | Conduct::Disputes(_) => None,
        }
    }

    /// A payment method with this card, not yet anybody's. Its fingerprint says which card it is.
    pub fn method(&self, id: &str) -> Value {
        let fingerprint = format!("standin_{}", self.name);
        json!({
            "id": id, "allow_redisplay": "unspecified",
            "billing_details": { "address": null, "email": null, "name": null, "phone": null, "tax_id": null },
            "card": {
                "brand": self.brand, "checks": {
                    "address_line1_check": null, "address_postal_code_check": null, "cvc_check": "pass",
                },
                "country": "US", "display_brand": self.brand, "exp_month": 12, "exp_year": 2040,
                "fingerprint": fingerprint, "funding": "credit", "generated_from": null, "last4": self.last4(),
                "networks": { "available": [self.brand], "preferred": null }, "regulated_status": null,
                "three_d_secure_usage": { "supported": true }, "wallet": null,
            },
            "customer": null, "customer_account": null, "metadata": {}, "type": "card",
        })
    }

    /// `payment_method_details` of a charge.
    pub fn details(&self) -> Value {
        json!({
            "card": {
                "amount_authorized": null, "authorization_code": null, "brand": self.brand,
                "checks": {
                    "address_line1_check": null, "address_postal_code_check": null, "cvc_check": "pass",
                },
                "country": "US", "exp_month": 12, "exp_year": 2040,
                "fingerprint": format!("standin_{}", self.name), "funding": "credit", "installments": null,
                "last4": self.last4(), "mandate": null, "network": self.brand, "three_d_secure": null, "wallet": null,
            },
            "type": "card",
        })
    }

    fn last4(&self) -> &'static str {
        &self.number[self.number.len() - 4..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_found_by_all_its_names() {
        for what in ["pm_card_visa", "visa", "4242424242424242", "4242 4242 4242 4242"] {
            assert_eq!(find(what).map(|card| card.name), Some("visa"), "{what}");
        }
        assert!(find("4111111111111111").is_none());
        for card in CARDS {
            assert_eq!(Card::of(&card.method("pm_1")).map(|found| found.name), Some(card.name));
        }
    }
}
