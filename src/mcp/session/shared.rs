//! The sessions that all replicas share, in Redis: a hash per session and, per tenant, the set of those that are open,
//! which counts them, finds the one that is missed least, and says once which have run out. Every operation is one script
//! on keys of one tenant.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Script;
use tokio::sync::Notify;

use super::record::{self, Record};
use super::{Session, Transport};
use crate::id::{SessionRowId, TenantId};
use crate::mcp::feed::{self, Feed, Log, Mirror};
use crate::mcp::jsonrpc::RequestId;
use crate::redis::Down;
use crate::replicas::{Message, Peers, SessionName};
use crate::tasks::Tasks;

/// How long an HTTP+SSE session outlives the last word of the replica that holds its stream, beside the grace.
const SSE_OUTLIVES: Duration = Duration::from_secs(60);
/// How long a replica is believed that says that a session is busy there: a few sweeps.
const BUSY_FOR: Duration = Duration::from_secs(5);
const BUSY_AT_MOST: Duration = Duration::from_secs(30);
/// How long it is remembered that a request runs.
const RUNS_AT_MOST: Duration = Duration::from_secs(3600);
/// How long a tenant is looked at after it was noted last, in seconds.
pub(super) const NOTED_FOR: i64 = 86_400;
/// How often a stream of another replica is looked at, also where nothing is heard of it.
const LOOK: Duration = Duration::from_millis(500);
/// Sessions that an open one may make way for; looked at in the order in which they run out.
const CANDIDATES: usize = 64;
/// Sessions that run out and are handed to one replica at once.
pub(super) const GONE_AT_ONCE: usize = 256;

/// Sets `now` to the time in milliseconds, and takes out who has run out.
macro_rules! with_time {
    ($script:literal) => {
        concat!(
            "local time = redis.call('TIME')\n",
            "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n",
            $script
        )
    };
}

/// KEYS open, record, busy; ARGV row, time to live in ms, limit, candidates, gone at once, how many are busy here (-1: none may
/// make way), those, then fields and values. Whether it is open, who has run out, who might make way, who has.
const OPEN: &str = with_time!(
    r"
local evicted
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[5])
for _, row in ipairs(gone) do
    redis.call('ZREM', KEYS[1], row)
    redis.call('ZREM', KEYS[3], row)
end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
    local idle = {}
    for _, row in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[4] - 1)) do
        local busy = redis.call('ZSCORE', KEYS[3], row)
        if not busy or tonumber(busy) < now then
            idle[#idle + 1] = row
        end
    end
    local busy_here = tonumber(ARGV[6])
    for _, row in ipairs(idle) do
        local spared = busy_here < 0
        for i = 7, 6 + busy_here do
            spared = spared or ARGV[i] == row
        end
        if not spared then
            evicted = row
            break
        end
    end
    if not evicted then
        return { 0, gone, idle, '' }
    end
    redis.call('ZREM', KEYS[1], evicted)
    redis.call('ZREM', KEYS[3], evicted)
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.max(86400000, 2 * ARGV[2]))
redis.call('HSET', KEYS[2], unpack(ARGV, 7 + math.max(0, tonumber(ARGV[6]))))
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return { 1, gone, {}, evicted or '' }
"
);

/// Writes a session down again that Redis has forgotten. KEYS open, record; ARGV row, time to live, then fields.
const SAVE: &str = with_time!(
    r"
if redis.call('EXISTS', KEYS[2]) == 1 then
    return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.max(86400000, 2 * ARGV[2]))
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
"
);

/// KEYS open, record, busy; ARGV row, time to live in ms, busy for so many ms (0: not busy here, -1: no longer).
const TOUCH: &str = with_time!(
    r"
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    return 0
end
redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.max(86400000, 2 * ARGV[2]))
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local busy = tonumber(ARGV[3])
if busy > 0 then
    redis.call('ZADD', KEYS[3], now + busy, ARGV[1])
    redis.call('PEXPIRE', KEYS[3], 86400000)
