//! 2026-07-28: what a client of the newest revision asks for, one request at a time.

use serde_json::{Value, json};

use crate::support::modern::{META_CAPABILITIES, META_VERSION};
use crate::support::tools::{NOTE, SECRET_CAUSE};
use crate::support::{Draft, Gateway, Modern};

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|one| one["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn discover_says_what_is_served() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let reply = client.send("server/discover", json!({})).await;
    let result = reply.result();
    assert_eq!(
        result["supportedVersions"],
        json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"])
    );
    assert_eq!(result["resultType"], "complete");
    assert_eq!(result["cacheScope"], "private");
    assert_eq!(result["ttlMs"], 60_000);
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "weir");
    for capability in ["tools", "resources", "prompts", "completions", "logging"] {
        assert!(result["capabilities"][capability].is_object(), "{capability}");
    }
}

#[tokio::test]
async fn discover_is_answered_without_headers_and_without_meta() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let bare = json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover" });
    let full = client.draft("server/discover", json!({}));
    for (what, draft) in [
        ("no headers", full.clone().without("mcp-method").without("mcp-protocol-version")),
        ("no Mcp-Method", full.clone().without("mcp-method")),
        ("a wrong Mcp-Method", full.clone().header("mcp-method", "tools/list")),
        (
            "nothing at all",
            Draft::post(&gateway.http, format!("{}/mcp", gateway.url), bare.clone()).bearer(&key.secret),
        ),
        (
            "a legacy version in _meta",
            full.clone().without("mcp-protocol-version").set(META_VERSION, json!("2025-11-25")),
        ),
    ] {
        let reply = draft.send().await;
        assert_eq!(reply.status, 200, "{what}: {}", reply.text);
        assert!(reply.result()["supportedVersions"].is_array(), "{what}");
    }
}

#[tokio::test]
async fn lists_are_sorted_cacheable_and_private() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let reply = client.send("tools/list", json!({})).await;
    let tools = names(&reply.result()["tools"]);
    assert!(
        tools.is_sorted() && tools.contains(&"dns_resolve") && tools.contains(&"slow_count"),
        "{tools:?}"
    );
    assert_eq!(
        (&reply.result()["cacheScope"], &reply.result()["ttlMs"]),
        (&json!("private"), &json!(60_000))
    );
    let again = client.send("tools/list", json!({})).await;
    assert_eq!(reply.result(), again.result());

    let routed = reply.result()["tools"].as_array().expect("a list").iter().find(|t| t["name"] == "routed");
    let routed = routed.expect("the tool");
    assert_eq!(routed["inputSchema"]["properties"]["region"]["x-mcp-header"], "Region");
    assert_eq!(routed["annotations"]["readOnlyHint"], true);
}

#[tokio::test]
async fn lists_come_in_pages_that_miss_nothing() {
    let gateway = Gateway::build().set("mcp.page_size", 3).start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    for (method, field) in [
        ("tools/list", "tools"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
        ("prompts/list", "prompts"),
    ] {
        let mut seen = Vec::new();
        let mut params = json!({});
        loop {
            let reply = client.send(method, params).await;
            let page = reply.result()[field].as_array().expect("a page").clone();
            assert!((1..=3).contains(&page.len()), "{method}: {}", page.len());
            seen.extend(page);
            match reply.result().get("nextCursor") {
                Some(cursor) => params = json!({ "cursor": cursor }),
                None => break,
            }
        }
        let key = |one: &Value| {
            ["uriTemplate", "uri", "name"].iter().find_map(|k| one.get(k)?.as_str().map(str::to_owned))
        };
        let keys: Vec<_> = seen.iter().map(|one| key(one).expect("a key")).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        let mut unique = keys.clone();
        unique.dedup();
        assert_eq!(keys, unique);
        let all = Gateway::start().await;
        let whole = Modern::new(&all, &all.caller().await).send(method, json!({})).await;
        assert_eq!(Value::from(seen), whole.result()[field], "{method}");
    }
}

#[tokio::test]
async fn a_cursor_that_is_none_of_ours_is_refused() {
    let gateway = Gateway::build().set("mcp.page_size", 1).start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let tools = client.send("tools/list", json!({})).await;
    let cursor = tools.result()["nextCursor"].clone();
    for (method, cursor) in [
        ("tools/list", json!("nonsense")),
        ("tools/list", json!("")),
        ("prompts/list", cursor.clone()),
        ("tools/list", json!(7)),
    ] {
        let reply = client.send(method, json!({ "cursor": cursor })).await;
        assert_eq!(reply.error(), (200, -32602), "{method} {cursor}");
    }
    let elsewhere = client.clone().at("/s/lab/mcp").send("tools/list", json!({ "cursor": cursor })).await;
    assert_eq!(elsewhere.error(), (200, -32602));
    assert!(client.send("tools/list", json!({ "cursor": cursor })).await.result()["tools"].is_array());
}

#[tokio::test]
async fn a_tool_answers_with_json_and_a_receipt() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let reply = client.call("echo", json!({ "text": "hello" })).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!((reply.tool_text(), &reply.result()["isError"]), ("hello", &json!(false)));
    assert_eq!(reply.result()["resultType"], "complete");
    let receipt = reply.result()["_meta"]["dev.weir/receipt"]["call"].as_str().expect("a call");
    assert!(receipt.starts_with("call_"), "{receipt}");
    assert!(reply.header("x-request-id").expect("an id").starts_with("req_"));

    let status = client.call("get_status", json!({})).await;
    assert_eq!(status.result()["structuredContent"]["plan"], "default");
}

