//! `weir tenant`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgs, Failure, Store, explain, print_json, print_table};
use crate::audit::Actor;
use crate::db::Page;
use crate::id::TenantId;
use crate::plans::PlanName;
use crate::tenants::{self, Tenant};

/// Arguments of `weir tenant`.
#[derive(Debug, Args)]
pub struct TenantArgs {
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Create a tenant and print it
    Create {
        /// Its name, unique among the tenants that are not deleted
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List tenants, oldest first
    List {
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Put a tenant on a plan
    SetPlan {
        /// The tenant's id, tn_...
        id: TenantId,
        /// The plan's name
        plan: PlanName,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Refuse every request of a tenant until it is resumed
    Suspend(Target),
    /// Let a suspended tenant in again
    Resume(Target),
    /// Delete a tenant and revoke all its keys
    Delete(Target),
}

#[derive(Debug, Args)]
struct Target {
    /// The tenant's id, tn_...
    id: TenantId,
    #[command(flatten)]
    config: ConfigArgs,
}

fn body(tenant: &Tenant) -> serde_json::Value {
    json!({
        "id": tenant.id,
        "name": tenant.name,
        "status": tenant.status,
        "plan": tenant.plan,
        "created_at": tenant.created_at,
    })
}

pub(super) async fn run(args: TenantArgs) -> Result<(), Failure> {
    match args.command {
        TenantCommand::Create { name, config } => {
            let Store { db, clock, .. } = config.database().await?;
            print_json(&body(&tenants::create(&db, &clock, Actor::Cli, &name).await.map_err(explain)?))
        }
        TenantCommand::List { json, config } => list(&config.database().await?, json).await,
        TenantCommand::SetPlan { id, plan, config } => {
            let Store { db, clock, lead } = config.database().await?;
            let tenant = tenants::set_plan(&db, &clock, Actor::Cli, id, &plan, lead).await;
            print_json(&body(&tenant.map_err(explain)?))
        }
        TenantCommand::Suspend(Target { id, config }) => {
            let Store { db, clock, .. } = config.database().await?;
            print_json(&body(&tenants::suspend(&db, &clock, Actor::Cli, id).await.map_err(explain)?))
        }
        TenantCommand::Resume(Target { id, config }) => {
            let Store { db, clock, .. } = config.database().await?;
            print_json(&body(&tenants::resume(&db, &clock, Actor::Cli, id).await.map_err(explain)?))
        }
        TenantCommand::Delete(Target { id, config }) => {
            let Store { db, clock, .. } = config.database().await?;
            print_json(&body(&tenants::delete(&db, &clock, Actor::Cli, id).await.map_err(explain)?))
        }
    }
}

async fn list(store: &Store, json: bool) -> Result<(), Failure> {
    let mut page = Page::first(Page::<TenantId>::MAX);
    let mut rows = Vec::new();
    loop {
        let listed = tenants::list(&store.db, page).await.map_err(explain)?;
        page.after = listed.rows.last().map(|tenant| tenant.id);
        if json {
            for tenant in &listed.rows {
                say!("{}", body(tenant));
            }
        } else {
            rows.extend(
                listed.rows.into_iter().map(|t| {
                    [t.id.to_string(), t.status.to_string(), t.plan, t.created_at.to_string(), t.name]
                }),
            );
        }
        if !listed.more {
            break;
        }
    }
    if !json {
        print_table(["ID", "STATUS", "PLAN", "CREATED", "NAME"], &rows);
    }
    Ok(())
}
