//! Which tenants and buckets are remembered: a bounded number, and nothing is allocated for one that is known.

use std::convert::Infallible;
use std::hash::Hash;
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Lifecycle, UnitWeighter};

use super::bucket::Bucket;
use super::tenant::Tenant;
use super::upkeep::Queue;
use crate::caller::Principal;
use crate::id::TenantId;

/// Tenants, credentials, and servers and tools with rates of their own that are remembered. One that is forgotten starts
/// with a full bucket, so this is also the number that must be active between two requests of one for it to gain
/// anything. A tenant that has places taken is never forgotten.
const REMEMBERED: usize = 100_000;

/// A server, or a tool of one, that one tenant calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Called {
    tenant: TenantId,
    server: Box<str>,
    tool: Option<Box<str>>,
}

#[derive(Hash)]
struct CalledRef<'a> {
    tenant: TenantId,
    server: &'a str,
    tool: Option<&'a str>,
}

impl Equivalent<Called> for CalledRef<'_> {
    fn equivalent(&self, key: &Called) -> bool {
        self.tenant == key.tenant && *self.server == *key.server && self.tool == key.tool.as_deref()
    }
}

/// Keeps tenants that have places taken.
#[derive(Debug, Clone)]
struct Held;

impl Lifecycle<TenantId, Arc<Tenant>> for Held {
    type RequestState = ();

    fn is_pinned(&self, _: &TenantId, tenant: &Arc<Tenant>) -> bool {
        tenant.is_held()
    }

    fn begin_request(&self) {}
}

/// Everything that is remembered.
pub(super) struct Known {
    tenants: Cache<TenantId, Arc<Tenant>, UnitWeighter, quick_cache::DefaultHashBuilder, Held>,
    keys: Cache<Principal, Arc<Bucket>>,
    called: Cache<Called, Arc<Bucket>>,
    queue: Option<Arc<Queue>>,
}

impl Known {
    /// Nothing yet. Tenants get into this queue when they have something to say to the shared state.
    pub(super) fn new(queue: Option<Arc<Queue>>) -> Self {
        let weight = u64::try_from(REMEMBERED).unwrap_or(u64::MAX);
        Self {
            tenants: Cache::with(REMEMBERED, weight, UnitWeighter, Default::default(), Held),
            keys: Cache::new(REMEMBERED),
            called: Cache::new(REMEMBERED),
            queue,
        }
    }

    pub(super) fn tenant(&self, id: TenantId) -> Arc<Tenant> {
        let fresh = || Ok::<_, Infallible>(Arc::new(Tenant::new(id, self.queue.clone())));
        found(self.tenants.get_or_insert_with(&id, fresh))
    }

    /// The tenant, if it is known.
    pub(super) fn peek(&self, id: TenantId) -> Option<Arc<Tenant>> {
        self.tenants.peek(&id)
    }

    pub(super) fn each_tenant(&self, mut see: impl FnMut(&Arc<Tenant>)) {
        self.tenants.iter().for_each(|(_, tenant)| see(&tenant));
    }

    pub(super) fn each_bucket(&self, see: impl Fn(&Bucket)) {
        for (_, tenant) in self.tenants.iter() {
            see(&tenant.requests);
            see(&tenant.bytes);
        }
        self.keys.iter().for_each(|(_, bucket)| see(&bucket));
        self.called.iter().for_each(|(_, bucket)| see(&bucket));
    }

    pub(super) fn key(&self, principal: &Principal) -> Arc<Bucket> {
        found(self.keys.get_or_insert_with(principal, || Ok::<_, Infallible>(Arc::default())))
    }

    /// The bucket of a server, or of one of its tools.
    pub(super) fn called(&self, tenant: TenantId, server: &str, tool: Option<&str>) -> Arc<Bucket> {
        if let Some(known) = self.called.get(&CalledRef { tenant, server, tool }) {
            return known;
        }
        let key = Called { tenant, server: server.into(), tool: tool.map(Into::into) };
        found(self.called.get_or_insert_with(&key, || Ok::<_, Infallible>(Arc::default())))
    }
}

fn found<T>(found: Result<T, Infallible>) -> T {
    match found {
        Ok(found) => found,
        Err(never) => match never {},
    }
}
