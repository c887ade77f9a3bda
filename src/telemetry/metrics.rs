//! Every metric, in one list. No label is ever a tenant, a key or a text that a caller chose.
//!
//! The hot path holds its counters: [`Metrics::route`] and [`Metrics::tool`] are asked once and kept, or cost one
//! look-up without allocation; everything else is a field.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::billing::Billing;
use super::labels::{
    Answer, Counters, Era, Gauges, Label, Limit, Method, Open, Outcome, Refusal, Resumption, SessionEnd,
    StatusClass, Stream, Transport, Trip,
};
use super::metering::Metering;
use super::process::Process;
use crate::clock::Timestamp;

/// Routes that get a series of their own; further ones are counted as `other`. The router has far fewer.
const MAX_ROUTES: usize = 256;
/// Tools that get series of their own; further ones are counted as `other`.
const MAX_TOOLS: usize = 1_000;
const OTHER: &str = "other";

/// Bounds of the histograms, in seconds.
const SECONDS: [f64; 13] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// Methods of MCP, all revisions; any other is counted as `other`.
const MCP_METHODS: [&str; 33] = [
    "initialize",
    "ping",
    "server/discover",
    "subscriptions/listen",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "tasks/get",
    "tasks/update",
    "tasks/list",
    "tasks/result",
    "tasks/cancel",
    "elicitation/create",
    "sampling/createMessage",
    "roots/list",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/message",
    "notifications/roots/list_changed",
    "notifications/tools/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
    "notifications/prompts/list_changed",
    "notifications/tasks/status",
];

/// Says which build runs.
fn register_build(registry: &Registry) -> prometheus::Result<()> {
    let build = IntGaugeVec::new(Opts::new("weir_build_info", "Which build runs; always 1."), &["version"])?;
    registry.register(Box::new(build.clone()))?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(())
}

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: Process,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    routes: RwLock<HashMap<String, Arc<Route>>>,
    /// HTTP requests whose head has arrived and whose answer is not complete.
    pub http_in_flight: IntGauge,
    /// Requests that authentication turned away.
    pub auth_refusals: Counters<Refusal>,
    /// Requests that a limit turned away.
    pub rate_limited: Counters<Limit>,
    /// Round trips to Redis for limits.
    pub limit_trips: Counters<Trip>,
    mcp_requests: IntCounterVec,
    /// Per era, per method, with one more for `other`.
    mcp_children: Vec<Vec<OnceLock<IntCounter>>>,
    tool_calls: IntCounterVec,
    tool_duration: HistogramVec,
    tools: RwLock<HashMap<(String, String), Arc<Tool>>>,
    /// Legacy sessions that are open here.
    pub sessions_open: Gauges<Transport>,
    /// Legacy sessions that were opened.
    pub sessions_opened: Counters<Transport>,
    /// Legacy sessions that ended.
    pub sessions_closed: Counters<SessionEnd>,
    /// Event streams that are open here.
    pub streams_open: Gauges<Stream>,
    /// Questions of tools to legacy clients.
    pub questions: Counters<Answer>,
    /// Streams that clients came back to.
    pub streams_resumed: Counters<Resumption>,
    /// Bytes kept for clients that may come back; set when sessions are swept.
    pub replay_bytes: IntGauge,
    /// Notifications that a slow stream did not take.
    pub notifications_dropped: IntCounter,
    /// Credentials found in memory.
    pub credential_hits: IntCounter,
    /// Credentials read from the database.
    pub credential_misses: IntCounter,
    /// Records of calls and sessions that wait to be written.
    pub calls_queued: IntGauge,
    /// Records of calls and sessions that were given up, because the queue was full or Weir stopped.
    pub calls_dropped: IntCounter,
    /// 1 while the database answers.
    pub database_up: IntGauge,
    /// 1 while Redis answers; 0 also where there is none.
    pub redis_up: IntGauge,
    /// Times that Redis was there after it was not.
    pub redis_connections: IntCounter,
    /// Commands that Redis refused.
    pub redis_refused: IntCounter,
    /// Messages to other replicas that were given up.
    pub messages_dropped: IntCounter,
    /// Replicas that live, this one included.
    pub replicas: IntGauge,
    /// Queries that were not tried, because the database was known to be away.
    pub database_refused: IntCounter,
    /// The ledger.
    pub metering: Metering,
    /// Stripe.
    pub billing: Billing,
}

