//! Idempotency keys: calls that may come again.
//!
//! A key belongs to one credential and names one call: this tool with these arguments. However often and wherever it comes, the
//! call runs once at a time, and once it is settled its answer is kept and given to everybody who comes with the key. A call
//! that failed leaves its key free. The claim is a row, taken before the call runs; its answer is written in the
//! transaction that settles the call, so that there is no moment at which a call is charged and its answer is not there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::meter::Meter;
use crate::caller::Caller;
use crate::credentials;
use crate::credits::Credits;
use crate::db::idempotency::{self, Claim, KeyName};
use crate::error::{Error, Result};
use crate::id::{CallId, MeterId};
use crate::mcp::content::{Content, ToolResult};
use crate::seal::{Purpose, Sealer};

/// Longest key, in bytes.
pub const MAX_KEY: usize = 255;
/// How often it is looked whether a call of another process is done: first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// Keys that wait to be given free.
const MOST_RELEASES: usize = 8192;

/// Why a call with a key cannot go on.
#[derive(Debug)]
pub enum KeyTrouble {
    /// The key is none: empty, too long.
    Malformed,
    /// It came with another tool or other arguments before.
    Taken,
    /// The call was made and charged, and its answer was too large to keep.
    NotKept(CallId),
    /// The call still runs.
    Running,
    /// The database does not answer.
    Away(Error),
}

/// The answer of a call that was made before.
#[derive(Debug)]
pub struct Stored {
    /// The call.
    pub call: CallId,
    /// What it was charged.
    pub credits: Credits,
    /// What the tool said.
    pub result: ToolResult,
}

/// What a key leads to.
pub enum Claimed {
    /// To a call that is to be made now.
    Ours(Key),
    /// To an answer.
    Answered(Box<Stored>),
}

/// A key that a call has. Given free when dropped, unless the call was settled.
pub struct Key {
    pub(super) name: KeyName,
    pub(super) call: CallId,
    pub(super) meter: MeterId,
    keys: Arc<Keys>,
    settled: bool,
}

/// What is known of keys in this process.
pub(super) struct Keys {
    meter: Arc<Meter>,
    sealer: Arc<Sealer>,
    keep: Duration,
    largest: usize,
    /// Calls of this process that run under a key, for those who wait for them.
    running: Mutex<HashMap<KeyName, Arc<Notify>>>,
    /// Keys to give free.
    releases: Mutex<Vec<(KeyName, CallId)>>,
}

/// A result as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    content: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    structured: Option<Value>,
    is_error: bool,
    meta: Map<String, Value>,
}

impl Keys {
    pub fn new(meter: Arc<Meter>, sealer: Arc<Sealer>, keep: Duration, largest: usize) -> Self {
        Self { meter, sealer, keep, largest, running: Mutex::default(), releases: Mutex::default() }
    }

