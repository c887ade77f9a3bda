//! Credentials: from the text that a client sent to the caller behind it.
//!
//! A look-up goes token, kind and checksum, SHA-256, cache, database. What is cached is forgotten when it changes,
//! here at once and in other processes within a poll (`invalidation`). Why a credential was refused stays here:
//! unknown, malformed, expired and revoked look the same from outside.

mod invalidation;
mod jwks;
mod jwt;
mod last_used;
pub mod token;

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::cache::{Fresh, Setback};
use crate::caller::{Caller, CallerData, Credential, Principal};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::db::api_keys::{self, KeyKind};
use crate::db::tenants::{self, Status, Tenant};
use crate::db::{Db, storable};
use crate::error::{Error, Result};
use crate::id::{KeyId, TenantId};
use crate::limits::{EffectiveLimits, KeyLimits, PlanLimits};
use crate::policy::Scopes;

use last_used::LastUsed;

/// A key in use is noted as used this often. In microseconds.
const NOTE_EVERY: i64 = 10_000_000;

/// Where in a request a credential stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `Authorization: Bearer`: API keys, URL tokens, and JWTs of configured issuers.
    Header,
    /// `?token=`: URL tokens only.
    Query,
}

/// Why a credential is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Malformed, unknown, expired, revoked, out of place, or of a deleted tenant.
    Invalid,
    /// Good, but its tenant is suspended.
    Suspended {
        /// The tenant's name.
        tenant_name: String,
    },
    /// Whether it is good cannot be found out now: the database or the issuer does not answer.
    Unavailable,
}

impl Setback for Refused {
    fn will_pass(&self) -> bool {
        *self == Self::Unavailable
    }
}

/// What has to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// An API key or URL token was revoked.
    Credential(KeyId),
    /// A tenant was suspended, resumed or deleted.
    Tenant(TenantId),
}

impl Change {
    /// Whether it may end what `principal` holds.
    #[must_use]
    pub fn concerns(self, principal: &Principal) -> bool {
        match (self, &principal.credential) {
            (Self::Tenant(tenant), _) => tenant == principal.tenant,
            (Self::Credential(key), Credential::ApiKey(own) | Credential::UrlToken(own)) => key == *own,
            (Self::Credential(_), Credential::Jwt(_)) => false,
        }
    }
}

/// What other processes changed, or this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A credential, or a tenant with all that it has.
    Change(Change),
    /// The plan of this name: its limits or its prices.
    Plan(String),
    /// The account of a tenant: its periods or grants.
    Account(TenantId),
}

/// What a session keeps of its opener's credential, to check it again without the token.
#[derive(Clone)]
pub struct CredentialRef(Reference);

impl CredentialRef {
    /// Whether its holder comes with newer ones of the same principal (JWTs).
    #[must_use]
    pub fn runs_out(&self) -> bool {
        matches!(self.0, Reference::Jwt(_))
    }

    /// The reference as text that [`CredentialRef::read`] reads. It holds no secret: of a key it is the hash by which the
    /// key is looked up, of a JWT its claims.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.0 {
            Reference::Key(hash) => HEXLOWER.encode(hash),
            Reference::Jwt(caller) => {
                let data = caller.data();
                let claims = Claims {
                    name: data.credential_name.as_str().into(),
                    scopes: std::borrow::Cow::Borrowed(&data.scopes),
                    ends: data.expires_at.map(Timestamp::as_micros),
                };
                serde_json::to_string(&claims).unwrap_or_default()
            }
        }
    }

    /// The reference of this text to a credential of `owner`. What the text does not hold is looked up whenever the
    /// reference is resolved.
    #[must_use]
    pub fn read(owner: &Principal, text: &str) -> Option<Self> {
        if !matches!(owner.credential, Credential::Jwt(_)) {
            let hash = HEXLOWER.decode(text.as_bytes()).ok()?;
            return Some(Self(Reference::Key(hash.try_into().ok()?)));
        }
        let claims: Claims<'_> = serde_json::from_str(text).ok()?;
        Some(Self(Reference::Jwt(Caller::new(CallerData {
            principal: owner.clone(),
            tenant_name: String::new(),
            plan: String::new(),
            credential_name: claims.name.into_owned(),
            scopes: claims.scopes.into_owned(),
            expires_at: claims.ends.map(Timestamp::from_micros),
            limits: Arc::default(),
            metered: false,
        }))))
    }
}

/// What is kept of a JWT.
#[derive(Serialize, Deserialize)]
struct Claims<'a> {
    name: std::borrow::Cow<'a, str>,
    scopes: std::borrow::Cow<'a, Scopes>,
    ends: Option<i64>,
}

