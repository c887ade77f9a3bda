//! What is in Redis: few keys, each with an end and a documented name, and no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use weir::clock::Clock;
use weir::tasks::Tasks;

use crate::credentials_jwt::Issuer;
use crate::support::flavours::Server;
use crate::support::legacy::Old;
use crate::support::services::{self, Deployment};
use crate::support::tools::NOTE;
use crate::support::{Gateway, Key, Legacy};

/// What a key's name is after the prefix, with ids by their kinds: all that there may be. docs/OPERATIONS.md says what they
/// are for.
const NAMES: [&str; 21] = [
    "reaping",
    "tenants",
    "{replicas}:all",
    "{replicas}:dead",
    "{replicas}:epoch",
    "{replicas}:held:rep_",
    "{replicas}:live",
    "{replicas}:to:rep_",
    "{tn_}:busy",
    "{tn_}:bytes",
    "{tn_}:held:calls",
    "{tn_}:held:questions",
    "{tn_}:held:streams",
    "{tn_}:rate",
    "{tn_}:rate:key:",
    "{tn_}:rate:server:",
    "{tn_}:rate:tool:",
    "{tn_}:ses_",
    "{tn_}:ses_:",
    "{tn_}:ses_:running",
    "{tn_}:sessions",
];

/// Everything that is sent to a server.
struct Wire(Arc<Mutex<Vec<String>>>, Tasks);

impl Wire {
    async fn tap(server: &Server) -> Self {
        let monitor = server.client().get_async_monitor().await.expect("Redis");
        let (lines, tasks) = (Arc::new(Mutex::default()), Tasks::new());
        let kept: Arc<Mutex<Vec<String>>> = lines.clone();
        let stop = tasks.stopping().clone();
        tasks.spawn(stop.run_until_cancelled_owned(async move {
            let mut lines = monitor.into_on_message::<String>();
            while let Some(line) = lines.next().await {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        }));
        Self(lines, tasks)
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

/// The name of a key, with ids by their kinds.
fn general(name: &str) -> String {
    let mut general = String::new();
    let mut rest = name;
    while let Some(at) = ["tn_", "rep_", "ses_"].iter().filter_map(|kind| rest.find(kind)).min() {
        let (before, id) = rest.split_at(at);
        let kind = &id[..=id.find('_').expect("a kind")];
        general.push_str(before);
        general.push_str(kind);
        rest = &id[kind.len() + 26..];
    }
    general + rest
}

/// The documented name that this is one of.
fn documented(name: &str) -> Option<&'static str> {
    let general = general(name);
    let of = |documented: &&str| match documented.strip_suffix(':') {
        Some(_) => general.starts_with(*documented) && general.len() > documented.len(),
        None => general == **documented,
    };
    // The longest: a stream of a session is none of what has a name of its own.
    NAMES.iter().filter(|name| of(name)).max_by_key(|name| name.trim_end_matches(':').len()).copied()
}

async fn dump(server: &Server, key: &str) -> String {
    let command = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(if *word == "KEY" { key } else { word });
        });
        command
    };
    let kind: String = server.run_command(&command(&["TYPE", "KEY"])).await;
    let read = match &*kind {
        "string" => command(&["GET", "KEY"]),
        "hash" => command(&["HGETALL", "KEY"]),
        "zset" => command(&["ZRANGE", "KEY", "0", "-1"]),
        "stream" => command(&["XRANGE", "KEY", "-", "+"]),
        "none" => return String::new(),
        other => panic!("{key} is a {other}"),
    };
    format!("{:?}", server.run_command::<redis::Value>(&read).await)
}

/// Keys of everything that can be done, while it is being done.
struct Busy {
    secrets: Vec<String>,
    _open: (Vec<Legacy>, Vec<Old>, Vec<crate::support::Events>),
}

