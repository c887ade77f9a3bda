//! The sweep: once a day Stripe lists what happened, and what no webhook brought goes into the inbox.
//! <https://docs.stripe.com/api/events/list>, <https://docs.stripe.com/webhooks/process-undelivered-events>

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stripe_client::{RequestBuilder, StripeMethod};

use super::Inbox;
use super::envelope::Envelope;
use super::receive::store;
use crate::billing::events::EVENTS;
use crate::billing::mirror::Source;
use crate::clock::Timestamp;
use crate::db::stripe_events::{self as rows, Via};
use crate::error::{Error, Result};

/// How far back a sweep begins before the end of the last one: what happened then may have been listed later.
const OVERLAP: Duration = Duration::from_secs(6 * 3600);
/// How far back events can be listed.
const REACH: Duration = Duration::from_secs(30 * 24 * 3600);
/// So much is listed before it is written down how far the sweep is.
const SPAN: Duration = Duration::from_secs(24 * 3600);
/// Types that one list can be asked for.
const TYPES: usize = 20;
/// Events of a page, and pages of a list: 100,000 events of a span.
const LIMIT: u32 = 100;
const MOST_PAGES: usize = 1000;
/// How long the sweep is claimed, again with each span.
const LEASE: Duration = Duration::from_secs(600);

#[derive(Serialize)]
struct Query<'a> {
    limit: u32,
    types: &'a [&'a str],
    created: Range,
    #[serde(skip_serializing_if = "Option::is_none")]
    starting_after: Option<String>,
}

/// In seconds.
#[derive(Serialize, Clone, Copy)]
struct Range {
    gte: i64,
    lt: i64,
}

#[derive(Deserialize)]
struct Events {
    data: Vec<Box<RawValue>>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

impl<S: Source> Inbox<S> {
    /// Sweeps, where the last one of any process is long enough ago. How many events were missing; nothing, where it was not due.
    ///
    /// # Errors
    /// [`Error::Internal`] with Stripe's words; [`Error::Database`], [`Error::Away`]. The next one goes on from there.
    pub async fn sweep(&self) -> Result<Option<usize>> {
        let now = self.clock.now();
        let before = now.minus(self.config.sweep_every.get());
        let claimed = rows::claim_sweep(&self.db, &self.holder, before, (now, now.plus(LEASE))).await?;
        let Some(row) = claimed else { return Ok(None) };
        // Before the first customer nothing happened that is about one.
        let since = row.through.map(|through| through.minus(OVERLAP)).or(row.first).unwrap_or(now);
        let result = self.list_since(since.max(now.minus(REACH)), now).await;
        rows::end_sweep(&self.db, &self.holder, result.is_ok().then_some(now)).await?;
        let found = result?;
        self.metrics.events_received.with_label_values(&["swept"]).inc_by(found as u64);
        if found > 0 {
            tracing::warn!(events = found, "events were found that no webhook brought");
            self.bell.notify_one();
        }
        Ok(Some(found))
    }

    /// Lists what happened from then to now, a span at a time, and stores what is not there.
    async fn list_since(&self, since: Timestamp, now: Timestamp) -> Result<usize> {
        let mut found = 0;
        let mut from = since;
        while from < now {
            let to = from.plus(SPAN).min(now);
            // Seconds: the end is of the next span as well.
            let created = Range { gte: from.as_seconds(), lt: to.as_seconds() + 1 };
            for types in EVENTS.chunks(TYPES) {
                found += self.list(types, created).await?;
            }
            if !rows::swept(&self.db, &self.holder, to, self.clock.now().plus(LEASE)).await? {
                return Err(Error::Internal("another process took the sweep over".to_owned()));
            }
            from = to;
        }
        Ok(found)
    }

    async fn list(&self, types: &[&str], created: Range) -> Result<usize> {
        let mut found = 0;
        let mut starting_after = None;
        for _ in 0..MOST_PAGES {
            let query = Query { limit: LIMIT, types, created, starting_after };
            let request = RequestBuilder::new(StripeMethod::Get, "/events").query(&query);
            let page: Events =
                self.stripe.read_json(request).await.map_err(|error| Error::Internal(error.to_string()))?;
            let mut last = None;
            for body in &page.data {
                let body = body.get().as_bytes();
                let Some(event) = Envelope::read(body) else {
                    // One that cannot be read must not keep the others from being found, now and at every sweep after this.
                    let Named { id } = serde_json::from_slice(body).map_err(|_| {
                        Error::Internal("the list of events has something without an id".to_owned())
                    })?;
                    tracing::error!(event = id, "an event of the list cannot be read, and is passed over");
                    self.metrics.events_received.with_label_values(&["malformed"]).inc();
                    last = Some(id);
                    continue;
                };
                last = Some(event.id.clone());
                found += usize::from(store(&self.db, &self.clock, event, body, Via::Sweep).await?);
            }
            if !page.has_more || last.is_none() {
                return Ok(found);
            }
            starting_after = last;
        }
        Err(Error::Internal(format!("a day has more than {MOST_PAGES} pages of events")))
    }
}
