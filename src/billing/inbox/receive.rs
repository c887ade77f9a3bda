//! What a webhook comes to: checked, stored, and the bell is rung. Nothing else happens before its answer.

use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::envelope::Envelope;
use super::signature::{self, Refusal};
use crate::billing::events;
use crate::clock::Clock;
use crate::config;
use crate::db::Db;
use crate::db::stripe_events::{self as rows, EventRow, EventState, ObjectKind, Via};
use crate::error::{Error, Result};
use crate::telemetry::billing::Billing as Metrics;

/// Events that may be on their way in at once: what nobody has checked yet takes no more than so many bodies.
const AT_ONCE: usize = 64;

/// Takes events in.
#[derive(Clone)]
pub struct Receiver {
    db: Db,
    clock: Clock,
    metrics: Metrics,
    secrets: Vec<SecretString>,
    is_live: bool,
    bell: Arc<Notify>,
    places: Arc<Semaphore>,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is in the inbox.
    Stored,
    /// It was there before.
    Duplicate,
    /// Nothing is ever done about events of its type, so it was not stored.
    Unfollowed,
}

/// Why a webhook was not taken.
#[derive(Debug)]
pub enum Refused {
    /// No secret is configured, so nobody can be believed.
    NoSecret,
    /// It is not Stripe's, or not of this time.
    Signature(Refusal),
    /// It is Stripe's, and no event.
    Malformed,
    /// It is of the mode that the key is not of.
    Mode,
    /// It could not be stored.
    Unstored(Error),
}

impl Received {
    fn text(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Unfollowed => "unfollowed",
        }
    }
}

impl Refused {
    /// As metrics have it.
    #[must_use]
    pub fn text(&self) -> &'static str {
        match self {
            Self::NoSecret => "no_secret",
            Self::Signature(Refusal::Malformed | Refusal::Wrong) => "bad_signature",
            Self::Signature(Refusal::Stale) => "stale",
            Self::Malformed => "malformed",
            Self::Mode => "wrong_mode",
            Self::Unstored(_) => "unstored",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSecret => f.write_str(
                "no webhook is taken as long as billing.webhook_secrets is empty; the operator can set the signing \
                 secret of this endpoint",
            ),
            Self::Signature(refusal) => refusal.fmt(f),
            Self::Malformed => f.write_str("the body is signed, and no event of Stripe's"),
            Self::Mode => f.write_str(
                "the event is of the other mode than billing.stripe_key; send events of live mode and of test mode to \
                 deployments of their own",
            ),
            Self::Unstored(error) => error.fmt(f),
        }
    }
}

impl Receiver {
    /// One for the account of `billing.stripe_key`; nothing, where there is no Stripe.
    #[must_use]
    pub fn new(config: &config::Billing, db: &Db, clock: &Clock, metrics: &Metrics) -> Option<Self> {
        config.is_configured().then(|| Self {
            db: db.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            secrets: config.webhook_secrets.clone(),
            is_live: config.is_live(),
            bell: Arc::default(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// What rings when something came in.
    #[must_use]
    pub fn bell(&self) -> Arc<Notify> {
        self.bell.clone()
    }

    /// Refuses what cannot be Stripe's by its header alone, before it takes a place or sends a body.
    ///
    /// # Errors
    /// [`Refused`]; counted.
    pub fn expects(&self, signature: &str) -> Result<(), Refused> {
        let likely = match self.secrets.is_empty() {
            true => Err(Refused::NoSecret),
            false => signature::is_likely(signature, self.clock.now()).map_err(Refused::Signature),
        };
        likely.inspect_err(|refused| {
            self.turned_away(refused.text());
            tracing::info!(%refused, "a webhook was refused");
        })
    }

    /// A place for one more, to be kept until it is in; nothing, where there are too many.
    #[must_use]
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none() {
            self.turned_away("busy");
        }
        place
    }

    /// Counts a webhook that never got as far as [`receive`](Self::receive).
    pub fn turned_away(&self, why: &'static str) {
        self.metrics.events_received.with_label_values(&[why]).inc();
    }

    /// Takes in what came as a webhook: one insert at most.
    ///
    /// # Errors
    /// [`Refused`]; counted, and logged where somebody should look.
    pub async fn receive(&self, signature: &str, body: &[u8]) -> Result<Received, Refused> {
        let result = self.take(signature, body).await;
        let outcome = result.as_ref().map_or_else(Refused::text, |received| received.text());
        self.metrics.events_received.with_label_values(&[outcome]).inc();
        match &result {
            Ok(_) => {}
            // Anybody can send one of these.
            Err(refused @ Refused::Signature(_)) => tracing::info!(%refused, "a webhook was refused"),
            Err(refused) => tracing::warn!(%refused, "a webhook was refused"),
        }
        result
    }

    async fn take(&self, signature: &str, body: &[u8]) -> Result<Received, Refused> {
        if self.secrets.is_empty() {
            return Err(Refused::NoSecret);
        }
        signature::verify(signature, body, &self.secrets, self.clock.now()).map_err(Refused::Signature)?;
        let event = Envelope::read(body).ok_or(Refused::Malformed)?;
        if event.livemode != self.is_live {
            tracing::warn!(event = event.id, livemode = event.livemode, "an event of the other mode came");
            return Err(Refused::Mode);
        }
        if !events::is_followed(&event.kind) {
            return Ok(Received::Unfollowed);
        }
        let stored = store(&self.db, &self.clock, event, body, Via::Hook).await.map_err(Refused::Unstored)?;
        if !stored {
            return Ok(Received::Duplicate);
        }
        self.bell.notify_one();
        Ok(Received::Stored)
    }
}

/// Puts an event into the inbox. `false`: it is there already.
pub(super) async fn store(db: &Db, clock: &Clock, event: Envelope, body: &[u8], via: Via) -> Result<bool> {
    let Envelope { id, kind, created, livemode, subject } = event;
    let is_about = subject.kind != ObjectKind::Other;
    let (state, note) = match is_about {
        true => (EventState::New, ""),
        false => (EventState::Ignored, "it names no object that is followed"),
    };
    let now = clock.now();
    let row = EventRow {
        id,
        kind,
        mode: if livemode { "live" } else { "test" }.to_owned(),
        via,
        object_kind: subject.kind,
        object_id: subject.id,
        created_at: created,
        received_at: now,
        state,
        tries: 0,
        due_at: now,
        note: note.to_owned(),
    };
    rows::insert(db, &row, body).await
}
