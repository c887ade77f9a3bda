//! The names of all keys, in one place. What belongs to a tenant has its id in braces: the hash tag, by which everything
//! of one tenant is in one slot of a Cluster, so that a script can reach it.

use std::fmt::Display;

use crate::id::{ReplicaId, SessionRowId, TenantId};

/// Makes the names.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: Box<str>,
}

impl Keys {
    /// Names that begin with this, so that several deployments can share one Redis.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Something of a tenant.
    #[must_use]
    pub fn of_tenant(&self, tenant: TenantId, what: impl Display) -> String {
        format!("{}:{{{tenant}}}:{what}", self.prefix)
    }

    /// A session of a tenant (hash).
    #[must_use]
    pub fn session(&self, tenant: TenantId, session: SessionRowId) -> String {
        self.of_tenant(tenant, session)
    }

    /// The open sessions of a tenant, by the millisecond at which they end if nothing comes (sorted set).
    #[must_use]
    pub fn sessions(&self, tenant: TenantId) -> String {
        self.of_tenant(tenant, "sessions")
    }

    /// Those of them with an open stream or a running call, by the millisecond until which that is believed (sorted set).
    #[must_use]
    pub fn busy_sessions(&self, tenant: TenantId) -> String {
        self.of_tenant(tenant, "busy")
    }

    /// The requests of an HTTP+SSE session that run, with the numbers of their replicas (hash).
    #[must_use]
    pub fn running(&self, tenant: TenantId, session: SessionRowId) -> String {
        self.of_tenant(tenant, format_args!("{session}:running"))
    }

    /// What a stream of a session said (stream).
    #[must_use]
    pub fn feed(&self, tenant: TenantId, session: SessionRowId, stream: impl Display) -> String {
        self.of_tenant(tenant, format_args!("{session}:{stream}"))
    }

    /// Tenants of which something is kept here, by the second at which that was noted last (sorted set).
    #[must_use]
    pub fn tenants(&self) -> String {
        format!("{}:tenants", self.prefix)
    }

    /// Held by the replica that looks for what ran out among all tenants.
    #[must_use]
    pub fn reaping(&self) -> String {
        format!("{}:reaping", self.prefix)
    }

    /// Something of the deployment that scripts and blocking reads want in one slot.
    fn shared(&self, what: impl Display) -> String {
        format!("{}:{{replicas}}:{what}", self.prefix)
    }

    /// Nothing, ever: what is deleted to see whether Redis takes writes.
    #[must_use]
    pub fn nothing(&self) -> String {
        self.shared("nothing")
    }

    /// Replicas that live, by the millisecond at which their lease ends (sorted set).
    #[must_use]
    pub fn live(&self) -> String {
        self.shared("live")
    }

    /// Replicas that died and are being cleaned up after, by the millisecond at which another replica may take over
    /// (sorted set).
    #[must_use]
    pub fn dead(&self) -> String {
        self.shared("dead")
    }

    /// Tenants of which this replica has places, by the second at which that was noted last (sorted set).
    #[must_use]
    pub fn held_by(&self, replica: ReplicaId) -> String {
        self.shared(format_args!("held:{replica}"))
    }

    /// A random text that changes when Redis loses its memory.
    #[must_use]
    pub fn epoch(&self) -> String {
        self.shared("epoch")
    }

    /// What every replica hears (stream).
    #[must_use]
    pub fn to_all(&self) -> String {
        self.shared("all")
    }

    /// What one replica hears (stream).
    #[must_use]
    pub fn to_one(&self, replica: impl Display) -> String {
        self.shared(format_args!("to:{replica}"))
    }
}
