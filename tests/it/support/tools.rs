//! The server `lab`: tools that misbehave on request. Self-contained, so that an example can include it by path.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use weir::caller::Principal;
use weir::error::Result;
use weir::mcp::bus::Changed;
use weir::mcp::content::{Content, PromptMessage, ResourceContents, Role, ToolResult};
use weir::mcp::request::LogLevel;
use weir::mcp::result::InputRequired;
use weir::providers::{
    Call, Completing, Completion, Failure, PromptResult, PromptSpec, Provider, Reference, Reply,
    ResourceSpec, TemplateSpec, ToolSpec, Toolkit, Variables,
};

/// The server's name.
pub const SERVER: &str = "lab";
/// What `fails` fails with; no client may ever see it.
pub const SECRET_CAUSE: &str = "connecting to db.internal:5432 failed: password=hunter2";
/// A resource that can be subscribed to.
pub const NOTE: &str = "lab://note";

/// What `notify` is told to let `asks_when_told` go on.
pub const GO: &str = "lab://go";

/// How long `slow_count_cancelled` waits for the number that it was asked for.
const PATIENCE: Duration = Duration::from_secs(5);

type Answer<T> = std::result::Result<T, Failure>;

/// The provider.
///
/// # Errors
/// None in practice: the descriptions are fixed.
pub fn provider() -> Result<Arc<dyn Provider>> {
    let kit = Toolkit::new(SERVER);
    let kit = count(kit)?;
    let kit = broken(kit)?;
    let kit = risky(kit)?;
    let kit = work(kit)?;
    let kit = talkative(kit)?;
    Ok(readable(kit)?.build())
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// How many counts of each caller were cancelled.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<HashMap<Principal, watch::Sender<u32>>>>);

impl Tally {
    fn of(&self, call: &Call) -> watch::Sender<u32> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(call.caller().principal().clone()).or_insert_with(|| watch::Sender::new(0)).clone()
    }
}

/// A count that is under way; dropped before it is done, it was cancelled.
struct Counting {
    cancelled: watch::Sender<u32>,
    done: bool,
}

