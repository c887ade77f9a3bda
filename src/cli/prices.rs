//! `weir plan publish`, `weir plan prices` and `weir plan import`: what plans cost.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{ConfigArgs, Failure, Store, explain, print_json, print_table};
use crate::audit::Actor;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::error::Error;
use crate::limits::PlanLimits;
use crate::plans::{self, PlanName};
use crate::prices::{self, PriceVersion, Terms};

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// The plan; made where there is none
    name: PlanName,
    /// What it costs: JSON or TOML, by the file's extension; - reads JSON from stdin
    #[arg(long, value_name = "FILE")]
    terms: PathBuf,
    /// From when on, such as 2027-01-01T00:00:00Z; otherwise as soon as may be
    #[arg(long, value_name = "TIMESTAMP")]
    from: Option<jiff::Timestamp>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(super) struct PricesArgs {
    /// The plan
    name: PlanName,
    /// One JSON object per line instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Plans with their limits and terms: JSON or TOML, by the file's extension; config/plans.example.toml is one
    file: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What a file of plans holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plans {
    plans: BTreeMap<PlanName, Wanted>,
}

/// How a plan is to be. What is left out stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    limits: Option<PlanLimits>,
    terms: Option<Terms>,
}

/// What a file says, or stdin.
fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let from_stdin = path == Path::new("-");
    let text = if from_stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| wrong(&error))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => toml::from_str(&text).map_err(|error| wrong(&error).into()),
        Some("json") => serde_json::from_str(&text).map_err(|error| wrong(&error).into()),
        None if from_stdin => serde_json::from_str(&text).map_err(|error| wrong(&error).into()),
        _ => Err(wrong(&"expected a file whose name ends in .json or .toml").into()),
    }
}

fn body(version: &PriceVersion, in_force: bool) -> serde_json::Value {
    json!({
        "id": version.id,
        "plan": version.plan,
        "number": version.number,
        "effective_at": version.effective_at,
        "in_force": in_force,
        "published_at": version.published_at,
        "published_by": version.published_by,
        "terms": version.terms,
        "digest": version.digest,
    })
}

pub(super) async fn publish(args: PublishArgs) -> Result<(), Failure> {
    let terms: Terms = read(&args.terms)?;
    let (Store { db, clock, .. }, config) = args.config.store().await?;
    let when = (args.from.map(Timestamp::from), config.metering.lead.get());
    let published = prices::publish(&db, &clock, Actor::Cli, &args.name, &terms, when).await;
    let version = published.map_err(explain)?;
    let history = prices::history(&db, &args.name).await.map_err(explain)?;
    let in_force = history.at(clock.now()).is_some_and(|current| current.id == version.id);
    print_json(&body(&version, in_force))
}

pub(super) async fn list(args: PricesArgs) -> Result<(), Failure> {
    let Store { db, clock, .. } = args.config.database().await?;
    let history = prices::history(&db, &args.name).await.map_err(explain)?;
    if history.is_empty() {
        plans::get(&db, &args.name).await.map_err(explain)?;
    }
    let now = clock.now();
    let current = history.at(now).map(|version| version.id);
    let mut rows = Vec::new();
    for version in history.versions() {
        let in_force = current == Some(version.id);
        if args.json {
            say!("{}", body(version, in_force));
            continue;
        }
        let state = match in_force {
            true => "in force",
            false if version.effective_at > now => "to come",
            false => "past",
        };
        rows.push(row(version, state)?);
    }
    if !args.json {
        print_table(["NUMBER", "FROM", "STATE", "KIND", "INCLUDED", "CAPS", "TOOLS"], &rows);
    }
    Ok(())
}

fn row(version: &PriceVersion, state: &str) -> Result<[String; 7], Failure> {
    let terms = &version.terms;
    let kind = serde_json::to_value(terms.kind)?;
    let caps = [("soft", terms.soft_cap), ("hard", terms.hard_cap)];
    let caps: Vec<_> = caps.iter().filter_map(|(name, cap)| Some(format!("{name} {}", (*cap)?))).collect();
    Ok([
        version.number.to_string(),
        version.effective_at.to_string(),
        state.to_owned(),
        kind.as_str().unwrap_or_default().to_owned(),
        terms.included.to_string(),
        if caps.is_empty() { "none".to_owned() } else { caps.join(", ") },
        terms.tools.len().to_string(),
    ])
}

/// Brings plans to what a file says. Everything in it is checked before anything is changed; what fails later can be run again.
pub(super) async fn import(args: ImportArgs) -> Result<(), Failure> {
    let Plans { plans } = read(&args.file)?;
    for (name, wanted) in &plans {
        let limits = wanted.limits.as_ref().map_or(Ok(()), PlanLimits::validate);
        let terms = wanted.terms.as_ref().map_or(Ok(()), Terms::validate);
        limits.and(terms).map_err(|error| format!("{}: plans.{name}: {error}", args.file.display()))?;
    }
    let (store, config) = args.config.store().await?;
    for (name, wanted) in &plans {
        let done = bring(&store, &config, name, wanted).await.map_err(explain)?;
        say!("{name}: {}", if done.is_empty() { "unchanged".to_owned() } else { done.join("; ") });
    }
    Ok(())
}

/// Brings one plan to what is wanted. What was done to it.
async fn bring(
    store: &Store,
    config: &Config,
    name: &PlanName,
    wanted: &Wanted,
) -> Result<Vec<String>, Error> {
    let Store { db, clock, .. } = store;
    let before = match plans::get(db, name).await {
        Ok(plan) => Some(plan),
        Err(Error::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let mut done = Vec::new();
    let none = PlanLimits::default();
    let limits = wanted.limits.as_ref().or_else(|| before.is_none().then_some(&none));
    if let Some(limits) = limits
        && before.as_ref().is_none_or(|before| before.limits != *limits)
    {
        plans::put(db, clock, Actor::Cli, name, limits).await?;
        done.push(if before.is_none() { "created" } else { "limits changed" }.to_owned());
    }
    if let Some(terms) = &wanted.terms {
        let known = prices::history(db, name).await?;
        let when = (None, config.metering.lead.get());
        let version = prices::publish(db, clock, Actor::Cli, name, terms, when).await?;
        if known.versions().iter().all(|known| known.id != version.id) {
            done.push(format!(
                "prices published, number {}, from {} on",
                version.number, version.effective_at
            ));
        }
    }
    Ok(done)
}
