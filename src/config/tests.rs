//! What the loader takes and what it says to the rest.

use std::io::Write;
use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::merge::ISSUER;
use super::{Config, DEFAULTS, Issuer, Layers};

const SECRET: &str = "hunter2";

fn env(name: &str, value: &str) -> Layers {
    Layers { env: vec![(name.to_owned(), value.to_owned())], ..Layers::default() }
}

fn file(text: &str) -> (tempfile::NamedTempFile, Layers) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("writing it");
    let layers = Layers { file: Some(file.path().to_owned()), ..Layers::default() };
    (file, layers)
}

fn refusal(layers: Layers) -> String {
    let path = layers.file.clone().map(|path| path.display().to_string());
    let debug = format!("{layers:?}");
    let error = layers.load().expect_err("this must not load");
    let text = error.to_string();
    for place in [&text, &format!("{error:?}"), &debug] {
        assert!(!place.contains(SECRET), "a secret is printed: {place}");
    }
    path.map_or(text.clone(), |path| text.replace(&path, "FILE"))
}

#[test]
fn every_key_has_a_default() {
    // A field without a key is a missing field, a key without a field is an unknown one: both fail here.
    let config = Layers::default().load().expect("the defaults are good");
    assert_eq!(config.server.listen.port(), 8080);
    assert_eq!(config.admin.listen, None);
    let table: toml::Table = DEFAULTS.parse().expect("TOML");
    table.try_into::<Config>().expect("every key");
}

#[test]
fn every_key_of_an_issuer_is_checked() {
    let template: toml::Table = ISSUER.parse().expect("TOML");
    template.clone().try_into::<Issuer>().expect("every key");
    let mut odd = template.clone();
    odd.insert("zzz".to_owned(), true.into());
    let error = odd.try_into::<Issuer>().expect_err("an unknown key").to_string();
    let fields: Vec<_> = error.split("expected one of ").nth(1).expect("a list").split('`').collect();
    for field in fields.iter().skip(1).step_by(2) {
        assert!(template.contains_key(*field), "{field} is not in merge::ISSUER");
        assert!(DEFAULTS.contains(&format!("{field} =")), "{field} is not in default.toml");
    }
}

#[test]
fn later_layers_win() {
    let (_file, mut layers) =
        file("[limits.tenant]\nper_second = 1\nburst = 2\nstreams = 3\n[otel]\nsample_ratio = 1\n");
    layers.env.push(("WEIR_LIMITS__TENANT__BURST".to_owned(), "20".to_owned()));
    layers.env.push(("WEIR_LIMITS__TENANT__STREAMS".to_owned(), "30".to_owned()));
    layers.env.push(("PATH".to_owned(), "/bin".to_owned()));
    layers.flags.push(("limits.tenant.streams".to_owned(), "300".to_owned()));
    let config = layers.load().expect("all good");
    let tenant = config.limits.tenant;
    assert_eq!((tenant.per_second, tenant.burst, tenant.streams, tenant.sessions), (1, 20, 300, 1000));
}

#[test]
fn text_is_read_as_the_type_of_the_default() {
    let set = |name: &str, value: &str| env(name, value).load().expect("good");
    assert_eq!(
        set("WEIR_SERVER__ALLOWED_HOSTS", "a.example, b.example,").server.allowed_hosts,
        ["a.example", "b.example"]
    );
    assert_eq!(set("WEIR_SERVER__ALLOWED_HOSTS", r#"["a.example"]"#).server.allowed_hosts, ["a.example"]);
    assert!(set("WEIR_SERVER__ALLOWED_HOSTS", "").server.allowed_hosts.is_empty());
    assert!(!set("WEIR_ADMIN__ENABLED", "false").admin.enabled);
    assert!((set("WEIR_OTEL__SAMPLE_RATIO", "0.25").otel.sample_ratio - 0.25).abs() < f64::EPSILON);
    assert_eq!(set("WEIR_METRICS__LISTEN", "").metrics.listen, None);
    assert_eq!(
        set("WEIR_DATABASE__URL", "postgres://a@b/c").database.url.expose_secret(),
        "postgres://a@b/c"
    );
    let dns = set("WEIR_TOOLS__DNS__RESOLVERS", "9.9.9.9,127.0.0.1:5353,::1,[::1]:54,[::2]").tools.dns;
    let shown: Vec<_> = dns.resolvers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["9.9.9.9:53", "127.0.0.1:5353", "[::1]:53", "[::1]:54", "[::2]:53"]);
    let proxies = set("WEIR_SERVER__TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.1").server.trusted_proxies;
    assert_eq!(proxies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "192.0.2.1/32"]);
}

#[test]
fn issuers_come_as_toml_or_json() {
    for text in [
        r#"[{ issuer = "https://a.example", jwks_file = "/k.json", algorithms = ["ES256"] }]"#,
        r#"[{"issuer": "https://a.example", "jwks_file": "/k.json", "algorithms": ["ES256"]}]"#,
    ] {
        let issuers = env("WEIR_AUTH__ISSUERS", text).load().expect("good").auth.issuers;
        assert_eq!(issuers[0].jwks_file, Some(PathBuf::from("/k.json")));
        assert_eq!(issuers[0].tenant_claim, "tenant_id");
        assert_eq!(issuers[0].skew.get().as_secs(), 30);
    }
}

