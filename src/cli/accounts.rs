//! `weir account`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{ConfigArgs, Failure, Store, explain, print_json, tenant_of};
use crate::accounts::{self, Access, Overview, Period};
use crate::audit::Actor;
use crate::credits::Credits;
use crate::id::TenantId;

/// Arguments of `weir account`.
#[derive(Debug, Args)]
pub struct AccountArgs {
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Show a tenant's plan, period, caps, what is left and owed, and its events
    Show {
        /// The tenant's id, tn_..., or its name
        #[arg(long)]
        tenant: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Cap what a tenant may owe per period; its plan's cap counts where it is lower
    Cap {
        /// Credits, such as 100, or none
        #[arg(value_parser = parse_cap)]
        credits: Cap,
        /// The tenant's id, tn_..., or its name
        #[arg(long)]
        tenant: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// A cap, or none; not an `Option`, which would say that the argument may be left out.
#[derive(Debug, Clone, Copy)]
struct Cap(Option<Credits>);

fn parse_cap(text: &str) -> Result<Cap, String> {
    if text == "none" {
        return Ok(Cap(None));
    }
    text.parse().map(|credits| Cap(Some(credits))).map_err(|error: crate::error::Error| error.to_string())
}

pub(super) async fn run(args: AccountArgs) -> Result<(), Failure> {
    match args.command {
        AccountCommand::Show { tenant, config } => {
            let store = config.database().await?;
            show(&store, tenant_of(&store.db, &tenant).await?).await
        }
        AccountCommand::Cap { credits: Cap(cap), tenant, config } => {
            let store = config.database().await?;
            let Store { db, clock, .. } = &store;
            let tenant = tenant_of(db, &tenant).await?;
            accounts::set_spend_cap(db, clock, Actor::Cli, tenant, cap).await.map_err(explain)?;
            show(&store, tenant).await
        }
    }
}

async fn show(store: &Store, tenant: TenantId) -> Result<(), Failure> {
    let overview = accounts::overview(&store.db, tenant, store.clock.now()).await.map_err(explain)?;
    print_json(&body(tenant, &overview)?)
}

fn body(tenant: TenantId, overview: &Overview) -> Result<Value, Failure> {
    let Overview { plan, account, standing, left, owed, events } = overview;
    let events = events.iter().map(|event| {
        let detail: Value = serde_json::from_str(&event.detail)?;
        Ok(json!({ "id": event.id, "kind": event.kind, "at": event.at, "detail": detail }))
    });
    Ok(json!({
        "tenant_id": tenant,
        "plan": plan,
        "cycle": account.as_ref().map(|account| account.cycle),
        "spend_cap": account.as_ref().and_then(|account| account.spend_cap),
        "access": account.as_ref().map_or(Access::Open, |account| account.access),
        "subscription": account.as_ref().and_then(|account| account.subscription.as_deref()),
        "next_plan": account.as_ref().and_then(|account| account.next_plan.as_ref()),
        "next_plan_at": account.as_ref().and_then(|account| account.next_plan_at),
        "period": standing.current.as_ref().map(period),
        "next_period": standing.next.as_ref().map(period),
        "left": left,
        "owed": owed,
        "events": events.collect::<Result<Vec<_>, serde_json::Error>>()?,
    }))
}

fn period(period: &Period) -> Value {
    json!({
        "id": period.id,
        "plan": period.plan,
        "price_version_id": period.price_version_id,
        "starts_at": period.starts_at,
        "ends_at": period.ends_at,
        "hard_cap": period.hard_cap,
        "soft_cap": period.soft_cap,
    })
}