impl Metrics {
    /// All metrics, at zero. `started` is when the process started.
    ///
    /// # Errors
    /// Where two metrics have one name: never, as the tests show.
    pub fn new(started: Timestamp) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        register_build(r)?;
        let methods = || std::iter::repeat_with(OnceLock::new).take(MCP_METHODS.len() + 1).collect();
        Ok(Self {
            process: Process::register(r, started)?,
            http_requests: counters(
                r,
                "weir_http_requests_total",
                "HTTP requests answered, by matched route, method and class of status.",
                &["route", Method::NAME, StatusClass::NAME],
            )?,
            http_duration: histograms(
                r,
                "weir_http_request_duration_seconds",
                "Time from the head of a request to the head of its answer.",
                &["route"],
            )?,
            routes: RwLock::default(),
            http_in_flight: gauge(r, "weir_http_requests_in_flight", "HTTP requests being answered.")?,
            auth_refusals: Counters::register(
                r,
                "weir_auth_refusals_total",
                "Requests refused at authentication.",
            )?,
            rate_limited: Counters::register(r, "weir_rate_limited_total", "Requests refused by a limit.")?,
            limit_trips: Counters::register(r, "weir_limit_trips_total", "Limits asked of Redis.")?,
            mcp_requests: counters(
                r,
                "weir_mcp_requests_total",
                "MCP requests and notifications received.",
                &[Era::NAME, "method"],
            )?,
            mcp_children: Era::ALL.iter().map(|_| methods()).collect(),
            tool_calls: counters(
                r,
                "weir_tool_calls_total",
                "Tool calls ended, by how.",
                &["server", "tool", Outcome::NAME],
            )?,
            tool_duration: histograms(
                r,
                "weir_tool_call_duration_seconds",
                "Time that a tool call took inside its provider.",
                &["server", "tool"],
            )?,
            tools: RwLock::default(),
            sessions_open: Gauges::register(r, "weir_sessions_open", "Legacy sessions open.")?,
            sessions_opened: Counters::register(r, "weir_sessions_opened_total", "Legacy sessions opened.")?,
            sessions_closed: Counters::register(
                r,
                "weir_sessions_closed_total",
                "Legacy sessions ended, by why.",
            )?,
            streams_open: Gauges::register(r, "weir_streams_open", "Event streams open.")?,
            questions: Counters::register(r, "weir_questions_total", "Questions to legacy clients.")?,
            streams_resumed: Counters::register(
                r,
                "weir_streams_resumed_total",
                "Clients back at a broken stream.",
            )?,
            replay_bytes: gauge(r, "weir_replay_bytes", "Bytes kept for clients that may come back.")?,
            notifications_dropped: counter(r, "weir_notifications_dropped_total", "Too many for a stream.")?,
            credential_hits: counter(r, "weir_credential_cache_hits_total", "Credentials found in memory.")?,
            credential_misses: counter(r, "weir_credential_cache_misses_total", "Credentials read.")?,
            calls_queued: gauge(r, "weir_calls_queue_length", "Records of calls waiting to be written.")?,
            calls_dropped: counter(r, "weir_calls_dropped_total", "Records of calls dropped: no room.")?,
            database_up: gauge(r, "weir_database_up", "1 while the database answers, else 0.")?,
            redis_up: gauge(r, "weir_redis_up", "1 while Redis answers, else 0.")?,
            redis_connections: counter(r, "weir_redis_connections_total", "Times that Redis was found.")?,
            redis_refused: counter(r, "weir_redis_refused_total", "Commands that Redis refused.")?,
            messages_dropped: counter(r, "weir_messages_dropped_total", "Messages to replicas given up.")?,
            replicas: gauge(r, "weir_replicas", "Replicas that live, this one included.")?,
            database_refused: counter(r, "weir_database_refused_total", "Queries not tried: it is away.")?,
            metering: Metering::register(r)?,
            billing: Billing::register(r)?,
            registry,
        })
    }

    /// The series of a route, by its pattern as the router matched it; none is `unmatched`.
    #[must_use]
    pub fn route(&self, pattern: Option<&str>) -> Arc<Route> {
        let pattern = pattern.unwrap_or("unmatched");
        if let Some(route) = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(pattern) {
            return Arc::clone(route);
        }
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let pattern = if routes.len() < MAX_ROUTES { pattern } else { OTHER };
        let make = || Arc::new(Route::new(pattern, &self.http_requests, &self.http_duration));
        Arc::clone(routes.entry(pattern.to_owned()).or_insert_with(make))
    }

    /// The series of a tool. For names of the catalogue only, never for one that a caller sent; keep the result.
    #[must_use]
    pub fn tool(&self, server: &str, tool: &str) -> Arc<Tool> {
        let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
        let key = (server.to_owned(), tool.to_owned());
        let key = if tools.len() < MAX_TOOLS || tools.contains_key(&key) {
            key
        } else {
            (OTHER.to_owned(), OTHER.to_owned())
        };
        let tool = tools.entry(key).or_insert_with_key(|(server, tool)| {
            Arc::new(Tool::new([server, tool], &self.tool_calls, &self.tool_duration))
        });
        Arc::clone(tool)
    }

    /// Counts an MCP request or notification; a method that MCP does not have is `other`.
    pub fn mcp_request(&self, era: Era, method: &str) {
        let known = MCP_METHODS.iter().position(|name| *name == method);
        let place = known.unwrap_or(MCP_METHODS.len());
        if let Some(child) = self.mcp_children.get(era.index()).and_then(|methods| methods.get(place)) {
            let name = known.map_or(OTHER, |place| MCP_METHODS[place]);
            child.get_or_init(|| self.mcp_requests.with_label_values(&[era.text(), name])).inc();
        }
    }

    /// Counts an HTTP request as in flight until the guard is dropped.
    #[must_use = "the request counts as in flight until this is dropped"]
    pub fn in_flight(&self) -> Open {
        Open::new(&self.http_in_flight)
    }

    /// Everything in the text format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.update();
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics cannot be written");
            String::new()
        })
    }
}

