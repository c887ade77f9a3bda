//! How much feeds may keep: per session, per tenant and in the whole process.
//!
//! Each tenant has a store of its own. When it, or the process, holds too much, the tenant that says something gives up
//! its own: first the feeds that have been idle longest, then what live ones have handed out. One tenant's junk never
//! costs another what it keeps, as long as the process has room for all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Feed;
use crate::config;

/// Queue length from which dead entries are looked for.
const LEAST_PURGE: usize = 64;

/// What the process keeps for clients that come back.
#[derive(Debug)]
pub struct Memory {
    per_session: usize,
    per_tenant: usize,
    total: usize,
    used: AtomicUsize,
}

impl Memory {
    /// Nothing kept, with the bounds of the configuration.
    #[must_use]
    pub fn new(config: &config::Mcp) -> Arc<Self> {
        Self::with(config.replay_bytes, config.replay_tenant_bytes, config.replay_total_bytes)
    }

    /// Nothing kept, with these bounds, in bytes.
    #[must_use]
    pub fn with(per_session: usize, per_tenant: usize, total: usize) -> Arc<Self> {
        Arc::new(Self { per_session, per_tenant, total, used: AtomicUsize::new(0) })
    }

    /// How many bytes are kept now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A store for one tenant.
    #[must_use]
    pub fn store(self: &Arc<Self>) -> Arc<Store> {
        Arc::new(Store { memory: self.clone(), used: AtomicUsize::new(0), idle: Mutex::default() })
    }
}

/// What one tenant's feeds keep.
#[derive(Debug)]
pub struct Store {
    memory: Arc<Memory>,
    used: AtomicUsize,
    idle: Mutex<Idle>,
}

/// Idle feeds, the one that became so first in front.
#[derive(Debug, Default)]
struct Idle {
    feeds: VecDeque<Weak<Feed>>,
    purge_at: usize,
}

impl Idle {
    fn purge(&mut self) {
        self.feeds.retain(|feed| feed.strong_count() > 0);
        self.feeds.shrink_to(self.feeds.len() * 2);
        self.purge_at = self.feeds.len() * 2;
    }
}

impl Store {
    /// How many bytes one session, or one feed, may keep.
    #[must_use]
    pub fn per_session(&self) -> usize {
        self.memory.per_session
    }

    /// How many bytes the tenant keeps now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.used() > self.memory.per_tenant || self.memory.used() > self.memory.total
    }

    pub(super) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.memory.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Notes a feed that became idle.
    pub(super) fn queue(&self, feed: Weak<Feed>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.feeds.push_back(feed);
        if idle.feeds.len() >= idle.purge_at.max(LEAST_PURGE) {
            idle.purge();
        }
    }

    /// Lets go of what stands in the queue for feeds that are gone.
    pub fn purge(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).purge();
    }

    /// Gives up idle feeds, oldest first, until there is room or none is left.
    pub(super) fn make_room(&self) {
        while self.is_full() {
            let oldest = self.idle.lock().unwrap_or_else(PoisonError::into_inner).feeds.pop_front();
            match oldest {
                None => return,
                Some(feed) => {
                    if let Some(feed) = feed.upgrade() {
                        feed.give_up();
                    }
                }
            }
        }
    }
}
