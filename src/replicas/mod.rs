//! Replicas: the processes of one deployment, which of them live, and what they tell each other.
//!
//! Each registers in Redis with a lease that it renews. One whose lease ran out is dead: some replica takes on to give
//! back what it held, and another does where that one dies over it; giving back twice changes nothing, because ids of
//! replicas are never used again. Redis also holds a random text, the epoch: another text means that Redis has lost its
//! memory, and every replica then writes down again what it still knows.

mod courier;
mod ear;
mod message;
mod post;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::Script;

use crate::id::ReplicaId;
use crate::redis::{Down, Redis};

pub use courier::{Courier, Round};
pub use message::{Envelope, Message, SessionName};
pub use post::{Delivery, Heard, Post};

/// Dead replicas that one beat takes on.
const CLAIMS: usize = 16;

/// Renews the lease of one replica, buries those whose lease ran out, and hands out the dead to clean up after.
///
/// Where no replica at all was heard of for two beats, Redis itself was not there, or had nobody to hear: who lives gets
/// another lease to say so.
///
/// KEYS live, dead, epoch; ARGV own id, lease in ms, an epoch in case there is none, claims.
/// Returns whether the own lease was still there, the epoch, the living, and the dead to clean up after.
const BEAT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(ARGV[2])
local known = redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
if newest and now - (newest - lease) > lease * 2 / 3 then
    for _, replica in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
        redis.call('ZADD', KEYS[1], now + lease, replica)
    end
end
redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)) do
    redis.call('ZREM', KEYS[1], gone)
    redis.call('ZADD', KEYS[2], 0, gone)
end
redis.call('ZREM', KEYS[2], ARGV[1])
local claims = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[4])
for _, dead in ipairs(claims) do
    redis.call('ZADD', KEYS[2], now + 2 * lease, dead)
end
redis.call('SET', KEYS[3], ARGV[3], 'NX')
for i = 1, 3 do
    redis.call('PEXPIRE', KEYS[i], 86400000)
end
return { known, redis.call('GET', KEYS[3]), redis.call('ZRANGE', KEYS[1], 0, -1), claims }
";

/// The other replicas, and what is shared with them.
pub struct Peers {
    /// The shared state.
    pub redis: Redis,
    /// Who there is.
    pub replicas: Arc<Replicas>,
    /// What they say.
    pub post: Arc<Post>,
    /// What is said to them by whoever does not wait.
    pub courier: Courier,
}

/// What a beat found.
#[derive(Debug, Default)]
pub struct Beat {
    /// The own lease had run out, or was never there: others may have given back what this replica held.
    pub lapsed: bool,
    /// Redis has lost its memory since the last beat.
    pub memory_lost: bool,
    /// Dead replicas that this one is to clean up after, and then to [bury](Replicas::bury).
    pub dead: Vec<ReplicaId>,
}

/// Who there is.
#[derive(Debug)]
struct View {
    live: Arc<[ReplicaId]>,
    epoch: Option<String>,
}

/// The replicas of this deployment, as this one knows them.
pub struct Replicas {
    me: ReplicaId,
    redis: Redis,
    lease: Duration,
    script: Script,
    view: RwLock<View>,
    /// This replica has signed off.
    left: AtomicBool,
}

impl Replicas {
    /// This replica, which knows of no other yet.
    #[must_use]
    pub fn new(redis: Redis, lease: Duration) -> Self {
        let me = ReplicaId::new();
        let view = RwLock::new(View { live: Arc::from([me]), epoch: None });
        Self { me, redis, lease, script: Script::new(BEAT), view, left: AtomicBool::new(false) }
    }

    /// This replica.
    #[must_use]
    pub fn me(&self) -> ReplicaId {
        self.me
    }

    /// How often to beat: a lease outlives two beats that fail.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.lease / 3
    }

    /// How long a replica that was not heard of counts as alive.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Replicas that live, this one included, as far as was last heard.
    #[must_use]
    pub fn live(&self) -> Arc<[ReplicaId]> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).live.clone()
    }

    /// How many live, as far as was last heard; at least 1.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.live().len()).unwrap_or(u32::MAX).max(1)
    }

    /// Whether this replica lives, as far as was last heard.
    #[must_use]
    pub fn lives(&self, replica: ReplicaId) -> bool {
        self.live().contains(&replica)
    }

    /// The living replica of this [number](ReplicaId::number).
    #[must_use]
    pub fn numbered(&self, number: u32) -> Option<ReplicaId> {
        self.live().iter().copied().find(|replica| replica.number() == number)
    }

    /// Renews the lease and looks around.
    ///
    /// # Errors
    /// [`Down`]; then everything stays as it was last heard.
    pub async fn beat(&self) -> Result<Beat, Down> {
        if self.left.load(Ordering::Acquire) {
            return Ok(Beat::default());
        }
        let keys = self.redis.keys();
        let lease = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        let mut call = self.script.key(keys.live());
        call.key(keys.dead()).key(keys.epoch());
        call.arg(self.me.to_string()).arg(lease).arg(ReplicaId::new().to_string()).arg(CLAIMS);
        let (known, epoch, live, dead): (bool, String, Vec<String>, Vec<String>) =
            self.redis.script(&call).await?;
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let memory_lost = view.epoch.as_ref().is_some_and(|before| *before != epoch);
        view.epoch = Some(epoch);
        view.live = parse(&live).into();
        Ok(Beat { lapsed: !known, memory_lost, dead: parse(&dead) })
    }

    /// Looks who lives, without a word of this replica.
    ///
    /// # Errors
    /// [`Down`]; then everything stays as it was last heard.
    pub async fn look(&self) -> Result<(), Down> {
        let mut range = redis::cmd("ZRANGE");
        let live: Vec<String> = self.redis.run(range.arg(self.redis.keys().live()).arg(0).arg(-1)).await?;
        self.view.write().unwrap_or_else(PoisonError::into_inner).live = parse(&live).into();
        Ok(())
    }

    /// Notes that nothing is left of what a dead replica held.
    ///
    /// # Errors
    /// [`Down`]; another replica then takes it on again.
    pub async fn bury(&self, dead: ReplicaId) -> Result<(), Down> {
        let keys = self.redis.keys();
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZREM").arg(keys.dead()).arg(dead.to_string()).ignore();
        pipeline.cmd("DEL").arg(keys.to_one(dead)).ignore();
        self.redis.pipe(&pipeline).await
    }

    /// Signs off: from the next look on nobody counts on this replica.
    ///
    /// # Errors
    /// [`Down`]; the lease then runs out by itself.
    pub async fn leave(&self) -> Result<(), Down> {
        self.left.store(true, Ordering::Release);
        let mut remove = redis::cmd("ZREM");
        self.redis.run(remove.arg(self.redis.keys().live()).arg(self.me.to_string())).await
    }
}

fn parse(ids: &[String]) -> Vec<ReplicaId> {
    ids.iter().filter_map(|id| id.parse().ok()).collect()
}
