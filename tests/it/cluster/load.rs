//! Light load from several tenants: modern clients, and legacy ones that come back to what broke. Everything that they
//! send and hear carries their own mark, and everything that happens to them is written down.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir::tasks::Tasks;

use super::legacy_client;
use crate::support::cluster::Cluster;
use crate::support::door::Door;
use crate::support::{Draft, Key, Modern, eventually};

/// What a client waits for an answer at most. Weir gives up on anything far earlier.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// Between two requests of one client.
pub const PAUSE: Duration = Duration::from_millis(100);
/// How many times in a row everything must go well for a client before it counts as green.
const GREEN: u32 = 3;
/// How often each client may be told in vain that something may have changed, on average.
const MOST_RELOADED: usize = 6;
/// Within this time of a fault's end all clients are.
pub const RECOVERY: Duration = Duration::from_secs(5);

/// What kind of client something happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Requests that describe themselves.
    Modern,
    /// A listener of the modern era.
    Listener,
    /// A session of 2025-11-25 whose calls stream, and that comes back to broken streams.
    Legacy,
    /// The GET stream of such a session.
    Stream,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Good,
    /// The session is not there any more; the client initializes again.
    Gone,
    /// An answer that says that the answer is lost.
    Lost,
    /// A dependency is away, and the client may try again.
    Unavailable,
    /// A client that missed something is told that all it asked to hear of may have changed.
    Reloaded,
    /// The connection broke before there was an answer, or anything to come back to.
    Broken,
    /// Anything else: never right.
    Wrong(String),
}

/// One thing that happened.
#[derive(Debug)]
pub struct Entry {
    /// To whom.
    pub kind: Kind,
    /// When it began.
    pub began: Instant,
    /// How it ended.
    pub outcome: Outcome,
}

/// One client's place in the log.
#[derive(Clone)]
pub struct Pen {
    kind: Kind,
    name: String,
    log: Arc<Mutex<Vec<Entry>>>,
    streak: Arc<AtomicU32>,
}

impl Pen {
    /// Writes down how something went that began then.
    pub fn note(&self, began: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Good => self.streak.fetch_add(1, Ordering::AcqRel),
            Outcome::Reloaded => self.streak.load(Ordering::Acquire),
            _ => self.streak.swap(0, Ordering::AcqRel),
        };
        let entry = Entry { kind: self.kind, began, outcome };
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }
}

/// One tenant of the load: its credential, and what marks everything that is its own.
#[derive(Clone)]
pub struct Tenant {
    /// Its credential.
    pub key: Key,
    /// Its mark.
    pub mark: String,
    /// The marks of all tenants.
    pub all: Arc<[String]>,
}

impl Tenant {
    /// The resource that only this tenant is told of.
    pub fn resource(&self) -> String {
        uri(&self.mark)
    }

    /// The resources of all tenants, which anybody may ask to hear of.
    pub fn resources(&self) -> Vec<String> {
        self.all.iter().map(|mark| uri(mark)).collect()
    }

    /// What to make of a notification.
    pub fn heard(&self, message: &Value) -> Outcome {
        match (message["method"].as_str(), message["params"]["uri"].as_str()) {
            (Some("notifications/resources/updated"), Some(uri)) if uri == self.resource() => Outcome::Good,
            (Some("notifications/resources/updated"), Some(uri))
                if self.resources().iter().any(|r| r == uri) =>
            {
                Outcome::Reloaded
            }
            (Some(method), None) if method.ends_with("/list_changed") => Outcome::Reloaded,
            (Some("notifications/subscriptions/acknowledged"), _) => Outcome::Good,
            _ => Outcome::Wrong(format!("{} heard {message}", self.mark)),
        }
    }
}

fn uri(mark: &str) -> String {
    format!("lab://notes/{mark}")
}

