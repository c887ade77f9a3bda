//! A client of 2025-11-25 as it should be: it comes back to streams that broke, with the id of the last event that it saw,
//! and initializes again where its session is gone.

use std::time::Instant;

use serde_json::{Value, json};

use super::load::{Kind, Outcome, PATIENCE, PAUSE, Pen, Tenant, exchange, refused};
use crate::support::door::Door;
use crate::support::events::Event;
use crate::support::{Draft, Events, Legacy};

const REVISION: &str = "2025-11-25";
/// How far each call counts.
const STEPS: i64 = 3;

/// Opens sessions and uses them, for ever.
pub async fn run(entrance: Door, own: Tenant, calls: Pen, stream: Pen) {
    loop {
        let began = Instant::now();
        match open(&entrance, &own).await {
            Ok(session) => tokio::select! {
                () = call_until_gone(&session, &own, &calls) => {}
                () = listen(&session, &own, &stream) => {}
            },
            Err(outcome) => {
                calls.note(began, outcome);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A new session that hears of the resources of all tenants.
async fn open(entrance: &Door, own: &Tenant) -> Result<Legacy, Outcome> {
    let hello = Legacy::hello(entrance, &own.key, REVISION).try_open();
    let Ok(hello) = tokio::time::timeout(PATIENCE, hello).await else {
        return Err(Outcome::Wrong("no session in time".to_owned()));
    };
    let hello = hello.map_err(|_| Outcome::Broken)?;
    let (status, id) = (hello.status().as_u16(), hello.headers().get("mcp-session-id").cloned());
    let Some(id) = id.as_ref().and_then(|id| id.to_str().ok()) else {
        let body: Value = hello.json().await.unwrap_or_default();
        return Err(refused(status, &body["error"]));
    };
    let session = Legacy::opened(entrance, &own.key, REVISION, id);
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let mut drafts = vec![session.message(note)];
    for uri in own.resources() {
        drafts.push(session.draft("resources/subscribe", &json!({ "uri": uri })));
    }
    for draft in drafts {
        let (status, body) = exchange(draft).await?;
        if !matches!(status, 200 | 202) || body["error"].is_object() {
            return Err(refused(status, &body["error"]));
        }
    }
    Ok(session)
}

async fn call_until_gone(session: &Legacy, own: &Tenant, pen: &Pen) {
    for number in 0_u64.. {
        let (began, id) = (Instant::now(), format!("{} {number}", own.mark));
        let outcome = tokio::time::timeout(PATIENCE, call(session, &id)).await;
        let outcome = outcome.unwrap_or_else(|_| Outcome::Wrong(format!("no answer to {id} in time")));
        let is_gone = outcome == Outcome::Gone;
        pen.note(began, outcome);
        if is_gone {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What was heard of a call so far, over all its connections.
#[derive(Default)]
struct Heard {
    last: Option<String>,
    steps: Vec<i64>,
    foreign: Option<String>,
}

impl Heard {
    /// Takes an event. The outcome of the call, where it is its answer.
    fn take(&mut self, event: &Event, id: &str) -> Option<Outcome> {
        self.last = event.id.clone().or(self.last.take());
        if event.data.is_empty() {
            return None;
        }
        let message = event.json();
        if message.get("id").is_some() {
            return Some(self.answer(200, &message, id));
        }
        if message["params"]["progressToken"] != id {
            self.foreign = Some(message.to_string());
        }
        self.steps.extend(message["params"]["progress"].as_i64());
        None
    }

    fn answer(&self, status: u16, message: &Value, id: &str) -> Outcome {
        if let Some(foreign) = &self.foreign {
            return Outcome::Wrong(format!("{id} heard {foreign}"));
        }
        if message["error"].is_object() {
            return refused(status, &message["error"]);
        }
        let text = format!("counted to {STEPS}");
        let is_right = message["id"] == id && message["result"]["content"][0]["text"] == text;
        if is_right && self.steps.iter().copied().eq(1..=STEPS) {
            return Outcome::Good;
        }
        Outcome::Wrong(format!("{id} heard {:?} and then {message}", self.steps))
    }
}

/// Calls, and comes back for the answer as often as it takes.
async fn call(session: &Legacy, id: &str) -> Outcome {
    let count = session.draft_call("slow_count", &json!({ "steps": STEPS, "delay_ms": 30 }));
    let mut draft = count.progress(json!(id)).set("/id", json!(id));
    let mut heard = Heard::default();
    loop {
        if let Some(outcome) = read(draft, id, &mut heard).await
            && !(outcome == Outcome::Unavailable && heard.last.is_some())
        {
            return outcome;
        }
        let Some(last) = &heard.last else { return Outcome::Broken };
        draft = session.draft_resume(last);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads one connection to its end. The outcome of the call, where it came.
async fn read(draft: Draft, id: &str, heard: &mut Heard) -> Option<Outcome> {
    let response = draft.try_open().await.ok()?;
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").cloned();
    if kind.is_none_or(|kind| kind != "text/event-stream") {
        let body: Value = response.json().await.ok()?;
        return Some(heard.answer(status, &body, id));
    }
    let mut events = Events::of(response);
    while let Ok(Some(event)) = events.read().await {
        if let Some(outcome) = heard.take(&event, id) {
            return Some(outcome);
        }
    }
    None
}

/// Keeps a GET stream open, and reads on where it broke off.
async fn listen(session: &Legacy, own: &Tenant, pen: &Pen) {
    let mut last: Option<String> = None;
    loop {
        let began = Instant::now();
        let draft = match &last {
            Some(last) => session.draft_resume(last),
            None => session.draft_get(),
        };
        let outcome = match tokio::time::timeout(PATIENCE, draft.try_open()).await {
            Err(_) => Outcome::Wrong("no stream in time".to_owned()),
            Ok(Err(_)) => Outcome::Broken,
            Ok(Ok(response)) if response.status() != 200 => {
                let status = response.status().as_u16();
                let body: Value = response.json().await.unwrap_or_default();
                refused(status, &body["error"])
            }
            Ok(Ok(response)) => {
                let mut events = Events::of(response);
                while let Ok(Some(event)) = events.read().await {
                    last = event.id.clone().or(last);
                    if !event.data.is_empty() {
                        pen.note(Instant::now(), own.heard(&event.json()));
                    }
                }
                Outcome::Good
            }
        };
        match outcome {
            Outcome::Good => {}
            Outcome::Gone => {
                pen.note(began, outcome);
                // The calls will find that out, too, and open a new session.
                return std::future::pending().await;
            }
            outcome => {
                last = last.filter(|_| outcome != Outcome::Lost);
                pen.note(began, outcome);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether this is of a client of sessions.
pub fn is_legacy(kind: Kind) -> bool {
    matches!(kind, Kind::Legacy | Kind::Stream)
}
