//! `weir usage`.

use std::io::Write;
use std::ops::RangeInclusive;

use clap::{Args, Subcommand, ValueEnum};
use jiff::civil::Date;
use serde_json::{Value, json};

use super::{ConfigArgs, Failure, Store, explain, print_table, tenant_of};
use crate::db::Page;
use crate::id::CallId;
use crate::ledger::days;
use crate::ledger::usage::{self, By, Entry, Line};

/// Arguments of `weir usage`.
#[derive(Debug, Args)]
pub struct UsageArgs {
    #[command(subcommand)]
    command: UsageCommand,
}

#[derive(Debug, Subcommand)]
enum UsageCommand {
    /// Show what a tenant used, in sums
    Show {
        #[command(flatten)]
        what: What,
        /// day, key, server or tool
        #[arg(long, default_value = "day")]
        by: By,
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Write what a tenant used to stdout, for other programs
    Export {
        #[command(flatten)]
        what: What,
        /// csv (RFC 4180, with a heading) or json (one object per line)
        #[arg(long)]
        format: Format,
        /// day, key, server or tool
        #[arg(long, default_value = "day", conflicts_with = "calls")]
        by: By,
        /// Every call instead of sums
        #[arg(long)]
        calls: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Debug, Args)]
struct What {
    /// The tenant's id, tn_..., or its name
    #[arg(long)]
    tenant: String,
    /// The first day, YYYY-MM-DD, in UTC
    #[arg(long, value_name = "DAY", value_parser = days::parse)]
    from: Date,
    /// The last day
    #[arg(long, value_name = "DAY", value_parser = days::parse)]
    to: Date,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Csv,
    Json,
}

impl What {
    fn range(&self) -> Result<RangeInclusive<Date>, Failure> {
        if self.from > self.to {
            return Err(format!("--to: expected {} or a later day, found {}", self.from, self.to).into());
        }
        Ok(self.from..=self.to)
    }
}

pub(super) async fn run(args: UsageArgs) -> Result<(), Failure> {
    match args.command {
        UsageCommand::Show { what, by, json, config } => {
            let lines = lines(&what, by, &config.database().await?).await?;
            if json {
                let all = lines.iter().map(|line| body(by, line).to_string());
                write(all).map(|_| ())
            } else {
                table(by, &lines);
                Ok(())
            }
        }
        UsageCommand::Export { what, format, by, calls, config } => {
            let store = config.database().await?;
            if calls {
                return export_calls(&what, format, &store).await;
            }
            let lines = lines(&what, by, &store).await?;
            let bodies = lines.iter().map(|line| body(by, line));
            export(format, true, bodies.collect(), &heading(by)).map(|_| ())
        }
    }
}

async fn lines(what: &What, by: By, store: &Store) -> Result<Vec<Line>, Failure> {
    let range = what.range()?;
    let tenant = tenant_of(&store.db, &what.tenant).await?;
    usage::sums(&store.db, tenant, range, by).await.map_err(explain)
}

/// The names of the fields of a line, in their order.
fn heading(by: By) -> Vec<&'static str> {
    let names: &[&str] = match by {
        By::Day => &["day"],
        By::Key => &["key"],
        By::Server => &["server"],
        By::Tool => &["server", "tool"],
    };
    [names, &SUMS].concat()
}

const SUMS: [&str; 11] = [
    "calls",
    "charged",
    "failed",
    "credits",
    "included",
    "promotional",
    "prepaid",
    "overage",
    "request_bytes",
    "result_bytes",
    "duration_us",
];

const CALL: [&str; 17] = [
    "id",
    "started_at",
    "key",
    "server",
    "tool",
    "outcome",
    "duration_us",
    "request_bytes",
    "result_bytes",
    "credits",
    "included",
    "promotional",
    "prepaid",
    "overage",
    "given_back",
    "period",
    "price_version",
];

