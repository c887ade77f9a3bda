//! `get_usage`: what the caller's tenant has used and has left.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use schemars::JsonSchema;
use serde::Serialize;

use super::Core;
use crate::caller::Caller;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::ledger::usage::{Line, Sums};
use crate::ledger::{self, Balance, days};
use crate::mcp::content::{Content, ToolResult};
use crate::policy::{self, Risk};
use crate::providers::{Call, NoArguments, Registry, ToolSpec, Toolkit};

/// The tool's name.
pub const NAME: &str = "get_usage";
/// Tools that are listed; the others are in one sum.
const LISTED: usize = 20;
/// Tenants whose sums are kept, and for how long.
const KEPT: usize = 1024;
const KEPT_FOR: Duration = Duration::from_secs(10);
/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;
const RULE: &str = "what was used so far, in proportion to the time that has passed of the period";

/// What this tenant has used and has left. Credits are decimal numbers as text.
#[derive(Debug, Serialize, JsonSchema)]
struct Usage {
    /// The plan that the tenant is on.
    plan: String,
    /// Whether calls cost anything.
    charged: bool,
    /// The period that is added up, and when it ends.
    period: PeriodUsage,
    /// What was used in the period so far.
    used: Used,
    /// What can still be used; missing where calls cost nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LeftNow")]
    left: Option<LeftNow>,
    /// What will have been used when the period ends; missing where calls cost nothing, and in a period's first hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Forecast")]
    forecast: Option<Forecast>,
    /// The tools that cost or were called most, those that cost most first. Up to ten seconds old.
    by_tool: Vec<ToolUsage>,
    /// All other tools together, and such as this credential may not see.
    other_tools: OtherUsage,
}

