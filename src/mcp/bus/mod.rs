//! The notification bus: what changed, for every stream that may want to say so.
//!
//! Its listeners are the streams of `subscriptions/listen` (modern), and the legacy sessions that have had a stream: a
//! session has one place on the bus, which waits for the next stream while there is none. A listener that falls behind
//! is told that it missed something and then assumes that everything changed; the bus itself never waits.
//!
//! Where there are other replicas, changes go through the post and come back from it, at positions that are the same
//! everywhere: a session's place means the same on each. Revocations do not: every replica finds them in the database.

mod ring;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::credentials::Change as CredentialChange;
use crate::id::TenantId;
use ring::{Missed, Ring};

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

/// A catalogue or a resource changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Only for this tenant; `None`: for everybody who can see the server.
    pub tenant: Option<TenantId>,
    /// The server that it belongs to.
    pub server: Arc<str>,
    /// What.
    pub what: Changed,
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard<T> {
    /// This.
    News(T),
    /// Something that is no longer there to be heard.
    Missed,
}

/// Where a change goes first, where other replicas must hear of it: whether it was taken there.
type Relay = Box<dyn Fn(&Change) -> bool + Send + Sync>;

/// The speaking end; every clone speaks on the same bus.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    changes: Mutex<Ring<Change>>,
    revocations: Mutex<Ring<CredentialChange>>,
    generation: AtomicU64,
    bell: Notify,
    relay: OnceLock<Relay>,
}

fn lock<T>(ring: &Mutex<Ring<T>>) -> MutexGuard<'_, Ring<T>> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first entry after the place, which moves on.
fn next<T: Clone>(ring: &Mutex<Ring<T>>, place: &mut u64) -> Option<Heard<T>> {
    let ring = lock(ring);
    match ring.after(*place) {
        Ok(found) => found.map(|(position, news)| {
            *place = position;
            Heard::News(news)
        }),
        Err(Missed) => {
            *place = ring.last();
            Some(Heard::Missed)
        }
    }
}

impl Bus {
    /// A bus on which nothing was said.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            changes: Mutex::default(),
            revocations: Mutex::default(),
            generation: AtomicU64::new(0),
            bell: Notify::new(),
            relay: OnceLock::new(),
        }))
    }

    /// Sends changes to the other replicas first. What is taken there must come back through [`Bus::deliver`].
    pub fn relay_through(&self, relay: impl Fn(&Change) -> bool + Send + Sync + 'static) {
        let _ = self.0.relay.set(Box::new(relay));
    }

    /// Tells everybody of a change, here and on every replica. Nobody listening is fine.
    pub fn publish(&self, change: Change) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        if !self.0.relay.get().is_some_and(|relay| relay(&change)) {
            self.deliver(None, change);
        }
    }

    /// Tells everybody here. The position is the one that the deployment gives it.
    pub fn deliver(&self, position: Option<u64>, change: Change) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        lock(&self.0.changes).push(position, change);
        self.0.bell.notify_waiters();
    }

    /// Tells everybody here that a credential or a tenant may no longer do what it could: streams and sessions check
    /// again.
    pub fn revoke(&self, change: CredentialChange) {
        lock(&self.0.revocations).push(None, change);
        self.0.bell.notify_waiters();
    }

    /// Tells everybody here that changes may have gone by unheard.
    pub fn miss(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        lock(&self.0.changes).miss();
        self.0.bell.notify_waiters();
    }

    /// Grows whenever something changed; catalogues made before are old. Grows before anybody is told.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// The place from which on a new listener hears changes.
    #[must_use]
    pub fn changes_from_now(&self) -> u64 {
        lock(&self.0.changes).last()
    }

    /// The place from which on a new listener hears revocations.
    #[must_use]
    pub fn revocations_from_now(&self) -> u64 {
        lock(&self.0.revocations).last()
    }

    /// The first change after this place, which moves on to it.
    pub fn next_change(&self, place: &mut u64) -> Option<Heard<Change>> {
        next(&self.0.changes, place)
    }

    /// The first revocation after this place, which moves on to it.
    pub fn next_revocation(&self, place: &mut u64) -> Option<Heard<CredentialChange>> {
        next(&self.0.revocations, place)
    }

    /// Returns when something is said from this call on.
    pub fn rung(&self) -> Notified<'_> {
        self.0.bell.notified()
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

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("generation", &self.generation()).finish_non_exhaustive()
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
        self.bus.publish(Change { tenant: None, server: self.server.clone(), what });
    }

    /// Tells one tenant only.
    pub fn changed_for(&self, tenant: TenantId, what: Changed) {
        self.bus.publish(Change { tenant: Some(tenant), server: self.server.clone(), what });
    }
}