    /// Takes the key for a call, or waits, until `patience` is over, for the answer of whoever has it.
    pub async fn claim(
        self: &Arc<Self>,
        caller: &Caller,
        (key, call): (&str, CallId),
        target: (&str, &str),
        arguments: Option<&[u8]>,
        patience: Duration,
    ) -> Result<Claimed, KeyTrouble> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(KeyTrouble::Malformed);
        }
        let name = KeyName {
            tenant: caller.tenant(),
            credential: credentials::label(&caller.principal().credential),
            hash: hex(&[key.as_bytes()]),
        };
        let fingerprint = fingerprint(target, arguments);
        let trying = async {
            let mut look = FIRST_LOOK;
            loop {
                let done = self.running(&name);
                if let Some(claimed) = self.look(&name, &fingerprint, call).await? {
                    return Ok(claimed);
                }
                let done = async {
                    match &done {
                        Some(done) => done.notified().await,
                        None => std::future::pending().await,
                    }
                };
                let _ = tokio::time::timeout(look, done).await;
                look = (look * 2).min(LONGEST_LOOK);
            }
        };
        tokio::time::timeout(patience, trying).await.unwrap_or(Err(KeyTrouble::Running))
    }

    /// Claims the key, or finds what is there. Nothing: the call still runs.
    async fn look(
        self: &Arc<Self>,
        name: &KeyName,
        fingerprint: &str,
        call: CallId,
    ) -> Result<Option<Claimed>, KeyTrouble> {
        let meter = self.meter.opened().await.map_err(KeyTrouble::Away)?;
        let now = self.meter.clock.now();
        let claim = Claim { key: name, fingerprint, call, meter, at: now, until: now.plus(self.keep) };
        // Before the statement, whose fate may stay unknown: what it took is given free then.
        let key = Key { name: name.clone(), call, meter, keys: self.clone(), settled: false };
        if idempotency::claim(&self.meter.db, claim).await.map_err(KeyTrouble::Away)? {
            self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Arc::default());
            return Ok(Some(Claimed::Ours(key)));
        }
        key.not_taken();
        let found = idempotency::find(&self.meter.db, name, now).await.map_err(KeyTrouble::Away)?;
        let Some(found) = found else { return Ok(None) };
        if found.fingerprint != fingerprint {
            return Err(KeyTrouble::Taken);
        }
        if found.settled_at.is_none() {
            return Ok(None);
        }
        let result = found.result.ok_or(KeyTrouble::NotKept(found.call_id))?;
        // Before it leaves: where nobody got it the first time, its charge may be about to be taken back.
        let given = found.given_at.is_some()
            || idempotency::give(&self.meter.db, name, found.call_id, now).await.map_err(KeyTrouble::Away)?;
        if !given {
            return Ok(None);
        }
        let result = self.open(name, found.call_id, &result).ok_or_else(|| {
            let call = found.call_id;
            KeyTrouble::Away(Error::Internal(format!("the kept answer of {call} cannot be read")))
        })?;
        Ok(Some(Claimed::Answered(Box::new(Stored { call: found.call_id, credits: found.credits, result }))))
    }

    fn running(&self, name: &KeyName) -> Option<Arc<Notify>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// A result, sealed for whoever comes with the key again; nothing where it is too large.
    pub fn seal(&self, key: &Key, result: &ToolResult) -> Result<Option<String>> {
        let internal = |e: serde_json::Error| Error::Internal(e.to_string());
        let content =
            result.content.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(internal)?;
        let kept = Kept {
            content,
            structured: result.structured.clone(),
            is_error: result.is_error,
            meta: result.meta.clone(),
        };
        let plain = serde_json::to_vec(&kept).map_err(internal)?;
        if plain.len() > self.largest {
            return Ok(None);
        }
        self.sealer.seal(Purpose::Answer, &bound(&key.name, key.call), &plain).map(Some)
    }

    fn open(&self, name: &KeyName, call: CallId, sealed: &str) -> Option<ToolResult> {
        let plain = self.sealer.open(Purpose::Answer, &bound(name, call), sealed)?;
        let kept: Kept = serde_json::from_slice(&plain).ok()?;
        let content = kept.content.into_iter().map(block).collect();
        Some(ToolResult { content, structured: kept.structured, is_error: kept.is_error, meta: kept.meta })
    }

    /// Gives keys free whose calls were not settled. Each waits until it is done, so that none is forgotten where this is
    /// dropped.
    pub async fn release(&self) -> Result<()> {
        loop {
            let next = self.releases().last().cloned();
            let Some((name, call)) = next else { return Ok(()) };
            idempotency::release(&self.meter.db, &name, call).await?;
            let mut releases = self.releases();
            let place = releases.iter().position(|(_, other)| *other == call);
            let done = place.map(|place| releases.remove(place));
            drop(releases);
            if done.is_some() {
                self.ended(&name);
            }
        }
    }

    fn releases(&self) -> MutexGuard<'_, Vec<(KeyName, CallId)>> {
        self.releases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who wait for the call look again.
    fn ended(&self, name: &KeyName) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(running) = running {
            running.notify_waiters();
        }
    }
}

impl Key {
    /// The call was settled: the key stays with its answer.
    pub(super) fn settled(mut self) {
        self.settled = true;
        self.keys.ended(&self.name);
    }

    /// Somebody else has it.
    fn not_taken(mut self) {
        self.settled = true;
    }

    /// Gives the key free now, and not when somebody next looks.
    pub(super) async fn give_free(self) {
        let keys = self.keys.clone();
        drop(self);
        let _ = keys.release().await;
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut releases = self.keys.releases();
        if releases.len() < MOST_RELEASES {
            releases.push((self.name.clone(), self.call));
        } else {
            tracing::error!(call = %self.call, "a key stays taken until its time is over: too many wait to be given free");
            drop(releases);
            self.keys.ended(&self.name);
        }
    }
}

/// A block as it was, as far as anybody here looks into it.
fn block(value: Value) -> Content {
    match &value {
        Value::Object(fields)
            if fields.len() == 2 && fields.get("type").and_then(Value::as_str) == Some("text") =>
        {
            match fields.get("text").and_then(Value::as_str) {
                Some(text) => Content::text(text),
                None => Content::Other(value),
            }
        }
        _ => Content::Other(value),
    }
}

fn bound(name: &KeyName, call: CallId) -> Vec<u8> {
    format!("{} {} {} {call}", name.tenant, name.credential, name.hash).into_bytes()
}

/// Which call this is: the same tool, and arguments that are the same JSON.
fn fingerprint((server, tool): (&str, &str), arguments: Option<&[u8]>) -> String {
    let arguments =
        arguments.map_or(Value::Object(Map::new()), |raw| serde_json::from_slice(raw).unwrap_or_default());
    hex(&[server.as_bytes(), tool.as_bytes(), arguments.to_string().as_bytes()])
}

/// SHA-256 of the parts, each behind its length.
fn hex(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    HEXLOWER.encode(context.finish().as_ref())
}
