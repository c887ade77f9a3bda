//! Usage: what was called, by whom, and how it ended.
//!
//! [`Usage::settle`] closes the straight line of a call. Calls are free so far, so their records go to the journal,
//! which writes them in batches beside the reply; a kill can lose the last batch, never a charge.

mod journal;

use std::sync::Arc;

use crate::calls::CallRecord;
use crate::clock::Timestamp;
use crate::hooks::CallEnd;
use crate::id::CallId;
use crate::limits::Reservation;
use crate::policy::Guarded;

pub use journal::{Journal, Writer};

/// What a settled call is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The call.
    pub call: CallId,
}

/// How much went in and came out, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The arguments.
    pub request: usize,
    /// The result.
    pub result: usize,
}

/// Settles calls.
#[derive(Clone)]
pub struct Usage {
    journal: Journal,
}

impl Usage {
    /// Settles into this journal.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        Self { journal }
    }

    /// Ends a call: gives its reservation back and records it. Waits while the journal is full.
    pub async fn settle<T: Guarded>(
        &self,
        reservation: Reservation<'_, T>,
        end: &CallEnd<'_>,
        started_at: Timestamp,
        sizes: Sizes,
    ) -> Receipt {
        let record = CallRecord {
            id: end.start.id,
            principal: reservation.caller().principal().clone(),
            server: Arc::clone(end.start.server),
            tool: Arc::clone(end.start.tool),
            outcome: crate::telemetry::labels::Label::text(end.outcome),
            started_at,
            duration: end.duration,
            request_bytes: sizes.request as u64,
            result_bytes: sizes.result as u64,
            correlation_id: end.start.id.to_string(),
        };
        drop(reservation);
        self.journal.call(record).await;
        Receipt { call: end.start.id }
    }

    /// Waits until everything that was settled so far can be read.
    pub async fn flush(&self) {
        self.journal.flush().await;
    }
}
