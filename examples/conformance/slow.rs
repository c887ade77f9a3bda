//! `slow_count`, which takes its time, and `slow_count_cancelled`, which tells how often it was cancelled.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use weir::error::Result;
use weir::mcp::content::ToolResult;
use weir::providers::{Call, NoArguments, Toolkit};

use crate::memory::Memory;
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

/// What is counted of whoever calls.
fn cancelled(call: &Call) -> String {
    format!("cancelled by {:?}", call.caller().principal())
}

/// A call that counts as cancelled when it is dropped before its end: that is how a tool learns of it.
struct Unfinished {
    memory: Memory,
    call: Call,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.call.cancelled().is_cancelled() {
            self.memory.add(&cancelled(&self.call));
        }
    }
}

pub(crate) fn add(kit: Toolkit, memory: &Memory) -> Result<Toolkit> {
    let (counted, asked) = (memory.clone(), memory.clone());
    kit.tool(
        spec("slow_count", "Counts, with a pause after each number, and reports progress. May be cancelled."),
        move |call: Call, Count { steps, delay_ms }| {
            let running = Unfinished { memory: counted.clone(), call };
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
            let count = asked.count(&cancelled(&call));
            async move { Ok(ToolResult::text(count.to_string())) }
        },
    )
}
