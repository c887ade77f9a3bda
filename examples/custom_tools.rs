//! Weir as a library, with two tools of your own. Copy this file to start.
//!
//!     cargo run --example custom_tools -- --listen 127.0.0.1:8080
//!
//! Then paste the printed line into your client. Settings come from the environment as always (`WEIR_...`, see
//! `config/default.toml`); tenants and keys live in `weir-example.db`, and each start makes a new key.

use std::error::Error;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir::api_keys::{self, KeyKind, NewKey};
use weir::app::{App, Parts};
use weir::audit::Actor;
use weir::config::Layers;
use weir::db::Db;
use weir::mcp::content::ToolResult;
use weir::providers::{Call, ToolSpec, Toolkit};
use weir::serve::{self, Listeners};
use weir::{egress, telemetry, tenants};

/// Arguments of `count_text`. What the fields say is what the model reads in the input schema.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CountText {
    /// The text to measure.
    text: String,
}

/// What `count_text` answers. Programs get it as structured content that fits this schema.
#[derive(Serialize, JsonSchema)]
struct TextSize {
    characters: usize,
    words: usize,
    lines: usize,
}

/// Arguments of `days_between`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DaysBetween {
    /// The first day, as YYYY-MM-DD.
    from: String,
    /// The last day, as YYYY-MM-DD.
    to: String,
}

/// A server named `example`: the tools are at `/mcp` with all others, and alone at `/s/example/mcp`.
fn tools() -> weir::error::Result<Toolkit> {
    let count = ToolSpec::new("count_text")
        .description("Counts the characters, words and lines of a text exactly.")
        .read_only() // Unless a tool says that it changes nothing, careful clients ask before each call.
        .output::<TextSize>();
    let days = ToolSpec::new("days_between")
        .description("Counts the days from one date to another; negative when the second is earlier.")
        .read_only();
    Toolkit::new("example")
        .tool(count, |_: Call, CountText { text }| async move {
            let (characters, words) = (text.chars().count(), text.split_whitespace().count());
            Ok(ToolResult::structured(&TextSize { characters, words, lines: text.lines().count() })?)
        })?
        .tool(days, |_: Call, DaysBetween { from, to }| async move {
            // A "no" of the tool itself is a result: the model reads it and can do better. What breaks (a database, a
            // panic) goes through `?` instead: your log gets the cause, the client only an id to quote.
            Ok(match (day(&from), day(&to)) {
                (Ok(first), Ok(last)) => {
                    ToolResult::text((last.duration_since(first).as_hours() / 24).to_string())
                }
                (Err(advice), _) | (_, Err(advice)) => ToolResult::error(advice),
            })
        })
}

fn day(text: &str) -> Result<Date, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no date. Write YYYY-MM-DD, such as 2026-02-28, and check that the month has that day.")
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    egress::install_crypto(); // First of all: TLS for outgoing requests and for PostgreSQL.

    // Defaults < environment < the flags given here.
    let mut flags = vec![("database.url".to_owned(), "sqlite:weir-example.db".to_owned())];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().filter(|_| argument == "--listen");
        flags.push(("server.listen".to_owned(), value.ok_or("usage: custom_tools [--listen ADDR]")?));
    }
    let mut config = Layers::from_process(None, flags).load()?;
    let _telemetry = telemetry::init(&config.log, &config.otel)?;
    let db = Db::connect(&config.database).await?;
    db.migrate().await?;

    // Bind before the state is built: it has to know its own address when the port was 0.
    let listeners = Listeners::bind(&config).await?;
    config.server.listen = listeners.public.local_addr()?;
    let app = App::start(Parts::new(config, db).provider(tools()?.build())).await?;

    print_key(&app).await?;
    serve::run(app, listeners, async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}

/// Keys belong to a tenant, one of your customers.
#[expect(clippy::print_stdout, reason = "what this program is for")]
async fn print_key(app: &App) -> Result<(), Box<dyn Error>> {
    let tenant = match tenants::find_by_name(&app.db, "example").await? {
        Some(tenant) => tenant,
        None => tenants::create(&app.db, &app.clock, Actor::Cli, "example").await?,
    };
    let new = NewKey::new(KeyKind::ApiKey, "example");
    let (_, key) = api_keys::create(&app.db, &app.clock, Actor::Cli, tenant.id, new).await?;
    let (url, key) = (format!("{}/mcp", app.config.public_url()), key.expose());
    println!("claude mcp add --transport http weir {url} --header \"Authorization: Bearer {key}\"");
    Ok(())
}
