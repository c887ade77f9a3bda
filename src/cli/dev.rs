//! `weir dev`: everything on this machine, and lines to paste.
//!
//! Safe to run again: what it made is in `dev.json` in the data directory and is used again as long as it works.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Failure, explain, service};
use crate::api_keys::{self, KeyKind, NewKey};
use crate::app::App;
use crate::audit::Actor;
use crate::clock::Clock;
use crate::config::Layers;
use crate::credentials::Place;
use crate::db::Db;
use crate::id::TenantId;
use crate::{operator_keys, tenants};

/// The tenant that is made.
const TENANT: &str = "dev";
/// The file in the data directory.
const FILE: &str = "dev.json";

/// Arguments of `weir dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where the database and dev.json live
    #[arg(long, value_name = "DIR", default_value = ".weir")]
    data_dir: PathBuf,
}

/// What `dev.json` holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Credentials {
    url: String,
    sse_url: String,
    api_key: String,
    url_token: String,
    operator_key: String,
}

/// `weir dev`.
pub(super) async fn run(args: DevArgs) -> Result<(), Failure> {
    let dir = args.data_dir;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(|e| format!("--data-dir {}: cannot be made: {e}", dir.display()))?;
    let mut layers = Layers::from_process(None, Vec::new());
    // Two of these may run side by side, so the metrics port is not fixed unless the environment says so.
    layers.env.insert(0, ("WEIR_METRICS__LISTEN".to_owned(), "127.0.0.1:0".to_owned()));
    layers.flags.push(("database.url".to_owned(), format!("sqlite:{}", dir.join("weir.db").display())));
    layers.flags.extend(args.listen.map(|listen| ("server.listen".to_owned(), listen)));
    let config = layers.load()?;
    let db = Db::connect(&config.database).await.map_err(explain)?;
    db.migrate().await.map_err(explain)?;
    service::run(config, db, async |app, listeners| {
        let credentials = prepare(app, &dir.join(FILE)).await?;
        let metrics = listeners.metrics.as_ref().and_then(|l| l.local_addr().ok());
        print(app, &credentials, &dir.join(FILE), metrics);
        Ok(())
    })
    .await
}

/// What is in the file, as far as it still works, with what is missing made anew.
async fn prepare(app: &App, file: &Path) -> Result<Credentials, Failure> {
    let mut known: Credentials = match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| format!("{}: {e}; delete it to have it made anew", file.display()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Credentials::default(),
        Err(e) => return Err(format!("{}: {e}", file.display()).into()),
    };
    let (db, clock) = (&app.db, &app.clock);
    let tenant = match tenants::find_by_name(db, TENANT).await.map_err(explain)? {
        Some(tenant) => tenant.id,
        None => tenants::create(db, clock, Actor::Dev, TENANT).await.map_err(explain)?.id,
    };
    for (secret, kind, name) in [
        (&mut known.api_key, KeyKind::ApiKey, "dev API key"),
        (&mut known.url_token, KeyKind::UrlToken, "dev URL token"),
    ] {
        if app.credentials.resolve(secret, Place::Header).await.is_err() {
            *secret = key(db, clock, tenant, kind, name).await?;
        }
    }
    let operator = operator_keys::verify(db, clock, &known.operator_key).await.map_err(explain)?;
    if operator.is_none() {
        let made = operator_keys::create(db, clock, Actor::Dev, "dev operator").await.map_err(explain)?;
        known.operator_key = made.1.expose().to_owned();
    }
    let base = app.config.public_url();
    known.url = format!("{base}/mcp");
    known.sse_url = format!("{base}/sse");
    write_private(file, &serde_json::to_vec_pretty(&known)?)
        .map_err(|e| format!("{}: cannot be written: {e}", file.display()))?;
    Ok(known)
}

async fn key(db: &Db, clock: &Clock, tenant: TenantId, kind: KeyKind, name: &str) -> Result<String, Failure> {
    let new = NewKey::new(kind, name);
    let (_, secret) = api_keys::create(db, clock, Actor::Dev, tenant, new).await.map_err(explain)?;
    Ok(secret.expose().to_owned())
}

/// Writes a file that only its owner can read, in one step.
fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = file.with_extension("json.new");
    let _ = fs::remove_file(&fresh);
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    out.write_all(bytes)?;
    out.write_all(b"\n")?;
    out.sync_all()?;
    fs::rename(fresh, file)
}

fn print(app: &App, known: &Credentials, file: &Path, metrics: Option<std::net::SocketAddr>) {
    let Credentials { url, sse_url, api_key, url_token, operator_key } = known;
    let base = app.config.public_url();
    say!(
        r#"Weir is running at {base} (tenant "{TENANT}"; stop it with Ctrl-C).

Claude Code:
  claude mcp add --transport http weir {url} --header "Authorization: Bearer {api_key}"

Codex:
  export WEIR_API_KEY={api_key}
  codex mcp add weir --url {url} --bearer-token-env-var WEIR_API_KEY

VS Code (.vscode/mcp.json):
  {{"servers": {{"weir": {{"type": "http", "url": "{url}", "headers": {{"Authorization": "Bearer {api_key}"}}}}}}}}

Cursor (~/.cursor/mcp.json):
  {{"mcpServers": {{"weir": {{"url": "{url}", "headers": {{"Authorization": "Bearer {api_key}"}}}}}}}}

Clients that take only a URL:
  {url}?token={url_token}
  {sse_url}?token={url_token}   (HTTP+SSE, 2024-11-05)

curl:
  curl -s {url} -H "Authorization: Bearer {api_key}" -H "Content-Type: application/json" \
    -d '{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"get_status","arguments":{{}}}}}}'

Admin API:
  curl -s {base}/admin/v1/tenants -H "Authorization: Bearer {operator_key}"
{}
The same is in {} (readable by you alone)."#,
        metrics.map(|at| format!("\nMetrics: http://{at}/metrics\n")).unwrap_or_default(),
        file.display(),
    );
}
