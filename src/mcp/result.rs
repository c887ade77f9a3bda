//! Results: the top-level fields of a `result` object, kept as raw JSON until the era of the client decides what
//! stands around them.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::error::RpcError;

/// How long, in milliseconds, a client may keep a result (2026-07-28 "Caching"). The scope is always `private`:
/// what a caller sees depends on its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheHint {
    /// `ttlMs`.
    pub ttl_ms: u64,
}

/// One request that the client must answer before the call can go on (2026-07-28 "InputRequests").
#[derive(Debug, Clone, Serialize)]
pub struct InputRequest {
    /// `elicitation/create`, `sampling/createMessage` or `roots/list`.
    pub method: String,
    /// The request's parameters.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub params: Value,
}

/// The call needs input before it can complete (2026-07-28 "InputRequiredResult").
#[derive(Debug, Clone, Default)]
pub struct InputRequired {
    /// What to ask, by a key that the tool finds the answer under.
    pub requests: Map<String, Value>,
    /// What the tool wants to find again on the retry. Sealed before it leaves.
    pub state: Option<Value>,
}

impl InputRequired {
    /// Nothing asked so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for one more thing.
    #[must_use]
    pub fn ask(mut self, key: &str, request: &InputRequest) -> Self {
        self.requests.insert(key.to_owned(), json!({ "method": request.method, "params": request.params }));
        self
    }

    /// Asks the user to fill in a form (`elicitation/create`, form mode).
    #[must_use]
    pub fn elicit(self, key: &str, message: &str, schema: &Value) -> Self {
        let params = json!({ "mode": "form", "message": message, "requestedSchema": schema });
        self.ask(key, &InputRequest { method: "elicitation/create".to_owned(), params })
    }

    /// Sends the user to a URL, for what must not pass through the client (`elicitation/create`, URL mode). Agreeing says
    /// only that the user went there.
    #[must_use]
    pub fn elicit_url(self, key: &str, message: &str, url: &str) -> Self {
        let params = json!({ "mode": "url", "message": message, "url": url });
        self.ask(key, &InputRequest { method: "elicitation/create".to_owned(), params })
    }

    /// Asks the client's model (`sampling/createMessage`, with its `params`).
    #[must_use]
    pub fn sample(self, key: &str, params: Value) -> Self {
        self.ask(key, &InputRequest { method: "sampling/createMessage".to_owned(), params })
    }

    /// Asks for the client's roots (`roots/list`).
    #[must_use]
    pub fn list_roots(self, key: &str) -> Self {
        self.ask(key, &InputRequest { method: "roots/list".to_owned(), params: json!({}) })
    }

    /// Why this must not be sent, if it must not (2026-07-28 "Server Requirements": something has to be asked or
    /// remembered, and there are three things that a client can be asked for).
    pub(crate) fn fault(&self) -> Option<&'static str> {
        const METHODS: [&str; 3] = ["elicitation/create", "sampling/createMessage", "roots/list"];
        if self.requests.is_empty() && self.state.is_none() {
            return Some("it needs input but asks for nothing and remembers nothing");
        }
        let known = |request: &Value| METHODS.iter().any(|method| request["method"] == *method);
        (!self.requests.values().all(known))
            .then_some("it asks for something that clients cannot be asked for")
    }

    /// Keeps `state` for the retry.
    #[must_use]
    pub fn remember(mut self, state: Value) -> Self {
        self.state = Some(state);
        self
    }
}

/// The result of a request, before its era is known.
#[derive(Debug)]
pub enum CoreResult {
    /// Done.
    Complete(Complete),
    /// Input needed, with the state already sealed.
    InputRequired {
        /// `inputRequests`.
        requests: Map<String, Value>,
        /// `requestState`.
        state: Option<String>,
    },
}

/// Room for what stands around a result's fields.
const SPARE: usize = 192;