#[derive(Clone)]
enum Reference {
    Key([u8; 32]),
    Jwt(Caller),
}

impl PartialEq for CredentialRef {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Reference::Key(own), Reference::Key(other)) => own == other,
            (Reference::Jwt(own), Reference::Jwt(other)) => {
                let (own, other) = (own.data(), other.data());
                own.principal == other.principal
                    && own.expires_at == other.expires_at
                    && own.scopes == other.scopes
            }
            _ => false,
        }
    }
}

impl fmt::Debug for CredentialRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Reference::Key(_) => "CredentialRef(key)",
            Reference::Jwt(_) => "CredentialRef(jwt)",
        })
    }
}

/// One credential, as it was found.
struct Known {
    caller: Caller,
    /// Of its tenant; never deleted.
    status: Status,
    /// `None` for a JWT.
    key: Option<KeyId>,
    /// When its use was last noted, in microseconds of the monotonic clock.
    noted: AtomicI64,
}

/// A tenant, and what its plan allows.
struct OfTenant {
    tenant: Tenant,
    limits: Arc<EffectiveLimits>,
    metered: bool,
}

/// Checks credentials. Cheap to clone: every clone has the same caches.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    /// What tenants may use whose plan says nothing else.
    limits: (config::Limits, Arc<EffectiveLimits>),
    /// By SHA-256 of the token, for keys and JWTs alike.
    known: Fresh<[u8; 32], Arc<Known>>,
    /// Tenants of JWTs; those of keys come with the key.
    tenants: Fresh<TenantId, Arc<OfTenant>>,
    jwt: jwt::Verifier,
    last_used: LastUsed,
    poll: Duration,
    /// When the last poll began that came to its end, in microseconds of the monotonic clock.
    heard_at: AtomicI64,
    /// Rows were written: look before the poll is due.
    look: Notify,
    /// The longest that something read stands for what it was read from.
    longest: Duration,
    failure_floor: Duration,
}

impl Credentials {
    /// Checks credentials against `db` and the configured issuers. `resource` is the URL of this deployment's MCP
    /// endpoint, the default audience of JWTs; `client` fetches the issuers' keys.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the key of `[[auth.issuers]]` that cannot be used.
    pub fn new(
        db: Db,
        auth: &config::Auth,
        limits: &config::Limits,
        resource: &str,
        clock: Clock,
        client: &reqwest::Client,
    ) -> Result<Self> {
        let (ttl, stale) = (auth.cache_ttl.get(), auth.stale.get());
        Ok(Self(Arc::new(Inner {
            known: Fresh::new(auth.cache_entries, (ttl, stale), clock.clone()),
            tenants: Fresh::new(auth.cache_entries, (ttl, stale), clock.clone()),
            jwt: jwt::Verifier::new(&auth.issuers, resource, &clock, client)?,
            last_used: LastUsed::default(),
            limits: (limits.clone(), Arc::new(EffectiveLimits::new(limits, None, None))),
            poll: auth.invalidation_poll.get(),
            heard_at: AtomicI64::new(i64::MIN),
            look: Notify::new(),
            longest: ttl.max(stale),
            failure_floor: auth.failure_floor.get(),
            db,
            clock,
        })))
    }

