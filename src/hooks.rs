//! Hooks: what runs before and after each call and when sessions open and close. Metrics and logs are their first
//! users; an embedder can add its own.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::caller::{Caller, Principal};
use crate::id::{CallId, SessionRowId};
use crate::telemetry::labels::{Label, Outcome, SessionEnd, Transport};
use crate::telemetry::metrics::{Metrics, Tool};

/// A call about to run.
#[derive(Debug)]
pub struct CallStart<'a> {
    /// The call.
    pub id: CallId,
    /// Who calls.
    pub caller: &'a Caller,
    /// The server that the tool belongs to.
    pub server: &'a Arc<str>,
    /// The tool.
    pub tool: &'a Arc<str>,
}

/// How a call ended.
#[derive(Debug)]
pub struct CallEnd<'a> {
    /// What was said when it began.
    pub start: CallStart<'a>,
    /// In one word.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
}

/// A session that opened or closed.
#[derive(Debug)]
pub struct SessionInfo<'a> {
    /// Its row in the history; not the id on the wire, which is a secret.
    pub id: SessionRowId,
    /// Who opened it.
    pub owner: &'a Principal,
    /// The transport.
    pub transport: Transport,
    /// The negotiated revision.
    pub revision: &'static str,
}

/// Something that wants to know. Hooks run inline and must be quick; what takes time belongs on a task.
#[expect(unused_variables, reason = "the default of every hook is to do nothing")]
pub trait Hook: Send + Sync + 'static {
    /// Before a call runs, after it was authorised and reserved.
    fn before_call(&self, call: &CallStart<'_>) {}
    /// After a call ended, however it did.
    fn after_call(&self, call: &CallEnd<'_>) {}
    /// After a session opened.
    fn session_opened(&self, session: &SessionInfo<'_>) {}
    /// After a session closed; `reason` says why.
    fn session_closed(&self, session: &SessionInfo<'_>, reason: SessionEnd) {}
}

/// Tells every hook. One that panics is logged and harms nobody else: what it watched goes on.
pub fn tell(hooks: &[Box<dyn Hook>], what: impl Fn(&dyn Hook)) {
    for hook in hooks {
        if catch_unwind(AssertUnwindSafe(|| what(hook.as_ref()))).is_err() {
            tracing::error!("a hook panicked; what it watched goes on without it");
        }
    }
}

/// A tool's series, by server and tool.
type Series = HashMap<Arc<str>, HashMap<Arc<str>, Arc<Tool>>>;

/// Counts calls and sessions.
pub struct MetricsHook {
    metrics: Arc<Metrics>,
    /// Looking a tool up by name allocates, so what was found is kept.
    tools: RwLock<Series>,
}

impl MetricsHook {
    /// Counts into `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, tools: RwLock::default() }
    }

    fn tool(&self, server: &Arc<str>, tool: &Arc<str>) -> Arc<Tool> {
        let known = |tools: &Series| tools.get(server)?.get(tool).cloned();
        if let Some(known) = known(&self.tools.read().unwrap_or_else(PoisonError::into_inner)) {
            return known;
        }
        let found = self.metrics.tool(server, tool);
        let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
        tools.entry(server.clone()).or_default().insert(tool.clone(), found.clone());
        found
    }
}

impl Hook for MetricsHook {
    fn after_call(&self, call: &CallEnd<'_>) {
        self.tool(call.start.server, call.start.tool).observe(call.outcome, call.duration);
    }
    fn session_opened(&self, session: &SessionInfo<'_>) {
        self.metrics.sessions_opened.inc(session.transport);
    }
    fn session_closed(&self, _session: &SessionInfo<'_>, reason: SessionEnd) {
        self.metrics.sessions_closed.inc(reason);
    }
}

/// Writes a line per call and session.
pub struct LogHook;

impl Hook for LogHook {
    fn after_call(&self, call: &CallEnd<'_>) {
        tracing::info!(
            target: "weir::calls",
            call = %call.start.id,
            tenant = %call.start.caller.tenant(),
            server = &**call.start.server,
            tool = &**call.start.tool,
            outcome = call.outcome.text(),
            duration_us = u64::try_from(call.duration.as_micros()).unwrap_or(u64::MAX),
            "call",
        );
    }
    fn session_opened(&self, session: &SessionInfo<'_>) {
        tracing::debug!(
            session = %session.id, tenant = %session.owner.tenant, transport = session.transport.text(),
            revision = session.revision, "session opened",
        );
    }
    fn session_closed(&self, session: &SessionInfo<'_>, reason: SessionEnd) {
        tracing::debug!(session = %session.id, tenant = %session.owner.tenant, reason = reason.text(), "session closed");
    }
}