#[tokio::test]
async fn a_large_result_arrives_whole() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let reply = client.call("big", json!({ "bytes": 3_000_000 })).await;
    assert_eq!(reply.tool_text().len(), 3_000_000);
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_words() {
    let gateway = Gateway::build().set("mcp.tool_timeout_ms", 100).start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);

    let refused = client.call("refuses", json!({})).await;
    assert_eq!(refused.result()["isError"], true);
    let wrong = client.call("echo", json!({ "txt": 1 })).await;
    assert_eq!(wrong.result()["isError"], true);
    assert!(wrong.tool_text().contains("text"), "{}", wrong.tool_text());
    assert_eq!(client.call("no_such_tool", json!({})).await.error(), (200, -32602));
    let nameless =
        client.draft("tools/call", json!({ "arguments": {} })).header("mcp-name", "x").send().await;
    assert_eq!(nameless.error(), (200, -32602), "{}", nameless.text);

    for tool in ["fails", "panics"] {
        let reply = client.call(tool, json!({})).await;
        assert_eq!(reply.error(), (200, -32603), "{tool}");
        let id = reply.json()["error"]["data"]["correlationId"].as_str().expect("an id");
        assert!(id.starts_with("call_") && reply.message().contains(id), "{}", reply.text);
        assert!(!reply.text.contains(SECRET_CAUSE) && !reply.text.contains("purpose"), "{}", reply.text);
    }
    let late = client.call("hangs", json!({})).await;
    assert_eq!(late.error(), (200, -31005), "{}", late.text);
    assert_eq!(late.json()["error"]["data"]["retryable"], true);
}

#[tokio::test]
async fn resources_are_read_by_name_and_by_template() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let note = client.send("resources/read", json!({ "uri": NOTE })).await;
    assert_eq!(
        note.result()["contents"],
        json!([{ "uri": NOTE, "mimeType": "text/plain", "text": "a note" }])
    );
    assert_eq!((&note.result()["ttlMs"], &note.result()["cacheScope"]), (&json!(0), &json!("private")));
    let one = client.send("resources/read", json!({ "uri": "lab://notes/7" })).await;
    assert_eq!(one.result()["contents"][0]["text"], "note 7");
    for uri in ["lab://notes/missing", "lab://nowhere", "lab://notes/a/b"] {
        let reply = client.send("resources/read", json!({ "uri": uri })).await;
        assert_eq!(reply.error(), (200, -32602), "{uri}");
        assert_eq!(reply.json()["error"]["data"]["uri"], uri);
    }
    let broken = client.send("resources/read", json!({ "uri": "lab://notes/broken" })).await;
    assert_eq!(broken.error(), (200, -32603));
    assert!(!broken.text.contains(SECRET_CAUSE));
    let settings = client.send("resources/read", json!({ "uri": "config://account/settings" })).await;
    assert!(settings.result()["contents"][0]["text"].as_str().expect("text").contains("\"plan\""));
}

