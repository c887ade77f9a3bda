//! `initialize` of each legacy revision ("Lifecycle: Initialization").

use serde_json::json;

use super::LEGACY;
use crate::support::legacy::initialize;
use crate::support::{Gateway, Legacy};

#[tokio::test]
async fn the_revision_that_is_asked_for_is_agreed_on_with_everything_that_is_served() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    for revision in LEGACY {
        let reply = Legacy::hello(&gateway, &key, revision).send().await;
        let result = reply.result();
        assert_eq!(result["protocolVersion"], revision);
        assert_eq!(
            result["capabilities"],
            json!({
                "tools": { "listChanged": true },
                "resources": { "listChanged": true, "subscribe": true },
                "prompts": { "listChanged": true },
                "completions": {},
                "logging": {},
            }),
            "{revision}"
        );
        assert!(result["serverInfo"]["name"].is_string() && result["serverInfo"]["version"].is_string());
        assert!(result["instructions"].is_string());
        for modern in ["resultType", "ttlMs", "cacheScope"] {
            assert_eq!(result.get(modern), None, "{revision}");
        }
        let id = reply.header("mcp-session-id").expect("a session");
        assert!(id.len() >= 32 && id.bytes().all(|b| (0x21..=0x7e).contains(&b)), "{id}");
    }
    for unknown in ["2026-07-28", "1999-01-01", "2099-01-01", ""] {
        let reply = Legacy::hello(&gateway, &key, unknown).send().await;
        assert_eq!(reply.result()["protocolVersion"], "2025-11-25", "{unknown}: the newest with a handshake");
    }
}

#[tokio::test]
async fn an_initialize_that_is_none_is_refused() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    for params in [
        json!({}),
        json!({ "protocolVersion": 7, "capabilities": {}, "clientInfo": { "name": "a", "version": "1" } }),
        json!({ "protocolVersion": "2025-06-18", "capabilities": "all" }),
        json!({ "protocolVersion": "2025-06-18", "capabilities": { "sampling": true } }),
    ] {
        let mut body = initialize("2025-06-18");
        body["params"] = params.clone();
        let reply = Legacy::hello(&gateway, &key, "2025-06-18").body(body).send().await;
        assert_eq!(reply.error(), (200, -32602), "{params}");
        assert_eq!(reply.header("mcp-session-id"), None, "{params}");
    }
}
