//! The stand-in for Stripe. Where the recipe names a directory, what it is asked is recorded there: `make stripe-requests`
//! looks later whether Weir asked as Stripe's own SDK would.

use std::path::Path;

use weir::billing::setup;
use weir::billing::stripe::Stripe;
use weir::clock::Clock;
use weir::standin::{Options, SECRET_KEY, Standin};

use super::Gateway;
use super::gateway::Builder;
use super::services::variable;

/// One with this time, on a port of its own.
pub async fn standin(clock: Clock) -> Standin {
    weir::egress::install_crypto();
    let record = variable("WEIR_TEST_STRIPE_REQUESTS").map(Into::into);
    Standin::start(Options { record, ..Options::new(clock) }).await.expect("a stand-in")
}

/// A gateway that bills through a stand-in by a clock that stands still: what processes hold of credits is given back when that
/// says so.
pub fn billing(clock: &Clock, standin: &Standin) -> Builder {
    Gateway::build()
        .clock(clock)
        .set("metering.lead_ms", 500)
        .set("metering.lease_ms", 600_000)
        .set("metering.idle_ms", 1_000)
        .set("server.drain_delay_ms", 0)
        .set("billing.stripe_key", SECRET_KEY)
        .set("billing.stripe_url", standin.base_url())
}

/// Makes in its stand-in what a gateway needs there.
pub async fn set_up(gateway: &Gateway, clock: &Clock) {
    let app = &gateway.app;
    let stripe = Stripe::new(&app.config.billing, clock, &app.metrics.billing).expect("a client");
    setup::setup(&stripe, &app.config.billing, "http://127.0.0.1").await;
}

/// Files in `dir` that start a stand-in.
fn starting(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            starting(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            if text.contains(concat!("Standin::", "start(")) {
                found
                    .push(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("ours").display().to_string());
            }
        }
    }
}

#[test]
fn no_story_starts_one_whose_requests_nobody_looks_at() {
    let mut found = Vec::new();
    for dir in ["src", "tests"] {
        starting(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut found);
    }
    assert_eq!(found, ["src/cli/standin.rs", "tests/it/support/stripe.rs"]);
}
