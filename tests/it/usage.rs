//! What tenants used, as operators and tenants see it; and whether the ledger is right, as the command says.

use std::process::{Command, Output};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection};
use weir::clock::Timestamp;
use weir::id::{CallId, GrantId, MeterId, PeriodId, PriceVersionId, SlabId, TenantId};

use crate::support::{Gateway, Key, Modern};

const DAY: i64 = 86_400_000_000;
const TERMS: &str =
    r#"{"kind":"hybrid","included":"10","hard_cap":"20","tools":[{"name":"*","per_call":"1.5"}]}"#;

/// Writes rows that no call of this test makes.
async fn execute(gateway: &Gateway, sql: String) {
    let url = gateway.database_url();
    if url.starts_with("sqlite:") {
        let mut connection = sqlx::SqliteConnection::connect(url).await.expect("a database");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("executed");
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.expect("a database");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("executed");
    }
}

/// Puts a tenant on a plan with prices five days ago, for thirty days, and charges it for `calls` calls of yesterday: of
/// the first four, the slab is closed.
async fn charged(gateway: &Gateway, key: &Key, calls: i64) {
    let now = weir::clock::Clock::system().now().as_micros();
    let (begin, end) = (now - 5 * DAY, now + 25 * DAY);
    let tenant = key.tenant;
    let (version, period, grant, meter) =
        (PriceVersionId::new(), PeriodId::new(), GrantId::new(), MeterId::new());
    let [first, second] = [SlabId::new(), SlabId::new()];
    let open = (calls - 4) * 1_500_000;
    let digest = hex(TERMS);
    let mut sql = format!(
        "insert into price_versions values ('{version}', 'gold', 1, {begin}, {begin}, 'cli', '{TERMS}', '{digest}');
         insert into accounts (tenant_id, cycle, anchor_at, spend_cap, revision, created_at, updated_at)
             values ('{tenant}', 'anchored', {begin}, null, 0, {begin}, {begin});
         insert into meters values ('{meter}', {begin}, {now}, null);
         insert into periods (id, tenant_id, plan, price_version_id, starts_at, ends_at, hard_cap)
         values ('{period}', '{tenant}', 'gold', '{version}', {begin}, {end}, 20000000);
         insert into grants (id, tenant_id, kind, source, granted, used, leased, granted_at, expires_at)
         values ('{grant}', '{tenant}', 'included', 'period:{period}', 10000000, 6000000, 4000000, {begin}, {end});"
    );
    for place in 0..calls {
        let slab = if place < 4 { first } else { second };
        sql += &format!(
            "insert into calls values ('{}', '{tenant}', '{}', 'lab', 'echo', 'ok', {}, 1, 2, 3, 'x', '{period}', '{version}',
             '{meter}', {now}, 1500000, 1500000, 0, 0, 0, '[[\"{slab}\",1500000]]', null);",
            CallId::new(),
            key.id,
            now - DAY + place,
        );
    }
    // After the calls: those of slabs that are there would be drawn again.
    sql += &format!(
        "insert into slabs values ('{first}', '{tenant}', '{period}', '{grant}', '{meter}', 7000000, 6000000, {begin}, {now});
         insert into slabs values ('{second}', '{tenant}', '{period}', '{grant}', '{meter}', 4000000, {open}, {begin}, null);"
    );
    execute(gateway, sql).await;
}

fn hex(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    data_encoding::HEXLOWER.encode(digest.as_ref())
}

fn day(offset: i64) -> String {
    let at = weir::clock::Clock::system().now().as_micros() + offset * DAY;
    Timestamp::from_micros(at).to_string()[..10].to_owned()
}

