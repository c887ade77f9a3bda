//! What this process knows of one tenant: its buckets, and which of its places are taken here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Scope;
use super::bucket::Bucket;

/// What is counted per tenant.
const KINDS: usize = 4;

/// How many of something are in use.
#[derive(Debug, Default)]
struct Count {
    used: u32,
}

/// One tenant.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    /// Requests.
    pub(super) requests: Arc<Bucket>,
    /// Bytes of bodies and answers.
    pub(super) bytes: Arc<Bucket>,
    counts: [Mutex<Count>; KINDS],
}

impl Tenant {
    fn count(&self, scope: Scope) -> MutexGuard<'_, Count> {
        let at = match scope {
            Scope::Sessions => 1,
            Scope::Streams => 2,
            Scope::Questions => 3,
            _ => 0,
        };
        self.counts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, where fewer than `limit` are taken.
    pub(super) fn take(self: &Arc<Self>, scope: Scope, limit: u32) -> Option<Place> {
        let mut count = self.count(scope);
        if count.used >= limit {
            return None;
        }
        count.used += 1;
        Some(Place { tenant: self.clone(), scope })
    }

    /// Whether something here must not be forgotten.
    pub(super) fn is_held(&self) -> bool {
        self.counts.iter().any(|count| count.lock().unwrap_or_else(PoisonError::into_inner).used > 0)
    }
}

/// One of a counted number of places; given back when dropped.
#[derive(Debug)]
pub struct Place {
    tenant: Arc<Tenant>,
    scope: Scope,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tenant.count(self.scope).used -= 1;
    }
}