impl Counting {
    fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if !self.done {
            self.cancelled.send_modify(|count| *count += 1);
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SlowCount {
    /// How far to count.
    steps: u32,
    /// Milliseconds from one number to the next.
    delay_ms: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cancelled {
    /// Wait until so many were cancelled.
    #[serde(default)]
    at_least: u32,
}

fn count(kit: Toolkit) -> Result<Toolkit> {
    let tally = Tally::default();
    let asked = tally.clone();
    let slow = ToolSpec::new("slow_count").description("Counts slowly and reports progress.").read_only();
    let cancelled = ToolSpec::new("slow_count_cancelled")
        .description("Says how many of your slow counts were cancelled.")
        .read_only();
    kit.tool(slow, move |call: Call, SlowCount { steps, delay_ms }| {
        let counting = Counting { cancelled: tally.of(&call), done: false };
        async move {
            for step in 1..=steps {
                call.progress(f64::from(step), Some(f64::from(steps)), None);
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            counting.finish();
            Ok(ToolResult::text(format!("counted to {steps}")))
        }
    })?
    .tool(cancelled, move |call: Call, Cancelled { at_least }| {
        let mut count = asked.of(&call).subscribe();
        async move {
            let reached = count.wait_for(|count| *count >= at_least);
            let _ = tokio::time::timeout(PATIENCE, reached).await;
            let now = *count.borrow();
            Ok(ToolResult::text(now.to_string()))
        }
    })
}

fn broken(kit: Toolkit) -> Result<Toolkit> {
    kit.tool(ToolSpec::new("panics").read_only(), |_: Call, Nothing {}| async move {
        if true {
            panic!("a tool of the test suite panics on purpose");
        }
        Ok(ToolResult::default())
    })?
    .tool(ToolSpec::new("fails").read_only(), |_: Call, Nothing {}| async move {
        Err::<ToolResult, _>(Failure::System(SECRET_CAUSE.into()))
    })?
    .tool(ToolSpec::new("hangs").read_only(), |_: Call, Nothing {}| async move {
        std::future::pending::<()>().await;
        Ok(ToolResult::default())
    })?
    .tool(ToolSpec::new("refuses").read_only(), |_: Call, Nothing {}| async move {
        Ok(ToolResult::error("Not today. Ask again tomorrow."))
    })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Big {
    /// Length of the text to answer with.
    bytes: usize,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Echo {
    /// What to repeat.
    text: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Routed {
    region: Option<String>,
    shard: Option<i64>,
    at: Option<Place>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Place {
    dry: Option<bool>,
}

fn risky(kit: Toolkit) -> Result<Toolkit> {
    let routed = json!({
        "type": "object",
        "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "shard": { "type": "integer", "x-mcp-header": "Shard" },
            "at": { "type": "object", "properties": { "dry": { "type": "boolean", "x-mcp-header": "Dry" } } }
        }
    });
    kit.tool(
        ToolSpec::new("destroys"),
        |_: Call, Nothing {}| async move { Ok(ToolResult::text("destroyed")) },
    )?
    .tool(ToolSpec::new("writes").additive(), |_: Call, Nothing {}| async move {
        Ok(ToolResult::text("written"))
    })?
    .tool(ToolSpec::new("big").read_only(), |_: Call, Big { bytes }| async move {
        Ok(ToolResult::text("x".repeat(bytes)))
    })?
    .tool(ToolSpec::new("echo").read_only().idempotent(), |_: Call, Echo { text }| async move {
        Ok(ToolResult::text(text))
    })?
    .tool(
        ToolSpec::new("routed").read_only().input_schema(routed),
        |_: Call, Routed { region, shard, at }| async move {
            let dry = at.and_then(|at| at.dry);
            Ok(ToolResult::text(json!({ "region": region, "shard": shard, "dry": dry }).to_string()))
        },
    )
}

/// How a piece of work ends.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Ending {
    #[default]
    Ok,
    /// A business error.
    No,
    /// A system error.
    Breaks,
    Panics,
    Hangs,
    /// With a question first, and then well.
    Asks,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Work {
    /// Which piece of work.
    id: String,
    #[serde(default)]
    ending: Ending,
    /// Milliseconds that it takes.
    #[serde(default)]
    delay_ms: u64,
    /// Length of what comes out.
    #[serde(default)]
    bytes: usize,
    /// The same work if it comes again.
    #[serde(default)]
    request_id: Option<String>,
}

/// Where work is recorded, beside the ledger: appended to the file that this variable names.
pub const RECORD: &str = "WEIR_TEST_RECORD";

/// Work that has begun and work that was done, in the words of whoever does it. Each line is one write, so that it is there
/// whole or not at all, whatever becomes of the process.
#[derive(Clone, Default)]
struct Worked {
    file: Option<Arc<std::fs::File>>,
    runs: Arc<Mutex<HashMap<String, u32>>>,
}

impl Worked {
    fn open() -> std::io::Result<Self> {
        let open = |path| std::fs::File::options().create(true).append(true).open(path).map(Arc::new);
        Ok(Self { file: std::env::var_os(RECORD).map(open).transpose()?, runs: Arc::default() })
    }

    fn note(&self, what: &str, call: &Call, id: &str) {
        use std::io::Write;
        if let Some(mut file) = self.file.as_deref() {
            let line = format!("{what} {} {} {id}\n", call.caller().tenant(), call.id());
            file.write_all(line.as_bytes()).expect("the record can be written");
        }
    }

    fn run(&self, id: &str) -> u32 {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let count = runs.entry(id.to_owned()).or_default();
        *count += 1;
        *count
    }
}

fn work(kit: Toolkit) -> Result<Toolkit> {
    let worked = Worked::open().map_err(|error| weir::error::Error::Invalid(error.to_string()))?;
    let spec = ToolSpec::new("work")
        .description(
            "Does a piece of work, records that it did, and says how often this process has done it.",
        )
        .additive()
        .idempotency_argument("request_id");
    let free = ToolSpec::new("given_away").description("Costs nothing under any plan.").read_only().free();
    kit.tool(spec, move |call: Call, Work { id, ending, delay_ms, bytes, request_id }| {
        let worked = worked.clone();
        async move {
            worked.note("begin", &call, &id);
            if let Some(request) = request_id {
                call.log(LogLevel::Debug, Some(SERVER), &json!(request));
            }
            let runs = worked.run(&id);
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            match ending {
                Ending::Asks if call.inputs().get("opinion").is_none() => return Ok(ask(&call, &id)),
                Ending::Ok | Ending::Asks => {}
                Ending::No => {
                    worked.note("end", &call, &id);
                    return Ok(ToolResult::error("No.").into());
                }
                Ending::Breaks => return Err(Failure::System(SECRET_CAUSE.into())),
                Ending::Panics => panic!("work of the test suite panics on purpose"),
                Ending::Hangs => std::future::pending().await,
            }
            worked.note("end", &call, &id);
            Ok(ToolResult::text(format!("{id} {runs} {}", "x".repeat(bytes))).into())
        }
    })?
    .tool(free, |_: Call, Nothing {}| async move { Ok(ToolResult::text("a gift")) })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asks {
    /// What the question is about.
    topic: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Inquires {
    /// What to ask for in each round: form, choices, url, model, roots, or nothing at all.
    rounds: Vec<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Releases {
    /// Milliseconds from letting the connection go to the answer.
    delay_ms: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Notify {
    /// What changed: tools, prompts, resources, or the URI of a resource.
    what: String,
    /// Whether only the caller's tenant is told.
    #[serde(default)]
    mine: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Talks {
    /// How many messages of each severity to send.
    messages: u32,
}

/// Asks one question, and then says what was answered and what it remembered.
fn ask(call: &Call, topic: &str) -> Reply<ToolResult> {
    let Some(answer) = call.inputs().get("opinion") else {
        let schema = json!({
            "type": "object", "properties": { "opinion": { "type": "string" } }, "required": ["opinion"]
        });
        let question = format!("What do you think of {topic}?");
        let input = InputRequired::new().elicit("opinion", &question, &schema);
        return Reply::ask(input.remember(json!({ "topic": topic, "round": 1 })));
    };
    let text = json!({ "answer": answer, "state": call.state() }).to_string();
    ToolResult::text(text).into()
}

/// Asks round after round, and then says what was answered in each.
fn inquire(call: &Call, rounds: &[Vec<String>]) -> Reply<ToolResult> {
    let mut heard = call.state().and_then(Value::as_array).cloned().unwrap_or_default();
    if call.state().is_some() {
        let keys = ["form", "url", "model", "roots"];
        heard.push(keys.iter().filter_map(|key| Some((*key, call.inputs().get(key)?.clone()))).collect());
    }
    let Some(wanted) = rounds.get(heard.len()) else {
        return ToolResult::text(Value::from(heard).to_string()).into();
    };
    let mut input = InputRequired::new().remember(heard.into());
    for what in wanted {
        input = match what.as_str() {
            "form" => {
                let schema = json!({ "type": "object", "properties": { "age": { "type": "integer" } } });
                input.elicit("form", "How old?", &schema)
            }
            "choices" => {
                let all = json!({ "type": "array", "items": { "type": "string", "enum": ["a", "b"] } });
                let schema = json!({ "type": "object", "properties": { "all": all } });
                input.elicit("form", "Which?", &schema)
            }
            "url" => input.elicit_url("url", "Please sign in", "https://login.test/"),
            "model" => input.sample("model", json!({ "messages": [], "maxTokens": 9 })),
            _ => input.list_roots("roots"),
        };
    }
    Reply::ask(input)
}

fn notify(call: &Call, what: &str, mine: bool) -> ToolResult {
    let what = match what {
        "tools" => Changed::Tools,
        "prompts" => Changed::Prompts,
        "resources" => Changed::Resources,
        uri => Changed::Resource(uri.into()),
    };
    if mine {
        call.notifier().changed_for(call.caller().tenant(), what);
    } else {
        call.notifier().changed(what);
    }
    ToolResult::text("told")
}

fn talkative(kit: Toolkit) -> Result<Toolkit> {
    let go = watch::Sender::new(());
    let kit = inquisitive(kit, &go)?;
    kit.tool(ToolSpec::new("asks").read_only(), |call: Call, Asks { topic }| async move {
        Ok(ask(&call, &topic))
    })?
    .tool(ToolSpec::new("notify").read_only(), move |call: Call, Notify { what, mine }| {
        if what == GO {
            go.send_replace(());
        }
        let told = notify(&call, &what, mine);
        async move { Ok(told) }
    })?
    .tool(ToolSpec::new("talks").read_only(), |call: Call, Talks { messages }| async move {
        for number in 1..=messages {
            for level in [LogLevel::Debug, LogLevel::Info, LogLevel::Warning, LogLevel::Error] {
                call.log(level, Some("lab"), &json!({ "number": number }));
            }
        }
        Ok(ToolResult::text("said"))
    })
}

fn inquisitive(kit: Toolkit, go: &watch::Sender<()>) -> Result<Toolkit> {
    let asked = go.clone();
    kit.tool(ToolSpec::new("inquire").read_only(), |call: Call, Inquires { rounds }| async move {
        Ok(inquire(&call, &rounds))
    })?
    .tool(ToolSpec::new("asks_when_told").read_only(), move |call: Call, Nothing {}| {
        let mut told = asked.subscribe();
        async move {
            call.progress(1.0, None, None);
            if call.inputs().is_empty() {
                let _ = told.changed().await;
                return Ok(Reply::ask(InputRequired::new().list_roots("roots")));
            }
            Ok(ToolResult::text("heard").into())
        }
    })?
    .tool(ToolSpec::new("release").read_only(), |call: Call, Releases { delay_ms }| async move {
        call.progress(1.0, None, None);
        call.close_stream();
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        call.progress(2.0, None, None);
        Ok(ToolResult::text("released"))
    })
}

fn note(uri: String, found: &Variables) -> Answer<Reply<Vec<ResourceContents>>> {
    match found.get("id").map(String::as_str) {
        Some("missing") => Err(Failure::NotFound),
        Some("broken") => Err(Failure::System(SECRET_CAUSE.into())),
        id => {
            let text = format!("note {}", id.unwrap_or(""));
            Ok(vec![ResourceContents::text(uri, "text/plain", text)].into())
        }
    }
}

fn readable(kit: Toolkit) -> Result<Toolkit> {
    let greeting = PromptSpec::new("greet")
        .description("A greeting.")
        .argument("name", "Whom to greet", true)
        .argument("tone", "How", false);
    kit.resource(&ResourceSpec::new(NOTE, "A note", "text/plain"), |_: Call| async move {
        Ok(vec![ResourceContents::text(NOTE, "text/plain", "a note")].into())
    })?
    .template(
        &TemplateSpec::new("lab://notes/{id}", "Notes", "text/plain"),
        |_: Call, (uri, found)| async move { note(uri, &found) },
    )?
    .prompt(greeting, |_: Call, arguments: BTreeMap<String, String>| async move {
        let text = format!("Say hello to {}.", arguments.get("name").map_or("", String::as_str));
        let message = PromptMessage { role: Role::User, content: Content::text(text) };
        Ok(PromptResult {
            description: Some("A greeting".to_owned()),
            messages: vec![message],
            meta: Map::from_iter([("lab.test/kind".to_owned(), json!("greeting"))]),
        }
        .into())
    })
    .map(|kit| {
        kit.completion(
            |_: Call, (what, typing): (Reference, Completing)| async move { complete(&what, &typing) },
        )
    })
}

fn complete(what: &Reference, typing: &Completing) -> Answer<Completion> {
    let all: Vec<String> = match (what, typing.name.as_str()) {
        (Reference::Prompt(name), "tone") if name == "greet" => {
            ["formal", "friendly", "funny"].map(str::to_owned).to_vec()
        }
        (Reference::Template(_), "id") => (0..300).map(|n| format!("n{n}")).collect(),
        _ => Vec::new(),
    };
    let values: Vec<_> = all.into_iter().filter(|value| value.starts_with(&typing.value)).collect();
    Ok(Completion { total: u32::try_from(values.len()).ok(), has_more: false, values })
}