/// The series of one HTTP route.
#[derive(Debug)]
pub struct Route {
    pattern: String,
    requests: IntCounterVec,
    children: Vec<Vec<OnceLock<IntCounter>>>,
    duration: Histogram,
}

impl Route {
    fn new(pattern: &str, requests: &IntCounterVec, duration: &HistogramVec) -> Self {
        let classes = || StatusClass::ALL.iter().map(|_| OnceLock::new()).collect();
        Self {
            pattern: pattern.to_owned(),
            requests: requests.clone(),
            children: Method::ALL.iter().map(|_| classes()).collect(),
            duration: duration.with_label_values(&[pattern]),
        }
    }

    /// Counts one answered request.
    pub fn observe(&self, method: &http::Method, status: http::StatusCode, elapsed: Duration) {
        let (method, class) = (Method::from(method), StatusClass::from(status));
        if let Some(child) = self.children.get(method.index()).and_then(|classes| classes.get(class.index()))
        {
            let labels = [&self.pattern, method.text(), class.text()];
            child.get_or_init(|| self.requests.with_label_values(&labels)).inc();
        }
        self.duration.observe(elapsed.as_secs_f64());
    }
}

/// The series of one tool.
#[derive(Debug)]
pub struct Tool {
    name: [String; 2],
    calls: IntCounterVec,
    children: Vec<OnceLock<IntCounter>>,
    duration: Histogram,
}

impl Tool {
    fn new(name: [&String; 2], calls: &IntCounterVec, duration: &HistogramVec) -> Self {
        Self {
            name: name.map(String::clone),
            calls: calls.clone(),
            children: Outcome::ALL.iter().map(|_| OnceLock::new()).collect(),
            duration: duration.with_label_values(&name),
        }
    }

