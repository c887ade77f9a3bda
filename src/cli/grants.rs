//! `weir grant`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgs, Failure, Store, explain, print_json, print_table, tenant_of};
use crate::accounts::grants::{self, Grant, GrantKind, NewGrant};
use crate::audit::Actor;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::Page;
use crate::id::{GrantId, TenantId};

/// Arguments of `weir grant`.
#[derive(Debug, Args)]
pub struct GrantArgs {
    #[command(subcommand)]
    command: GrantCommand,
}

#[derive(Debug, Subcommand)]
enum GrantCommand {
    /// Give credits to a tenant
    Add(AddArgs),
    /// List what a tenant was given, oldest first
    List {
        /// The tenant's id, tn_..., or its name
        #[arg(long)]
        tenant: String,
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Take back what is left of a grant, at once
    Void {
        /// The grant's id, grt_...
        id: GrantId,
        /// The tenant's id, tn_..., or its name
        #[arg(long)]
        tenant: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The tenant's id, tn_..., or its name
    #[arg(long)]
    tenant: String,
    /// promotional (used first) or prepaid
    #[arg(long)]
    kind: GrantKind,
    /// How many, such as 500 or 0.25
    #[arg(long)]
    credits: Credits,
    /// What they are given for, such as invoice-77: for one source they are given once
    #[arg(long)]
    source: Option<String>,
    /// What you want to say of it
    #[arg(long, default_value = "")]
    note: String,
    /// When they end, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "RFC 3339")]
    expires: Option<jiff::Timestamp>,
    #[command(flatten)]
    config: ConfigArgs,
}

fn body(grant: &Grant) -> serde_json::Value {
    json!({
        "id": grant.id,
        "tenant_id": grant.tenant_id,
        "kind": grant.kind,
        "source": grant.source,
        "note": grant.note,
        "granted": grant.granted,
        "used": grant.used + grant.used_open,
        "remaining": grant.remaining(),
        "expired": grant.expired,
        "voided": grant.voided,
        "granted_at": grant.granted_at,
        "expires_at": grant.expires_at,
        "voided_at": grant.voided_at,
    })
}

pub(super) async fn run(args: GrantArgs) -> Result<(), Failure> {
    match args.command {
        GrantCommand::Add(args) => {
            let AddArgs { tenant, kind, credits, source, note, expires, config } = args;
            let new = NewGrant { kind, credits, source, note, expires_at: expires.map(Timestamp::from) };
            let Store { db, clock, .. } = config.database().await?;
            let tenant = tenant_of(&db, &tenant).await?;
            print_json(&body(&grants::add(&db, &clock, Actor::Cli, tenant, new).await.map_err(explain)?))
        }
        GrantCommand::List { tenant, json, config } => {
            let store = config.database().await?;
            let tenant = tenant_of(&store.db, &tenant).await?;
            list(&store, tenant, json).await
        }
        GrantCommand::Void { id, tenant, config } => {
            let Store { db, clock, .. } = config.database().await?;
            let tenant = tenant_of(&db, &tenant).await?;
            print_json(&body(&grants::void(&db, &clock, Actor::Cli, tenant, id).await.map_err(explain)?))
        }
    }
}

async fn list(store: &Store, tenant: TenantId, json: bool) -> Result<(), Failure> {
    crate::tenants::get(&store.db, tenant).await.map_err(explain)?;
    let mut page = Page::first(Page::<GrantId>::MAX);
    let mut rows = Vec::new();
    loop {
        let listed = grants::list(&store.db, tenant, page).await.map_err(explain)?;
        page.after = listed.rows.last().map(|grant| grant.id);
        for grant in &listed.rows {
            if json {
                say!("{}", body(grant));
            } else {
                rows.push(row(grant));
            }
        }
        if !listed.more {
            break;
        }
    }
    if !json {
        print_table(["ID", "KIND", "GRANTED", "USED", "LEFT", "EXPIRES", "SOURCE"], &rows);
    }
    Ok(())
}

fn row(grant: &Grant) -> [String; 7] {
    let expires = match (grant.voided_at, grant.expires_at) {
        (Some(_), _) => "voided".to_owned(),
        (None, Some(at)) => at.to_string(),
        (None, None) => "never".to_owned(),
    };
    [
        grant.id.to_string(),
        grant.kind.to_string(),
        grant.granted.to_string(),
        (grant.used + grant.used_open).to_string(),
        grant.remaining().to_string(),
        expires,
        grant.source.clone(),
    ]
}