/// The binary on the gateway's database.
fn weir(gateway: &Gateway, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.env_clear().env("WEIR_DATABASE__URL", gateway.database_url());
    command.args(args).output().expect("the binary runs")
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn path(tenant: TenantId, what: &str, query: &str) -> String {
    format!("/admin/v1/tenants/{tenant}/{what}?from={}&to={}{query}", day(-3), day(1))
}

#[tokio::test]
async fn an_operator_sees_what_a_tenant_used() {
    let gateway = Gateway::start().await;
    let (operator, key, other) = (gateway.operator().await, gateway.caller().await, gateway.caller().await);
    charged(&gateway, &key, 6).await;
    let client = Modern::new(&gateway, &other);
    for text in ["a", "b"] {
        client.call("echo", json!({ "text": text })).await.result();
    }
    client.call("no_such_tool", json!({})).await;
    gateway.is_recorded().await;

    let by_tool = operator.get(&path(key.tenant, "usage", "&by=tool")).await;
    assert_eq!(by_tool.status, 200, "{}", by_tool.text);
    let line = &by_tool.json()["data"][0];
    assert_eq!(
        (
            &line["server"],
            &line["tool"],
            &line["calls"],
            &line["charged"],
            &line["credits"],
            &line["included"]
        ),
        (&json!("lab"), &json!("echo"), &json!(6), &json!(6), &json!("9"), &json!("9"))
    );
    let by_day = operator.get(&path(key.tenant, "usage", "")).await;
    assert_eq!((&by_day.json()["by"], &by_day.json()["data"][0]["day"]), (&json!("day"), &json!(day(-1))));
    let by_key = operator.get(&path(other.tenant, "usage", "&by=key")).await;
    let line = &by_key.json()["data"][0];
    assert_eq!((&line["key"], &line["calls"], &line["credits"]), (&json!(other.id), &json!(2), &json!("0")));

    let page = operator.get(&path(key.tenant, "calls", "&limit=4")).await;
    let (rows, cursor) = (page.json()["data"].as_array().expect("calls").len(), &page.json()["next_cursor"]);
    assert_eq!(rows, 4, "{}", page.text);
    let rest = path(key.tenant, "calls", &format!("&limit=4&cursor={}", cursor.as_str().expect("more")));
    let rest = operator.get(&rest).await;
    assert_eq!(
        (rest.json()["data"].as_array().expect("calls").len(), &rest.json()["next_cursor"]),
        (2, &Value::Null)
    );
    let call = &rest.json()["data"][1];
    assert_eq!(
        (&call["credits"], &call["given_back"], &call["key"]),
        (&json!("1.5"), &json!("0"), &json!(key.id))
    );
    let foreign = path(other.tenant, "calls", &format!("&cursor={}", cursor.as_str().expect("more")));
    assert_eq!(operator.get(&foreign).await.json()["data"], json!([]));

    let base = format!("/admin/v1/tenants/{}", key.tenant);
    for (what, status, part) in [
        ("usage", 400, "from"),
        ("usage?from=2026-01-01&to=2026-13-01", 422, "YYYY-MM-DD"),
        ("usage?from=2026-01-02&to=2026-01-01", 422, "to: expected a day from 2026-01-02 on"),
        ("usage?from=2025-01-01&to=2026-06-01", 422, "at most 400 days"),
        ("usage?from=2026-01-01&to=2026-01-02&by=week", 400, "week"),
        ("calls?from=2026-01-01&to=2026-01-02&limit=0", 400, "limit"),
    ] {
        let reply = operator.get(&format!("{base}/{what}")).await;
        assert!(
            reply.status == status && reply.text.contains(part),
            "{what}: {} {}",
            reply.status,
            reply.text
        );
    }
    let nobody = operator.get(&path(TenantId::new(), "usage", "")).await;
    assert_eq!(nobody.status, 404);
}

#[tokio::test]
async fn usage_is_shown_and_exported_on_the_command_line() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    charged(&gateway, &key, 6).await;
    let tenant = key.tenant.to_string();
    let (from, to) = (day(-3), day(0));
    let what = |command: &'static str, more: &[&'static str]| {
        let args = ["usage", command, "--tenant", &tenant, "--from", &from, "--to", &to];
        weir(&gateway, &[&args, more].concat())
    };
    let table = printed(&what("show", &["--by", "server"]));
    assert!(
        table.lines().nth(1).is_some_and(|line| line.starts_with("lab     6      6        0       9 ")),
        "{table}"
    );
    let line: Value = serde_json::from_str(&printed(&what("show", &["--json"]))).expect("one line");
    assert_eq!((&line["day"], &line["calls"], &line["credits"]), (&json!(day(-1)), &json!(6), &json!("9")));
    let csv = printed(&what("export", &["--format", "csv", "--by", "tool"]));
    assert_eq!(
        csv,
        "server,tool,calls,charged,failed,credits,included,promotional,prepaid,overage,request_bytes,result_bytes,duration_us\r\n\
         lab,echo,6,6,0,9,9,0,0,0,12,18,6\r\n"
    );
    let calls = printed(&what("export", &["--format", "json", "--calls"]));
    let calls: Vec<Value> = calls.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((calls.len(), &calls[5]["credits"]), (6, &json!("1.5")));
    let csv = printed(&what("export", &["--format", "csv", "--calls"]));
    assert_eq!((csv.lines().count(), csv.starts_with("id,started_at,key,")), (7, true));
    for (args, part) in [
        (["--tenant", "nobody", "--from", &from, "--to", &to], "there is no tenant"),
        (["--tenant", &tenant, "--from", &to, "--to", &from], "--to: expected"),
        (["--tenant", &tenant, "--from", "yesterday", "--to", &to], "YYYY-MM-DD"),
    ] {
        let failed = weir(&gateway, &[&["usage", "show"][..], &args].concat());
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(!failed.status.success() && said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn the_ledger_is_verified_while_the_gateway_runs() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    charged(&gateway, &key, 6).await;
    Modern::new(&gateway, &gateway.caller().await).call("echo", json!({ "text": "x" })).await.result();
    gateway.is_recorded().await;
    let said = printed(&weir(&gateway, &["ledger", "verify"]));
    assert!(said.lines().any(|line| line.starts_with("draws") && line.contains("  6")), "{said}");
    let tenant = key.tenant.to_string();
    let grants =
        format!("update grants set used = used + 1, leased = leased - 1 where tenant_id = '{tenant}'");
    execute(&gateway, grants).await;
    let failed = weir(&gateway, &["ledger", "verify", "--tenant", &tenant]);
    let (said, why) = (String::from_utf8_lossy(&failed.stdout), String::from_utf8_lossy(&failed.stderr));
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("grants: 1 wrong, such as") && why.contains("1 of 17 checks"), "{said}{why}");
    let failed = weir(&gateway, &["ledger", "verify", "--json"]);
    let report: Value = serde_json::from_slice(&failed.stdout).expect("JSON");
    let wrong = report["checks"].as_array().expect("checks").iter().filter(|check| check["wrong"] != 0);
    assert_eq!(wrong.map(|check| &check["check"]).collect::<Vec<_>>(), ["grants"]);
}

