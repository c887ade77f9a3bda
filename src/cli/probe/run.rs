//! The run: step after step, each timed, all within one limit.

use std::future::Future;
use std::time::{Duration, Instant};

use http::HeaderMap;
use serde_json::{Value, json};
use tokio::time::timeout_at;

use super::handshake::{Tried, connect, discover, initialize, initialize_sse};
use super::link::{Link, Wire};
use super::report::{Cleaner, Report, Step, shown};
use super::trouble::{ProbeError, Trouble};
use super::{Plan, tool};

/// Pages of a list that are read.
const MAX_PAGES: usize = 100;
/// How long ending a session may take after something else failed.
const LAST_WORD: Duration = Duration::from_secs(2);

struct Run {
    report: Report,
    cleaner: Cleaner,
    deadline: tokio::time::Instant,
    limit: Duration,
}

/// Probes, and tells what was found whatever came of it.
pub(super) async fn run(plan: Plan) -> (Report, Result<(), ProbeError>) {
    let started = Instant::now();
    let mut run = Run {
        report: Report { url: shown(&plan.url), ..Report::default() },
        cleaner: Cleaner::new(&plan.url, plan.key.as_ref()),
        deadline: tokio::time::Instant::now() + plan.limit,
        limit: plan.limit,
    };
    let outcome = run.all(plan).await;
    let mut report = run.report;
    report.total = started.elapsed();
    report.error = outcome.as_ref().err().cloned();
    (report, outcome)
}

impl Run {
    /// Runs one step within the time that is left, and notes how long it took.
    async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, ProbeError> {
        let started = Instant::now();
        let done = timeout_at(self.deadline, work).await.unwrap_or_else(|_| Err(Trouble::late(self.limit)));
        let step = Step { name, took: started.elapsed(), failed: done.is_err(), note: String::new() };
        self.report.steps.push(step);
        done.map_err(|trouble| trouble.at(name, |text| self.cleaner.clean(text)))
    }

    /// Says something about the step that was the last.
    fn note(&mut self, text: &str) {
        let text = self.cleaner.clean(text);
        if let Some(step) = self.report.steps.last_mut() {
            step.note = text;
        }
    }

    async fn all(&mut self, plan: Plan) -> Result<(), ProbeError> {
        let clean = |trouble: Trouble| trouble.at("set-up", |text| self.cleaner.clean(text));
        let mut wire = Wire::new(plan.url.clone(), plan.key.clone(), plan.limit).map_err(clean)?;
        let mut link = self.shake_hands(&mut wire).await?;
        let used = self.list_and_call(&mut wire, &mut link, &plan).await;
        if !link.has_session() {
            return used;
        }
        match used {
            Ok(()) => {
                let said = self.step("DELETE", link.end(&wire)).await?;
                self.note(said);
                Ok(())
            }
            // A monitor that finds a broken tool each minute must not leave a session behind each time.
            Err(error) => {
                let _ = tokio::time::timeout(LAST_WORD, link.end(&wire)).await;
                Err(error)
            }
        }
    }

    async fn shake_hands(&mut self, wire: &mut Wire) -> Result<Link, ProbeError> {
        let mut link = match self.step("server/discover", discover(wire)).await? {
            Tried::Done(server) => {
                self.report.server = server;
                Link::Modern
            }
            Tried::Older(said) => {
                self.note(&format!("{said}: an older server"));
                self.shake_hands_legacy(wire).await?
            }
        };
        self.report.transport = link.transport();
        let Report { server, .. } = &mut self.report;
        server.name = self.cleaner.clean(&server.name);
        server.version = self.cleaner.clean(&server.version);
        if !matches!(link, Link::Modern) {
            self.step("notifications/initialized", link.initialized(wire)).await?;
        }
        Ok(std::mem::replace(&mut link, Link::Modern))
    }

    async fn shake_hands_legacy(&mut self, wire: &mut Wire) -> Result<Link, ProbeError> {
        match self.step("initialize", initialize(wire)).await? {
            Tried::Done((link, server)) => {
                self.report.server = server;
                Ok(link)
            }
            Tried::Older(said) => {
                self.note(&format!("{said}: perhaps HTTP+SSE"));
                let connected = self.step("GET", connect(wire)).await;
                // Where the server is not of 2024 either, what it said to `initialize` is the better hint.
                let mut link = connected.map_err(|mut error| {
                    error.problem =
                        format!("{}; before, to `initialize`: {}", error.problem, self.cleaner.clean(&said));
                    error
                })?;
                self.report.server = self.step("initialize", initialize_sse(wire, &mut link)).await?;
                Ok(link)
            }
        }
    }

    async fn list_and_call(
        &mut self,
        wire: &mut Wire,
        link: &mut Link,
        plan: &Plan,
    ) -> Result<(), ProbeError> {
        let tools = self.step("tools/list", list(wire, link)).await?;
        self.report.tools = Some(tools.len());
        self.note(&format!("{} tools", tools.len()));

        let chosen = tool::choose(&tools, plan.tool.as_deref());
        let chosen = chosen.map_err(|trouble| trouble.at("tools/call", |text| self.cleaner.clean(text)))?;
        let name = chosen.get("name").and_then(Value::as_str).unwrap_or("");
        self.report.tool = Some(self.cleaner.clean(name));
        let call = async {
            let params = json!({ "name": name, "arguments": plan.arguments });
            let mirrored = tool::mirrored(chosen, &plan.arguments);
            tool::check(&link.ask(wire, "tools/call", params, mirrored).await?)
        };
        self.step("tools/call", call).await?;
        self.note(name);
        Ok(())
    }
}

/// Every page of `tools/list`.
async fn list(wire: &mut Wire, link: &mut Link) -> Result<Vec<Value>, Trouble> {
    let mut tools = Vec::new();
    let mut params = json!({});
    for _ in 0..MAX_PAGES {
        let mut page = link.ask(wire, "tools/list", params, HeaderMap::new()).await?;
        match page.get_mut("tools").map(Value::take) {
            Some(Value::Array(more)) => tools.extend(more),
            _ => return Err(Trouble::protocol("the answer to `tools/list` has no `tools`")),
        }
        match page.get("nextCursor").and_then(Value::as_str) {
            None => return Ok(tools),
            Some(cursor) => params = json!({ "cursor": cursor }),
        }
    }
    Err(Trouble::new(
        format!("the list does not end within {MAX_PAGES} pages"),
        "does `nextCursor` lead in a circle?",
    ))
}
