//! All that the stand-in knows: objects, usage, events, and its clock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::agenda::Agenda;
use super::billing::Ledger;
use super::deliveries::Outbox;
use super::fault::Fault;
use super::idempotency::Kept;
use super::ids::Ids;
use super::keys::Keys;
use super::record::Records;
use super::refusal::Refusal;
use super::settings::Settings;
use super::shelf::{Shelf, page};
use super::usage::Usage;
use crate::clock::{Clock, Timestamp};

/// Objects of all kinds. Whoever tries things out needs a handful, a simulated year some hundred thousand.
const MOST_OBJECTS: usize = 1_000_000;
/// Requests that are remembered.
const MOST_SEEN: usize = 10_000;

/// What an endpoint is asked.
#[derive(Clone)]
pub struct Call {
    /// The parts of the path that stand for ids, by name.
    pub ids: Vec<(&'static str, String)>,
    /// The checked parameters.
    pub params: Map<String, Value>,
    /// The path.
    pub path: String,
    /// `req_...`.
    pub request: String,
    /// What came as `Idempotency-Key`.
    pub key: Option<String>,
}

impl Call {
    /// Of nobody: it happened by itself, or on a page of the stand-in.
    pub fn nobodys() -> Self {
        Self { ids: Vec::new(), params: Map::new(), path: String::new(), request: String::new(), key: None }
    }

    /// The same with other parameters.
    pub fn with(&self, params: Map<String, Value>) -> Self {
        Self { params, ..self.clone() }
    }

    /// The id in the path, and its parameter's name.
    pub fn id(&self) -> (&str, &'static str) {
        self.ids.first().map_or(("", "id"), |(name, id)| (id.as_str(), *name))
    }

    /// A text among the parameters.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.params.get(name).and_then(Value::as_str)
    }

    /// Whether a list's filter, if it is there, takes this value.
    pub fn wants(&self, name: &str, value: &Value) -> bool {
        self.params.get(name).is_none_or(|wanted| wanted == value)
    }
}

/// A request that was answered, or should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The query and the form, as they came.
    pub params: String,
    /// What came as `Idempotency-Key`.
    pub key: Option<String>,
}

/// Everything, behind one lock.
pub struct World {
    base: Clock,
    ahead: Duration,
    /// The moment that is being lived through, where the clock has gone beyond it.
    moment: Option<Timestamp>,
    pub agenda: Agenda,
    pub settings: Settings,
    pub ledger: Ledger,
    /// What open Checkout sessions were asked for and their objects do not tell, by their ids.
    pub asked: HashMap<String, Map<String, Value>>,
    /// The lines of the newest previews, by their ids, the oldest first.
    pub previews: VecDeque<(String, Vec<Value>)>,
    pub ids: Ids,
    pub keys: Keys,
    shelves: BTreeMap<&'static str, Shelf>,
    objects: usize,
    pub usage: Usage,
    pub outbox: Outbox,
    pub faults: VecDeque<Fault>,
    pub kept: HashMap<String, Kept>,
    /// The request that runs is a usage event that will be accepted and dropped.
    pub dropping: bool,
    /// Meter and customer of the usage that is on its way in.
    pub busy: HashSet<(String, String)>,
    pub seen: VecDeque<Seen>,
    /// Where requests are written down, if anywhere.
    pub records: Option<Records>,
    /// Where this server is, for URLs in objects.
    pub base_url: String,
}

impl World {
    pub fn new(base: Clock, seed: &[u8], keys: Keys, base_url: String) -> Self {
        Self {
            base,
            ahead: Duration::ZERO,
            moment: None,
            agenda: Agenda::default(),
            settings: Settings::default(),
            ledger: Ledger::default(),
            asked: HashMap::new(),
            previews: VecDeque::new(),
            ids: Ids::new(seed),
            keys,
            shelves: BTreeMap::new(),
            objects: 0,
            usage: Usage::default(),
            outbox: Outbox::default(),
            faults: VecDeque::new(),
            kept: HashMap::new(),
            dropping: false,
            busy: HashSet::new(),
            seen: VecDeque::new(),
            records: None,
            base_url,
        }
    }

    /// The time here.
    pub fn time(&self) -> Timestamp {
        self.moment.unwrap_or_else(|| self.base.now().plus(self.ahead))
    }

    /// Does something at a time that has gone by, in seconds.
    pub fn live_through(&mut self, at: i64, what: impl FnOnce(&mut Self)) {
        self.moment = Some(Timestamp::from_micros(at.saturating_mul(1_000_000)));
        what(self);
        self.moment = None;
    }

    /// The same in seconds, as objects tell it.
    pub fn now(&self) -> i64 {
        self.time().as_seconds()
    }

    /// The time where those live who get webhooks, in seconds: nobody has moved it on.
    pub fn wall(&self) -> i64 {
        self.base.now().as_seconds()
    }

    /// Moves the clock on.
    pub fn advance(&mut self, span: Duration) {
        self.ahead = self.ahead.saturating_add(span);
    }

    /// Remembers a request; the oldest is forgotten.
    pub fn see(&mut self, seen: Seen) {
        if self.seen.len() == MOST_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }

    /// The objects of a kind.
    pub fn shelf(&self, kind: &'static str) -> Option<&Shelf> {
        self.shelves.get(kind)
    }

    /// The object of this id, which is there in full.
    pub fn live(&self, kind: &'static str, id: &str) -> Option<&Value> {
        self.shelf(kind)?.get(id).filter(|object| object["deleted"] != json!(true))
    }

    /// The same where a parameter or a path names it.
    ///
    /// # Errors
    /// `resource_missing`, with this status.
    pub fn need(
        &self,
        kind: &'static str,
        id: &str,
        param: &str,
        status: StatusCode,
    ) -> Result<&Value, Refusal> {
        self.live(kind, id).ok_or_else(|| Refusal::no_such(last_word(kind), id, param, status))
    }

    /// The object that the path names.
    ///
    /// # Errors
    /// 404 `resource_missing`.
    pub fn named(&self, kind: &'static str, call: &Call) -> Result<&Value, Refusal> {
        let (id, name) = call.id();
        self.need(kind, id, name, StatusCode::NOT_FOUND)
    }

    /// Keeps a new object: gives it what all objects have.
    ///
    /// # Errors
    /// 400 where there are too many objects, or one of this id.
    pub fn create(&mut self, kind: &'static str, prefix: &str, mut object: Value) -> Result<Value, Refusal> {
        if self.objects >= MOST_OBJECTS {
            return Err(Refusal::plain(
                StatusCode::INSUFFICIENT_STORAGE,
                "The stand-in is full: start it again.",
            ));
        }
        let id = match object["id"].as_str() {
            Some(id) => id.to_owned(),
            None => self.ids.next(prefix),
        };
        if self.shelf(kind).is_some_and(|shelf| shelf.get(&id).is_some()) {
            let message = format!("{} already exists.", last_word(kind));
            return Err(Refusal::conflict(Some("resource_already_exists"), "id", message));
        }
        object["id"] = json!(id);
        object["object"] = json!(kind);
        object["created"] = json!(self.now());
        object["livemode"] = json!(false);
        self.objects += 1;
        self.shelves.entry(kind).or_default().put(object.clone());
        Ok(object)
    }

    /// Lays what a request says over the object that the path names. The object before and after.
    ///
    /// # Errors
    /// 404 `resource_missing`.
    pub fn update(&mut self, kind: &'static str, call: &Call) -> Result<(Value, Value), Refusal> {
        let before = self.named(kind, call)?.clone();
        let mut after = before.clone();
        overlay(&mut after, &call.params);
        if before.get("updated").is_some() {
            after["updated"] = json!(self.now());
        }
        self.replace(kind, &after);
        Ok((before, after))
    }

    /// Puts an object in the place of what has its id.
    pub fn replace(&mut self, kind: &'static str, object: &Value) {
        let place = object["id"].as_str().and_then(|id| self.shelves.get_mut(kind)?.get_mut(id));
        if let Some(place) = place {
            place.clone_from(object);
        }
    }

    /// Takes an object away altogether.
    pub fn remove(&mut self, kind: &'static str, id: &str) {
        if self.shelves.get_mut(kind).and_then(|shelf| shelf.remove(id)).is_some() {
            self.objects -= 1;
        }
    }

    /// A page of the objects of a kind that a filter takes.
    ///
    /// # Errors
    /// Those of [`page`].
    pub fn list(
        &self,
        kind: &'static str,
        call: &Call,
        filter: impl Fn(&Value) -> bool,
    ) -> Result<Value, Refusal> {
        let rows = self.shelf(kind).into_iter().flat_map(Shelf::newest_first);
        page(rows.filter(|object| filter(object)), &call.params, &call.path)
    }

    /// The object of this id, of whatever kind it is: for `expand`.
    pub fn any(&self, id: &str) -> Option<&Value> {
        self.shelves.values().find_map(|shelf| shelf.get(id))
    }

    /// How many objects of a kind there ever were.
    pub fn count(&self, kind: &'static str) -> usize {
        self.shelf(kind).map_or(0, Shelf::len)
    }
}

/// `billing.meter` is a meter in errors.
fn last_word(kind: &str) -> &str {
    kind.rsplit('.').next().unwrap_or(kind)
}

/// Lays parameters over an object. Objects are laid over objects; in `metadata` an empty text takes a pair away, and
/// clearing all of it leaves none.
pub fn overlay(object: &mut Value, given: &Map<String, Value>) {
    for (name, value) in given {
        let place = &mut object[name.as_str()];
        match (name.as_str(), value) {
            ("metadata", Value::Null) => *place = json!({}),
            ("metadata", Value::Object(pairs)) => {
                if !place.is_object() {
                    *place = json!({});
                }
                if let Some(kept) = place.as_object_mut() {
                    for (key, text) in pairs {
                        if text == "" {
                            kept.remove(key)
                        } else {
                            kept.insert(key.clone(), text.clone())
                        };
                    }
                }
            }
            (_, Value::Object(inner)) if place.is_object() => overlay(place, inner),
            _ => place.clone_from(value),
        }
    }
}
