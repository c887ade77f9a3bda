//! The binary as its users run it: `weir dev` twice, a production start, management commands, what goes wrong.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The binary with nothing of this process's environment.
fn weir(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.current_dir(dir).env_clear().env("WEIR_METRICS__LISTEN", "127.0.0.1:0");
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the binary runs")
}

fn stdout_json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on stdout")
}

/// A running service. Killed when dropped, unless it was stopped before.
struct Running {
    child: Child,
    log: std::thread::JoinHandle<String>,
}

impl Running {
    /// Starts `command` and waits for the line on stdout (or stderr) that holds `ready`.
    fn start(mut command: Command, ready: &str) -> (Self, String) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        let (say, hear) = std::sync::mpsc::channel();
        let mut log = Vec::new();
        for stream in [Box::new(stdout) as Box<dyn Read + Send>, Box::new(stderr)] {
            let say = say.clone();
            log.push(std::thread::spawn(move || {
                let mut all = String::new();
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = say.send(line.clone());
                    all.push_str(&line);
                    all.push('\n');
                }
                all
            }));
        }
        drop(say);
        let mut seen = String::new();
        loop {
            let line = hear.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| {
                let _ = child.kill();
                panic!("not ready; it said:\n{seen}")
            });
            seen.push_str(&line);
            seen.push('\n');
            if line.contains(ready) {
                break;
            }
        }
        let log = std::thread::spawn(move || log.into_iter().map(|t| t.join().expect("read")).collect());
        (Self { child, log }, seen)
    }

    /// Sends SIGTERM; the exit code must be 0. Everything it printed.
    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        self.log.join().expect("the log")
    }
}

fn dev(dir: &Path) -> (Running, Value) {
    let mut command = weir(dir);
    command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir", "data"]).env("WEIR_LOG__FILTER", "trace");
    let (running, _) = Running::start(command, "The same is in");
    let text = std::fs::read(dir.join("data/dev.json")).expect("dev.json");
    (running, serde_json::from_slice(&text).expect("JSON"))
}

fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

async fn call(url: &str, key: &str) -> (u16, Value) {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "get_status", "arguments": {} } });
    let mut request = reqwest::Client::builder().no_proxy().build().expect("a client").post(url).json(&body);
    if !key.is_empty() {
        request = request.bearer_auth(key);
    }
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test]
async fn dev_creates_once_and_prints_nothing_but_on_stdout() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, made) = dev(dir.path());
    let mode = std::fs::metadata(dir.path().join("data/dev.json")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (url, sse) = (field(&made, "url"), field(&made, "sse_url"));
    let (key, token, operator) =
        (field(&made, "api_key"), field(&made, "url_token"), field(&made, "operator_key"));
    let (status, answer) = call(url, key).await;
    assert_eq!((status, &answer["result"]["isError"]), (200, &json!(false)), "{answer}");
    assert_eq!(call(&format!("{url}?token={token}"), "").await.0, 200);
    assert_eq!(call(&format!("{url}?token={key}"), "").await.0, 401, "an API key must not stand in a URL");
    assert_eq!(call(url, &format!("{key}x")).await.0, 401);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let stream = client.get(format!("{sse}?token={token}")).send().await.expect("a stream");
    assert_eq!(stream.status(), 200);
    drop(stream);
    let base = url.trim_end_matches("/mcp");
    let tenants = client.get(format!("{base}/admin/v1/tenants")).bearer_auth(operator).send().await;
    assert_eq!(tenants.expect("an answer").status(), 200);
    let printed = first.stop();
    let log: String = printed.lines().filter(|line| line.starts_with('{')).collect();
    assert!(log.contains("answered"), "the access log is there");
    for secret in [key, token, operator] {
        assert!(!log.contains(secret) && !log.contains(&secret[3..40]), "a secret is in the log");
    }

    let (second, again) = dev(dir.path());
    for name in ["api_key", "url_token", "operator_key"] {
        assert_eq!(made[name], again[name], "{name}");
    }
    assert_eq!(call(field(&again, "url"), key).await.0, 200);
    second.stop();

    std::fs::remove_file(dir.path().join("data/dev.json")).expect("removed");
    let (third, fresh) = dev(dir.path());
    assert_ne!(made["api_key"], fresh["api_key"]);
    assert_eq!(call(field(&fresh, "url"), field(&fresh, "api_key")).await.0, 200);
    third.stop();
}

