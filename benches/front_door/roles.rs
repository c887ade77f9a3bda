//! The two servers, each run in a process of its own, and the deployment that Weir finds when it starts.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use futures_util::stream::{self, Stream, StreamExt};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpListener;
use weir::api_keys::{self, KeyKind, NewKey};
use weir::app::{App, Parts};
use weir::audit::Actor;
use weir::clock::Clock;
use weir::config::{Config, Layers};
use weir::db::Db;
use weir::id::TenantId;
use weir::mcp::content::ToolResult;
use weir::plans::PlanName;
use weir::prices;
use weir::providers::{Call, Provider, ToolSpec, Toolkit};
use weir::serve::Listeners;
use weir::{egress, telemetry, tenants};

use crate::Failure;

/// Interval of heartbeats on event streams: the default of Weir, and the same for bare axum.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// What replicas share.
pub struct Services {
    /// URL of a database.
    pub postgres: String,
    /// URL of a Redis.
    pub redis: String,
}

/// A migrated database, one tenant and one API key.
pub struct Deployment {
    _directory: Option<tempfile::TempDir>,
    /// URL of the database.
    pub database: String,
    /// URL of the Redis, where there is one.
    pub redis: Option<String>,
    /// The key, as a client sends it.
    pub key: String,
}

impl Deployment {
    /// Makes one in a directory of its own.
    pub async fn create() -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let database = format!("sqlite:{}", directory.path().join("weir.db").display());
        let key = fill(&database).await?;
        Ok(Self { _directory: Some(directory), database, redis: None, key })
    }

    /// Makes one on these.
    pub async fn on(services: &Services) -> Result<Self, Failure> {
        let (database, redis) = (services.postgres.clone(), Some(services.redis.clone()));
        let key = fill(&database).await?;
        Ok(Self { _directory: None, database, redis, key })
    }
}

async fn fill(database: &str) -> Result<String, Failure> {
    Ok(customers(database, 1, None).await?.remove(0))
}

/// What a call costs where it costs something.
const PRICED: &str = r#"{"kind": "usage", "tools": [{"name": "*", "per_call": "0.001"}]}"#;

/// Makes tenants, on a plan of this name that has prices, where one is given, and a key for each.
pub async fn customers(database: &str, tenants: usize, plan: Option<&str>) -> Result<Vec<String>, Failure> {
    egress::install_crypto();
    let db = Db::connect(&config(database, None, 0)?.database).await?;
    db.migrate().await?;
    let clock = Clock::system();
    let plan: Option<PlanName> = plan.map(str::parse).transpose()?;
    if let Some(plan) = &plan {
        let terms = serde_json::from_str(PRICED)?;
        prices::publish(&db, &clock, Actor::Cli, plan, &terms, (None, Duration::ZERO)).await?;
    }
    let mut keys = Vec::with_capacity(tenants);
    for _ in 0..tenants {
        let name = TenantId::new().to_string();
        let tenant = tenants::create(&db, &clock, Actor::Cli, &name).await?;
        if let Some(plan) = &plan {
            tenants::set_plan(&db, &clock, Actor::Cli, tenant.id, plan, Duration::ZERO).await?;
        }
        let new = NewKey::new(KeyKind::ApiKey, "bench");
        let (_, secret) = api_keys::create(&db, &clock, Actor::Cli, tenant.id, new).await?;
        keys.push(secret.expose().to_owned());
    }
    db.close().await;
    Ok(keys)
}

/// The defaults, with limits that are counted but never reached.
fn config(database: &str, redis: Option<&str>, port: u16) -> Result<Config, Failure> {
    let listen = format!("127.0.0.1:{port}");
    let mut flags = vec![
        ("server.listen", listen.as_str()),
        ("server.max_connections", "100000"),
        ("metrics.listen", "127.0.0.1:0"),
        ("database.url", database),
        ("redis.url", redis.unwrap_or_default()),
        ("limits.tenant.concurrency", "100000"),
        ("limits.tenant.sessions", "1000000"),
        ("limits.tenant.streams", "100000"),
    ];
    for key in
        ["limits.tenant.per_second", "limits.tenant.burst", "limits.key.per_second", "limits.key.burst"]
    {
        flags.push((key, "1000000"));
    }
    for key in ["limits.ip.per_second", "limits.ip.burst"] {
        flags.push((key, "100000"));
    }
    let flags = flags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Ok(Layers { flags, ..Layers::default() }.load()?)
}

/// Bare axum: a JSON body in, the same JSON body out, and an event stream that says one thing.
pub async fn echo(port: u16) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    announce(&listener)?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    #[expect(clippy::disallowed_types, reason = "the bare axum that Weir is compared with")]
    let router = Router::new()
        .route("/mcp", post(async |axum::Json(body): axum::Json<serde_json::Value>| axum::Json(body)))
        .route("/sse", get(quiet_stream));
    axum::serve(listener, router).with_graceful_shutdown(parent_gone()).await?;
    Ok(())
}

async fn quiet_stream() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let first = stream::iter([Ok(Event::default().event("endpoint").data("/mcp"))]);
    Sse::new(first.chain(stream::pending())).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}

/// Weir, started as its binary starts it.
pub async fn weir(database: &str, redis: Option<&str>, port: u16) -> Result<(), Failure> {
    egress::install_crypto();
    let config = config(database, redis, port)?;
    let _telemetry = telemetry::init(&config.log, &config.otel)?;
    let db = Db::connect(&config.database).await?;
    db.migrate().await?;
    let parts = Parts { providers: vec![tools()?], ..Parts::new(config, db) };
    let app = Box::pin(App::start(parts)).await?;
    let listeners = Listeners::bind(&app.config).await?;
    let metrics = listeners.metrics.as_ref().map(TcpListener::local_addr).transpose()?;
    println!(
        "{} {}",
        listeners.public.local_addr()?,
        metrics.map_or(String::new(), |address| address.to_string())
    );
    Box::pin(weir::serve::run(app, listeners, parent_gone())).await;
    Ok(())
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Echo {
    /// What to say.
    text: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Nothing {}

fn tools() -> Result<Arc<dyn Provider>, Failure> {
    let echo = ToolSpec::new("echo").description("Says what it is told.").read_only();
    let report = ToolSpec::new("report").description("Reports progress once.").read_only();
    let kit = Toolkit::new("bench")
        .tool(echo, async |_call: Call, echo: Echo| Ok(ToolResult::text(echo.text)))?
        .tool(report, async |call: Call, _: Nothing| {
            call.progress(1.0, None, None);
            Ok(ToolResult::text("done"))
        })?;
    Ok(kit.build())
}

fn announce(listener: &TcpListener) -> Result<(), Failure> {
    println!("{}", listener.local_addr()?);
    Ok(())
}

/// Resolves when standard input closes, which it does when the parent lets go of the child, or dies.
async fn parent_gone() {
    let (gone, hear) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = gone.send(());
    });
    let _ = hear.await;
}