#[test]
fn variables_that_kubernetes_sets_are_passed_over() {
    for (name, value) in [
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("WEIR_METRICS_SERVICE_HOST", "10.0.0.1"),
        ("WEIR_SERVICE_PORT_HTTP", "80"),
        ("WEIR_PORT", "tcp://10.0.0.1:80"),
        ("WEIR_PORT_80_TCP_ADDR", "10.0.0.1"),
    ] {
        assert!(env(name, value).load().is_ok(), "{name}");
    }
    assert!(env("WEIR_PORT", "8080").load().is_err());
}

#[test]
fn wrong_files_are_named() {
    let table = [
        (
            "[server]\nlisten = 5",
            "configuration key server.listen (file FILE): expected a string, found a whole number",
        ),
        (
            "[server]\nlisen = \"x\"",
            "configuration key server.lisen (file FILE): unknown key; did you mean server.listen?",
        ),
        ("[sever]\nlisten = \"x\"", "configuration key sever (file FILE): unknown key; did you mean server?"),
        (
            "[cache]\nurl = \"hunter2\"",
            "configuration key cache (file FILE): unknown key; config/default.toml lists them all",
        ),
        (
            "server = 1",
            "configuration key server (file FILE): is a section; expected a table, found a whole number",
        ),
        (
            "[database]\nurl = [\"hunter2\"]",
            "configuration key database.url (file FILE): expected a string, found a list",
        ),
        ("[database]\n\nurl = postgres://u:hunter2@h/d", "configuration file FILE, line 3: not valid TOML: "),
        (
            "[auth]\nissuers = [\"x\"]",
            "configuration key auth.issuers[0] (file FILE): expected a table, found a string",
        ),
        (
            "[[auth.issuers]]\njwks_uri = \"x\"",
            "configuration key auth.issuers[0].jwks_uri (file FILE): unknown key; did you mean auth.issuers[0].jwks_url?",
        ),
        (
            "[[auth.issuers]]\nalgorithms = [\"RS256\"]",
            "configuration key auth.issuers[0] (file FILE): missing field `issuer`",
        ),
        (
            "[[auth.issuers]]\nissuer = \"https://a\"\nalgorithms = [\"HS256\"]\njwks_file = \"/k\"",
            "configuration key auth.issuers[0].algorithms (file FILE): expected at least one of RS256, RS384, RS512, \
             PS256, PS384, PS512, ES256, ES384, EdDSA (symmetric algorithms are refused)",
        ),
        (
            "[[auth.issuers]]\nissuer = \"https://a\"\nalgorithms = [\"RS256\"]",
            "configuration key auth.issuers[0] (file FILE): expected exactly one of jwks_url and jwks_file",
        ),
        (
            "[[auth.issuers]]\nissuer = \"https://a\"\nalgorithms = [\"RS256\"]\njwks_url = \"http://a/keys\"",
            "configuration key auth.issuers[0].jwks_url (file FILE): expected an absolute https URL (http on \
             loopback only) without a user",
        ),
        (
            "[server]\nallowed_hosts = [1]",
            "configuration key server.allowed_hosts[0] (file FILE): expected a string, found a whole number",
        ),
    ];
    for (text, expected) in table {
        let (_file, layers) = file(text);
        let found = refusal(layers);
        let same = if expected.ends_with(": ") { found.starts_with(expected) } else { found == expected };
        assert!(same, "{text}\n  found    {found}\n  expected {expected}");
    }
    let absent = Layers { file: Some("/nonexistent/weir.toml".into()), ..Layers::default() };
    assert_eq!(refusal(absent), "configuration file FILE: No such file or directory (os error 2)");
}