#[tokio::test]
async fn production_needs_a_migrated_database_and_hears_of_what_the_command_line_does() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("weir.toml"), "[server]\nlisten = \"127.0.0.1:0\"\n").expect("written");
    let with_config = |args: &[&str]| {
        let mut command = weir(dir.path());
        command.args(args).args(["--config", "weir.toml"]);
        command
    };
    let refused = run(&mut with_config(&["serve"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("weir migrate"));
    assert!(!dir.path().join("weir.db").exists(), "serve must not create a database");
    assert!(run(&mut with_config(&["migrate"])).status.success());

    let (running, said) = Running::start(with_config(&["serve"]), "\"ready\"");
    let ready: Value = said.lines().rev().find_map(|l| serde_json::from_str(l).ok()).expect("a log line");
    let url = format!("http://{}/mcp", field(&ready, "listen"));
    let tenant = stdout_json(&run(&mut with_config(&["tenant", "create", "acme"])));
    let tenant = field(&tenant, "id");
    let key = stdout_json(&run(&mut with_config(&["key", "create", "--tenant", tenant, "--name", "ci"])));
    assert_eq!(call(&url, field(&key, "secret")).await.0, 200);

    let revoked = run(&mut with_config(&["key", "revoke", field(&key, "id"), "--tenant", tenant]));
    assert!(revoked.status.success());
    let since = Instant::now();
    while call(&url, field(&key, "secret")).await.0 == 200 {
        assert!(since.elapsed() < Duration::from_secs(3), "the revocation is not heard of");
    }

    let small = r#"{"key": {"per_second": 9, "burst": 9}}"#;
    let set = stdout_json(&run(&mut with_config(&["plan", "set", "small", "--limits", small])));
    assert_eq!(set["limits"], json!({ "key": { "per_second": 9, "burst": 9 } }));
    assert_eq!(stdout_json(&run(&mut with_config(&["plan", "show", "small"]))), set);
    let on = stdout_json(&run(&mut with_config(&["tenant", "set-plan", tenant, "small"])));
    assert_eq!(on["plan"], "small");
    let listed = run(&mut with_config(&["plan", "list"]));
    assert!(String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.starts_with("small ")));
    let refused = run(&mut with_config(&["plan", "delete", "small"]));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("1 tenants are on this plan"));
    assert_eq!(
        stdout_json(&run(&mut with_config(&["tenant", "set-plan", tenant, "default"])))["plan"],
        "default"
    );
    assert!(run(&mut with_config(&["plan", "delete", "small"])).status.success());

    let create = ["key", "create", "--tenant", tenant, "--name", "b", "--limits", r#"{"burst": 8}"#];
    let other = stdout_json(&run(&mut with_config(&create)));
    assert_eq!(other["limits"], json!({ "burst": 8 }));
    let limits = ["key", "set-limits", field(&other, "id"), "--tenant", tenant, "--limits", "{}"];
    assert_eq!(stdout_json(&run(&mut with_config(&limits)))["limits"], json!({}));
    assert!(run(&mut with_config(&["tenant", "suspend", tenant])).status.success());
    let since = Instant::now();
    let code = loop {
        let (status, answer) = call(&url, field(&other, "secret")).await;
        if status != 200 {
            break answer["error"]["code"].clone();
        }
        assert!(since.elapsed() < Duration::from_secs(3), "the suspension is not heard of");
    };
    assert_eq!(code, json!(-31003));
    let health = run(weir(dir.path()).args(["health", "--url", &url.replace("/mcp", "/health")]));
    assert!(health.status.success());
    let said = running.stop();
    let steps = ["no longer ready", "no longer accepting", "everything has ended", "\"stopped\""];
    let places = steps.map(|step| {
        assert_eq!(said.matches(step).count(), 1, "{step} in\n{said}");
        said.find(step)
    });
    assert!(places.is_sorted(), "{said}");
}

#[test]
fn mistakes_are_named_on_stderr_with_an_exit_code() {
    let dir = tempfile::tempdir().expect("a directory");
    for (args, env, code, text) in [
        (&["serve"][..], ("WEIR_SERVER__LISTEN", "nowhere"), 1, "server.listen"),
        (&["serve"], ("WEIR_SERVER__LISTN", "127.0.0.1:0"), 1, "WEIR_SERVER__LISTEN"),
        (&["serve"], ("WEIR_DATABASE__URL", "mysql://user:hunter2@db/x"), 1, "database.url"),
        (&["serve", "--config", "missing.toml"], ("X", ""), 1, "missing.toml"),
        (&["tenant", "suspend", "acme"], ("X", ""), 2, "tn"),
        (&["nonsense"], ("X", ""), 2, "nonsense"),
        (&["health", "--url", "http://127.0.0.1:1/health"], ("X", ""), 1, "127.0.0.1:1"),
    ] {
        let output = run(weir(dir.path()).args(args).env(env.0, env.1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(text), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty() && !stderr.contains("hunter2"), "{args:?}");
    }
    for command in [
        "dev",
        "serve",
        "migrate",
        "tenant",
        "key",
        "plan",
        "usage",
        "ledger",
        "operator-key",
        "probe",
        "health",
    ] {
        let output = run(weir(dir.path()).args([command, "--help"]));
        assert!(output.status.success() && output.stdout.len() > 100, "{command}");
    }
}
