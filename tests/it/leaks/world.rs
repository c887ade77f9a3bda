//! A gateway whose every session and call is counted, and a tool that holds calls until they are let go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{oneshot, watch};
use weir::clock::{Clock, Timestamp};
use weir::hooks::{CallEnd, CallStart, Hook, SessionInfo};
use weir::limits::{Place, Scope};
use weir::mcp::content::ToolResult;
use weir::providers::{Call, Provider, ToolSpec, Toolkit};
use weir::telemetry::labels::SessionEnd;

use crate::support::raw::Line;
use crate::support::{Gateway, Key, eventually, within};

/// Places of each kind that a tenant has: more than one round needs, so that nothing is evicted.
const PLACES: u32 = 4000;
/// What the kernel takes of an answer that its client does not read, in bytes; it doubles that.
const SEND_BUFFER: u32 = 4096;
/// Sessions are idle after this time on the gateway's clock, which only a test moves.
const IDLE: Duration = Duration::from_secs(60);

/// How often something happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Happened {
    /// Sessions that opened.
    pub opened: u32,
    /// Sessions that closed.
    pub closed: u32,
    /// Calls that began.
    pub begun: u32,
    /// Calls that ended.
    pub ended: u32,
}

/// A hook that counts, and that can be waited on.
#[derive(Clone, Default)]
pub struct Counter(watch::Sender<Happened>);

impl Hook for Counter {
    fn before_call(&self, _: &CallStart<'_>) {
        self.0.send_modify(|h| h.begun += 1);
    }
    fn after_call(&self, _: &CallEnd<'_>) {
        self.0.send_modify(|h| h.ended += 1);
    }
    fn session_opened(&self, _: &SessionInfo<'_>) {
        self.0.send_modify(|h| h.opened += 1);
    }
    fn session_closed(&self, _: &SessionInfo<'_>, _: SessionEnd) {
        self.0.send_modify(|h| h.closed += 1);
    }
}

impl Counter {
    /// What happened so far.
    pub fn now(&self) -> Happened {
        *self.0.borrow()
    }

    /// Waits until this much has happened.
    pub async fn reached(&self, what: &str, enough: impl Fn(&Happened) -> bool) {
        within(what, self.0.subscribe().wait_for(|h| enough(h))).await.expect("the counter lives");
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Waits {
    /// Whom to tell that the call runs.
    ticket: u64,
}

/// Calls that wait until they are let go.
#[derive(Clone, Default)]
pub struct Gate(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    next: AtomicU64,
    /// Who wants to know that a call runs, by its ticket.
    running: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    /// Every call that began before this number grew may go.
    opened: watch::Sender<u64>,
}

impl Gate {
    /// A number for a call, and what resolves when the call with this number runs.
    pub fn ticket(&self) -> (u64, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        let ticket = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, tell);
        (ticket, told)
    }

    /// Lets every call go that waits.
    pub fn open(&self) {
        self.0.opened.send_modify(|number| *number += 1);
    }

    fn provider(&self) -> Arc<dyn Provider> {
        let waiting = self.0.clone();
        let waits = ToolSpec::new("waits").description("Waits to be let go.").read_only();
        let kit = Toolkit::new("gate").tool(waits, move |call: Call, Waits { ticket }| {
            let waiting = waiting.clone();
            async move {
                let mut opened = waiting.opened.subscribe();
                let before = *opened.borrow_and_update();
                call.progress(1.0, None, None);
                let tell = waiting.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
                let _ = tell.map(|tell| tell.send(()));
                let _ = opened.wait_for(|number| *number > before).await;
                Ok(ToolResult::text("let go"))
            }
        });
        kit.expect("a tool").build()
    }
}

/// A gateway under observation, with one tenant.
pub struct World {
    /// It.
    pub gateway: Gateway,
    /// Holds calls.
    pub gate: Gate,
    /// Counts.
    pub counter: Counter,
    key: Key,
    clock: Clock,
}

impl World {
    /// Starts one.
    pub async fn start() -> Self {
        let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
        let (gate, counter) = (Gate::default(), Counter::default());
        // What is counted is what one process holds, and it moves the clock, which Redis does not follow.
        let mut builder = Gateway::build()
            .alone()
            .clock(&clock)
            .hook(counter.clone())
            .provider(gate.provider())
            .send_buffer(SEND_BUFFER)
            .set("mcp.session_idle_ms", IDLE.as_millis())
            // Each connection keeps room for the largest batch that it has written; with one, that is the same every time.
            .set("database.max_connections", "1")
            // Calls end when they are let go, however slow the machine is.
            .set("mcp.tool_timeout_ms", "600000")
            .set("server.body_read_timeout_ms", "600000")
            // Questions end when nobody answers; this is the one time that the test has to wait for.
            .set("mcp.input_timeout_ms", "200");
        for rate in ["tenant.per_second", "tenant.burst", "key.per_second", "key.burst"] {
            // The clock stands still, so a bucket never fills again.
            builder = builder.set(&format!("limits.{rate}"), "1000000");
        }
        for places in ["concurrency", "sessions", "streams"] {
            builder = builder.set(&format!("limits.tenant.{places}"), PLACES.to_string());
        }
        let gateway = builder.start().await;
        let key = gateway.caller().await;
        Self { gateway, gate, counter, key, clock }
    }

    /// A connection to it.
    pub async fn line(&self) -> Line {
        Line::open(self.gateway.address).await
    }

    /// A request of this kind, in a session where one is given.
    pub fn request(&self, start: &str, session: Option<&str>, extra: &str, body: &str) -> Vec<u8> {
        let session = session.map_or(String::new(), |id| format!("mcp-session-id: {id}\r\n"));
        let (token, length) = (&self.key.secret, body.len());
        format!(
            "{start} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
             {session}{extra}content-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Lets calls go and waits until all have ended.
    pub async fn calls_end(&self, way: &str) {
        self.gate.open();
        let what = format!("the end of every call of a client that {way}");
        self.counter.reached(&what, |h| h.ended == h.begun).await;
    }

    /// Waits until the journal holds nothing any more: what waits in it is no leak.
    pub async fn journal_is_written(&self) {
        self.gateway.is_recorded().await;
    }

    /// Waits for the end of every connection, lets all sessions that are left grow old, and sweeps them away.
    pub async fn settle(&self, tasks: usize) {
        let app = &self.gateway.app;
        eventually("the end of every connection", async || app.tasks.running() <= tasks).await;
        self.clock.advance(IDLE + Duration::from_secs(1));
        while app.sessions.sweep() {
            app.usage.flush().await;
        }
        self.counter.reached("the end of every session", |h| h.closed == h.opened).await;
        self.journal_is_written().await;
    }

    /// Takes every place that the tenant has and gives them back: none was lost.
    pub async fn take_every_place(&self) {
        let app = &self.gateway.app;
        let caller = app.credentials.resolve(&self.key.secret, weir::credentials::Place::Header).await;
        let caller = caller.expect("a caller");
        for scope in [Scope::Concurrency, Scope::Sessions, Scope::Streams] {
            let mut all: Vec<Place> = Vec::new();
            let refused = loop {
                match app.limits.place(&caller, scope).await {
                    Ok(place) => all.push(place),
                    Err(refused) => break refused,
                }
            };
            assert_eq!(all.len(), PLACES as usize, "places for {scope:?} were not given back");
            assert_eq!(refused.scope, scope, "more places for {scope:?} than there are");
        }
    }
}