fn body(by: By, line: &Line) -> Value {
    let mut body = json!(line.sums);
    body[by.as_str()] = line.name.as_str().into();
    if let Some(server) = &line.server {
        body["server"] = server.as_str().into();
    }
    body
}

fn call(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "started_at": entry.started_at,
        "key": entry.credential,
        "server": entry.server,
        "tool": entry.tool,
        "outcome": entry.outcome,
        "duration_us": entry.duration_us,
        "request_bytes": entry.request_bytes,
        "result_bytes": entry.result_bytes,
        "credits": entry.credits,
        "included": entry.included,
        "promotional": entry.promotional,
        "prepaid": entry.prepaid,
        "overage": entry.overage,
        "given_back": entry.given_back,
        "period": entry.period_id,
        "price_version": entry.price_version_id,
    })
}

async fn export_calls(what: &What, format: Format, store: &Store) -> Result<(), Failure> {
    let range = what.range()?;
    let tenant = tenant_of(&store.db, &what.tenant).await?;
    let mut page = Page::first(Page::<CallId>::MAX);
    let mut is_first = true;
    loop {
        let listed = usage::calls(&store.db, tenant, range.clone(), page).await.map_err(explain)?;
        let bodies = listed.rows.iter().map(call).collect();
        let goes_on = export(format, is_first, bodies, &CALL)?;
        page.after = listed.rows.last().map(|entry| entry.id);
        is_first = false;
        if !listed.more || !goes_on {
            return Ok(());
        }
    }
}

/// Writes objects with these fields; whether anybody still reads.
fn export(format: Format, is_first: bool, bodies: Vec<Value>, fields: &[&str]) -> Result<bool, Failure> {
    match format {
        Format::Json => write(bodies.into_iter().map(|body| body.to_string())),
        Format::Csv => {
            let heading = is_first.then(|| row(fields.iter().map(|name| (*name).to_owned())));
            let rows = bodies.iter().map(|body| row(fields.iter().map(|name| text(&body[*name]))));
            write(heading.into_iter().chain(rows))
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A record of RFC 4180 without the line feed, which whoever writes it adds.
fn row(cells: impl Iterator<Item = String>) -> String {
    let quoted = |cell: String| match cell.contains(['"', ',', '\r', '\n']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    };
    cells.map(quoted).collect::<Vec<_>>().join(",") + "\r"
}

/// Writes lines to stdout. Whether anybody still reads: a pipe may be closed by whoever has seen enough.
fn write(lines: impl Iterator<Item = String>) -> Result<bool, Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let all = || -> std::io::Result<()> {
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()
    };
    match all() {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        done => Ok(done.map(|()| true)?),
    }
}

fn table(by: By, lines: &[Line]) {
    let cells = |line: &Line| {
        let name = match &line.server {
            Some(server) => format!("{server}/{}", line.name),
            None => line.name.clone(),
        };
        let sums = &line.sums;
        let credits = [sums.credits, sums.included, sums.promotional, sums.prepaid, sums.overage];
        let [credits, included, promotional, prepaid, overage] = credits.map(|credits| credits.to_string());
        [
            name,
            sums.calls.to_string(),
            sums.charged.to_string(),
            sums.failed.to_string(),
            credits,
            included,
            promotional,
            prepaid,
            overage,
        ]
    };
    let mut rows: Vec<_> = lines.iter().map(cells).collect();
    if lines.len() > 1 {
        let mut total = Line { server: None, name: "total".to_owned(), sums: usage::Sums::default() };
        lines.iter().for_each(|line| total.sums += line.sums);
        rows.push(cells(&total));
    }
    let name = by.as_str().to_uppercase();
    print_table(
        [&name, "CALLS", "CHARGED", "FAILED", "CREDITS", "INCLUDED", "PROMOTIONAL", "PREPAID", "OVERAGE"],
        &rows,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_have_to_be() {
        let cells = ["plain", "a,b", "say \"x\"", "two\nlines", ""];
        let written = row(cells.into_iter().map(str::to_owned));
        assert_eq!(written, "plain,\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",\r");
    }
}
