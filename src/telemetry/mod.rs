//! Telemetry: logs to stderr, traces to a collector, metrics for Prometheus.
//!
//! Nothing here knows of a tenant's name or a secret: callers pass request ids, matched routes and methods,
//! never query strings or `Authorization`.

pub mod billing;
pub mod labels;
mod lines;
mod logs;
pub mod metering;
pub mod metrics;
mod process;
pub mod traces;

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat, Otel};

/// How long [`Guard::shut_down`] waits for the last spans to reach the collector.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.filter` does not parse; [`crate::config::Config::validate`] says so earlier.
    #[error("log.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter of traces could not be made.
    #[error("otel.endpoint: {0} (outgoing HTTP needs the certificates of the package ca-certificates)")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A subscriber is installed already: `init` was called twice.
    #[error("logging is set up already: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps the exporter of traces alive; the last spans leave when it is dropped.
#[must_use = "dropping it ends the export of traces"]
#[derive(Debug, Default)]
pub struct Guard(Option<SdkTracerProvider>);

impl Guard {
    /// Sends what is queued and ends the export; returns after [`FLUSH_LIMIT`] at the latest. Blocks the thread.
    pub fn shut_down(&mut self) {
        let result = self.0.take().map(|provider| provider.shutdown_with_timeout(FLUSH_LIMIT));
        if let Some(Err(error)) = result {
            tracing::warn!(%error, "the last traces were not delivered");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Sets up logs and traces for the process. Once, from `main`, after [`crate::egress::install_crypto`].
///
/// # Errors
/// [`TelemetryError`] where the filter or the endpoint is unusable, or a second call is made.
pub fn init(log: &Log, otel: &Otel) -> Result<Guard, TelemetryError> {
    let terminal = std::io::stderr().is_terminal();
    let (subscriber, guard) = subscriber(log, otel, std::io::stderr, terminal)?;
    subscriber.try_init()?;
    Ok(guard)
}

/// Logs and traces as one subscriber that is not installed yet; a test passes its own writer. `terminal` says
/// whether the writer is one, which decides on colours and on the format `auto`.
///
/// # Errors
/// As [`init`].
pub fn subscriber<W>(
    log: &Log,
    otel: &Otel,
    writer: W,
    terminal: bool,
) -> Result<(impl Subscriber + Send + Sync + use<W>, Guard), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let provider = traces::provider(otel)?;
    let subscriber = tracing_subscriber::registry()
        .with(logs::layer(&log.filter, json, terminal, writer)?)
        .with(provider.as_ref().map(traces::layer));
    Ok((subscriber, Guard(provider)))
}
