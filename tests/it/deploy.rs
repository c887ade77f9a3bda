//! The deployment files say nothing that the configuration does not know, and agree with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use weir::config::{Config, DEFAULTS, Layers, PREFIX};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Lines without those that are comments.
fn code(name: &str) -> String {
    text(name)
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Whatever stands between `open` and `close`.
fn between<'t>(text: &'t str, open: &str, close: char) -> Vec<&'t str> {
    text.split(open).skip(1).filter_map(|rest| rest.split(close).next()).collect()
}

/// `WEIR_SECTION__KEY` for every key of `default.toml`.
fn known_variables() -> BTreeSet<String> {
    fn walk(table: &toml::Table, prefix: &str, into: &mut BTreeSet<String>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.to_ascii_uppercase());
            match value.as_table() {
                Some(inner) => walk(inner, &format!("{key}__"), into),
                None => drop(into.insert(key)),
            }
        }
    }
    let mut known = BTreeSet::new();
    walk(&DEFAULTS.parse().expect("TOML"), PREFIX, &mut known);
    known
}

/// `NAME=value` of `.env.example`.
fn example() -> BTreeMap<String, String> {
    let text = code(".env.example");
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The environment that compose gives to Weir, with a filled-in `.env.example`.
fn compose_environment() -> Vec<(String, String)> {
    let mut values = example();
    values.insert("POSTGRES_PASSWORD".to_owned(), "0123abcd".to_owned());
    let compose = code("docker-compose.yml");
    let lines = compose.lines().filter_map(|line| line.trim().split_once(": "));
    let ours = lines.filter(|(name, _)| name.starts_with(PREFIX));
    let fill = |value: &str| {
        let mut filled = value.trim_matches('"').to_owned();
        for expression in between(value, "${", '}') {
            let name = expression.split(':').next().unwrap_or(expression);
            filled = filled.replace(&format!("${{{expression}}}"), &values[name]);
        }
        filled
    };
    ours.map(|(name, value)| (name.to_owned(), fill(value))).collect()
}

fn production() -> Config {
    let file = Some(path("deploy/weir.toml"));
    let layers = Layers { file, env: compose_environment(), flags: Vec::new() };
    layers.load().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_variable_is_a_key() {
    let known = known_variables();
    for file in
        ["docker-compose.yml", ".env.example", "Dockerfile", "deploy/weir.toml", "config/default.toml"]
    {
        let text = text(file);
        for part in text.split(PREFIX).skip(1) {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
            let name = format!("{PREFIX}{}", &part[..end]);
            let example = name == "WEIR_SECTION__KEY";
            assert!(example || known.contains(&name), "{file}: {name} is no configuration key");
        }
    }
}

#[test]
fn compose_and_the_example_name_the_same_variables() {
    let compose = code("docker-compose.yml");
    let used: BTreeSet<_> = between(&compose, "${", '}')
        .into_iter()
        .map(|e| e.split(':').next().unwrap_or(e).to_owned())
        .collect();
    let given: BTreeSet<_> = example().into_keys().collect();
    assert_eq!(used, given);
    assert!(
        text(".gitignore").lines().any(|line| line == ".env"),
        ".env holds secrets and is not ignored by git"
    );
}

#[test]
fn caddy_gets_its_variables() {
    let compose = code("docker-compose.yml");
    let caddy = compose.split("\n  caddy:\n").nth(1).expect("the service");
    let caddy = caddy.split("\n    ports:").next().expect("its environment");
    for name in between(&code("deploy/Caddyfile"), "{$", '}') {
        assert!(caddy.contains(&format!("{name}: ")), "{name} is not set for Caddy");
    }
}

#[test]
fn production_loads_and_the_ports_agree() {
    let config = production();
    let ports = [
        config.server.listen.port(),
        config.admin.listen.expect("an address of its own").port(),
        config.metrics.listen.expect("a metrics listener").port(),
    ];
    let [public, admin, metrics] = ports;
    let expose = format!("EXPOSE {public} {admin} {metrics}");
    assert!(code("Dockerfile").contains(&expose), "Dockerfile: {expose}");
    assert!(
        code("deploy/Caddyfile").contains(&format!("reverse_proxy weir:{public} ")),
        "Caddyfile: {public}"
    );
    assert!(
        code("deploy/prometheus.yml").contains(&format!("\"weir:{metrics}\"")),
        "prometheus.yml: {metrics}"
    );
    let compose = code("docker-compose.yml");
    assert!(compose.contains(&format!("\"127.0.0.1:{admin}:{admin}\"")), "compose: {admin}");
    assert_eq!(config.public_url(), format!("https://{}", example()["PUBLIC_HOST"]));
}

#[test]
fn only_caddys_address_is_trusted() {
    let trusted = production().server.trusted_proxies;
    let compose = code("docker-compose.yml");
    let caddy = between(&compose, "ipv4_address: ", '\n');
    assert_eq!(trusted.iter().map(|net| net.addr().to_string()).collect::<Vec<_>>(), caddy);
    assert!(trusted.iter().all(|net| net.prefix_len() == 32));
}

#[test]
fn there_is_time_to_drain() {
    let config = production();
    let grace = code("docker-compose.yml");
    let weir = grace.split("\n  weir:\n").nth(1).expect("the service");
    let seconds: u64 = between(weir, "stop_grace_period: ", 's')[0].parse().expect("seconds");
    let needed = config.server.drain_delay.get() + config.server.drain_timeout.get();
    // Twelve seconds for last words, last records and the database's connections, two for traces.
    assert!(
        seconds > needed.as_secs() + 14,
        "{seconds} s are too few for {needed:?} and what comes after it"
    );
    let caddy = code("deploy/Caddyfile");
    let idle: u64 = between(&caddy, "keepalive ", 's')[0].parse().expect("seconds");
    let delay = config.server.drain_delay.get();
    assert!(delay.as_secs() > idle, "Caddy may use a connection for {idle} s, and {delay:?} are left to it");
    assert!(config.server.header_read_timeout.get().as_secs() > idle);
}

#[test]
fn mounted_files_exist() {
    for line in code("docker-compose.yml").lines() {
        if let Some(mount) = line.trim().strip_prefix("- ./") {
            let file = mount.split(':').next().expect("a path");
            assert!(path(file).is_file(), "{file} is mounted and does not exist");
            assert!(mount.ends_with(":ro"), "{file} is mounted writable");
        }
    }
}

#[test]
fn caddy_streams_and_logs_no_query() {
    let caddy = code("deploy/Caddyfile");
    for part in ["flush_interval -1", r#"request>uri regexp \?.* """#, "request>headers>Referer delete"] {
        assert!(caddy.contains(part), "Caddyfile: {part}");
    }
}

#[test]
fn the_image_is_built_by_the_pinned_toolchain_and_is_not_root() {
    let toolchain: toml::Table = text("rust-toolchain.toml").parse().expect("TOML");
    let channel = toolchain["toolchain"]["channel"].as_str().expect("a version");
    let docker = code("Dockerfile");
    assert!(docker.contains(&format!("FROM rust:{channel}-")), "FROM rust:{channel}");
    assert!(docker.contains(&format!("RUSTUP_TOOLCHAIN={channel} ")), "RUSTUP_TOOLCHAIN={channel}");
    assert!(docker.contains("USER 65532:65532") && docker.contains("HEALTHCHECK"));
}
