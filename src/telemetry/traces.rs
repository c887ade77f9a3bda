//! Traces: OTLP over HTTP where a collector is configured, and the W3C trace context of callers.
//!
//! Without a collector there is no layer at all, so a span costs what its log fields cost. With one, finished
//! spans go into a bounded queue and are dropped when it is full: a dead collector slows nothing.
//! `OTEL_EXPORTER_OTLP_HEADERS` (read by the exporter) may hold what the collector wants as credentials.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::TelemetryError;
use crate::config::Otel;

/// Spans that wait for the collector; further ones are dropped.
const QUEUE: usize = 4_096;
/// How long one delivery to the collector may take. Nobody waits for it.
const DELIVERY: Duration = Duration::from_secs(5);
/// Longest `tracestate` that is passed on (W3C Trace Context, 3.3.1.5 asks for 512 characters).
const MAX_STATE: usize = 512;
/// The exporter's own stack, whose spans would be about sending spans.
const OWN_STACK: [&str; 6] = ["hyper", "h2", "reqwest", "rustls", "opentelemetry", "tower"];

/// The pipeline to the collector; none where no endpoint is configured.
pub(super) fn provider(otel: &Otel) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    if otel.endpoint.is_empty() {
        return Ok(None);
    }
    // The batch thread has no async reactor, so the client is the blocking one (a feature of this crate).
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(&otel.endpoint)
        .with_timeout(DELIVERY)
        .with_headers(std::iter::once(user_agent()).collect())
        .build()?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(512)
        .with_scheduled_delay(Duration::from_secs(1))
        .build();
    let processor = BatchSpanProcessor::builder(Reporting::new(exporter)).with_batch_config(batches).build();
    let resource = Resource::builder_empty()
        .with_service_name(otel.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otel.sample_ratio)));
    Ok(Some(
        SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampler)
            .with_resource(resource)
            .build(),
    ))
}

fn user_agent() -> (String, String) {
    ("user-agent".to_owned(), crate::egress::USER_AGENT.to_owned())
}

/// The layer that turns spans of level INFO and above into traces, whatever the log's filter is.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("weir"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        // Nothing reads the ambient context, and a parent may then be set after the span was entered.
        .with_context_activation(false)
        .with_filter(filter_fn(wanted).with_max_level_hint(Level::INFO))
}

fn wanted(metadata: &Metadata<'_>) -> bool {
    let module = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO && !OWN_STACK.contains(&module)
}

/// The trace context that a caller sent: from the headers `traceparent` and `tracestate`, or where there is no
/// `traceparent`, from the request's `_meta` (`(traceparent, tracestate)`). Empty where neither is valid: a
/// broken header starts a new trace (W3C Trace Context, 3.2.2.3).
#[must_use]
pub fn extract(headers: &HeaderMap, meta: Option<(&str, Option<&str>)>) -> Context {
    let carrier = match (headers.contains_key("traceparent"), meta) {
        (true, _) => Carrier::from_headers(headers),
        (false, Some((parent, state))) => Carrier { parent: Some(parent), state: state.map(Cow::Borrowed) },
        (false, None) => return Context::new(),
    };
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

/// Makes `span` a child of the caller's span. Does nothing where no traces are sent.
pub fn set_parent(span: &Span, context: Context) {
    // The errors are "no traces are sent", "filtered out" and "has children already": none is worth a line.
    let _ = span.set_parent(context);
}

struct Carrier<'a> {
    parent: Option<&'a str>,
    state: Option<Cow<'a, str>>,
}

impl<'a> Carrier<'a> {
    fn from_headers(headers: &'a HeaderMap) -> Self {
        let all = |name: &str| headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        // Two parents are none; several lines of state are one list (RFC 9110, 5.3).
        let parent = all("traceparent").next().filter(|_| all("traceparent").nth(1).is_none());
        let state = match all("tracestate").nth(1) {
            None => all("tracestate").next().map(Cow::Borrowed),
            Some(_) => Some(Cow::Owned(all("tracestate").collect::<Vec<_>>().join(","))),
        };
        Self { parent, state }
    }
}

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.parent,
            "tracestate" => self.state.as_deref().filter(|state| state.len() <= MAX_STATE),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// Says once when deliveries begin to fail, and once when they work again.
#[derive(Debug)]
struct Reporting<E> {
    inner: E,
    failing: AtomicBool,
}