#[tokio::test]
async fn a_tenant_asks_what_it_has_used() {
    let gateway = Gateway::start().await;
    let (key, other) = (gateway.caller().await, gateway.caller().await);
    let client = Modern::new(&gateway, &other);
    client.call("echo", json!({ "text": "x" })).await.result();
    gateway.is_recorded().await;
    let free = client.call("get_usage", json!({})).await;
    let said = &free.result()["structuredContent"];
    assert_eq!(
        (&said["charged"], &said["plan"], &said["left"]),
        (&json!(false), &json!("default"), &Value::Null)
    );
    assert!(free.tool_text().contains("Nothing is charged on this plan."), "{}", free.tool_text());
    assert_eq!(said["by_tool"][0]["tool"], "echo");

    charged(&gateway, &key, 6).await;
    let narrow = gateway.scoped(key.tenant, json!({ "servers": ["core"] })).await;
    let full = Modern::new(&gateway, &key).call("get_usage", json!({})).await;
    let said = &full.result()["structuredContent"];
    assert_eq!((&said["charged"], &said["plan"]), (&json!(true), &json!("gold")));
    assert_eq!(said["used"], json!({ "credits": "9", "owed": "0", "calls": 6 }));
    let left = json!({ "included": "1", "promotional": "0", "prepaid": "0", "until_cap": "20" });
    assert_eq!((&said["left"], &said["period"]["days_left"]), (&left, &json!(25)));
    assert!(
        said["forecast"]["credits"]
            .as_str()
            .is_some_and(|credits| credits.starts_with("53.99") || credits.starts_with("54")),
        "{said}"
    );
    assert_eq!(said["by_tool"], json!([{ "server": "lab", "tool": "echo", "calls": 6, "credits": "9" }]));
    assert!(
        full.tool_text().starts_with("Plan gold, period ")
            && full.tool_text().contains("9 credits used in 6 calls")
    );
    let hidden = Modern::new(&gateway, &narrow).call("get_usage", json!({})).await;
    let said = &hidden.result()["structuredContent"];
    assert_eq!(
        (&said["by_tool"], &said["other_tools"]),
        (&json!([]), &json!({ "tools": 1, "calls": 6, "credits": "9" }))
    );
}
