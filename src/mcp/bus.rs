//! The notification bus: what changed, for every stream that may want to say so.
//!
//! Its subscribers are the streams of `subscriptions/listen` (modern), and the legacy sessions that have had a stream: a
//! session has one place on the bus, which waits for the next stream while there is none. A subscriber that falls behind
//! is told that it missed something and then assumes that everything changed; the bus itself never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, broadcast};

use crate::credentials::Change as CredentialChange;
use crate::id::TenantId;

/// Events that a subscriber may lag behind.
const CAPACITY: usize = 1024;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// `notifications/tools/list_changed`.
    Tools,
    /// `notifications/prompts/list_changed`.
    Prompts,
    /// `notifications/resources/list_changed`.
    Resources,
    /// `notifications/resources/updated` of this URI.
    Resource(Arc<str>),
}

/// One event.
#[derive(Debug, Clone)]
pub enum Event {
    /// A catalogue or a resource changed.
    Changed {
        /// Only for this tenant; `None`: for everybody who can see the server.
        tenant: Option<TenantId>,
        /// The server that it belongs to.
        server: Arc<str>,
        /// What.
        what: Changed,
    },
    /// A credential or tenant may no longer do what it could: streams and sessions check again.
    Revoked(CredentialChange),
}

/// The speaking end; every clone speaks on the same bus.
#[derive(Debug, Clone)]
pub struct Bus {
    events: broadcast::Sender<Event>,
    generation: Arc<AtomicU64>,
    bell: Arc<Notify>,
}

impl Bus {
    /// A bus without subscribers.
    #[must_use]
    pub fn new() -> Self {
        Self { events: broadcast::Sender::new(CAPACITY), generation: Arc::default(), bell: Arc::default() }
    }

    /// Tells every subscriber. Nobody listening is fine.
    pub fn publish(&self, event: Event) {
        if matches!(event, Event::Changed { .. }) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        let _ = self.events.send(event);
        self.bell.notify_waiters();
    }

    /// Grows whenever something changed; catalogues made before are old. Grows before anybody is told.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Hears everything that is published from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Returns at the next event that is published from this call on.
    pub fn rung(&self) -> Notified<'_> {
        self.bell.notified()
    }

    /// A notifier for one server.
    #[must_use]
    pub fn notifier(&self, server: Arc<str>) -> Notifier {
        Notifier { bus: self.clone(), server }
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

/// Lets a provider say what changed on its own server.
#[derive(Debug, Clone)]
pub struct Notifier {
    bus: Bus,
    server: Arc<str>,
}

impl Notifier {
    /// Tells everybody who can see the server.
    pub fn changed(&self, what: Changed) {
        self.bus.publish(Event::Changed { tenant: None, server: self.server.clone(), what });
    }

    /// Tells one tenant only.
    pub fn changed_for(&self, tenant: TenantId, what: Changed) {
        self.bus.publish(Event::Changed { tenant: Some(tenant), server: self.server.clone(), what });
    }
}
