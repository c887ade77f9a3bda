//! How a case is played: its clients, its operator, and what the clients were told.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;
use weir::accounts::grants::{self, GrantKind, NewGrant};
use weir::accounts::{self};
use weir::audit::Actor;
use weir::clock::Timestamp;
use weir::credits::Credits;
use weir::db::Page;
use weir::{prices, tenants};

use super::schedule::{Case, Change, Gift, Piece, Tool};
use super::world::{LEAD, Stage};
use crate::support::shop::{Shop, credits, plan};
use crate::support::{Draft, Events, Key, Modern};

/// How often a call with a key is sent until there is an answer.
const TRIES: usize = 6;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// What a client waits at most. Weir gives up on anything far earlier.
const PATIENCE: Duration = Duration::from_secs(30);

/// A case whose tenants are there.
pub struct Cast<'a> {
    /// What it does.
    pub case: &'a Case,
    /// A credential of each tenant.
    pub keys: Vec<Key>,
}

/// What a client was told.
#[derive(Debug, Clone)]
pub struct Told {
    /// Which piece of work it asked for.
    pub piece: String,
    /// Whose.
    pub tenant: String,
    /// Whether it came with a key.
    pub keyed: bool,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub answer: Answer,
}

/// One answer, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The tool's.
    Done { call: String, credits: Option<i64>, replayed: bool, is_error: bool, content: String },
    /// The tenant may not.
    Refused { reason: String, price: i64, left: i64 },
    /// A question, and the state to come back with.
    Asked(String),
    /// A JSON-RPC error.
    Failed { status: u16, code: i64, text: String },
    /// The connection broke.
    Broken,
    /// Nobody was there.
    Nowhere,
    /// The client did not wait for it.
    Left,
}

impl<'a> Cast<'a> {
    /// Makes plans, tenants and grants.
    pub async fn gather(stage: &Stage, case: &'a Case) -> Self {
        let shop = Shop { db: &stage.db, clock: &stage.clock };
        for (number, terms) in case.terms.iter().enumerate() {
            shop.publish(&plan_of(case, number), terms.clone()).await;
        }
        let mut keys = Vec::new();
        for gift in &case.given {
            let key = shop.customer(&plan_of(case, 0)).await;
            if let Some(gift) = gift {
                let new = new_grant(stage, gift);
                grants::add(&stage.db, &stage.clock, Actor::Cli, key.tenant, new).await.expect("a grant");
            }
            if case.is_known {
                for door in &stage.doors {
                    Modern::new(door, &key).call("echo", json!({ "text": "here I am" })).await.result();
                }
            }
            keys.push(key);
        }
        Self { case, keys }
    }

    /// Plays it.
    pub async fn play(&self, stage: &Stage) -> Vec<Told> {
        let began = Instant::now();
        let pieces = self.case.pieces.iter().map(async |piece| {
            tokio::time::sleep_until(began + piece.at).await;
            join_all((0..piece.copies).map(|copy| self.ask(stage, piece, copy == 0))).await.concat()
        });
        let changes = async {
            for (at, change) in &self.case.changes {
                tokio::time::sleep_until(began + *at).await;
                self.change(stage, change).await;
            }
        };
        tokio::join!(join_all(pieces), changes).0.concat()
    }

    /// One more call of each tenant while nothing else of it runs.
    pub async fn probe(&self, stage: &Stage) -> Vec<Told> {
        let probes = self.keys.iter().enumerate().map(|(tenant, _)| Piece {
            id: format!("{}.{tenant}.probe", self.case.seed),
            tenant,
            at: Duration::ZERO,
            tool: Tool::Work,
            door: None,
            keyed: false,
            copies: 1,
            ending: "ok",
            takes: Duration::ZERO,
            bytes: 0,
            cancel: None,
        });
        let probes: Vec<_> = probes.collect();
        join_all(probes.iter().map(|probe| self.ask(stage, probe, true))).await.concat()
    }

    /// Sends a piece of work; with a key, until there is an answer.
    pub async fn ask(&self, stage: &Stage, piece: &Piece, first: bool) -> Vec<Told> {
        let key = &self.keys[piece.tenant];
        let client = Modern::new(piece.door.map_or(&stage.any, |door| &stage.doors[door]), key);
        let tool = match piece.tool {
            Tool::Work => "work",
            Tool::Echo => "echo",
            Tool::Writes => "writes",
        };
        let mut draft = client.draft_call(tool, &piece.arguments());
        if piece.keyed {
            draft = draft.set("/params/_meta/dev.weir~1idempotencyKey", json!(format!("key {}", piece.id)));
        }
        let mut all = Vec::new();
        let mut next = draft.clone();
        let mut leaves = piece.cancel.filter(|_| first);
        for _ in 0..TRIES {
            let began = stage.clock.now();
            let answer = exchange(next, leaves.take()).await;
            let ended = stage.clock.now();
            let told = Told {
                piece: piece.id.clone(),
                tenant: key.tenant.to_string(),
                keyed: piece.keyed,
                began,
                ended,
                answer,
            };
            all.push(told);
            next = match &all[all.len() - 1].answer {
                Answer::Done { .. } | Answer::Refused { .. } => break,
                Answer::Asked(state) => draft
                    .clone()
                    .set(
                        "/params/inputResponses",
                        json!({ "opinion": { "action": "accept", "content": { "opinion": "good" } } }),
                    )
                    .set("/params/requestState", json!(state)),
                _ if !piece.keyed => break,
                _ => {
                    tokio::time::sleep(PAUSE).await;
                    draft.clone()
                }
            };
        }
        all
    }

