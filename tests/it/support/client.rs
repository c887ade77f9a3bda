//! Requests that can be bent before they are sent, and what comes back.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::{Events, within};

/// A request that is not sent yet.
#[derive(Clone)]
pub struct Draft {
    http: reqwest::Client,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Option<Value>,
}

impl Draft {
    /// A request without a body.
    pub fn new(http: &reqwest::Client, method: Method, url: String) -> Self {
        Self { http: http.clone(), method, url, headers: HeaderMap::new(), body: None }
    }

    /// A POST of one JSON-RPC message, with what every MCP client sends.
    pub fn post(http: &reqwest::Client, url: String, body: Value) -> Self {
        Self::new(http, Method::POST, url)
            .body(body)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
    }

    /// Sets a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(parse_name(name), HeaderValue::from_str(value).expect("a header value"));
        self
    }

    /// Sets a header once more.
    pub fn also(mut self, name: &str, value: &str) -> Self {
        self.headers.append(parse_name(name), HeaderValue::from_str(value).expect("a header value"));
        self
    }

    /// Leaves a header out.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Sends `Authorization: Bearer`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Adds to the URL.
    pub fn query(mut self, query: &str) -> Self {
        self.url = format!("{}?{query}", self.url);
        self
    }

    /// Sends this instead.
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Sets a field of the body, by JSON pointer; the object around it must be there.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let name = name.replace("~1", "/");
        let body = self.body.as_mut().expect("a body");
        body.pointer_mut(parent).expect("an object").as_object_mut().expect("an object").insert(name, value);
        self
    }

    /// Takes a field out of the body.
    pub fn unset(mut self, pointer: &str) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let name = name.replace("~1", "/");
        let body = self.body.as_mut().expect("a body");
        body.pointer_mut(parent).expect("an object").as_object_mut().expect("an object").remove(&name);
        self
    }

    /// Asks for progress under this token.
    pub fn progress(self, token: Value) -> Self {
        let body = self.body.as_ref().expect("a body");
        let meta = body.pointer("/params/_meta").is_some();
        let draft = if meta { self } else { self.set("/params/_meta", json!({})) };
        draft.set("/params/_meta/progressToken", token)
    }

    /// Sends it and returns when the head of the response is there.
    pub async fn open(self) -> reqwest::Response {
        within("a response", self.try_open()).await.expect("a response")
    }

    /// The same where the answer may not come.
    pub async fn try_open(self) -> reqwest::Result<reqwest::Response> {
        let mut request = self.http.request(self.method, &self.url).headers(self.headers);
        if let Some(body) = self.body {
            request = request.body(body.to_string());
        }
        request.send().await
    }

    /// Sends it and reads all that comes back; nothing where the connection is refused.
    pub async fn unless_refused(self) -> Option<Reply> {
        match within("a response", self.try_open()).await {
            Ok(response) => Some(Reply::of(response).await),
            Err(error) if error.is_connect() => None,
            Err(error) => panic!("a request was lost: {error:?}"),
        }
    }

    /// Sends it and reads the stream that must come back.
    pub async fn stream(self) -> Events {
        Events::of(self.open().await)
    }

    /// Sends it and reads all that comes back.
    pub async fn send(self) -> Reply {
        Reply::of(self.open().await).await
    }
}

fn parse_name(name: &str) -> HeaderName {
    name.parse().expect("a header name")
}

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
    /// The JSON of the body: one value, or those of all events.
    pub messages: Vec<Value>,
}

impl Reply {
    async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let kind = headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        if kind == "text/event-stream" {
            let messages = Events::of(response).rest().await;
            return Self { status, text: String::new(), messages, headers };
        }
        let text = within("a body", response.text()).await.expect("a body");
        let messages = serde_json::from_str(&text).into_iter().collect();
        Self { status, headers, text, messages }
    }

    /// The last message: the response proper.
    pub fn json(&self) -> &Value {
        self.messages.last().unwrap_or(&Value::Null)
    }

    /// The JSON-RPC result.
    pub fn result(&self) -> &Value {
        let result = self.json().get("result");
        result.unwrap_or_else(|| panic!("no result: {} {} {:?}", self.status, self.text, self.messages))
    }

    /// The text of a tool's result.
    pub fn tool_text(&self) -> &str {
        self.result()["content"][0]["text"].as_str().unwrap_or("")
    }

    /// The HTTP status and the JSON-RPC error code; 0 where there is no error.
    pub fn error(&self) -> (u16, i64) {
        (self.status, self.json().pointer("/error/code").and_then(Value::as_i64).unwrap_or(0))
    }

    /// The JSON-RPC error's message.
    pub fn message(&self) -> &str {
        self.json().pointer("/error/message").and_then(Value::as_str).unwrap_or("")
    }

    /// A header of the response.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the response was an event stream.
    pub fn is_stream(&self) -> bool {
        self.header("content-type") == Some("text/event-stream")
    }
}
