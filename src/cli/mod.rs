//! The commands. Each prints its result to stdout and its trouble to stderr; what goes wrong ends with exit code 1,
//! a wrong command line with 2.

/// Prints a line of a command's result.
macro_rules! say {
    () => { $crate::cli::say(format_args!("")) };
    ($($what:tt)*) => { $crate::cli::say(format_args!($($what)*)) };
}

mod accounts;
mod billing;
mod dev;
mod grants;
mod health;
mod keys;
mod ledger;
mod operators;
mod plans;
mod prices;
pub mod probe;
mod service;
mod standin;
mod tenants;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::clock::Clock;
use crate::config::{Config, Layers};
use crate::db::Db;
use crate::id::TenantId;

/// Why a command failed, as a sentence.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A multi-tenant MCP gateway that sells tools.
#[derive(Debug, Parser)]
#[command(name = "weir", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this machine: SQLite, a first tenant and key, and lines to paste into clients
    Dev(dev::DevArgs),
    /// Run in production: needs a migrated database, creates nothing
    Serve(ServeArgs),
    /// Bring the database's schema up to date
    Migrate(ConfigArgs),
    /// Create, list, suspend, resume and delete tenants, and put them on plans
    Tenant(tenants::TenantArgs),
    /// Create, list and revoke a tenant's API keys and URL tokens
    Key(keys::KeyArgs),
    /// Set, list, price, import and delete plans: what tenants may use, and what it costs
    Plan(plans::PlanArgs),
    /// Give credits to a tenant, list what it was given, take something back
    Grant(grants::GrantArgs),
    /// Show a tenant's account, and cap what it may owe
    Account(accounts::AccountArgs),
    /// Show and export what tenants used
    Usage(usage::UsageArgs),
    /// Check the ledger of charges
    Ledger(ledger::LedgerArgs),
    /// Set up Stripe, and check that it is as it should be
    Billing(billing::BillingArgs),
    /// Create, list and revoke operator keys, which open the admin API
    OperatorKey(operators::OperatorKeyArgs),
    /// Check an MCP server as an outside monitor would: connect, list tools, call one that only reads
    Probe(probe::ProbeArgs),
    /// Run a stand-in for Stripe's API on this machine, to try billing out: it is not Stripe
    StripeStandin(standin::StandinArgs),
    /// Ask a running Weir for its health; exit code 0 if it is well
    Health(health::HealthArgs),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
struct ConfigArgs {
    /// Configuration file (TOML); WEIR_SECTION__KEY variables win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address to listen on, instead of server.listen
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

impl ConfigArgs {
    fn load(self, flags: Vec<(String, String)>) -> Result<Config, Failure> {
        Ok(Layers::from_process(self.config, flags).load()?)
    }

    /// The database, for commands that change it. Says so where its schema is not up to date.
    async fn database(self) -> Result<Store, Failure> {
        Ok(self.store().await?.0)
    }

    /// The same with the configuration.
    async fn store(self) -> Result<(Store, Config), Failure> {
        let config = self.load(Vec::new())?;
        let db = Db::connect_existing(&config.database).await.map_err(explain)?;
        if db.pending_migrations().await.map_err(explain)? > 0 {
            return Err("the database's schema is not up to date; run `weir migrate` first".into());
        }
        Ok((Store { db, clock: Clock::system(), lead: config.metering.lead.get() }, config))
    }
}

/// What management commands work on.
struct Store {
    db: Db,
    clock: Clock,
    /// How far ahead changes of plans and prices take effect.
    lead: Duration,
}

/// The tenant of this id or name. One that was deleted is found by its id.
async fn tenant_of(db: &Db, text: &str) -> Result<TenantId, Failure> {
    let found = match text.parse::<TenantId>() {
        Ok(id) => crate::ledger::usage::has_tenant(db, id).await.map_err(explain)?.then_some(id),
        Err(_) => crate::tenants::find_by_name(db, text).await.map_err(explain)?.map(|tenant| tenant.id),
    };
    found.ok_or_else(|| format!("--tenant: there is no tenant {text:?}").into())
}

/// The whole chain of an error: on the command line the operator may see what the database said.
#[expect(clippy::needless_pass_by_value, reason = "stands in map_err")]
fn explain(error: crate::error::Error) -> Failure {
    use std::error::Error;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text.into()
}

/// Runs the command.
///
/// # Errors
/// A sentence for stderr.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Dev(args) => dev::run(args).await,
        Command::Serve(args) => service::serve(args).await,
        Command::Migrate(args) => migrate(args).await,
        Command::Tenant(args) => tenants::run(args).await,
        Command::Key(args) => keys::run(args).await,
        Command::Plan(args) => plans::run(args).await,
        Command::Grant(args) => grants::run(args).await,
        Command::Account(args) => accounts::run(args).await,
        Command::Usage(args) => usage::run(args).await,
        Command::Ledger(args) => ledger::run(args).await,
        Command::Billing(args) => billing::run(args).await,
        Command::OperatorKey(args) => operators::run(args).await,
        Command::Probe(args) => Ok(probe::run(args).await?),
        Command::StripeStandin(args) => standin::run(args).await,
        Command::Health(args) => health::run(args).await,
    }
}

async fn migrate(args: ConfigArgs) -> Result<(), Failure> {
    let config = args.load(Vec::new())?;
    let db = Db::connect(&config.database).await.map_err(explain)?;
    let pending = db.pending_migrations().await.map_err(explain)?;
    db.migrate().await.map_err(explain)?;
    db.close().await;
    say!("{} migrations applied; the schema is up to date", pending);
    Ok(())
}

/// Prints a line. Who reads no further, as `head` does, has seen enough: that ends the command, and is no failure.
#[expect(clippy::disallowed_methods, reason = "a command whose reader is gone has nothing left to do")]
fn say(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_fmt(format_args!("{line}\n")) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        // There is nowhere else to say so.
        Ok(()) | Err(_) => {}
    }
}

/// Prints one object as pretty JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    say!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints rows under a heading, in columns as wide as their widest cell.
fn print_table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) {
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        say!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(heading);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
}
