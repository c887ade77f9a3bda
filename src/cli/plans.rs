//! `weir plan`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::prices::{self, ImportArgs, PricesArgs, PublishArgs};
use super::{ConfigArgs, Failure, Store, explain, print_json, print_table};
use crate::audit::Actor;
use crate::db::Page;
use crate::limits::PlanLimits;
use crate::plans::{self, Plan, PlanName};

/// Arguments of `weir plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(subcommand)]
    command: PlanCommand,
}

#[derive(Debug, Subcommand)]
enum PlanCommand {
    /// Create a plan, or change it; it holds for its tenants within a second
    Set {
        /// Its name: a-z, 0-9, - and _; tenants are on "default" at first
        name: PlanName,
        /// What differs from the configuration, as JSON such as {"streams": 50}; docs/API.md has all of it
        #[arg(long, value_name = "JSON", value_parser = parse_limits)]
        limits: PlanLimits,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Show a plan
    Show {
        /// Its name
        name: PlanName,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List plans, by name
    List {
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Publish what a plan costs; where tenants are on it, it holds a little later, when every process has heard
    Publish(PublishArgs),
    /// List what a plan costs, cost and will cost
    Prices(PricesArgs),
    /// Create and change plans, and publish their prices, as a file says; what is so already stays
    Import(ImportArgs),
    /// Delete a plan that no tenant is on
    Delete {
        /// Its name
        name: PlanName,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

fn parse_limits(text: &str) -> Result<PlanLimits, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn body(plan: &Plan) -> serde_json::Value {
    json!({
        "name": plan.name,
        "limits": plan.limits,
        "created_at": plan.created_at,
        "updated_at": plan.updated_at,
    })
}

pub(super) async fn run(args: PlanArgs) -> Result<(), Failure> {
    match args.command {
        PlanCommand::Set { name, limits, config } => {
            let Store { db, clock, .. } = config.database().await?;
            print_json(&body(&plans::put(&db, &clock, Actor::Cli, &name, &limits).await.map_err(explain)?))
        }
        PlanCommand::Show { name, config } => {
            let Store { db, .. } = config.database().await?;
            print_json(&body(&plans::get(&db, &name).await.map_err(explain)?))
        }
        PlanCommand::Publish(args) => prices::publish(args).await,
        PlanCommand::Prices(args) => prices::list(args).await,
        PlanCommand::Import(args) => prices::import(args).await,
        PlanCommand::List { json, config } => list(&config.database().await?, json).await,
        PlanCommand::Delete { name, config } => {
            let Store { db, clock, .. } = config.database().await?;
            plans::delete(&db, &clock, Actor::Cli, &name).await.map_err(explain)
        }
    }
}

async fn list(store: &Store, json: bool) -> Result<(), Failure> {
    let mut page = Page::first(Page::<PlanName>::MAX);
    let mut rows = Vec::new();
    loop {
        let listed = plans::list(&store.db, page.clone()).await.map_err(explain)?;
        page.after = listed.rows.last().map(|plan| plan.name.clone());
        for plan in &listed.rows {
            if json {
                say!("{}", body(plan));
            } else {
                let limits = serde_json::to_string(&plan.limits)?;
                rows.push([plan.name.to_string(), plan.updated_at.to_string(), limits]);
            }
        }
        if !listed.more {
            break;
        }
    }
    if !json {
        print_table(["NAME", "CHANGED", "LIMITS"], &rows);
    }
    Ok(())
}
