//! `weir operator-key`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgs, Failure, Store, explain, print_json, print_table};
use crate::audit::Actor;
use crate::db::Page;
use crate::id::OperatorKeyId;
use crate::operator_keys;

/// Arguments of `weir operator-key`.
#[derive(Debug, Args)]
pub struct OperatorKeyArgs {
    #[command(subcommand)]
    command: OperatorKeyCommand,
}

#[derive(Debug, Subcommand)]
enum OperatorKeyCommand {
    /// Create an operator key and show its secret, once
    Create {
        /// Who or what holds it
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List operator keys, oldest first
    List {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Revoke an operator key; it is refused at once
    Revoke {
        /// The key's id, opk_...
        id: OperatorKeyId,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

pub(super) async fn run(args: OperatorKeyArgs) -> Result<(), Failure> {
    match args.command {
        OperatorKeyCommand::Create { name, config } => {
            let Store { db, clock, .. } = config.database().await?;
            let (key, secret) =
                operator_keys::create(&db, &clock, Actor::Cli, &name).await.map_err(explain)?;
            print_json(&json!({ "id": key.id, "name": key.name, "secret": secret.expose() }))?;
            eprintln!("The secret is shown only now; keep it in a safe place.");
            Ok(())
        }
        OperatorKeyCommand::List { config } => list(&config.database().await?).await,
        OperatorKeyCommand::Revoke { id, config } => {
            let Store { db, clock, .. } = config.database().await?;
            let key = operator_keys::revoke(&db, &clock, Actor::Cli, id).await.map_err(explain)?;
            print_json(&json!({ "id": key.id, "name": key.name, "revoked_at": key.revoked_at }))
        }
    }
}

async fn list(store: &Store) -> Result<(), Failure> {
    let page = Page::first(Page::<OperatorKeyId>::MAX);
    let listed = operator_keys::list(&store.db, page).await.map_err(explain)?;
    let rows: Vec<_> = listed
        .rows
        .into_iter()
        .map(|key| {
            let state = if key.revoked_at.is_some() { "revoked" } else { "active" };
            [key.id.to_string(), key.hint, state.to_owned(), key.created_at.to_string(), key.name]
        })
        .collect();
    print_table(["ID", "ENDS WITH", "STATE", "CREATED", "NAME"], &rows);
    Ok(())
}
