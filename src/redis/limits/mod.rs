//! What limits share between replicas: buckets, and who has which places. A replica leases both ahead of their use
//! ([`crate::limits`]); what is kept here is what was leased.
//!
//! Everything of one tenant is in one slot, and one script does all that a request needs, in one round trip. Time is that
//! of Redis alone. Each key ends by itself: a bucket when it would be full, places after an hour in which no replica
//! said that it still has them.

mod meter;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod twin;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{TryStreamExt, stream};
use redis::Script;

use super::{Down, Redis};
use crate::config::Rate;
use crate::id::{ReplicaId, TenantId};

pub use meter::{Level, Meter};

/// How long places stay leased that nobody speaks of any more.
pub const KEPT: Duration = Duration::from_secs(3600);
/// Tenants of a dead replica that are cleaned up at once.
const AT_ONCE: usize = 32;

/// A bucket of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name<'a> {
    /// Its requests.
    Tenant,
    /// Requests of one credential, by its label.
    Key(&'a str),
    /// Calls of one server's tools.
    Server(&'a str),
    /// Calls of one tool of a server.
    Tool(&'a str, &'a str),
    /// Its bytes.
    Bytes,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("rate"),
            Self::Key(key) => write!(f, "rate:key:{key}"),
            Self::Server(server) => write!(f, "rate:server:{server}"),
            Self::Tool(server, tool) => write!(f, "rate:tool:{server}/{tool}"),
            Self::Bytes => f.write_str("bytes"),
        }
    }
}

/// What a tenant has a number of places for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// What runs.
    Calls,
    /// Open event streams.
    Streams,
    /// Calls that wait for an answer of their clients.
    Questions,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Calls, Self::Streams, Self::Questions];

    fn name(self) -> &'static str {
        match self {
            Self::Calls => "held:calls",
            Self::Streams => "held:streams",
            Self::Questions => "held:questions",
        }
    }
}

/// Tokens that a replica wants from one bucket.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Which bucket.
    pub name: Name<'a>,
    /// Its rate and size.
    pub rate: Rate,
    /// Tokens that were used without having been leased. They are debited whatever happens.
    pub owed: u32,
    /// Tokens for requests that wait; 0 where none does. At least one must be there.
    pub want: u32,
    /// Tokens to have ahead, if at least half of the bucket is then left.
    pub ahead: u32,
    /// Whether all of `want` may be taken where anything is there.
    pub soft: bool,
}

/// Places that a replica wants to have. What it says it uses it has from then on, whatever it had before.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    /// Of which kind.
    pub kind: Kind,
    /// How many the tenant has.
    pub limit: u32,
    /// How many the replica uses.
    pub used: u32,
    /// How many requests wait for one; 0 where none does. At least one must be free.
    pub more: u32,
    /// How many to have ahead, if then at most half of all are leased.
    pub spare: u32,
}

/// What a replica asks for at once, all of one tenant.
#[derive(Debug)]
pub struct Lease<'a> {
    /// Whose.
    pub tenant: TenantId,
    /// Tokens.
    pub draws: Vec<Draw<'a>>,
    /// Places.
    pub holds: Vec<Hold>,
}

/// What it got of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Micro-tokens that the bucket is owed now.
    pub debt: i64,
    /// Tokens leased.
    pub granted: u32,
}

/// What it has of a kind of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its own places.
    pub leased: u32,
    /// Those of all replicas.
    pub total: u32,
}

/// The answer to a [`Lease`], in the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// Whether everything that requests wait for was there. If not, nothing was taken for them.
    pub granted: bool,
    /// Per bucket.
    pub draws: Vec<Drawn>,
    /// Per kind of places.
    pub holds: Vec<Held>,
}

/// The shared buckets and places, for one replica.
pub struct Store {
    redis: Redis,
    me: ReplicaId,
    script: Script,
    /// Numbers leases, so that one that was long under way undoes no later one.
    number: AtomicU64,
}

impl Store {
    /// The shared state, as this replica uses it.
    #[must_use]
    pub fn new(redis: Redis, me: ReplicaId) -> Self {
        Self { redis, me, script: Script::new(include_str!("lease.lua")), number: AtomicU64::new(1) }
    }