    /// Changes something. Where the database is away it may or may not have been changed.
    async fn change(&self, stage: &Stage, change: &Change) {
        let (db, clock, by) = (&stage.db, &stage.clock, Actor::Cli);
        let name = |number: usize| plan(&plan_of(self.case, number));
        let tenant = |number: usize| self.keys[number].tenant;
        let done = match change {
            Change::Plan { tenant: t, plan } => {
                tenants::set_plan(db, clock, by, tenant(*t), &name(*plan), LEAD).await.map(drop)
            }
            Change::Give { tenant: t, gift } => {
                grants::add(db, clock, by, tenant(*t), new_grant(stage, gift)).await.map(drop)
            }
            Change::Void { tenant: t, nth } => match grants::list(db, tenant(*t), Page::first(100)).await {
                Ok(found) => match found.rows.get(*nth) {
                    Some(grant) => grants::void(db, clock, by, tenant(*t), grant.id).await.map(drop),
                    None => Ok(()),
                },
                Err(error) => Err(error),
            },
            Change::Publish { plan, terms } => {
                let terms: prices::Terms = serde_json::from_value(terms.clone()).expect("terms");
                prices::publish(db, clock, by, &name(*plan), &terms, (None, LEAD)).await.map(drop)
            }
            Change::SpendCap { tenant: t, cap } => {
                let cap = cap.as_deref().map(credits);
                accounts::set_spend_cap(db, clock, by, tenant(*t), cap).await.map(drop)
            }
        };
        match done {
            Ok(()) | Err(weir::error::Error::Database(_) | weir::error::Error::Away(_)) => {}
            Err(error) => panic!("case {}: {change:?}: {error}", self.case.seed),
        }
    }
}

fn plan_of(case: &Case, number: usize) -> String {
    format!("case-{}-{}", case.seed, ["a", "b"][number])
}

fn new_grant(stage: &Stage, gift: &Gift) -> NewGrant {
    NewGrant {
        kind: if gift.promotional { GrantKind::Promotional } else { GrantKind::Prepaid },
        credits: credits(&gift.credits),
        source: None,
        note: String::new(),
        expires_at: gift.life.map(|life| stage.clock.now().plus(life)),
    }
}

/// Sends a request and reads the answer, or leaves.
async fn exchange(draft: Draft, leaves: Option<Duration>) -> Answer {
    let whole = async {
        let response = draft.try_open().await?;
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("");
        if kind != "text/event-stream" {
            return Ok(serde_json::from_str(&response.text().await?).ok().map(|body| (status, body)));
        }
        let mut events = Events::of(response);
        while let Some(event) = events.read().await? {
            if event.data.contains("\"result\"") || event.data.contains("\"error\"") {
                return Ok(Some((status, event.json())));
            }
        }
        Ok::<_, reqwest::Error>(None)
    };
    let answered = match leaves {
        Some(leaves) => match tokio::time::timeout(leaves, whole).await {
            Ok(answered) => answered,
            Err(_) => return Answer::Left,
        },
        None => tokio::time::timeout(PATIENCE, whole).await.expect("an answer in time"),
    };
    match answered {
        Ok(Some((status, body))) => read(status, &body),
        Err(error) if error.is_connect() => Answer::Nowhere,
        Ok(None) | Err(_) => Answer::Broken,
    }
}

fn read(status: u16, body: &Value) -> Answer {
    let micros = |value: &Value| {
        value.as_str().map(|text| text.parse::<Credits>().expect("credits in a receipt").micros())
    };
    let Some(result) = body.get("result") else {
        let (code, text) = (&body["error"]["code"], &body["error"]["message"]);
        let text = text.as_str().map_or_else(|| body.to_string(), str::to_owned);
        return Answer::Failed { status, code: code.as_i64().unwrap_or(0), text };
    };
    if result["resultType"] == "input_required" {
        return Answer::Asked(result["requestState"].as_str().unwrap_or("").to_owned());
    }
    let refused = &result["_meta"]["dev.weir/refused"];
    if refused.is_object() {
        let (price, left) = (micros(&refused["price"]), micros(&refused["left"]));
        let reason = refused["reason"].as_str().unwrap_or("").to_owned();
        return Answer::Refused { reason, price: price.unwrap_or(0), left: left.unwrap_or(0) };
    }
    let receipt = &result["_meta"]["dev.weir/receipt"];
    Answer::Done {
        call: receipt["call"].as_str().expect("a receipt").to_owned(),
        credits: micros(&receipt["credits"]),
        replayed: receipt["replayed"] == true,
        is_error: result["isError"] == true,
        content: shortened(&result["content"]),
    }
}

/// What a result says, in a few words.
fn shortened(content: &Value) -> String {
    let text = content[0]["text"].as_str().unwrap_or("");
    format!("{:.40} ({} bytes)", text, content.to_string().len())
}
