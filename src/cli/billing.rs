//! `weir billing`.

use clap::{Args, Subcommand};
use prometheus::Registry;

use super::{ConfigArgs, Failure};
use crate::billing::report::{Line, Verdict};
use crate::billing::stripe::Stripe;
use crate::billing::{doctor, setup};
use crate::clock::Clock;
use crate::config::Config;
use crate::telemetry::billing::Billing as Metrics;

/// Arguments of `weir billing`.
#[derive(Debug, Args)]
pub struct BillingArgs {
    #[command(subcommand)]
    command: BillingCommand,
}

#[derive(Debug, Subcommand)]
enum BillingCommand {
    /// Make or check what Weir needs in the Stripe account: meter, product, price, customer portal. Run it as often as you like
    Setup {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Check that the key, its permissions, the account and the webhook endpoint are as Weir needs them; exit code 1 if not
    Doctor {
        #[command(flatten)]
        config: ConfigArgs,
    },
}

const NO_STRIPE: &str = "no Stripe is configured. Calls are metered and plans, caps and grants hold, but nobody is charged \
    anything. For Stripe set billing.stripe_key (WEIR_BILLING__STRIPE_KEY) and billing.credit_price; docs/BILLING.md has \
    the rest";

pub(super) async fn run(args: BillingArgs) -> Result<(), Failure> {
    match args.command {
        BillingCommand::Setup { config } => {
            let (stripe, config) = connect(config)?;
            print(&setup::setup(&stripe, &config.billing, &config.public_url()).await)
        }
        BillingCommand::Doctor { config } => {
            let (stripe, config) = connect(config)?;
            print(&doctor::examine(&stripe, &config.billing, &config.public_url()).await)
        }
    }
}

fn connect(args: ConfigArgs) -> Result<(Stripe, Config), Failure> {
    let config = args.load(Vec::new())?;
    if !config.billing.is_configured() {
        return Err(NO_STRIPE.into());
    }
    // Nobody reads the metrics of a command.
    let metrics = Metrics::register(&Registry::new())?;
    Ok((Stripe::new(&config.billing, &Clock::system(), &metrics)?, config))
}

fn print(lines: &[Line]) -> Result<(), Failure> {
    for line in lines {
        say!("{line}");
    }
    match lines.iter().filter(|line| line.verdict == Verdict::Wrong).count() {
        0 => Ok(()),
        1 => Err("one thing is wrong; see above".into()),
        wrong => Err(format!("{wrong} things are wrong; see above").into()),
    }
}
