//! Metrics of billing: how Stripe is asked, and how it answers.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Seconds until an operation has its result, over all its attempts.
const SECONDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0];

/// Everything that is counted. Operations are methods and paths without ids, and there are as many as Weir knows.
#[derive(Debug, Clone)]
pub struct Billing {
    /// Operations by what is known of them: ok, refused, unclear, happened.
    pub requests: IntCounterVec,
    /// How long they took.
    pub duration: HistogramVec,
    /// Exports by what became of them: begun, sent, verified, drifted, refused.
    pub exports: IntCounterVec,
    /// Periods by how ledger and Stripe compared when they were last looked at.
    pub verdicts: IntGaugeVec,
    /// Final invoices by how they compared with what was told.
    pub invoices: IntGaugeVec,
    /// Events that came, by what became of them at the door: stored, duplicate, unfollowed, no_secret, bad_signature, stale,
    /// malformed, wrong_mode, unstored, oversized, slow, broken_off, busy; swept: found by the sweep.
    pub events_received: IntCounterVec,
    /// Events that were worked on: done, ignored, retried, failed.
    pub events_worked: IntCounterVec,
    /// Seconds since the oldest event came that waits; 0 where none does.
    pub events_oldest: IntGauge,
    /// Events that were given up.
    pub events_failed: IntGauge,
    /// Customers that are deleted at Stripe.
    pub customers_deleted: IntGauge,
}

impl Billing {
    /// All of it, at zero.
    ///
    /// # Errors
    /// Where a name is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests =
            Opts::new("weir_stripe_requests_total", "Operations of Stripe's API, by how they ended.");
        let requests = IntCounterVec::new(requests, &["operation", "outcome"])?;
        registry.register(Box::new(requests.clone()))?;
        let duration = HistogramOpts::new(
            "weir_stripe_request_duration_seconds",
            "Time of an operation of Stripe's API, over all its attempts.",
        );
        let duration = HistogramVec::new(duration.buckets(SECONDS.to_vec()), &["operation"])?;
        registry.register(Box::new(duration.clone()))?;
        let exports =
            Opts::new("weir_billing_exports_total", "Exports of what is owed, by what became of them.");
        let exports = IntCounterVec::new(exports, &["what"])?;
        registry.register(Box::new(exports.clone()))?;
        let verdicts = Opts::new(
            "weir_billing_periods",
            "Periods by how the ledger and Stripe compared at the last reconciliation.",
        );
        let verdicts = IntGaugeVec::new(verdicts, &["verdict"])?;
        registry.register(Box::new(verdicts.clone()))?;
        let invoices = Opts::new(
            "weir_billing_invoices",
            "Final invoices by how what they bill for usage compares with what Stripe was told.",
        );
        let invoices = IntGaugeVec::new(invoices, &["verdict"])?;
        registry.register(Box::new(invoices.clone()))?;
        Ok(Self {
            requests,
            duration,
            exports,
            verdicts,
            invoices,
            events_received: counters(
                registry,
                "weir_stripe_events_received_total",
                "Events of Stripe's that came, by what became of them at the door.",
            )?,
            events_worked: counters(
                registry,
                "weir_stripe_events_worked_total",
                "Events of Stripe's that were worked on, by what came of it.",
            )?,
            events_oldest: gauge(
                registry,
                "weir_stripe_events_oldest_seconds",
                "Seconds since the oldest event of Stripe's came that waits.",
            )?,
            events_failed: gauge(
                registry,
                "weir_stripe_events_failed",
                "Events of Stripe's that were given up.",
            )?,
            customers_deleted: gauge(
                registry,
                "weir_billing_customers_deleted",
                "Customers of tenants that are deleted at Stripe.",
            )?,
        })
    }
}

fn counters(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounterVec> {
    let metric = IntCounterVec::new(Opts::new(name, help), &["outcome"])?;
    registry.register(Box::new(metric.clone())).map(|()| metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone())).map(|()| metric)
}
