//! What Weir needs in the Stripe account, made or checked: the meter, the product, the price of an overage credit and the
//! configuration of the customer portal.
//!
//! It may run as often as anybody likes, and twice at once: what is there is found by a name of ours, and what is made has an
//! idempotency key that follows from what is made. Nothing is ever deleted, and nothing that is not ours is changed.

pub(super) mod meter;
pub(super) mod plan;
pub(super) mod portal;
pub(super) mod price;
mod product;

use std::future::Future;

use miniserde::Deserialize;
use stripe_client::StripeRequest;

use super::report::{Line, Problem, Verdict};
use super::stripe::{Key, Stripe, StripeError, digest};
use crate::config;

/// The key in `metadata` by which Weir knows what it made; its value is `billing.prefix`.
pub const MARK: &str = "weir";

/// How many idempotency keys are tried where Stripe says again what it said before.
const GENERATIONS: u32 = 3;

/// Where things are made, and what they should be.
pub(super) struct Site<'a> {
    pub(super) stripe: &'a Stripe,
    pub(super) config: &'a config::Billing,
    /// Where customers come back to from the portal.
    pub(super) public_url: &'a str,
    /// Whether anything may be made or changed.
    pub(super) may_change: bool,
}

/// A thing that is as it should be.
struct Done {
    id: String,
    verdict: Verdict,
    detail: String,
}

/// Makes or checks everything. `public_url` is where customers come back to from the portal.
pub async fn setup(stripe: &Stripe, config: &config::Billing, public_url: &str) -> Vec<Line> {
    Site { stripe, config, public_url, may_change: true }.all().await
}

impl Site<'_> {
    /// A line per thing. Where one is wrong, those that need it are not looked at.
    pub(super) async fn all(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let meter = note(&mut lines, "meter", meter::ensure(self).await);
        let product = note(&mut lines, "product", product::ensure(self).await);
        match (meter, product) {
            (Some(meter), Some(product)) => {
                note(&mut lines, "price", price::ensure(self, &meter, &product).await);
            }
            _ => lines.push(Line::new(Verdict::Wrong, "price", "needs the meter and the product; see above")),
        }
        note(&mut lines, "portal", portal::ensure(self).await);
        lines
    }

    /// Stops here where nothing may be made or changed.
    fn change(&self, why: &str) -> Result<(), Problem> {
        if self.may_change { Ok(()) } else { Err(Problem(format!("{why}; run `weir billing setup`"))) }
    }

    /// Makes something, and returns what `look` then sees of it, whoever made it. `about` is what tells this making from an
    /// earlier one of the same.
    async fn make<T, R, F>(&self, request: &R, about: &str, look: impl Fn() -> F) -> Result<T, Problem>
    where
        R: StripeRequest,
        R::Output: Deserialize,
        F: Future<Output = Result<Option<T>, Problem>>,
    {
        let mut last: Option<StripeError> = None;
        for generation in 0..GENERATIONS {
            let key = idempotency_key(request, about, generation);
            let sent = self.stripe.send(request, Key::Named(&key)).await.map(drop);
            // Whatever the answer says: what counts is what is there.
            if let Some(found) = look().await? {
                return Ok(found);
            }
            match sent {
                Err(error) if !error.replayed => return Err(error.into()),
                // Kept from another time: it is not so any more, or never came to be.
                sent => last = sent.err(),
            }
        }
        let why =
            last.map_or_else(|| "it cannot be found after it was made".to_owned(), |error| error.to_string());
        Err(Problem(format!("{why}; Stripe gives old answers for up to a day, try again then")))
    }
}

fn note(lines: &mut Vec<Line>, what: &'static str, found: Result<Done, Problem>) -> Option<String> {
    match found {
        Ok(Done { id, verdict, detail }) => {
            lines.push(Line::new(verdict, what, format!("{id}, {detail}")));
            Some(id)
        }
        Err(Problem(text)) => {
            lines.push(Line::new(Verdict::Wrong, what, text));
            None
        }
    }
}

/// The same for whoever makes the same, so that of two at once one makes it and both hear of it.
fn idempotency_key(request: &impl StripeRequest, about: &str, generation: u32) -> String {
    let request = request.build();
    let named = digest(&[request.path.as_str(), request.body.as_deref().unwrap_or_default(), about]);
    format!("weir-setup-{named}-{generation}")
}