    /// Counts one call that ended.
    pub fn observe(&self, outcome: Outcome, elapsed: Duration) {
        if let Some(child) = self.children.get(outcome.index()) {
            let [server, tool] = &self.name;
            child.get_or_init(|| self.calls.with_label_values(&[server, tool, outcome.text()])).inc();
        }
        self.duration.observe(elapsed.as_secs_f64());
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let metric = IntCounter::new(name, help)?;
    registry.register(Box::new(metric.clone())).map(|()| metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone())).map(|()| metric)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone())).map(|()| metric)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<HistogramVec> {
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)?;
    registry.register(Box::new(metric.clone())).map(|()| metric)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(Timestamp::from_micros(1_700_000_000_500_000)).expect("no two of a name")
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }

    #[test]
    fn what_happened_is_rendered() {
        let metrics = metrics();
        let route = metrics.route(Some("/s/{server}/mcp"));
        route.observe(&http::Method::POST, StatusCode::OK, Duration::from_millis(3));
        route.observe(&http::Method::POST, StatusCode::ACCEPTED, Duration::from_millis(3));
        metrics.route(None).observe(&http::Method::TRACE, StatusCode::NOT_FOUND, Duration::ZERO);
        metrics.tool("builtin", "dns_resolve").observe(Outcome::ToolError, Duration::from_secs(2));
        metrics.mcp_request(Era::Modern, "tools/call");
        metrics.mcp_request(Era::Legacy, "made/up");
        metrics.auth_refusals.inc(Refusal::Suspended);
        metrics.rate_limited.inc(Limit::Concurrency);
        let session = metrics.sessions_open.open(Transport::Sse);
        let request = metrics.in_flight();
        let text = metrics.render();
        has(&text, r#"weir_http_requests_total{method="POST",route="/s/{server}/mcp",status="2xx"} 2"#);
        has(&text, r#"weir_http_requests_total{method="other",route="unmatched",status="4xx"} 1"#);
        has(&text, r#"weir_http_request_duration_seconds_bucket{route="/s/{server}/mcp",le="0.005"} 2"#);
        has(&text, r#"weir_tool_calls_total{outcome="tool_error",server="builtin",tool="dns_resolve"} 1"#);
        has(&text, r#"weir_mcp_requests_total{era="modern",method="tools/call"} 1"#);
        has(&text, r#"weir_mcp_requests_total{era="legacy",method="other"} 1"#);
        has(&text, r#"weir_auth_refusals_total{reason="suspended"} 1"#);
        has(&text, r#"weir_rate_limited_total{scope="concurrency"} 1"#);
        has(&text, r#"weir_sessions_open{transport="sse"} 1"#);
        has(&text, "weir_http_requests_in_flight 1");
        has(&text, &format!("weir_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
        has(&text, "process_start_time_seconds 1700000000.5");
        drop((session, request));
        let text = metrics.render();
        has(&text, r#"weir_sessions_open{transport="sse"} 0"#);
        has(&text, "weir_http_requests_in_flight 0");
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let metrics = metrics();
        for number in 0..MAX_TOOLS + 50 {
            let tool = metrics.tool("up", &format!("tool_{number}"));
            tool.observe(Outcome::Ok, Duration::ZERO);
            metrics.route(Some(&format!("/{number}"))).observe(
                &http::Method::GET,
                StatusCode::OK,
                Duration::ZERO,
            );
            metrics.mcp_request(Era::Modern, &format!("method/{number}"));
        }
        assert!(Arc::ptr_eq(&metrics.tool("up", "tool_0"), &metrics.tool("up", "tool_0")));
        let text = metrics.render();
        let count = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
        assert_eq!(count("weir_tool_calls_total{"), MAX_TOOLS + 1);
        assert_eq!(count("weir_http_requests_total{"), MAX_ROUTES + 1);
        assert_eq!(count("weir_mcp_requests_total{"), 1);
        has(&text, r#"weir_tool_calls_total{outcome="ok",server="other",tool="other"} 50"#);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_is_measured() {
        let text = metrics().render();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
            line.split(' ').nth(1).and_then(|value| value.parse().ok()).expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