#[tokio::test]
async fn prompts_are_filled_in() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let get = |params: Value| client.send("prompts/get", params);
    let reply = get(json!({ "name": "greet", "arguments": { "name": "Ada" } })).await;
    assert_eq!(reply.result()["_meta"]["lab.test/kind"], "greeting");
    assert_eq!(
        reply.result()["messages"],
        json!([{ "role": "user", "content": { "type": "text", "text": "Say hello to Ada." } }])
    );
    for params in [
        json!({ "name": "greet" }),
        json!({ "name": "greet", "arguments": { "name": 7 } }),
        json!({ "name": "no_such_prompt" }),
    ] {
        assert_eq!(get(params.clone()).await.error(), (200, -32602), "{params}");
    }
}

#[tokio::test]
async fn arguments_are_completed() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let complete = |reference: Value, name: &str, value: &str| {
        let params = json!({ "ref": reference, "argument": { "name": name, "value": value } });
        client.send("completion/complete", params)
    };
    let tone = complete(json!({ "type": "ref/prompt", "name": "greet" }), "tone", "f").await;
    assert_eq!(tone.result()["completion"]["values"], json!(["formal", "friendly", "funny"]));
    let many = complete(json!({ "type": "ref/resource", "uri": "lab://notes/{id}" }), "id", "n").await;
    let many = &many.result()["completion"];
    assert_eq!(many["values"].as_array().expect("values").len(), 100);
    assert_eq!((&many["total"], &many["hasMore"]), (&json!(300), &json!(true)));
    for reference in [
        json!({ "type": "ref/prompt", "name": "nope" }),
        json!({ "type": "ref/resource", "uri": "nope://{x}" }),
        json!({ "type": "ref/other" }),
    ] {
        assert_eq!(complete(reference.clone(), "a", "").await.error(), (200, -32602), "{reference}");
    }
}

#[tokio::test]
async fn methods_of_the_past_are_gone() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    for method in
        ["ping", "initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "made/up"]
    {
        let reply = client.send(method, json!({ "uri": NOTE })).await;
        assert_eq!(reply.error(), (404, -32601), "{method}: {}", reply.text);
        assert_eq!(reply.json()["id"], 1);
    }
}

#[tokio::test]
async fn notifications_are_accepted_in_silence() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    for method in ["notifications/cancelled", "notifications/progress", "notifications/made_up"] {
        let reply = client.draft(method, json!({ "requestId": 1 })).unset("/id").send().await;
        assert_eq!((reply.status, reply.text.as_str()), (202, ""), "{method}");
    }
}

#[tokio::test]
async fn a_version_that_is_not_served_is_named() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    for method in ["tools/list", "server/discover"] {
        let draft = client.draft(method, json!({}));
        let reply = draft.header("mcp-protocol-version", "2099-01-01").set(META_VERSION, json!("2099-01-01"));
        let reply = reply.send().await;
        assert_eq!(reply.error(), (400, -32022), "{method}: {}", reply.text);
        let data = &reply.json()["error"]["data"];
        assert_eq!(data["requested"], "2099-01-01");
        assert!(data["supported"].as_array().expect("a list").contains(&json!("2026-07-28")));
    }
}

#[tokio::test]
async fn required_meta_is_required() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let list = client.draft("tools/list", json!({}));
    for (what, draft) in [
        ("no _meta", list.clone().unset("/params/_meta")),
        ("no params", list.clone().unset("/params")),
        ("no version", list.clone().unset(META_VERSION)),
        ("no capabilities", list.clone().unset(META_CAPABILITIES)),
        ("capabilities of a wrong type", list.clone().set(META_CAPABILITIES, json!([]))),
    ] {
        assert_eq!(draft.send().await.error(), (400, -32602), "{what}");
    }
}

#[tokio::test]
async fn a_server_has_a_url_of_its_own() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await).at("/s/lab/mcp");
    let reply = client.send("tools/list", json!({})).await;
    let tools = names(&reply.result()["tools"]);
    assert!(tools.contains(&"echo") && !tools.contains(&"dns_resolve"), "{tools:?}");
    assert_eq!(client.call("get_status", json!({})).await.error(), (200, -32602));
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    let nowhere = client.at("/s/nowhere/mcp").send("tools/list", json!({})).await;
    assert_eq!(nowhere.error(), (404, -32600));
}