    /// Redis itself.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Leases tokens and places, in one round trip.
    ///
    /// # Errors
    /// [`Down`]; what was asked for may have been leased nevertheless. Tokens are lost then; places are put right by the next
    /// lease.
    pub async fn lease(&self, lease: &Lease<'_>) -> Result<Leased, Down> {
        let keys = self.redis.keys();
        let mut call = self.script.prepare_invoke();
        for draw in &lease.draws {
            call.key(keys.of_tenant(lease.tenant, draw.name));
        }
        for hold in &lease.holds {
            call.key(keys.of_tenant(lease.tenant, hold.kind.name()));
        }
        call.arg(lease.draws.len()).arg(lease.holds.len()).arg(self.me.to_string());
        call.arg(self.number.fetch_add(1, Ordering::Relaxed)).arg(millis(KEPT));
        for Draw { rate, owed, want, ahead, soft, .. } in &lease.draws {
            call.arg(rate.per_second).arg(rate.burst).arg(*owed).arg(*want).arg(*ahead).arg(u8::from(*soft));
        }
        for Hold { limit, used, more, spare, .. } in &lease.holds {
            call.arg(*limit).arg(*used).arg(*more).arg(*spare);
        }
        let reply: Vec<i64> = self.redis.script(&call).await?;
        read(&reply, lease.draws.len()).ok_or_else(|| {
            tracing::error!(?reply, "Redis answered a lease with something else");
            Down
        })
    }

    /// Notes that this replica has places of a tenant, so that they can be given back when it dies. `now` is in seconds of
    /// any one clock; what was noted longer ago than places are kept is dropped.
    ///
    /// # Errors
    /// [`Down`].
    pub async fn note(&self, tenant: TenantId, now: i64) -> Result<(), Down> {
        let key = self.redis.keys().held_by(self.me);
        let kept = i64::try_from(KEPT.as_secs()).unwrap_or(i64::MAX);
        let mut pipeline = redis::pipe();
        pipeline.zadd(&key, tenant.to_string(), now).ignore();
        pipeline.zrembyscore(&key, i64::MIN, now.saturating_sub(kept)).ignore();
        pipeline.pexpire(&key, i64::try_from(millis(KEPT)).unwrap_or(i64::MAX)).ignore();
        self.redis.pipe(&pipeline).await
    }

    /// Gives back every place of a replica that is no more. Doing it twice changes nothing.
    ///
    /// # Errors
    /// [`Down`]; then some of them may still be leased.
    pub async fn forget(&self, replica: ReplicaId) -> Result<(), Down> {
        let keys = self.redis.keys();
        let index = keys.held_by(replica);
        let mut all = redis::cmd("ZRANGE");
        let tenants: Vec<String> = self.redis.run(all.arg(&index).arg(0).arg(-1)).await?;
        let tenants = tenants.iter().filter_map(|tenant| tenant.parse::<TenantId>().ok());
        stream::iter(tenants.map(Ok))
            .try_for_each_concurrent(AT_ONCE, |tenant| async move {
                let mut pipeline = redis::pipe();
                for kind in Kind::ALL {
                    pipeline.hdel(keys.of_tenant(tenant, kind.name()), replica.to_string()).ignore();
                }
                self.redis.pipe::<()>(&pipeline).await
            })
            .await?;
        self.redis.run(redis::cmd("DEL").arg(&index)).await
    }

    /// The same of this replica, at its end.
    ///
    /// # Errors
    /// As [`forget`](Self::forget).
    pub async fn leave(&self) -> Result<(), Down> {
        self.forget(self.me).await
    }
}

fn read(reply: &[i64], draws: usize) -> Option<Leased> {
    let (granted, rest) = reply.split_first()?;
    let (drawn, held) = rest.split_at_checked(2 * draws)?;
    let count = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    Some(Leased {
        granted: *granted == 1,
        draws: drawn.chunks_exact(2).map(|d| Drawn { debt: d[0], granted: count(d[1]) }).collect(),
        holds: held.chunks_exact(2).map(|h| Held { leased: count(h[0]), total: count(h[1]) }).collect(),
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
