//! What this process shares with others of its deployment.

use std::sync::Arc;

use tokio::sync::watch;

use crate::id::TenantId;
use crate::redis::Down;
use crate::redis::limits::{Lease, Leased, Store};
use crate::replicas::{Message, Peers};

/// The shared buckets and places.
pub enum Shared {
    /// In Redis.
    Redis {
        /// Them.
        store: Store,
        /// Who else there is.
        peers: Arc<Peers>,
    },
    /// In a test.
    #[cfg(test)]
    Twin(super::tests::Fake),
}

impl Shared {
    /// What is shared with these replicas.
    #[must_use]
    pub fn with(peers: &Arc<Peers>) -> Self {
        Self::Redis { store: Store::new(peers.redis.clone(), peers.replicas.me()), peers: peers.clone() }
    }

    /// How many replicas live, as far as is known; at least 1.
    pub(super) fn replicas(&self) -> u32 {
        match self {
            Self::Redis { peers, .. } => peers.replicas.count(),
            #[cfg(test)]
            Self::Twin(fake) => fake.replicas(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        match self {
            Self::Redis { store, .. } => store.redis().is_up(),
            #[cfg(test)]
            Self::Twin(fake) => fake.is_up(),
        }
    }

    /// Counts the connections to the shared state.
    pub(super) fn connected(&self) -> watch::Receiver<u64> {
        match self {
            Self::Redis { store, .. } => store.redis().connected(),
            #[cfg(test)]
            Self::Twin(fake) => fake.connected(),
        }
    }

    /// Asks the other replicas to give back the places of this tenant that they do not use.
    pub(super) fn recall(&self, tenant: TenantId) {
        match self {
            Self::Redis { peers, .. } => {
                peers.courier.tell_all(Message::Recall { tenant });
            }
            #[cfg(test)]
            Self::Twin(fake) => fake.recall(tenant),
        }
    }

    pub(super) async fn lease(&self, lease: &Lease<'_>) -> Result<Leased, Down> {
        match self {
            Self::Redis { store, .. } => store.lease(lease).await,
            #[cfg(test)]
            Self::Twin(fake) => fake.lease(lease).await,
        }
    }

    pub(super) async fn note(&self, tenant: TenantId, now: i64) -> Result<(), Down> {
        match self {
            Self::Redis { store, .. } => store.note(tenant, now).await,
            #[cfg(test)]
            Self::Twin(_) => Ok(()),
        }
    }
}