elseif busy < 0 then
    redis.call('ZREM', KEYS[3], ARGV[1])
end
return 1
"
);

/// KEYS open, record, busy; ARGV row. Whether it was open.
const CLOSE: &str = r"
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
";

/// KEYS open, busy; ARGV gone at once. Who has run out.
const REAP: &str = with_time!(
    r"
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, row in ipairs(gone) do
    redis.call('ZREM', KEYS[1], row)
    redis.call('ZREM', KEYS[2], row)
end
return gone
"
);

/// KEYS record; ARGV fields and values. Whether there is such a session.
const SETTLE: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
";

/// KEYS record; ARGV field of the number, field of the place, place to begin at where there is none. The number of the new
/// stream, and the place up to which the session has heard; 0 where there is no such session.
const LISTEN: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then
    return { 0, '0' }
end
redis.call('HSETNX', KEYS[1], ARGV[2], ARGV[3])
return { redis.call('HINCRBY', KEYS[1], ARGV[1], 1), redis.call('HGET', KEYS[1], ARGV[2]) }
";

/// KEYS record; ARGV field of the place, place. Moves the place on, never back.
const HEARD: &str = r"
local was = redis.call('HGET', KEYS[1], ARGV[1])
if was and (#was < #ARGV[2] or (#was == #ARGV[2] and was < ARGV[2])) then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return 1
";

/// How long sessions and what they keep live.
pub(super) struct Times {
    pub(super) idle: Duration,
    pub(super) unused: Duration,
    pub(super) grace: Duration,
    pub(super) replay: Duration,
}

/// What became of an attempt to open a session.
pub(super) enum Opened {
    /// It is open, in the place of this one.
    Yes(Option<SessionRowId>),
    /// The tenant has as many as it may; these might make way, the first one soonest.
    Full(Vec<SessionRowId>),
}

/// What rings when a stream, of a session, says more, and what is read of it here.
type Followed = HashMap<(SessionRowId, Box<str>), (Arc<Notify>, Arc<Feed>)>;

/// The scripts, and who shares.
pub(super) struct Shared {
    pub(super) peers: Arc<Peers>,
    pub(super) tasks: Tasks,
    times: Times,
    /// How long a replica is believed that says that a session is busy there.
    pub(super) busy_for: Duration,
    next_feed: AtomicU32,
    /// Streams of calls at other replicas that are read on here.
    followed: Mutex<Followed>,
    open: Script,
    save: Script,
    touch: Script,
    close: Script,
    reap: Script,
    settle: Script,
    listen: Script,
    heard: Script,
}

fn rows(texts: &[String]) -> Vec<SessionRowId> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Names and values of fields.
pub(super) type Fields = Vec<(String, String)>;

impl Shared {
    pub(super) fn new(peers: Arc<Peers>, tasks: Tasks, times: Times) -> Self {
        Self {
            peers,
            tasks,
            busy_for: BUSY_FOR.max(2 * times.idle.min(times.unused)).min(BUSY_AT_MOST),
            times,
            next_feed: AtomicU32::new(1),
            followed: Mutex::default(),
            open: Script::new(OPEN),
            save: Script::new(SAVE),
            touch: Script::new(TOUCH),
            close: Script::new(CLOSE),
            reap: Script::new(REAP),
            settle: Script::new(SETTLE),
            listen: Script::new(LISTEN),
            heard: Script::new(HEARD),
        }
    }

    /// How long a session lives from now on, if nothing comes.
    pub(super) fn lives_for(&self, session: &Session) -> Duration {
        match session.transport {
            Transport::Sse => self.times.grace + SSE_OUTLIVES,
            Transport::Streamable if session.is_used() => self.times.idle,
            Transport::Streamable => self.times.unused,
        }
    }

    /// Writes a field of a session, by the courier.
    pub(super) fn write_later(&self, name: SessionName, field: &str, value: &str) {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(SETTLE).arg(1).arg(self.record(name)).arg(field).arg(value).ignore();
        self.peers.courier.commands(&pipeline, SETTLE.len() + value.len());
    }

    /// A number for a stream that no replica gives to another of the same session: that of this replica, and a count.
    pub(super) fn next_feed(&self) -> u64 {
        let count = self.next_feed.fetch_add(1, Ordering::Relaxed);
        (u64::from(self.peers.replicas.me().number()) << 32) | u64::from(count)
    }

    /// A mirror for a feed of this session.
    pub(super) fn mirror(&self, name: SessionName, feed: &Feed) -> Mirror {
        let stream = feed.id().map(|id| id.to_string()).unwrap_or_default();
        Mirror::new(&self.peers, name, stream, self.times.replay)
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream that is read on here has said more.
    pub(super) fn news(&self, name: SessionName, stream: &str) {
        if let Some((bell, _)) = self.followed().get(&(name.row, stream.into())) {
            bell.notify_one();
        }
    }

    /// A stream that was read on here is read on elsewhere.
    pub(super) fn unfollow(&self, name: SessionName, stream: &str) {
        let followed = self.followed().remove(&(name.row, stream.into()));
        if let Some((bell, feed)) = followed {
            feed.retire();
            bell.notify_one();
        }
    }

    /// Writes down that a request of an HTTP+SSE session runs here, or no longer.
    pub(super) fn runs(&self, name: SessionName, id: &RequestId, begins: bool) {
        let key = self.peers.redis.keys().running(name.tenant, name.row);
        let mut pipeline = redis::pipe();
        if begins {
            let number = self.peers.replicas.me().number();
            pipeline.cmd("HSET").arg(&key).arg(id.as_json()).arg(number).ignore();
            pipeline.cmd("PEXPIRE").arg(&key).arg(millis(RUNS_AT_MOST)).ignore();
        } else {
            pipeline.cmd("HDEL").arg(&key).arg(id.as_json()).ignore();
        }
        self.peers.courier.commands(&pipeline, id.as_json().len() + key.len());
    }

    /// Answers the requests of an HTTP+SSE session that ran at replicas which are dead.
    pub(super) async fn answer_for_the_dead(&self, name: SessionName, feed: &Arc<Feed>) {
        let key = self.peers.redis.keys().running(name.tenant, name.row);
        let mut get = redis::cmd("HGETALL");
        let running: HashMap<String, u32> = self.peers.redis.run(get.arg(&key)).await.unwrap_or_default();
        for (id, number) in running {
            if self.peers.replicas.numbered(number).is_some() {
                continue;
            }
            // Whoever takes it out answers.
            let mut delete = redis::cmd("HDEL");
            let mine = self.peers.redis.run::<bool>(delete.arg(&key).arg(&id)).await;
            if let (Ok(true), Ok(id)) = (mine, RequestId::parse(&id)) {
                let _ = feed.must(&feed::lost(&id));
            }
        }
    }

    /// Follows a stream of another replica until it ends, nobody reads it here, or its speaker is dead: then its answer is
    /// not to come.
    pub(super) fn follow(
        self: &Arc<Self>,
        name: SessionName,
        stream: String,
        feed: Arc<Feed>,
        (speaker, mut last, ended): (Option<u32>, u64, bool),
    ) {
        if ended {
            return;
        }
        let shared = self.clone();
        let key = (name.row, stream.clone().into_boxed_str());
        let bell = Arc::new(Notify::new());
        let before = self.followed().insert(key.clone(), (bell.clone(), feed.clone()));
        if let Some((_, older)) = before {
            older.retire();
        }
        self.tasks.spawn(async move {
            let mut dead = false;
            while feed.is_being_read() && !shared.tasks.stopping().is_cancelled() {
                if let Ok(Some(more)) = Log::read(&shared.peers.redis, name, &stream, Some(last)).await {
                    last = last.max(more.last);
                    let ended = more.ended;
                    feed.follow(more);
                    if ended {
                        break;
                    }
                    if dead {
                        feed.abandon();
                        break;
                    }
                }
                // Looked at once more after the death: the last word may have come before it.
                let was_dead = dead;
                dead = speaker.is_none_or(|number| shared.peers.replicas.numbered(number).is_none());
                if was_dead || !dead {
                    let _ = tokio::time::timeout(LOOK, bell.notified()).await;
                }
            }
            let mut followed = shared.followed();
            if followed.get(&key).is_some_and(|(mine, _)| Arc::ptr_eq(mine, &bell)) {
                followed.remove(&key);
            }
        });
    }

    fn record(&self, name: SessionName) -> String {
        self.peers.redis.keys().session(name.tenant, name.row)
    }

    fn busy(&self, tenant: TenantId) -> String {
        self.peers.redis.keys().busy_sessions(tenant)
    }

    /// Opens a session, unless the tenant has as many as it may; also says which of the tenant's have run out. Where it is said
    /// which sessions are busy here, another one makes way, if there is one that is not busy anywhere.
    pub(super) async fn open(
        &self,
        name: SessionName,
        ttl: Duration,
        limit: u32,
        fields: &Fields,
        busy_here: Option<&[SessionRowId]>,
    ) -> Result<(Opened, Vec<SessionRowId>), Down> {
        let mut call = self.open.key(self.peers.redis.keys().sessions(name.tenant));
        call.key(self.record(name)).key(self.busy(name.tenant));
        call.arg(name.row.to_string()).arg(millis(ttl)).arg(limit).arg(CANDIDATES).arg(GONE_AT_ONCE);
        call.arg(busy_here.map_or(-1, |rows| i64::try_from(rows.len()).unwrap_or(i64::MAX)));
        busy_here.into_iter().flatten().for_each(|row| {
            call.arg(row.to_string());
        });
        fields.iter().for_each(|(field, value)| {
            call.arg(field).arg(value);
        });
        let (open, gone, idle, evicted): (bool, Vec<String>, Vec<String>, String) =
            self.peers.redis.script(&call).await?;
        let opened = if open { Opened::Yes(evicted.parse().ok()) } else { Opened::Full(rows(&idle)) };
        Ok((opened, rows(&gone)))
    }

    /// Writes a session down where Redis does not know it.
    pub(super) async fn save(&self, name: SessionName, ttl: Duration, fields: &Fields) -> Result<(), Down> {
        let mut call = self.save.key(self.peers.redis.keys().sessions(name.tenant));
        call.key(self.record(name)).arg(name.row.to_string()).arg(millis(ttl));
        fields.iter().for_each(|(field, value)| {
            call.arg(field).arg(value);
        });
        self.peers.redis.script(&call).await
    }

    /// Reads a session.
    pub(super) async fn load(&self, name: SessionName) -> Result<Option<Record>, Down> {
        let mut get = redis::cmd("HGETALL");
        let fields: HashMap<String, Vec<u8>> = self.peers.redis.run(get.arg(self.record(name))).await?;
        Ok(Record::read(name.tenant, &fields))
    }

    /// Lets a session live for `ttl` from now on. Whether it is open.
    pub(super) async fn touch(&self, name: SessionName, ttl: Duration, busy: Busy) -> Result<bool, Down> {
        let mut call = self.touch.key(self.peers.redis.keys().sessions(name.tenant));
        call.key(self.record(name)).key(self.busy(name.tenant));
        call.arg(name.row.to_string()).arg(millis(ttl)).arg(busy.argument());
        self.peers.redis.script(&call).await
    }

    /// As [`Shared::touch`], by the courier.
    pub(super) fn touch_later(&self, name: SessionName, ttl: Duration, busy: Busy) {
        let mut pipeline = redis::pipe();
        let call = pipeline.cmd("EVAL").arg(TOUCH).arg(3);
        call.arg(self.peers.redis.keys().sessions(name.tenant)).arg(self.record(name));
        call.arg(self.busy(name.tenant)).arg(name.row.to_string()).arg(millis(ttl)).arg(busy.argument());
        call.ignore();
        self.peers.courier.commands(&pipeline, TOUCH.len());
    }

    /// A stream that carried notifications is gone: writes down up to where the session has heard, and tells the others.
    pub(super) fn left(&self, name: SessionName, number: u32, heard: u64) {
        let mut pipeline = redis::pipe();
        let call = pipeline.cmd("EVAL").arg(HEARD).arg(1).arg(self.record(name));
        call.arg(record::HEARD).arg(heard).ignore();
        self.peers.courier.commands(&pipeline, HEARD.len());
        self.peers.courier.tell_all(Message::Left { session: name, number, heard });
    }

    /// Ends a session. Whether it was open, so that this replica has ended it.
    pub(super) async fn close(&self, name: SessionName) -> Result<bool, Down> {
        let mut call = self.close.key(self.peers.redis.keys().sessions(name.tenant));
        call.key(self.record(name)).key(self.busy(name.tenant)).arg(name.row.to_string());
        self.peers.redis.script(&call).await
    }

    /// The tenant's sessions that have run out; each is said once.
    pub(super) async fn reap(&self, tenant: TenantId) -> Result<Vec<SessionRowId>, Down> {
        let mut call = self.reap.key(self.peers.redis.keys().sessions(tenant));
        call.key(self.busy(tenant)).arg(GONE_AT_ONCE);
        let gone: Vec<String> = self.peers.redis.script(&call).await?;
        Ok(rows(&gone))
    }

    /// Writes down what a session settled. Whether it is open.
    pub(super) async fn settle(&self, name: SessionName, fields: &Fields) -> Result<bool, Down> {
        let mut call = self.settle.prepare_invoke();
        call.key(self.record(name));
        fields.iter().for_each(|(field, value)| {
            call.arg(field).arg(value);
        });
        self.peers.redis.script(&call).await
    }

    /// Takes back a field.
    pub(super) async fn unsettle(&self, name: SessionName, field: &str) -> Result<(), Down> {
        let mut delete = redis::cmd("HDEL");
        self.peers.redis.run(delete.arg(self.record(name)).arg(field)).await
    }

    /// Counts a stream that carries notifications: its number, and the place up to which the session has heard.
    pub(super) async fn listen(&self, name: SessionName, now: u64) -> Result<(u32, u64), Down> {
        let mut call = self.listen.key(self.record(name));
        call.arg(record::LISTENER).arg(record::HEARD).arg(now);
        let (number, place): (u32, String) = self.peers.redis.script(&call).await?;
        Ok((number, place.parse().unwrap_or(now)))
    }

    /// Writes down up to where the session has heard.
    pub(super) async fn heard(&self, name: SessionName, place: u64) -> Result<(), Down> {
        let mut call = self.heard.key(self.record(name));
        call.arg(record::HEARD).arg(place);
        self.peers.redis.script(&call).await
    }

    /// The place up to which the session has heard, as it is written down.
    pub(super) async fn place(&self, name: SessionName) -> Result<Option<u64>, Down> {
        let mut get = redis::cmd("HGET");
        let place: Option<String> =
            self.peers.redis.run(get.arg(self.record(name)).arg(record::HEARD)).await?;
        Ok(place.and_then(|place| place.parse().ok()))
    }

    /// Notes that a tenant has something in Redis, so that what outlives every replica that knew of it is found.
    pub(super) async fn note_tenant(&self, tenant: TenantId, second: i64) -> Result<(), Down> {
        let key = self.peers.redis.keys().tenants();
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZADD").arg(&key).arg(second).arg(tenant.to_string()).ignore();
        pipeline.cmd("EXPIRE").arg(&key).arg(NOTED_FOR).ignore();
        self.peers.redis.pipe(&pipeline).await
    }
}

/// Whether a session has an open stream or a running call at this replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// It does; believed for this time.
    For(Duration),
    /// It does not.
    NotHere,
    /// It did.
    NoLonger,
}

impl Busy {
    fn argument(self) -> i64 {
        match self {
            Self::For(time) => i64::try_from(millis(time)).unwrap_or(i64::MAX),
            Self::NotHere => 0,
            Self::NoLonger => -1,
        }
    }
}
