//! `weir billing`.

use clap::{Args, Subcommand};
use prometheus::Registry;

use super::{ConfigArgs, Failure, Store, explain, print_json, print_table, tenant_of};
use crate::audit::Actor;
use crate::billing::export::{Proof, Verdict as Compared};
use crate::billing::job::Job;
use crate::billing::report::{Line, Verdict};
use crate::billing::shop::{Adjust, Back, Shop};
use crate::billing::stripe::Stripe;
use crate::billing::{doctor, inbox, setup};
use crate::clock::Clock;
use crate::config::Config;
use crate::db::stripe_events::EventRow;
use crate::id::TenantId;
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
    /// Compare what periods owe, what was told to Stripe and what Stripe counts, and print the proof; exit code 1 where Stripe
    /// counts something else or cannot be read
    Reconcile {
        /// Only this tenant: its id, tn_..., or its name
        #[arg(long)]
        tenant: Option<String>,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List what Stripe said last, newest first, or put an event back that was given up
    Events {
        /// Only those that were given up
        #[arg(long)]
        failed: bool,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
        /// Put this event back, evt_..., to be worked on again
        #[arg(long, value_name = "ID", conflicts_with_all = ["failed", "limit", "json"])]
        again: Option<String>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Give a payment back, or a part of it; credits that were bought with one that is given back whole are taken back as far as they are left
    Refund {
        /// The charge, ch_...
        charge: String,
        #[command(flatten)]
        adjust: AdjustArgs,
    },
    /// Make an invoice worth less: what is to be paid of one that is open, or what comes back of one that is paid
    CreditNote {
        /// The invoice, in_...
        invoice: String,
        /// Where what was paid too much goes
        #[arg(long, value_enum, default_value = "balance")]
        to: Back,
        #[command(flatten)]
        adjust: AdjustArgs,
    },
    /// Check that the key, its permissions, the account and the webhook endpoint are as Weir needs them, and that somebody is
    /// billed for what plans let tenants owe; exit code 1 if not
    Doctor {
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Debug, Args)]
struct AdjustArgs {
    /// Whose it is: the tenant's id, tn_..., or its name
    #[arg(long)]
    tenant: String,
    /// How much, in the smallest unit of the currency; without it, all that is left
    #[arg(long)]
    amount: Option<i64>,
    /// Why; Stripe and the audit trail keep it
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    config: ConfigArgs,
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
        BillingCommand::Reconcile { tenant, json, config } => {
            print_proofs(&reconcile(tenant.as_deref(), config).await?, json)
        }
        BillingCommand::Events { again: Some(id), config, .. } => {
            let store = config.database().await?;
            inbox::again(&store.db, &store.clock, &id).await.map_err(explain)?;
            say!("{id} is worked on again by the processes that serve");
            Ok(())
        }
        BillingCommand::Events { failed, limit, json, again: None, config } => {
            let store = config.database().await?;
            print_events(&inbox::list(&store.db, failed, limit).await.map_err(explain)?, json)
        }
        BillingCommand::Refund { charge, adjust } => {
            let (shop, tenant) = adjust.shop().await?;
            print_json(&shop.refund(adjust.of(tenant), &charge).await.map_err(explain)?)
        }
        BillingCommand::CreditNote { invoice, to, adjust } => {
            let (shop, tenant) = adjust.shop().await?;
            print_json(&shop.credit_note(adjust.of(tenant), &invoice, to).await.map_err(explain)?)
        }
        BillingCommand::Doctor { config } => {
            let (stripe, settings) = connect(config.clone())?;
            let mut lines = doctor::examine(&stripe, &settings.billing, &settings.public_url()).await;
            lines.extend(match config.database().await {
                Ok(Store { db, clock, .. }) => {
                    doctor::plans::check(&db, &settings.billing, clock.now()).await
                }
                // Of Stripe there is something to be said all the same.
                Err(why) => doctor::plans::unchecked(&why.to_string()),
            });
            print(&lines)
        }
    }
}

impl AdjustArgs {
    async fn shop(&self) -> Result<(Shop, TenantId), Failure> {
        let (job, store) = job(self.config.clone()).await?;
        Ok((job.shop, tenant_of(&store.db, &self.tenant).await?))
    }

    fn of(&self, tenant: TenantId) -> Adjust<'_> {
        Adjust { actor: Actor::Cli, tenant, amount: self.amount, reason: &self.reason }
    }
}

async fn job(args: ConfigArgs) -> Result<(Job, Store), Failure> {
    let config = args.clone().load(Vec::new())?;
    let store = args.database().await?;
    // Nobody reads the metrics of a command.
    let metrics = Metrics::register(&Registry::new())?;
    let job = Job::connect(&config, &store.db, &store.clock, &metrics).await.map_err(explain)?;
    Ok((job.ok_or(NO_STRIPE)?, store))
}

async fn reconcile(tenant: Option<&str>, args: ConfigArgs) -> Result<Vec<Proof>, Failure> {
    let (job, store) = job(args).await?;
    let tenant = match tenant {
        Some(text) => Some(tenant_of(&store.db, text).await?),
        None => None,
    };
    let mut proofs = Vec::new();
    Box::pin(job.reconcile(tenant, |proof| proofs.push(proof))).await.map_err(explain)?;
    Ok(proofs)
}

fn print_proofs(proofs: &[Proof], json: bool) -> Result<(), Failure> {
    if json {
        print_json(&proofs)?;
    } else {
        let rows: Vec<_> = proofs
            .iter()
            .map(|proof| {
                let counted = proof.counted.map_or_else(|| "?".to_owned(), |counted| counted.to_string());
                let [owed, told, slots] =
                    [proof.owed, proof.told, proof.slots].map(|amount| amount.to_string());
                let verdict = proof.verdict.as_str().to_owned();
                [
                    proof.tenant_id.to_string(),
                    proof.period_id.to_string(),
                    owed,
                    told,
                    slots,
                    counted,
                    verdict,
                ]
            })
            .collect();
        print_table(["TENANT", "PERIOD", "OWED", "TOLD", "IN ITS MINUTES", "COUNTED", "VERDICT"], &rows);
    }
    let wrong = [Compared::Missing, Compared::Extra, Compared::Unreadable];
    match proofs.iter().filter(|proof| wrong.contains(&proof.verdict)).count() {
        0 => Ok(()),
        wrong => Err(format!("{wrong} of {} periods are not proven", proofs.len()).into()),
    }
}

fn print_events(events: &[EventRow], json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&events);
    }
    let rows: Vec<_> = events
        .iter()
        .map(|event| {
            let EventRow { id, kind, object_id, state, tries, received_at, note, .. } = event.clone();
            [id, kind, object_id, state.to_string(), tries.to_string(), received_at.to_string(), note]
        })
        .collect();
    print_table(["EVENT", "TYPE", "OBJECT", "STATE", "TRIES", "RECEIVED", "NOTE"], &rows);
    Ok(())
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
