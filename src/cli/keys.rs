//! `weir key`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgs, Failure, Store, explain, print_json, print_table};
use crate::api_keys::{self, ApiKey, KeyKind, NewKey};
use crate::audit::Actor;
use crate::clock::Timestamp;
use crate::db::Page;
use crate::id::{KeyId, TenantId};
use crate::limits::KeyLimits;
use crate::policy::{Pattern, Risk, Scopes};

/// Arguments of `weir key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Create a key and show its secret, once
    Create(CreateArgs),
    /// List a tenant's keys, oldest first
    List {
        /// The tenant's id, tn_...
        #[arg(long)]
        tenant: TenantId,
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Give a key other limits; they hold within a second
    SetLimits {
        /// The key's id, key_...
        id: KeyId,
        /// The tenant's id, tn_...
        #[arg(long)]
        tenant: TenantId,
        /// What differs from the tenant's plan, as JSON such as {"per_second": 5, "burst": 10}; {} for nothing
        #[arg(long, value_name = "JSON", value_parser = parse_limits)]
        limits: KeyLimits,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Revoke a key; it is refused everywhere within a second
    Revoke {
        /// The key's id, key_...
        id: KeyId,
        /// The tenant's id, tn_...
        #[arg(long)]
        tenant: TenantId,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The tenant's id, tn_...
    #[arg(long)]
    tenant: TenantId,
    /// What the key is called
    #[arg(long)]
    name: String,
    /// api_key (for the Authorization header) or url_token (may stand in ?token=)
    #[arg(long, default_value = "api_key")]
    kind: KeyKind,
    /// Servers that it may use, as patterns such as core or acme-*; repeat for more [default: *]
    #[arg(long = "server", value_name = "PATTERN")]
    servers: Vec<String>,
    /// Tools that it may call, as patterns such as dns_*; repeat for more [default: *]
    #[arg(long = "tool", value_name = "PATTERN")]
    tools: Vec<String>,
    /// The riskiest tools that it may call: read_only, write or destructive
    #[arg(long, default_value = "destructive")]
    max_risk: Risk,
    /// It may also buy for the tenant: subscriptions and credits. Not for a key that an agent holds
    #[arg(long)]
    billing: bool,
    /// When it ends, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "RFC 3339")]
    expires_at: Option<jiff::Timestamp>,
    /// What differs from the tenant's plan, as JSON such as {"per_second": 5, "burst": 10}
    #[arg(long, value_name = "JSON", value_parser = parse_limits, default_value = "{}")]
    limits: KeyLimits,
    #[command(flatten)]
    config: ConfigArgs,
}

fn body(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id,
        "tenant_id": key.tenant_id,
        "kind": key.kind,
        "name": key.name,
        "hint": key.hint,
        "scopes": key.scopes,
        "limits": key.limits,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    })
}

fn parse_limits(text: &str) -> Result<KeyLimits, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn patterns(texts: Vec<String>) -> Result<Vec<Pattern>, Failure> {
    if texts.is_empty() {
        return Ok(vec![Pattern::try_from("*".to_owned()).map_err(explain)?]);
    }
    texts.into_iter().map(|text| Pattern::try_from(text).map_err(explain)).collect()
}

pub(super) async fn run(args: KeyArgs) -> Result<(), Failure> {
    match args.command {
        KeyCommand::Create(args) => create(args).await,
        KeyCommand::List { tenant, json, config } => list(&config.database().await?, tenant, json).await,
        KeyCommand::SetLimits { id, tenant, limits, config } => {
            let Store { db, clock, .. } = config.database().await?;
            let key = api_keys::set_limits(&db, &clock, Actor::Cli, (tenant, id), &limits).await;
            print_json(&body(&key.map_err(explain)?))
        }
        KeyCommand::Revoke { id, tenant, config } => {
            let Store { db, clock, .. } = config.database().await?;
            print_json(&body(&api_keys::revoke(&db, &clock, Actor::Cli, tenant, id).await.map_err(explain)?))
        }
    }
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let scopes = Scopes {
        servers: patterns(args.servers)?,
        tools: patterns(args.tools)?,
        max_risk: args.max_risk,
        billing: args.billing,
    };
    let expires_at = args.expires_at.map(Timestamp::from);
    let new = NewKey { kind: args.kind, name: args.name, scopes, limits: args.limits, expires_at };
    let Store { db, clock, .. } = args.config.database().await?;
    let (key, secret) = api_keys::create(&db, &clock, Actor::Cli, args.tenant, new).await.map_err(explain)?;
    let mut shown = body(&key);
    shown["secret"] = secret.expose().into();
    print_json(&shown)?;
    eprintln!("The secret is shown only now; keep it in a safe place.");
    Ok(())
}

async fn list(store: &Store, tenant: TenantId, json: bool) -> Result<(), Failure> {
    crate::tenants::get(&store.db, tenant).await.map_err(explain)?;
    let mut page = Page::first(Page::<KeyId>::MAX);
    let mut rows = Vec::new();
    loop {
        let listed = api_keys::list(&store.db, tenant, page).await.map_err(explain)?;
        page.after = listed.rows.last().map(|key| key.id);
        for key in &listed.rows {
            if json {
                say!("{}", body(key));
            } else {
                rows.push(row(key, store.clock.now()));
            }
        }
        if !listed.more {
            break;
        }
    }
    if !json {
        print_table(["ID", "KIND", "ENDS WITH", "STATE", "LAST USED", "NAME"], &rows);
    }
    Ok(())
}

fn row(key: &ApiKey, now: Timestamp) -> [String; 6] {
    let state = match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        _ => "active",
    };
    let used = key.last_used_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    [key.id.to_string(), key.kind.to_string(), key.hint.clone(), state.to_owned(), used, key.name.clone()]
}
