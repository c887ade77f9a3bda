//! Metrics of metering. None of them is a bill: they say how well the ledger does its work.

use prometheus::{Histogram, HistogramOpts, IntCounter, Registry};

use super::labels::{Counters, Refused};
use crate::accounts::events::EventKind;

/// Seconds until a settlement is durable.
const SECONDS: [f64; 10] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 1.0, 10.0];
/// Calls in a transaction.
const CALLS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 512.0];

/// Everything that is counted.
#[derive(Debug)]
pub struct Metering {
    /// Calls that were not made.
    pub calls_refused: Counters<Refused>,
    /// Calls that were made and not charged, because they could not be settled; their answers were held back.
    pub calls_unsettled: IntCounter,
    /// Time that a reply waited until its call was part of the ledger.
    pub settle_duration: Histogram,
    /// Calls that were settled together.
    pub settle_batch: Histogram,
    /// Leases of credits.
    pub leases: IntCounter,
    /// Queries of the database that were tried, for whatever reason.
    pub statements: IntCounter,
    /// Marks that accounts came to.
    pub account_events: Counters<EventKind>,
}

impl Metering {
    /// All of it, at zero.
    ///
    /// # Errors
    /// Where a name is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            calls_refused: Counters::register(
                registry,
                "weir_calls_refused_total",
                "Calls not made, because nobody could pay for them.",
            )?,
            calls_unsettled: counter(
                registry,
                "weir_calls_unsettled_total",
                "Calls made and not charged: they could not be settled.",
            )?,
            settle_duration: histogram(
                registry,
                "weir_settle_duration_seconds",
                "Time until a call was part of the ledger.",
                &SECONDS,
            )?,
            settle_batch: histogram(registry, "weir_settle_batch_calls", "Calls settled together.", &CALLS)?,
            account_events: Counters::register(
                registry,
                "weir_account_events_total",
                "Marks that accounts came to.",
            )?,
            statements: counter(registry, "weir_database_statements_total", "Queries tried.")?,
            leases: counter(registry, "weir_credit_leases_total", "Times that credits were leased.")?,
        })
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let made = IntCounter::new(name, help)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

fn histogram(registry: &Registry, name: &str, help: &str, bounds: &[f64]) -> prometheus::Result<Histogram> {
    let made = Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec()))?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}
