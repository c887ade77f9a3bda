//! `params` of any bytes, and good ones that were damaged.

use proptest::prelude::*;

use super::*;
use crate::fuzz::{config, damaged, damages};

const GOOD: [&str; 3] = [
    r#"{"name":"echo","arguments":{"text":"a \"b\" \u00e9"},"_meta":{"progressToken":"p","traceparent":"00-1-2-00",
        "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"a"},
        "io.modelcontextprotocol/clientCapabilities":{"elicitation":{"form":{}}},"io.modelcontextprotocol/logLevel":"info"},
        "requestState":"AAAA","inputResponses":{"a":{"action":"accept"}}}"#,
    r#"{"uri":"lab://notes/7","cursor":"AAAA"}"#,
    r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{"listChanged":true}}"#,
];

/// Whatever the bytes: no panic, and what is taken is a part of them of the right form.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let raw = Bytes::copy_from_slice(bytes);
    let params = match Params::parse(Some(raw)) {
        Ok(params) => params,
        Err(error) => {
            prop_assert_eq!(error.code, -32602);
            prop_assert!(serde_json::from_str::<Value>(&error.to_json()).is_ok());
            return Ok(());
        }
    };
    for object in [&params.arguments, &params.input_responses].into_iter().flatten() {
        let is_object = object.starts_with(b"{") && object.ends_with(b"}");
        prop_assert!(is_object);
    }
    prop_assert!(params.uri.is_none_or(|uri| uri.len() <= MAX_URI));
    if let Some(token) = &params.meta.progress_token {
        // It is written into notifications as it is.
        let token: Value = serde_json::from_slice(token).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(token.is_string() || token.is_number());
    }
    if let Some(raw) = &params.meta.client_capabilities {
        let _ = Capabilities::parse(raw);
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(4096))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        check(&bytes)?;
        let _ = Capabilities::parse(&bytes);
    }

    #[test]
    fn damaged_params(which in 0..GOOD.len(), damages in damages(4)) {
        let bytes = damaged(GOOD[which].as_bytes(), &damages);
        check(&bytes)?;
        let _ = Capabilities::parse(&bytes);
    }

    #[test]
    fn progress_tokens(token in r#"-?[0-9]{0,30}|"[a-z]{0,3}"|[-+0-9.eE]{0,6}"#) {
        check(format!(r#"{{"_meta":{{"progressToken":{token}}}}}"#).as_bytes())?;
    }
}
