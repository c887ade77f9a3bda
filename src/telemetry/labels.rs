//! The values that labels may have. They are enums, so that no series can be made from what a caller sends.

use std::marker::PhantomData;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// A label with a fixed set of values.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in the order of the variants.
    const ALL: &'static [Self];
    /// The text of the value.
    fn text(self) -> &'static str;
    /// The place among [`Label::ALL`].
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident($label:literal) { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$value),+];
            fn text(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

labels! {
    /// Why a request got no further than authentication.
    Refusal("reason") {
        /// No credential, or one that is unknown, malformed, expired or revoked.
        Refused = "refused",
        /// A good credential of a suspended tenant.
        Suspended = "suspended",
        /// Too many unauthenticated requests from one address.
        LimitedIp = "limited_ip",
    }
    /// Which limit was reached.
    Limit("scope") {
        /// The tenant's rate.
        Tenant = "tenant",
        /// The credential's rate.
        Key = "key",
        /// The tenant's rate of calls to one server.
        Server = "server",
        /// The tenant's rate of calls of one tool.
        Tool = "tool",
        /// The tenant's rate of bytes, in and out.
        Bytes = "bytes",
        /// Tool calls of one tenant at once.
        Concurrency = "concurrency",
        /// Legacy sessions of one tenant at once.
        Sessions = "sessions",
        /// Event streams of one tenant at once.
        Streams = "streams",
        /// Calls of one tenant that wait for an answer of their clients at once.
        Questions = "questions",
        /// None: whether one was reached cannot be found out while Redis is away.
        Unavailable = "unavailable",
    }
    /// Why Redis was asked about limits.
    Trip("why") {
        /// A request had to wait for it.
        Request = "request",
        /// Something was given back or reported.
        Upkeep = "upkeep",
    }
    /// Which kind of protocol a request spoke.
    Era("era") {
        /// 2024-11-05 to 2025-11-25: sessions.
        Legacy = "legacy",
        /// 2026-07-28: self-describing requests.
        Modern = "modern",
    }
    /// How a tool call ended.
    Outcome("outcome") {
        /// With a result.
        Ok = "ok",
        /// With the tool's own "no" (`isError`).
        ToolError = "tool_error",
        /// The arguments did not fit the schema.
        InvalidArguments = "invalid_arguments",
        /// With a question back to the client (`input_required`).
        InputRequired = "input_required",
        /// The tool or its upstream is broken.
        SystemError = "system_error",
        /// The tool panicked.
        Panic = "panic",
        /// The time was up.
        Timeout = "timeout",
        /// The client took it back or went away.
        Cancelled = "cancelled",
        /// It was not made: the tenant could not pay for it, or it has no price.
        Denied = "denied",
        /// It was not made: its key had come before, and the answer of then was given again.
        Replay = "replay",
        /// It was made, and its answer was held back, because it could not be settled.
        NotReleased = "not_released",
    }
    /// Why a call was not made.
    Refused("reason") {
        /// The plan has no price for the tool.
        Unpriced = "unpriced",
        /// The tenant has too little left.
        Exhausted = "exhausted",
        /// The tenant's account is suspended.
        Suspended = "suspended",
        /// The database is needed and does not answer.
        Unavailable = "unavailable",
    }
    /// What carries a session.
    Transport("transport") {
        /// Streamable HTTP.
        Streamable = "streamable",
        /// HTTP+SSE (2024-11-05).
        Sse = "sse",
    }
    /// Why a session ended.
    SessionEnd("reason") {
        /// The client said so (DELETE).
        Client = "client",
        /// Nothing happened for `mcp.session_idle_ms`.
        Idle = "idle",
        /// Its SSE stream broke and did not come back.
        Disconnected = "disconnected",
        /// Its credential was revoked or its tenant suspended.
        Revoked = "revoked",
        /// It made room for a newer session of its tenant.
        Evicted = "evicted",
        /// Its SSE stream was not read fast enough.
        SlowReader = "slow_reader",
        /// The process is going down.
        Shutdown = "shutdown",
    }
    /// What became of a question to a legacy client.
    Answer("outcome") {
        /// The client answered, be it by declining.
        Answered = "answered",
        /// The client answered with an error.
        Refused = "refused",
        /// The answer could not be used.
        Malformed = "malformed",
        /// No answer came within `mcp.input_timeout_ms`.
        Timeout = "timeout",
        /// The call or the session ended first.
        Abandoned = "abandoned",
    }
    /// What became of a client that came back with `Last-Event-ID`.
    Resumption("outcome") {
        /// It reads on.
        Resumed = "resumed",
        /// What it asked for is not kept, or never was.
        Gone = "gone",
    }
    /// What an open event stream is for.
    Stream("kind") {
        /// The answer to one POST.
        Response = "response",
        /// The GET stream of a session.
        Session = "session",
        /// The stream of an HTTP+SSE session.
        Sse = "sse",
        /// `subscriptions/listen`.
        Listen = "listen",
    }
    /// Method of an HTTP request.
    Method("method") {
        /// GET.
        Get = "GET",
        /// POST.
        Post = "POST",
        /// DELETE.
        Delete = "DELETE",
        /// PUT.
        Put = "PUT",
        /// PATCH.
        Patch = "PATCH",
        /// HEAD.
        Head = "HEAD",
        /// OPTIONS.
        Options = "OPTIONS",
        /// Any other.
        Other = "other",
    }
    /// First digit of an HTTP status.
    StatusClass("status") {
        /// 1xx.
        Informational = "1xx",
        /// 2xx.
        Success = "2xx",
        /// 3xx.
        Redirection = "3xx",
        /// 4xx.
        ClientError = "4xx",
        /// 5xx.
        ServerError = "5xx",
    }
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Self {
        let same = |label: &&Self| label.text() == method.as_str();
        Self::ALL.iter().find(same).copied().unwrap_or(Self::Other)
    }
}

impl From<http::StatusCode> for StatusClass {
    fn from(status: http::StatusCode) -> Self {
        match status.as_u16() {
            ..200 => Self::Informational,
            200..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// One counter per value of a label; counting looks nothing up.
#[derive(Debug)]
pub struct Counters<L> {
    children: Vec<IntCounter>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    pub(super) fn register(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Self> {
        let family = IntCounterVec::new(Opts::new(name, help), &[L::NAME])?;
        registry.register(Box::new(family.clone()))?;
        let children = L::ALL.iter().map(|value| family.with_label_values(&[value.text()])).collect();
        Ok(Self { children, label: PhantomData })
    }

    /// Counts one.
    pub fn inc(&self, value: L) {
        if let Some(counter) = self.children.get(value.index()) {
            counter.inc();
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn get(&self, value: L) -> u64 {
        self.children.get(value.index()).map_or(0, IntCounter::get)
    }
}

/// One gauge of open things per value of a label.
#[derive(Debug)]
pub struct Gauges<L> {
    children: Vec<IntGauge>,
    label: PhantomData<L>,
}

impl<L: Label> Gauges<L> {
    pub(super) fn register(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Self> {
        let family = IntGaugeVec::new(Opts::new(name, help), &[L::NAME])?;
        registry.register(Box::new(family.clone()))?;
        let children = L::ALL.iter().map(|value| family.with_label_values(&[value.text()])).collect();
        Ok(Self { children, label: PhantomData })
    }

    /// Counts one open thing until the returned guard is dropped.
    #[must_use = "the thing counts as open until this is dropped"]
    pub fn open(&self, value: L) -> Open {
        self.children.get(value.index()).map_or_else(|| Open(None), Open::new)
    }

    /// Counts one open thing until [`Gauges::leave`], for those that have nowhere to keep a guard.
    pub fn enter(&self, value: L) {
        if let Some(gauge) = self.children.get(value.index()) {
            gauge.inc();
        }
    }

    /// Takes a thing that entered off again.
    pub fn leave(&self, value: L) {
        if let Some(gauge) = self.children.get(value.index()) {
            gauge.dec();
        }
    }

    /// How many are open.
    #[must_use]
    pub fn get(&self, value: L) -> i64 {
        self.children.get(value.index()).map_or(0, IntGauge::get)
    }
}

/// One open thing; dropping it takes it off its gauge.
#[derive(Debug)]
pub struct Open(Option<IntGauge>);

impl Open {
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(Some(gauge.clone()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(gauge) = self.0.take() {
            gauge.dec();
        }
    }
}