    /// Who sent `token`.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn resolve(&self, token: &str, place: Place) -> Result<Caller, Refused> {
        let known = match (token::kind_of(token), place) {
            (Some(token::Kind::UrlToken), _) | (Some(token::Kind::ApiKey), Place::Header) => {
                self.key(token::hash(token)).await?
            }
            (None, Place::Header) if self.0.jwt.may_accept(token) => self.jwt(token).await?,
            _ => return Err(Refused::Invalid),
        };
        self.admit(&known)
    }

    /// What is in memory of `token`, checked as [`resolve`](Self::resolve) does; `None` where it would have to be
    /// looked up or verified first. While the database is away that is also what is not fresh any more, but may stand in.
    #[must_use]
    pub fn known(&self, token: &str, place: Place) -> Option<Result<Caller, Refused>> {
        let expected = match (token::kind_of(token), place) {
            (Some(token::Kind::UrlToken), _) | (Some(token::Kind::ApiKey), Place::Header) => true,
            (None, Place::Header) => self.0.jwt.may_accept(token),
            _ => false,
        };
        let hash = expected.then(|| token::hash(token))?;
        let stand_in = || self.0.known.stand_in(&hash).filter(|_| !self.0.db.breaker().is_up());
        let known = self.0.known.hit(&hash).or_else(stand_in)?;
        Some(self.admit(&known))
    }

    /// What to keep of a credential that [`resolve`](Self::resolve) has just accepted.
    #[must_use]
    pub fn reference(&self, token: &str, caller: &Caller) -> CredentialRef {
        CredentialRef(match caller.principal().credential {
            Credential::ApiKey(_) | Credential::UrlToken(_) => Reference::Key(token::hash(token)),
            Credential::Jwt(_) => Reference::Jwt(caller.clone()),
        })
    }

    /// Checks the credential behind a reference again: its expiry, its revocation, its tenant.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn resolve_reference(&self, reference: &CredentialRef) -> Result<Caller, Refused> {
        let caller = match &reference.0 {
            Reference::Key(hash) => return self.admit(&*self.key(*hash).await?),
            Reference::Jwt(caller) => caller,
        };
        if expired(caller, self.0.clock.now()) {
            return Err(Refused::Invalid);
        }
        let found = self.tenant(caller.tenant()).await?;
        let data = caller.data();
        let OfTenant { tenant, limits, metered } = &*found;
        let same = tenant.name == data.tenant_name
            && tenant.plan == data.plan
            && data.limits == *limits
            && data.metered == *metered;
        let current = if same {
            caller.clone()
        } else {
            Caller::new(CallerData {
                principal: data.principal.clone(),
                tenant_name: tenant.name.clone(),
                plan: tenant.plan.clone(),
                credential_name: data.credential_name.clone(),
                scopes: data.scopes.clone(),
                expires_at: data.expires_at,
                limits: limits.clone(),
                metered: *metered,
            })
        };
        standing(current, tenant.status)
    }

    /// Forgets what has changed, in this process and at once.
    pub fn invalidate(&self, change: Change) {
        let inner = &self.0;
        match change {
            Change::Credential(id) => inner.known.forget(|_, known| known.key == Some(id)),
            Change::Tenant(id) => {
                // Tenants first: a JWT that is being looked up may have taken its tenant from there.
                inner.tenants.forget(|tenant, _| *tenant == id);
                inner.known.forget(|_, known| known.caller.tenant() == id);
            }
        }
    }

    /// Forgets what tenants on this plan may use, in this process and at once.
    pub fn forget_plan(&self, name: &str) {
        let inner = &self.0;
        inner.tenants.forget(|_, found| found.tenant.plan == name);
        inner.known.forget(|_, known| known.caller.data().plan == name);
    }

    /// Forgets that these tenants had no account. Nothing else of what is known of them changes with it.
    fn forget_unmetered(&self, tenants: &HashSet<TenantId>) {
        let inner = &self.0;
        inner.tenants.forget(|id, found| !found.metered && tenants.contains(id));
        inner.known.forget(|_, known| !known.caller.is_metered() && tenants.contains(&known.caller.tenant()));
    }

    /// Since when this process may not have heard what changed elsewhere: when the last look began that came to its end, in
    /// microseconds of [`Clock::monotonic_micros`]; [`i64::MIN`] before the first. What is kept in memory was true then, or
    /// later.
    #[must_use]
    pub fn heard_at(&self) -> i64 {
        self.0.heard_at.load(Ordering::Acquire)
    }

    /// Looks for changes made elsewhere now, and not when the next look is due.
    pub fn look_now(&self) {
        self.0.look.notify_one();
    }

    /// After which time a refusal is to be answered, whatever was refused.
    #[must_use]
    pub fn failure_floor(&self) -> Duration {
        self.0.failure_floor
    }

    /// The key whose token has this hash, from the cache or the database. A hit makes no future of size.
    async fn key(&self, hash: [u8; 32]) -> Result<Arc<Known>, Refused> {
        match self.0.known.hit(&hash) {
            Some(known) => Ok(known),
            None => Box::pin(self.0.known.get(&hash, || self.load_key(hash))).await,
        }
    }

    async fn jwt(&self, token: &str) -> Result<Arc<Known>, Refused> {
        let hash = token::hash(token);
        match self.0.known.hit(&hash) {
            Some(known) => Ok(known),
            None => Box::pin(self.0.known.get(&hash, || self.load_jwt(token))).await,
        }
    }

    async fn tenant(&self, id: TenantId) -> Result<Arc<OfTenant>, Refused> {
        let load = || async {
            let found = self.ask(tenants::with_plan(&self.0.db, id)).await?.ok_or(Refused::Invalid)?;
            let limits = self.limits(found.plan_limits.as_ref().map(|plan| &plan.0), KeyLimits::default());
            Ok(Arc::new(OfTenant { tenant: found.tenant, limits, metered: found.metered }))
        };
        match self.0.tenants.hit(&id) {
            Some(tenant) => Ok(tenant),
            None => Box::pin(self.0.tenants.get(&id, load)).await,
        }
    }

    /// What the plan and the credential allow.
    fn limits(&self, plan: Option<&PlanLimits>, key: KeyLimits) -> Arc<EffectiveLimits> {
        let (config, defaults) = &self.0.limits;
        if plan.is_none() && key == KeyLimits::default() {
            return defaults.clone();
        }
        Arc::new(EffectiveLimits::new(config, plan, Some(&key)))
    }

    async fn load_key(&self, hash: [u8; 32]) -> Result<Arc<Known>, Refused> {
        let found = self.ask(api_keys::find_by_hash(&self.0.db, &hash)).await?.ok_or(Refused::Invalid)?;
        let same = verify_slices_are_equal(&found.hash, &hash).is_ok();
        if !same || found.key.revoked_at.is_some() || found.tenant_status == Status::Deleted {
            return Err(Refused::Invalid);
        }
        let key = found.key;
        let credential = match key.kind {
            KeyKind::ApiKey => Credential::ApiKey(key.id),
            KeyKind::UrlToken => Credential::UrlToken(key.id),
        };
        let caller = Caller::new(CallerData {
            principal: Principal { tenant: key.tenant_id, credential },
            tenant_name: found.tenant_name,
            plan: found.tenant_plan,
            credential_name: key.name,
            scopes: key.scopes,
            expires_at: key.expires_at,
            limits: self.limits(found.plan_limits.as_ref().map(|plan| &plan.0), key.limits),
            metered: found.metered,
        });
        if expired(&caller, self.0.clock.now()) {
            return Err(Refused::Invalid);
        }
        let noted = AtomicI64::new(i64::MIN);
        Ok(Arc::new(Known { caller, status: found.tenant_status, key: Some(key.id), noted }))
    }

    async fn load_jwt(&self, token: &str) -> Result<Arc<Known>, Refused> {
        let claims = self.0.jwt.verify(token).await?;
        let found = self.tenant(claims.tenant).await?;
        let tenant = &found.tenant;
        let caller = Caller::new(CallerData {
            principal: Principal { tenant: tenant.id, credential: Credential::Jwt(claims.digest) },
            tenant_name: tenant.name.clone(),
            plan: tenant.plan.clone(),
            credential_name: storable(&claims.subject, jwt::MAX_SUBJECT),
            scopes: claims.scopes,
            expires_at: Some(claims.ends_at),
            limits: found.limits.clone(),
            metered: found.metered,
        });
        Ok(Arc::new(Known { caller, status: tenant.status, key: None, noted: AtomicI64::new(i64::MIN) }))
    }

    /// What changes without a look-up: the time.
    fn admit(&self, known: &Known) -> Result<Caller, Refused> {
        let now = self.0.clock.now();
        if expired(&known.caller, now) {
            return Err(Refused::Invalid);
        }
        let caller = standing(known.caller.clone(), known.status)?;
        if let Some(key) = known.key {
            let tick = self.0.clock.monotonic_micros();
            if tick.saturating_sub(known.noted.load(Ordering::Relaxed)) >= NOTE_EVERY {
                known.noted.store(tick, Ordering::Relaxed);
                self.0.last_used.note(key, now);
            }
        }
        Ok(caller)
    }

    /// Asks the database.
    async fn ask<T>(&self, query: impl Future<Output = Result<T>>) -> Result<T, Refused> {
        query.await.map_err(|error| {
            // That it is away has been said; everything else is news.
            if !matches!(error, Error::Away(_)) {
                tracing::warn!(?error, "a credential could not be looked up");
            }
            Refused::Unavailable
        })
    }
}

fn expired(caller: &Caller, now: Timestamp) -> bool {
    caller.data().expires_at.is_some_and(|end| end <= now)
}

fn standing(caller: Caller, status: Status) -> Result<Caller, Refused> {
    match status {
        Status::Active => Ok(caller),
        Status::Suspended => Err(Refused::Suspended { tenant_name: caller.data().tenant_name.clone() }),
        Status::Deleted => Err(Refused::Invalid),
    }
}

/// A credential's name in history and call records: `key_...`, or `jwt_...` with the digest of issuer and subject.
#[must_use]
pub fn label(credential: &Credential) -> String {
    match credential {
        Credential::ApiKey(id) | Credential::UrlToken(id) => id.to_string(),
        Credential::Jwt(digest) => format!("jwt_{digest}"),
    }
}

#[cfg(test)]
mod tests;
