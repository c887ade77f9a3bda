//! What the official conformance suite expects a server to have, as ordinary tools, resources and prompts behind the
//! ordinary front door. Nothing in the library knows of it.
//!
//!     cargo run --example conformance -- --listen 127.0.0.1:0
//!
//! Prints one JSON line (`url`, `sse_url`, `api_key`, `url_token`) when it is ready and ends on SIGTERM or SIGINT.
//! Everything lives in a temporary directory, or in a database and a Redis that several of them share; then those after
//! the first `--join`, and say only where they are. `scripts/conformance` and `scripts/clients` run against it.

#[path = "conformance/dns.rs"]
mod dns;
#[path = "conformance/memory.rs"]
mod memory;
#[path = "conformance/prompts.rs"]
mod prompts;
#[path = "conformance/questions.rs"]
mod questions;
#[path = "conformance/resources.rs"]
mod resources;
#[path = "conformance/samples.rs"]
mod samples;
#[path = "conformance/slow.rs"]
mod slow;
#[path = "conformance/tools.rs"]
mod tools;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use memory::Memory;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use weir::api_keys::{self, KeyKind, NewKey};
use weir::app::{App, Parts};
use weir::audit::Actor;
use weir::config::{Config, ConfigError, Layers};
use weir::db::Db;
use weir::providers::{Provider, Toolkit};
use weir::serve::{self, Listeners};
use weir::tasks::Tasks;
use weir::{egress, telemetry, tenants};

/// A server for the conformance suite and the stories of real clients.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: String,
    /// Be one more replica of the deployment that the environment names, and make no tenant
    #[arg(long)]
    join: bool,
    /// Where the fixtures of all replicas remember what happened
    #[arg(long, value_name = "DIR")]
    memory: Option<PathBuf>,
}

/// Where the environment says which database several replicas share.
const DATABASE: &str = "WEIR_DATABASE__URL";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    egress::install_crypto();
    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let dns_tasks = Tasks::new();
    let resolver = dns::serve(&dns_tasks).await?;
    let directory = tempfile::tempdir()?;

    let mut config = config(&args.listen, &resolver.to_string(), directory.path())?;
    let mut telemetry = telemetry::init(&config.log, &config.otel)?;
    let db = Db::connect(&config.database).await?;
    db.migrate().await?;
    let listeners = Listeners::bind(&config).await?;
    config.server.listen = listeners.public.local_addr()?;
    let memory = Memory::new(args.memory.as_deref().unwrap_or(directory.path()));
    let fixtures = fixtures(&memory)?;
    let app = App::start(Parts::new(config, db).provider(fixtures)).await?;

    announce(&app, args.join).await?;
    serve::run(app, listeners, stopped(signals)).await;
    dns_tasks.shut_down().await;
    tokio::task::spawn_blocking(move || telemetry.shut_down()).await?;
    Ok(())
}

/// The defaults and what the environment says, with limits that no test reaches.
fn config(listen: &str, resolver: &str, directory: &Path) -> Result<Config, ConfigError> {
    let flags = [
        ("server.listen", listen),
        ("metrics.listen", ""),
        ("limits.ip.per_second", "10000"),
        ("limits.ip.burst", "10000"),
        ("limits.tenant.per_second", "10000"),
        ("limits.tenant.burst", "10000"),
        ("limits.key.per_second", "10000"),
        ("limits.key.burst", "10000"),
        ("tools.dns.resolvers", resolver),
        ("tools.dns.timeout_ms", "2000"),
    ];
    let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let mut layers = Layers::from_process(None, flags);
    if !layers.env.iter().any(|(name, _)| name == DATABASE) {
        let alone = format!("sqlite:{}", directory.join("weir.db").display());
        layers.flags.push(("database.url".to_owned(), alone));
    }
    layers.load()
}

fn fixtures(memory: &Memory) -> weir::error::Result<Arc<dyn Provider>> {
    let kit = Toolkit::new("fixtures");
    let kit = tools::add(kit)?;
    let kit = questions::add(kit)?;
    let kit = slow::add(kit, memory)?;
    let kit = resources::add(kit, memory)?;
    Ok(prompts::add(kit)?.build())
}

/// Makes a tenant with a key and a token, unless another replica has done so, and says where to find it all.
#[expect(clippy::print_stdout, reason = "the one line that scripts wait for")]
async fn announce(app: &App, joins: bool) -> Result<(), Box<dyn Error>> {
    let base = app.config.public_url();
    let (url, sse_url) = (format!("{base}/mcp"), format!("{base}/sse"));
    if joins {
        println!("{}", json!({ "url": url, "sse_url": sse_url }));
        return Ok(());
    }
    let tenant = tenants::create(&app.db, &app.clock, Actor::Dev, "conformance").await?.id;
    let mut secrets = Vec::new();
    for (kind, name) in [(KeyKind::ApiKey, "key"), (KeyKind::UrlToken, "token")] {
        let new = NewKey::new(kind, name);
        let (_, secret) = api_keys::create(&app.db, &app.clock, Actor::Dev, tenant, new).await?;
        secrets.push(secret.expose().to_owned());
    }
    println!("{}", json!({ "url": url, "sse_url": sse_url, "api_key": secrets[0], "url_token": secrets[1] }));
    Ok(())
}

async fn stopped((mut terminate, mut interrupt): (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