#[derive(Debug, Serialize, JsonSchema)]
struct PeriodUsage {
    /// Its beginning (RFC 3339).
    from: String,
    /// Its end (RFC 3339), which is not in it.
    to: String,
    /// Days until it ends, begun ones counted.
    days_left: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Used {
    /// What calls have cost.
    credits: String,
    /// Of that, what is owed because nothing was left.
    owed: String,
    /// Calls. Up to ten seconds old.
    calls: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LeftNow {
    /// Included in the plan; gone when the period ends.
    included: String,
    /// Given away.
    promotional: String,
    /// Bought.
    prepaid: String,
    /// What may be owed on top of that; missing where there is no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    until_cap: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Forecast {
    credits: String,
    /// How it was reckoned.
    rule: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ToolUsage {
    server: String,
    tool: String,
    calls: i64,
    credits: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct OtherUsage {
    tools: usize,
    calls: i64,
    credits: String,
}

/// Sums by tool, and when they were made (monotonic).
type Kept = (i64, Arc<Vec<Line>>);

/// Sums by tool of tenants that asked not long ago. What the period is decides, too: another one begins anew.
struct ByTool(Cache<(TenantId, Timestamp), Kept>);

impl ByTool {
    async fn get(&self, core: &Core, tenant: TenantId, since: Timestamp) -> Result<Arc<Vec<Line>>> {
        let key = (tenant, since);
        let old = |at: i64| core.clock.elapsed_since(at) >= KEPT_FOR;
        self.0.remove_if(&key, |(at, _)| old(*at));
        let load = async {
            let at = core.clock.monotonic_micros();
            // So that it has the caller's last calls.
            core.usage.flush().await;
            let lines = ledger::by_tool(&core.db, tenant, since, core.clock.now()).await?;
            Ok::<_, Error>((at, Arc::new(lines)))
        };
        Ok(self.0.get_or_insert_async(&key, load).await?.1)
    }
}

/// Whether the caller may know of this tool. One that is no longer there is known by its name alone.
fn is_visible(caller: &Caller, registry: Option<&Registry>, line: &Line) -> bool {
    let server = line.server.as_deref().unwrap_or("");
    let snapshot = registry.and_then(|registry| registry.snapshot(Some(server)));
    let found = snapshot.as_ref().and_then(|snapshot| snapshot.tools.get(&line.name, |_| true));
    match found {
        Some(found) => policy::allowed(caller, found),
        None => {
            let scopes = caller.scopes();
            scopes.allows_server(server) && scopes.allows_tool(&line.name, Risk::ReadOnly)
        }
    }
}

async fn usage_of(core: &Core, caller: &Caller, kept: &ByTool) -> Result<Usage> {
    let (tenant, now) = (caller.tenant(), core.clock.now());
    let balance = ledger::balance(&core.db, tenant, now).await?;
    let (from, to) = match &balance {
        Some(Balance { period, .. }) => (period.starts_at, period.ends_at),
        None => month(now),
    };
    let lines = kept.get(core, tenant, from).await?;
    let registry = core.registry.get().and_then(std::sync::Weak::upgrade);
    let (mut seen, hidden): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| is_visible(caller, registry.as_deref(), line));
    seen.sort_by_key(|line| std::cmp::Reverse((line.sums.credits, line.sums.calls)));
    let listed = seen.len().min(LISTED);
    let mut other = Sums::default();
    seen[listed..].iter().chain(&hidden).for_each(|line| other += line.sums);
    let tool = |line: &&Line| ToolUsage {
        server: line.server.clone().unwrap_or_default(),
        tool: line.name.clone(),
        calls: line.sums.calls,
        credits: line.sums.credits.to_string(),
    };
    let period = balance.as_ref().map(|balance| &balance.period);
    let none = Credits::ZERO;
    Ok(Usage {
        plan: period.map_or_else(|| caller.data().plan.clone(), |period| period.plan.clone()),
        charged: balance.is_some(),
        period: PeriodUsage {
            from: from.to_string(),
            to: to.to_string(),
            days_left: (to.as_micros() - now.as_micros())
                .max(0)
                .unsigned_abs()
                .div_ceil(DAY.unsigned_abs())
                .try_into()
                .unwrap_or(0),
        },
        used: Used {
            credits: period.map_or(none, |period| period.used).to_string(),
            owed: period.map_or(none, |period| period.owed).to_string(),
            calls: lines.iter().map(|line| line.sums.calls).sum(),
        },
        left: balance.as_ref().map(|Balance { period, left }| LeftNow {
            included: left.included.to_string(),
            promotional: left.promotional.to_string(),
            prepaid: left.prepaid.to_string(),
            until_cap: period.cap_left().filter(|_| period.may_owe).map(|left| left.to_string()),
        }),
        forecast: period
            .and_then(|period| period.forecast(now))
            .map(|credits| Forecast { credits: credits.to_string(), rule: RULE }),
        by_tool: seen[..listed].iter().map(tool).collect(),
        other_tools: OtherUsage {
            tools: lines.len() - listed,
            calls: other.calls,
            credits: other.credits.to_string(),
        },
    })
}

/// The month of an instant, in UTC: what is added up where nothing is charged.
fn month(at: Timestamp) -> (Timestamp, Timestamp) {
    let first = days::month(days::day_of(at), 0);
    let next = first.saturating_add(jiff::Span::new().months(1));
    (days::span(first).start, days::span(next).start)
}

/// The same in a few sentences.
fn text(usage: &Usage) -> String {
    let Usage { plan, period, used, .. } = usage;
    let mut text =
        format!("Plan {plan}, period {} to {}, {} days left. ", period.from, period.to, period.days_left);
    match &usage.left {
        None => {
            let _ = write!(text, "{} calls so far. Nothing is charged on this plan.", used.calls);
        }
        Some(left) => {
            let _ = write!(
                text,
                "{} credits used in {} calls, of which {} are owed. ",
                used.credits, used.calls, used.owed
            );
            let _ = write!(
                text,
                "Left: {} included, {} promotional, {} prepaid",
                left.included, left.promotional, left.prepaid
            );
            if let Some(cap) = &left.until_cap {
                let _ = write!(text, ", and {cap} more may be owed");
            }
            text.push('.');
        }
    }
    if let Some(forecast) = &usage.forecast {
        let _ = write!(text, " At this pace {} credits by the end of the period.", forecast.credits);
    }
    let most: BTreeMap<usize, &ToolUsage> = usage.by_tool.iter().take(3).enumerate().collect();
    for (place, tool) in most {
        let lead = if place == 0 { " Most used: " } else { ", " };
        let _ = write!(text, "{lead}{} ({} calls, {} credits)", tool.tool, tool.calls, tool.credits);
    }
    text
}

/// Adds the tool.
///
/// # Errors
/// None in practice: the description is fixed.
pub fn add(kit: Toolkit, core: &Core) -> Result<Toolkit> {
    let spec = ToolSpec::new(NAME)
        .title("What was used")
        .description(
            "Shows what your account has used in the running period, what is left, and where it went, tool by tool. Free of \
             charge. Call it before expensive work, or when a call was refused for want of credits.",
        )
        .free()
        .read_only()
        .idempotent()
        .open_world(false)
        .output::<Usage>();
    let (core, kept) = (core.clone(), Arc::new(ByTool(Cache::new(KEPT))));
    kit.tool(spec, move |call: Call, NoArguments {}| {
        let (core, kept) = (core.clone(), kept.clone());
        async move {
            let usage = usage_of(&core, call.caller(), &kept).await?;
            let content = vec![Content::text(text(&usage))];
            Ok(ToolResult { content, ..ToolResult::structured(&usage)? })
        }
    })
}