/// A finished result: its top-level fields in order.
#[derive(Debug, Default)]
pub struct Complete {
    fields: Vec<(&'static str, Box<RawValue>)>,
    meta: Map<String, Value>,
    own_meta: Option<(&'static str, String)>,
    cache: Option<CacheHint>,
}

impl Complete {
    /// An empty result, `{}`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field that is serialised already.
    #[must_use]
    pub fn raw(mut self, name: &'static str, value: Box<RawValue>) -> Self {
        self.fields.push((name, value));
        self
    }

    /// Adds a field.
    ///
    /// # Errors
    /// −32603 where `value` cannot be written as JSON.
    pub fn field(self, name: &'static str, value: &impl Serialize) -> Result<Self, RpcError> {
        let raw = serde_json::value::to_raw_value(value)
            .map_err(|_| RpcError::new(super::error::code::INTERNAL, 200, "the result is not JSON"))?;
        Ok(self.raw(name, raw))
    }

    /// Adds entries to `_meta`.
    #[must_use]
    pub fn meta(mut self, entries: Map<String, Value>) -> Self {
        self.meta.extend(entries);
        self
    }

    /// Sets an entry of `_meta` that is Weir's own and serialised already; it wins over one of the same key.
    #[must_use]
    pub fn own_meta(mut self, key: &'static str, value: String) -> Self {
        self.own_meta = Some((key, value));
        self
    }

    /// Marks the result as cacheable.
    #[must_use]
    pub fn cached(mut self, hint: CacheHint) -> Self {
        self.cache = Some(hint);
        self
    }

    fn write_fields(&self, out: &mut String) {
        for (name, value) in &self.fields {
            push_field(out, name, value.get());
        }
    }

    /// The object as a legacy client gets it: the fields and `_meta`, nothing else.
    #[must_use]
    pub fn to_legacy(&self) -> String {
        let mut out = String::with_capacity(self.size() + SPARE);
        out.push('{');
        self.write_fields(&mut out);
        if !self.meta.is_empty() || self.own_meta.is_some() {
            push_field(&mut out, "_meta", "{");
            self.write_meta(&mut out);
            out.push('}');
        }
        out.push('}');
        out
    }

    fn write_meta(&self, out: &mut String) {
        let own = self.own_meta.as_ref();
        for (key, value) in self.meta.iter().filter(|(key, _)| own.is_none_or(|(own, _)| own != key)) {
            push_field(out, key, &value.to_string());
        }
        if let Some((key, value)) = own {
            push_field(out, key, value);
        }
    }

    /// The object as a modern client gets it: with `resultType`, cache hints and who answered
    /// (`server_info` is the serialised value of `_meta["io.modelcontextprotocol/serverInfo"]`).
    #[must_use]
    pub fn to_modern(&self, server_info: &str) -> String {
        let mut out = String::with_capacity(self.size() + SPARE + server_info.len());
        out.push_str("{\"resultType\":\"complete\"");
        self.write_fields(&mut out);
        if let Some(CacheHint { ttl_ms }) = self.cache {
            out.push_str(",\"ttlMs\":");
            out.push_str(&ttl_ms.to_string());
            out.push_str(",\"cacheScope\":\"private\"");
        }
        out.push_str(",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":");
        out.push_str(server_info);
        self.write_meta(&mut out);
        out.push_str("}}");
        out
    }

    /// Bytes of the object without what every result has besides: `_meta`, `resultType`, cache hints.
    fn size(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| "\"\":,".len() + name.len() + value.get().len());
        fields.sum::<usize>().max(1) + 1
    }
}

fn push_field(out: &mut String, name: &str, value: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    // Only names that a tool chose may need escapes.
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) {
        out.push('"');
        out.push_str(name);
        out.push('"');
    } else {
        out.push_str(&Value::from(name).to_string());
    }
    out.push(':');
    out.push_str(value);
}

impl CoreResult {
    /// How many bytes the result has for what is priced and recorded by size: those of its JSON object as the tool made it,
    /// without `_meta`, `resultType` and cache hints. The same for clients of every revision. What asks for input has none.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Complete(complete) => complete.size(),
            Self::InputRequired { .. } => 0,
        }
    }

    /// The `result` object for a modern client.
    #[must_use]
    pub fn to_modern(&self, server_info: &str) -> String {
        match self {
            Self::Complete(complete) => complete.to_modern(server_info),
            Self::InputRequired { requests, state } => {
                let mut out = String::from("{\"resultType\":\"input_required\"");
                if !requests.is_empty() {
                    push_field(&mut out, "inputRequests", &Value::from(requests.clone()).to_string());
                }
                if let Some(state) = state {
                    push_field(&mut out, "requestState", &Value::from(state.as_str()).to_string());
                }
                out.push_str(",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":");
                out.push_str(server_info);
                out.push_str("}}");
                out
            }
        }
    }
}

impl From<Complete> for CoreResult {
    fn from(complete: Complete) -> Self {
        Self::Complete(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_is_the_tools_and_our_own() {
        let meta = Map::from_iter([("a \"b\"".to_owned(), json!(1)), ("own".to_owned(), json!("theirs"))]);
        let complete = Complete::new().raw("isError", RawValue::FALSE.to_owned()).meta(meta);
        let complete = complete.own_meta("own", "[2]".to_owned());
        let legacy: Value = serde_json::from_str(&complete.to_legacy()).expect("JSON");
        assert_eq!(legacy, json!({ "isError": false, "_meta": { "a \"b\"": 1, "own": [2] } }));
        let modern: Value = serde_json::from_str(&complete.to_modern("{}")).expect("JSON");
        assert_eq!(modern["_meta"]["own"], json!([2]));
        assert_eq!(complete.to_modern("{}").matches("\"own\"").count(), 1);
        assert_eq!(Complete::new().to_legacy(), "{}");
    }

    #[test]
    fn what_is_priced_is_the_object_without_meta() {
        let mut complete = Complete::new();
        for name in ["content", "isError", "structuredContent"] {
            assert_eq!(complete.size(), complete.to_legacy().len());
            complete = complete.raw(name, RawValue::FALSE.to_owned());
        }
        let size = complete.size();
        assert_eq!(size, complete.to_legacy().len());
        assert_eq!(complete.own_meta("own", "[2]".to_owned()).size(), size);
    }
}