#[test]
fn wrong_values_are_named() {
    let whole = "expected a whole number from 0 to 4294967295";
    let table: &[(&str, &str, &str)] = &[
        ("SERVER__LISTEN", "8080", "expected ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080"),
        ("SERVER__MAX_HEADERS", "many", &format!("{whole}, found other text")),
        ("SERVER__MAX_HEADERS", "-1", &format!("{whole}, found one outside of that range")),
        ("SERVER__MAX_HEADERS", "4294967296", &format!("{whole}, found one outside of that range")),
        ("SERVER__MAX_HEADER_BYTES", "8191", "expected 8192 to 1048576"),
        ("SERVER__MAX_JSON_DEPTH", "128", "expected 8 to 127"),
        ("SERVER__DEAD_PEER_TIMEOUT_MS", "999", "expected 1000 to 3600000 milliseconds"),
        (
            "SERVER__TRUSTED_PROXIES",
            "10.0.0.0/40",
            "expected networks such as 10.0.0.0/8 or fd00::/8, or single addresses",
        ),
        ("SERVER__ALLOWED_HOSTS", "[\"a\"", "expected commas between the entries, or a TOML or JSON array"),
        ("ADMIN__ENABLED", "yes", "expected true or false, found other text"),
        (
            "ADMIN__LISTEN",
            "127.0.0.1:8080",
            "expected an address other than server.listen, or an empty string to share it",
        ),
        (
            "METRICS__LISTEN",
            "9464",
            "expected ADDRESS:PORT, such as 127.0.0.1:9464 or [::1]:9464, or an empty string for none",
        ),
        (
            "METRICS__LISTEN",
            "127.0.0.1:8080",
            "expected an address of its own, other than server.listen and admin.listen",
        ),
        ("DATABASE__MAX_CONNECTIONS", "hunter2", &format!("{whole}, found other text")),
        ("DATABASE__MAX_CONNECTIONS", "0", "expected 1 to 10000"),
        ("AUTH__INVALIDATION_POLL_MS", "1001", "expected 1 to 1000 milliseconds"),
        ("AUTH__INVALIDATION_POLL_MS", "0", "expected 1 to 1000 milliseconds"),
        ("AUTH__ISSUERS", "https://a", "expected a table, found a string"),
        ("LIMITS__KEY__BURST", "0", "expected 1 to 1000000"),
        ("LIMITS__TENANT__STREAMS", "0", "expected 1 to 4294967295"),
        ("MCP__HEARTBEAT_MS", "0", "expected 1 to 600000 milliseconds"),
        ("MCP__SERVER_NAME", "", "expected a name of 1 to 128 bytes"),
        (
            "TOOLS__DNS__RESOLVERS",
            "dns.example",
            "expected addresses such as 9.9.9.9, 9.9.9.9:53, 2620:fe::fe or [2620:fe::fe]:53",
        ),
        ("TOOLS__DNS__RESOLVERS", "9.9.9.9:0", "expected ports from 1 to 65535"),
        ("LOG__FILTER", "weir=loud", "expected a filter such as info or weir=debug,warn"),
        ("LOG__FORMAT", "xml", "expected one of `auto`, `human`, `json`"),
        ("OTEL__SAMPLE_RATIO", "1.5", "expected a number from 0 to 1"),
        ("OTEL__SAMPLE_RATIO", "NaN", "expected a number from 0 to 1"),
        ("SERVER", "x", "is a section; expected a key in it"),
        ("SERVER__LISTEN", "\u{fffd}", "expected valid UTF-8"),
        ("SERVER_LISTEN", "x", "unknown key; did you mean WEIR_SERVER__LISTEN?"),
        ("LIMITS__IP__PER_SECONDS", "1", "unknown key; did you mean WEIR_LIMITS__IP__PER_SECOND?"),
        (
            "REDIS__URL",
            "redis://:hunter2@r",
            "expected an empty string with sqlite: only replicas on one PostgreSQL share a Redis",
        ),
        ("REDIS__PREFIX", "a{b}", "expected 1 to 64 letters, digits and -_.:"),
        ("REDIS__LEASE_MS", "1", "expected 500 to 60000 milliseconds"),
        ("REDIS_URL", "hunter2", "unknown key; did you mean WEIR_REDIS__URL?"),
        ("SOMETHING_ELSE_ENTIRELY", "hunter2", "unknown key; config/default.toml lists them all"),
    ];
    for (name, value, expected) in table {
        let variable = format!("WEIR_{name}");
        let found = refusal(env(&variable, value));
        let (head, problem) = found.split_once("): ").expect("a key, a layer and a problem");
        assert!(head.ends_with(&format!("(environment variable {variable}")), "{head}");
        assert_eq!(problem, *expected, "{name}={value}");
    }
}

#[test]
fn urls_are_refused_without_being_repeated() {
    for (name, values) in [
        (
            "DATABASE__URL",
            &["mysql://u:hunter2@h/d", "hunter2", "sqlite:", "postgres://u:hunter2@h:port/d"][..],
        ),
        (
            "SERVER__PUBLIC_URL",
            &["mcp.example.com", "https://u:hunter2@a", "https://a/mcp", "ftp://a", "https:a", "https://a?b"],
        ),
        ("OTEL__ENDPOINT", &["127.0.0.1:4318", "grpc://a:4317", "http://u:hunter2@a/v1/traces"]),
        ("SERVER__ALLOWED_ORIGINS", &["https://a.example/", "*", "https://u:hunter2@a"]),
        ("SERVER__ALLOWED_HOSTS", &["a.example:443", "https://a.example"]),
    ] {
        for value in values {
            let found = refusal(env(&format!("WEIR_{name}"), value));
            assert!(found.contains("): expected "), "{name}={value}: {found}");
        }
    }
}

#[test]
fn flags_are_named() {
    let layers = Layers { flags: vec![("server.listen".to_owned(), "here".to_owned())], ..Layers::default() };
    assert_eq!(
        refusal(layers),
        "configuration key server.listen (command line): expected ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080"
    );
}

#[test]
fn a_configuration_does_not_print_its_secrets() {
    let config = env("WEIR_DATABASE__URL", "postgres://u:hunter2@h/d").load().expect("good");
    assert!(!format!("{config:?}").contains(SECRET));
}