impl<E> Reporting<E> {
    const fn new(inner: E) -> Self {
        Self { inner, failing: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for Reporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.inner.export(batch).await;
        match (&result, self.failing.swap(result.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(%error, "the collector of traces does not answer; spans are being dropped");
            }
            (Ok(()), true) => tracing::info!("the collector of traces answers again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.inner.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    use opentelemetry::trace::TraceContextExt;

    use super::*;
    use crate::config::{Config, Layers};

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn parent(flags: &str) -> String {
        format!("00-{TRACE}-00f067aa0ba902b7-{flags}")
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    fn trace_of(context: &Context) -> Option<String> {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| span.trace_id().to_string())
    }

    #[test]
    fn headers_win_over_meta_unless_absent() {
        let other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let meta = Some((other, Some("a=b")));
        let both = extract(&headers(&[("traceparent", &parent("01")), ("tracestate", "c=d")]), meta);
        assert_eq!(trace_of(&both).as_deref(), Some(TRACE));
        assert_eq!(both.span().span_context().trace_state().get("c"), Some("d"));
        let only_meta = extract(&HeaderMap::new(), meta);
        assert_eq!(trace_of(&only_meta).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(only_meta.span().span_context().trace_state().get("a"), Some("b"));
        assert_eq!(trace_of(&extract(&headers(&[("traceparent", "nonsense")]), meta)), None);
        assert_eq!(trace_of(&extract(&HeaderMap::new(), None)), None);
    }

    #[test]
    fn odd_headers_do_no_harm() {
        let mut two = HeaderMap::new();
        two.append("traceparent", parent("01").parse().expect("a value"));
        two.append("traceparent", parent("00").parse().expect("a value"));
        assert_eq!(trace_of(&extract(&two, None)), None);
        let long = format!("a={}", "x".repeat(600));
        let context = extract(&headers(&[("traceparent", &parent("01")), ("tracestate", &long)]), None);
        assert_eq!(trace_of(&context).as_deref(), Some(TRACE));
        assert_eq!(context.span().span_context().trace_state().header(), "");
        let mut bytes = HeaderMap::new();
        bytes.append("traceparent", http::HeaderValue::from_bytes(b"\xff").expect("a value"));
        assert_eq!(trace_of(&extract(&bytes, None)), None);
    }

    fn config(endpoint: String) -> Config {
        let mut config = Layers::default().load().expect("the defaults are good");
        config.otel.endpoint = endpoint;
        config
    }

    /// Reads one HTTP request and answers 200; the body goes into the channel.
    fn collect(mut stream: TcpStream, bodies: &std::sync::mpsc::Sender<Vec<u8>>) {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            let length =
                text.split("content-length: ").nth(1).and_then(|t| t.lines().next()?.parse::<usize>().ok());
            if let (Some(length), Some(head)) = (length, bytes.windows(4).position(|w| w == b"\r\n\r\n"))
                && bytes.len() >= head + 4 + length
            {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .expect("answer");
                bodies.send(bytes.split_off(head + 4)).expect("the test listens");
                return;
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            }
        }
    }

    fn collector() -> (String, Receiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/v1/traces", listener.local_addr().expect("an address"));
        let (sender, receiver) = channel();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| collect(stream, &sender)));
        (url, receiver)
    }

    fn contains(body: &[u8], part: &[u8]) -> bool {
        body.windows(part.len()).any(|window| window == part)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn spans_arrive_with_the_callers_trace() {
        crate::egress::install_crypto();
        let (url, bodies) = collector();
        let config = config(url);
        let (subscriber, mut guard) =
            crate::telemetry::subscriber(&config.log, &config.otel, std::io::sink, false).expect("telemetry");
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("a_request", route = "/mcp");
            set_parent(&span, extract(&headers(&[("traceparent", &parent("01"))]), None));
            span.in_scope(|| tracing::info_span!("a_call").in_scope(|| ()));
            let quiet = tracing::info_span!("not_sampled");
            set_parent(&quiet, extract(&headers(&[("traceparent", &parent("00"))]), None));
            quiet.in_scope(|| ());
            tracing::debug_span!("too_fine").in_scope(|| ());
            tracing::info_span!(target: "hyper::client", "own_stack").in_scope(|| ());
        });
        guard.shut_down();
        let body = bodies.recv_timeout(Duration::from_secs(5)).expect("spans arrive");
        assert!(contains(&body, b"a_request") && contains(&body, b"a_call"));
        assert!(contains(&body, &u128::from_str_radix(TRACE, 16).expect("hex").to_be_bytes()));
        for absent in ["not_sampled", "too_fine", "own_stack"] {
            assert!(!contains(&body, absent.as_bytes()), "{absent}");
        }
    }

    #[test]
    fn a_dead_collector_slows_nothing() {
        crate::egress::install_crypto();
        // It accepts connections into the backlog and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let config = config(format!("http://{}/v1/traces", silent.local_addr().expect("an address")));
        let (subscriber, mut guard) =
            crate::telemetry::subscriber(&config.log, &config.otel, std::io::sink, false).expect("telemetry");
        let started = Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 * QUEUE {
                tracing::info_span!("call").in_scope(|| ());
            }
        });
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        let ending = Instant::now();
        guard.shut_down();
        assert!(ending.elapsed() < super::super::FLUSH_LIMIT + Duration::from_millis(500));
    }

    #[test]
    fn no_endpoint_means_no_layer() {
        let config = config(String::new());
        assert!(provider(&config.otel).expect("nothing to fail").is_none());
        let (subscriber, _guard) =
            crate::telemetry::subscriber(&config.log, &config.otel, std::io::sink, false).expect("telemetry");
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("call");
            set_parent(&span, extract(&headers(&[("traceparent", &parent("01"))]), None));
            assert_eq!(trace_of(&span.context()), None);
        });
    }
}
