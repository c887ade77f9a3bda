//! The caller: who is behind one request. Tenant, credential, scopes; every tenant-owned query takes it.
//!
//! Made once when a credential is looked up or verified, then shared: cloning one is a reference count.

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::id::{KeyId, TenantId};
use crate::limits::EffectiveLimits;
use crate::policy::Scopes;

/// Which kind of credential a caller came with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// An API key, `wk_...`.
    ApiKey(KeyId),
    /// A URL token, `wu_...`.
    UrlToken(KeyId),
    /// A JWT of a configured issuer; holds a digest of issuer and subject.
    Jwt(Arc<str>),
}

/// Who owns a session: one credential of one tenant. Two API keys of a tenant are two principals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The tenant.
    pub tenant: TenantId,
    /// The credential.
    pub credential: Credential,
}

/// Everything known of a caller.
#[derive(Debug)]
pub struct CallerData {
    /// Tenant and credential.
    pub principal: Principal,
    /// The tenant's name, as the operator wrote it.
    pub tenant_name: String,
    /// The plan that the tenant is on.
    pub plan: String,
    /// The credential's name, as the operator wrote it, or the subject of a JWT.
    pub credential_name: String,
    /// What the credential may reach.
    pub scopes: Scopes,
    /// When the credential ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// How much may be used.
    pub limits: Arc<EffectiveLimits>,
    /// Whether calls may cost something: the tenant's plan has prices, or the tenant has an account from a plan that has.
    pub metered: bool,
}

/// Who is behind one request.
#[derive(Clone)]
pub struct Caller(Arc<CallerData>);

impl Caller {
    /// Wraps what a look-up or a verification found.
    #[must_use]
    pub fn new(data: CallerData) -> Self {
        Self(Arc::new(data))
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.0.principal.tenant
    }

    /// Tenant and credential, which own sessions.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// What the credential may reach.
    #[must_use]
    pub fn scopes(&self) -> &Scopes {
        &self.0.scopes
    }

    /// How much may be used.
    #[must_use]
    pub fn limits(&self) -> &EffectiveLimits {
        &self.0.limits
    }

    /// Whether calls may cost something.
    #[must_use]
    pub fn is_metered(&self) -> bool {
        self.0.metered
    }

    /// Everything else.
    #[must_use]
    pub fn data(&self) -> &CallerData {
        &self.0
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("principal", self.principal()).finish_non_exhaustive()
    }
}