/// What to make of an error.
pub fn refused(status: u16, error: &Value) -> Outcome {
    match (status, error["code"].as_i64()) {
        (404, Some(-31004)) => Outcome::Gone,
        (_, Some(-31006)) => Outcome::Unavailable,
        (200 | 400, Some(-31008)) => Outcome::Lost,
        (status, _) => Outcome::Wrong(format!("{status} {error}")),
    }
}

/// Sends a request and reads one whole answer.
pub async fn exchange(draft: Draft) -> Result<(u16, Value), Outcome> {
    let exchange = async {
        let response = draft.try_open().await?;
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.text().await?))
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Err(_) => Err(Outcome::Wrong("no answer in time".to_owned())),
        Ok(Err(_)) => Err(Outcome::Broken),
        Ok(Ok((status, text))) => match serde_json::from_str(&text) {
            Ok(body) => Ok((status, body)),
            Err(_) if text.is_empty() => Ok((status, Value::Null)),
            Err(_) => Err(Outcome::Wrong(format!("{status} {text}"))),
        },
    }
}

/// Clients that run.
pub struct Load {
    tenants: Vec<Tenant>,
    pens: Vec<Pen>,
    log: Arc<Mutex<Vec<Entry>>>,
    calls: Arc<Mutex<BTreeSet<String>>>,
    stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients of three tenants, and waits until all is well with each, at every replica.
    pub async fn start(cluster: &Cluster) -> Self {
        let all: Arc<[String]> = ["red", "green", "blue"].map(str::to_owned).into();
        let mut tenants = Vec::new();
        for mark in all.iter() {
            tenants.push(Tenant { key: cluster.caller().await, mark: mark.clone(), all: all.clone() });
        }
        let mut load = Self {
            tenants: tenants.clone(),
            pens: Vec::new(),
            log: Arc::default(),
            calls: Arc::default(),
            stop: CancellationToken::new(),
            running: Vec::new(),
        };
        let entrance = Door::like(cluster);
        for tenant in tenants {
            // So that every replica knows the credential.
            for door in cluster.doors() {
                Modern::new(&door, &tenant.key).send("tools/list", json!({})).await.result();
            }
            let (modern, listener) = (load.pen(Kind::Modern, &tenant), load.pen(Kind::Listener, &tenant));
            let client = Modern::new(&entrance, &tenant.key);
            load.run(call_again_and_again(client.clone(), tenant.clone(), modern, load.calls.clone()));
            load.run(listen(client, tenant.clone(), listener));
            let (legacy, stream) = (load.pen(Kind::Legacy, &tenant), load.pen(Kind::Stream, &tenant));
            load.run(legacy_client::run(entrance.clone(), tenant, legacy, stream));
        }
        load.is_green("the beginning").await;
        load
    }

    fn pen(&mut self, kind: Kind, tenant: &Tenant) -> Pen {
        let (log, name) = (self.log.clone(), format!("{kind:?} of {}", tenant.mark));
        let pen = Pen { kind, name, log, streak: Arc::default() };
        self.pens.push(pen.clone());
        pen
    }

    fn run(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let running = async move {
            stop.run_until_cancelled_owned(client).await;
        };
        self.running.push(Tasks::new().spawn(running));
    }

    /// Waits until all is well with every client again.
    pub async fn is_green(&self, after: &str) {
        for pen in &self.pens {
            pen.streak.store(0, Ordering::Release);
        }
        eventually(&format!("all clients to be well after {after}"), async || {
            self.pens.iter().all(|pen| pen.streak.load(Ordering::Acquire) >= GREEN)
        })
        .await;
    }

    /// The same, within 5 seconds of now.
    pub async fn recovers(&self, after: &str) {
        let recovery = tokio::time::timeout(RECOVERY, self.is_green(after)).await;
        let ill = self.pens.iter().filter(|pen| pen.streak.load(Ordering::Acquire) < GREEN);
        let ill: Vec<_> = ill.map(|pen| &pen.name).collect();
        assert!(recovery.is_ok(), "not well {RECOVERY:?} after {after}: {ill:?}\n{:#?}", self.bad());
    }