async fn busy(replicas: &[Gateway], keys: &[Key]) -> Busy {
    let [a, b] = replicas else { panic!("two replicas") };
    let able = json!({ "elicitation": { "form": {} } });
    let (mut secrets, mut sessions, mut olds, mut events) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for key in keys {
        secrets.push(key.secret.clone());
        let session = Legacy::open_with(a, key, "2025-11-25", able.clone()).await;
        secrets.push(session.id.clone());
        session.at(b).send("resources/subscribe", json!({ "uri": NOTE })).await.result();
        session.at(b).send("logging/setLevel", json!({ "level": "debug" })).await.result();
        let mut stream = session.at(b).stream().await;
        stream.next_of_any_kind().await.expect("the stream is open");
        session.call("notify", json!({ "what": NOTE })).await.result();
        stream.message().await;
        let mut asking = session.at(b).draft_call("asks", &json!({ "topic": "tea" })).stream().await;
        asking.message().await;
        let count = json!({ "steps": 1000, "delay_ms": 100 });
        let count = session.draft_call("slow_count", &count).progress(json!("p"));
        let mut counting = count.stream().await;
        let first = counting.next().await.expect("progress").id.expect("an id");
        drop(counting);
        let resumed = session.at(b).draft_resume(&first).stream().await;
        let mut old = Old::connect(a, Old::hello(a, "/sse").bearer(&key.secret)).await;
        let hello = crate::support::legacy::initialize("2024-11-05");
        assert_eq!(old.post_at(b, hello).send().await.status, 202);
        old.events.message().await;
        let hang = json!({ "name": "hangs", "arguments": {} });
        let hang = json!({ "jsonrpc": "2.0", "id": "hangs", "method": "tools/call", "params": hang });
        assert_eq!(old.post_at(b, hang).send().await.status, 202);
        secrets.push(old.id().to_owned());
        sessions.push(session);
        olds.push(old);
        events.extend([stream, asking, resumed]);
    }
    Busy { secrets, _open: (sessions, olds, events) }
}

#[tokio::test]
async fn every_key_ends_and_has_a_documented_name_and_no_secret_is_in_any() {
    services::needed("WEIR_TEST_POSTGRES");
    let server = Server::node(None, "").await;
    let wire = Wire::tap(&server).await;
    let issuer = Issuer::new();
    let set = |builder: crate::support::gateway::Builder| {
        let builder = builder.set("auth.issuers", issuer.config()).set("server.public_url", Issuer::PUBLIC);
        let builder = builder.set("limits.tenant.bytes_per_second", 1_000_000);
        builder.set("limits.tenant.bytes_burst", 10_000_000).set("redis.lease_ms", "1000")
    };
    let deployment = Deployment::replicated(server.url(server.address())).await;
    let first = set(Gateway::build().on(deployment)).start().await;
    let second = set(first.replica()).start().await;
    let replicas = [first, second];
    let gateway = &replicas[0];
    let (one, two) = (gateway.tenant("one").await, gateway.tenant("two").await);
    let end = Clock::system().now().plus(Duration::from_secs(600));
    let token = issuer.token_until(two, end);
    let keys = [
        gateway.key(one).await,
        gateway.url_token(one).await,
        Key { secret: token, ..gateway.key(two).await },
    ];
    let busy = busy(&replicas, &keys).await;

    let prefix = format!("{}:", gateway.app.config.redis.prefix);
    let mut seen = BTreeMap::<&str, u64>::new();
    let mut everything = String::new();
    let mut tenants = BTreeSet::new();
    let all: Vec<String> = server.ask("KEYS *").await;
    for key in &all {
        let name = key.strip_prefix(&prefix).unwrap_or_else(|| panic!("{key} is not ours"));
        let ends: i64 = server.ask(&format!("PTTL {key}")).await;
        assert!(ends != -1, "{key} does not end");
        let documented = documented(name).unwrap_or_else(|| panic!("nobody documented {key}"));
        if documented.contains("tn_") {
            tenants.insert(name[..name.find('}').expect("a tag")].to_owned());
        }
        everything += &format!("{key} {}\n", dump(&server, key).await);
        let bytes: Option<u64> = server.ask(&format!("MEMORY USAGE {key}")).await;
        let most = seen.entry(documented).or_default();
        *most = bytes.unwrap_or(0).max(*most);
    }
    assert_eq!(tenants.len(), 2);
    // All but what belongs to limits that nobody has set, and to the dead.
    let unused = ["{replicas}:dead", "{tn_}:rate:server:", "{tn_}:rate:tool:"];
    let expected: BTreeSet<_> = NAMES.into_iter().filter(|name| !unused.contains(name)).collect();
    eprintln!("{seen:#?}");
    assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), expected);
    assert!(seen["{tn_}:ses_"] <= 1024, "a session is small");

    let sent = wire.text();
    assert!(sent.contains("slow_count") || sent.contains("XADD"), "the wire is tapped");
    for secret in &busy.secrets {
        // Without its kind and without its end, which lists show as a hint.
        let middle = &secret[3..secret.len() - 4];
        for (text, place) in [(&everything, "kept in"), (&sent, "sent to")] {
            assert!(!text.contains(&middle[..middle.len() / 2]), "half of {secret} is {place} Redis");
            assert!(!text.contains(&middle[middle.len() / 2..]), "half of {secret} is {place} Redis");
        }
    }
    assert!(!server.has_denied().await);
    wire.1.stopping().cancel();
}
