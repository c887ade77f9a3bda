//! `weir stripe-standin`: something to try billing out against, without an account.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::service::Signals;
use super::{Failure, print_table};
use crate::clock::Clock;
use crate::standin::assumptions::ASSUMPTIONS;
use crate::standin::{Options, SECRET_KEY, Standin};

/// Bytes of the seed, so that no id comes twice, and of a secret that is made up.
const RANDOM: usize = 24;

/// Arguments of `weir stripe-standin`.
#[derive(Debug, Args)]
pub struct StandinArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:12111")]
    listen: SocketAddr,
    /// Where to send webhooks, for example http://127.0.0.1:8080/webhooks/stripe
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// What to sign webhooks with, instead of a secret that is made up
    #[arg(long, value_name = "SECRET", requires = "webhook_url")]
    webhook_secret: Option<SecretString>,
    /// Write each request to a file in this directory, as a line of JSON
    #[arg(long, value_name = "DIRECTORY")]
    record: Option<PathBuf>,
    /// Print what it takes for granted about Stripe, and end
    #[arg(long)]
    assumptions: bool,
}

/// Serves until a signal comes.
pub(super) async fn run(args: StandinArgs) -> Result<(), Failure> {
    if args.assumptions {
        print_assumptions();
        return Ok(());
    }
    let mut signals = Signals::register()?;
    let options = Options {
        listen: args.listen,
        seed: random()?.into_bytes(),
        record: args.record,
        ..Options::new(Clock::system())
    };
    let standin = Standin::start(options).await.map_err(|error| {
        format!("cannot listen at --listen {} or write to --record: {error}", args.listen)
    })?;
    let base = standin.base_url();
    say!("This is a stand-in for Stripe's API, not Stripe. It forgets everything when it stops (Ctrl-C).");
    say!();
    say!("Weir's configuration, as environment:");
    say!("  export WEIR_BILLING__STRIPE_URL={base}");
    say!("  export WEIR_BILLING__STRIPE_KEY={SECRET_KEY}");
    if let Some(url) = &args.webhook_url {
        let secret = match args.webhook_secret {
            Some(secret) => secret,
            None => SecretString::from(format!("whsec_{}", random()?)),
        };
        standin
            .add_webhook(url, secret.expose_secret())
            .map_err(|error| format!("--webhook-url: {error}"))?;
        say!("  export WEIR_BILLING__WEBHOOK_SECRETS={}", secret.expose_secret());
        say!();
        say!("Webhooks go to {url}");
    }
    say!();
    say!("Pay on its pages:  4242 4242 4242 4242, or another test card that the page names; no money moves");
    say!("Move its clock:  curl {base}/_standin/clock -d '{{\"advance_seconds\":3600}}'");
    say!(
        "Lose an answer:  curl {base}/_standin/faults -d '{{\"fault\":\"lost_response\",\"path\":\"/v1/\"}}'"
    );
    signals.wait().await;
    standin.stop().await;
    Ok(())
}

fn random() -> Result<String, Failure> {
    let mut bytes = [0; RANDOM];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system has no random bytes to give")?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

fn print_assumptions() {
    let rows: Vec<_> = ASSUMPTIONS
        .iter()
        .map(|one| {
            let verified = if one.verified_live { "yes" } else { "no" };
            [
                one.id.to_owned(),
                format!("verified live: {verified}"),
                one.source.to_owned(),
                one.what.to_owned(),
            ]
        })
        .collect();
    print_table(["ID", "", "SOURCE", "WHAT IS ASSUMED"], &rows);
}