    /// What went wrong so far, the newest at the end.
    fn bad(&self) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = log.iter().filter(|entry| entry.outcome != Outcome::Good).map(|e| format!("{e:?}"));
        bad.collect()
    }

    /// The tenants.
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// Ends the clients. All that happened must have gone well, or be `lost` by right.
    pub async fn stop(self, lost: impl Fn(&Entry) -> bool) -> BTreeSet<String> {
        self.stop.cancel();
        for client in self.running {
            client.await.expect("no panic in a client");
        }
        let log = std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner));
        let (good, bad): (Vec<_>, Vec<_>) = log.into_iter().partition(|e| e.outcome == Outcome::Good);
        let (expected, unexpected): (Vec<_>, Vec<_>) = bad.into_iter().partition(|entry| lost(entry));
        // Somebody who heard of other tenants' changes would hear of many times more.
        let reloaded = expected.iter().filter(|entry| entry.outcome == Outcome::Reloaded).count();
        assert!(reloaded <= MOST_RELOADED * self.pens.len(), "{reloaded}: {expected:#?}");
        assert_eq!(unexpected.len(), 0, "{unexpected:#?}\nbeside what may be lost:\n{expected:#?}");
        eprintln!("{} went well, {} were lost by right", good.len(), expected.len());
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A modern client: calls, and changes of its tenant's resource.
async fn call_again_and_again(client: Modern, own: Tenant, pen: Pen, calls: Arc<Mutex<BTreeSet<String>>>) {
    for number in 0_u64.. {
        let (began, mark) = (Instant::now(), format!("{} {number}", own.mark));
        let echo = exchange(client.draft_call("echo", &json!({ "text": mark }))).await;
        pen.note(
            began,
            match echo {
                Err(outcome) => outcome,
                Ok((status, body)) if body["error"].is_object() => refused(status, &body["error"]),
                Ok((200, body)) if body["result"]["content"][0]["text"] == mark => {
                    let call = body["result"]["_meta"]["dev.weir/receipt"]["call"].as_str().unwrap_or("");
                    calls.lock().unwrap_or_else(PoisonError::into_inner).insert(call.to_owned());
                    Outcome::Good
                }
                Ok((status, body)) => Outcome::Wrong(format!("{mark}: {status} {body}")),
            },
        );
        let change = json!({ "what": own.resource(), "mine": true });
        let _ = exchange(client.draft_call("notify", &change)).await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// A modern listener, which opens its stream again whenever that ends.
async fn listen(client: Modern, own: Tenant, pen: Pen) {
    let wanted = json!({ "notifications": { "resourceSubscriptions": own.resources() } });
    loop {
        let began = Instant::now();
        let draft = client.draft("subscriptions/listen", wanted.clone());
        let outcome = match tokio::time::timeout(PATIENCE, draft.try_open()).await {
            Err(_) => Outcome::Wrong("no stream in time".to_owned()),
            Ok(Err(_)) => Outcome::Broken,
            Ok(Ok(response)) => hear(response, &own, &pen).await,
        };
        if outcome != Outcome::Good {
            pen.note(began, outcome);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Reads what comes on a stream, until that ends.
pub async fn hear(response: reqwest::Response, own: &Tenant, pen: &Pen) -> Outcome {
    let status = response.status().as_u16();
    if status != 200 {
        let body: Value = response.json().await.unwrap_or_default();
        return refused(status, &body["error"]);
    }
    let mut events = crate::support::Events::of(response);
    // A stream that breaks or ends is opened again; what would have come on it is missed by whoever it was for.
    while let Ok(Some(event)) = events.read().await {
        if event.data.is_empty() {
            continue;
        }
        let message = event.json();
        if message["result"].is_object() {
            return Outcome::Good;
        }
        pen.note(Instant::now(), own.heard(&message));
    }
    Outcome::Good
}
