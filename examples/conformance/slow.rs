//! `slow_count`, which takes its time, and `slow_count_cancelled`, which tells how often it was cancelled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use weir::caller::Principal;
use weir::error::Result;
use weir::mcp::content::ToolResult;
use weir::providers::{Call, NoArguments, Toolkit};

use crate::tools::spec;

/// What to count.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Count {
    /// How far to count.
    #[schemars(range(min = 1, max = 1000))]
    steps: u16,
    /// How long to wait after each number, in milliseconds.
    #[schemars(range(min = 0, max = 10_000))]
    delay_ms: u64,
}

/// Cancelled calls by who made them.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<HashMap<Principal, u32>>>);

impl Tally {
    fn of(&self, who: &Principal) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(who).copied().unwrap_or(0)
    }

    fn add(&self, who: &Principal) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(who.clone()).or_default() += 1;
    }
}

/// A call that counts as cancelled when it is dropped before its end: that is how a tool learns of it.
struct Unfinished {
    tally: Tally,
    call: Call,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.call.cancelled().is_cancelled() {
            self.tally.add(self.call.caller().principal());
        }
    }
}

pub(crate) fn add(kit: Toolkit) -> Result<Toolkit> {
    let tally = Tally::default();
    let counted = tally.clone();
    kit.tool(
        spec("slow_count", "Counts, with a pause after each number, and reports progress. May be cancelled."),
        move |call: Call, Count { steps, delay_ms }| {
            let running = Unfinished { tally: counted.clone(), call };
            async move {
                for step in 1..=steps {
                    running.call.progress(step.into(), Some(steps.into()), None);
                    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                }
                Ok(ToolResult::text(format!("Counted to {steps}.")))
            }
        },
    )?
    .tool(
        spec("slow_count_cancelled", "How many calls of slow_count this caller has cancelled so far."),
        move |call: Call, NoArguments {}| {
            let tally = tally.clone();
            async move { Ok(ToolResult::text(tally.of(call.caller().principal()).to_string())) }
        },
    )
}
