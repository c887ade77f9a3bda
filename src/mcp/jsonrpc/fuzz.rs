//! Bodies of any bytes, and good ones that were damaged.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;
use crate::fuzz::{config, damaged, damages};

const DEPTH: usize = 8;
const BATCH: usize = 3;

const GOOD: [&str; 8] = [
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"[{\"é"}}}"#,
    r#"{"jsonrpc":"2.0","id":"a\u00e9","method":"tools/list","params":{"cursor":"AAAA","_meta":{"progressToken":7}}}"#,
    r#"{"jsonrpc":"2.0","id":-123456789012345678901234567890,"method":"ping"}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"1","reason":"no"}}"#,
    r#"{"jsonrpc":"2.0","id":3,"result":{"action":"accept","content":{"a":[1,2.5,-3e7,true,null]}}}"#,
    r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32601,"message":"no"}}"#,
    r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/initialized"}]"#,
    "\u{feff} { \"jsonrpc\" : \"2.0\" , \"id\" : 0 , \"method\" : \"initialize\" , \"params\" : { } } ",
];

/// How deep the brackets of a value nest; counted on the parsed value, not on its text.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The id that a JSON text has, exactly as it stands there.
fn id_of(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct WithId<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    serde_json::from_str::<WithId<'_>>(text).ok()?.id.map(|raw| raw.get().to_owned())
}

/// What is answered to a request of this id names exactly this id, and is JSON.
fn check_echo(id: &RequestId) -> Result<(), TestCaseError> {
    for text in [response(id, "{}"), error_response(Some(id), &RpcError::parse("x"))] {
        let echoed = id_of(&text);
        prop_assert_eq!(echoed.as_deref(), Some(id.as_json()), "{}", text);
    }
    Ok(())
}

fn check_message(message: &Message, body: &Bytes) -> Result<(), TestCaseError> {
    let object = |part: &Bytes| part.starts_with(b"{") && part.ends_with(b"}");
    let within = |part: &Bytes| body.windows(part.len().max(1)).any(|window| window == &part[..]);
    match message {
        Message::Request { id, params, .. } => {
            check_echo(id)?;
            prop_assert!(within(&Bytes::copy_from_slice(id.as_json().as_bytes())));
            prop_assert!(params.as_ref().is_none_or(|p| object(p) && within(p)));
        }
        Message::Notification { params, .. } => {
            prop_assert!(params.as_ref().is_none_or(|p| object(p) && within(p)));
        }
        Message::Response { id, outcome } => {
            check_echo(id)?;
            let (Ok(part) | Err(part)) = outcome;
            prop_assert!(within(part));
        }
    }
    Ok(())
}

/// Whatever the bytes: no panic; what is taken is JSON of bounded depth, and what is refused has a code of the specification.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let body = Bytes::copy_from_slice(bytes);
    let parsed = parse(&body, DEPTH, BATCH);
    if let Ok(Body::Single(_)) = &parsed {
        let text = std::str::from_utf8(bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        prop_assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "{} is no JSON", text);
        // Numbers that no type of ours holds are fine in raw JSON.
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            prop_assert!(depth(&value) <= DEPTH, "{} is too deep", text);
        }
    }
    match &parsed {
        Ok(Body::Single(message)) => check_message(message, &body),
        Ok(Body::Batch(parts)) => {
            prop_assert!((1..=BATCH).contains(&parts.len()));
            parts.iter().try_for_each(|part| match part {
                Ok(message) => check_message(message, &body),
                Err(malformed) => check_refusal(malformed),
            })
        }
        Err(malformed) => check_refusal(malformed),
    }
}

fn check_refusal(malformed: &Malformed) -> Result<(), TestCaseError> {
    prop_assert!([-32700, -32600, -32602].contains(&malformed.error.code));
    let text = error_response(malformed.id.as_ref(), &malformed.error);
    prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
    malformed.id.as_ref().map_or(Ok(()), check_echo)
}

proptest! {
    #![proptest_config(config(2048))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes)?;
    }

    #[test]
    fn any_json_punctuation(text in r#"[\[\]{}:,"\\0-9a-z \n-]{0,60}"#) {
        check(text.as_bytes())?;
    }

    #[test]
    fn damaged_messages(which in 0..GOOD.len(), damages in damages(4)) {
        check(&damaged(GOOD[which].as_bytes(), &damages))?;
    }

    #[test]
    fn ids_of_any_text_and_number(text in any::<String>(), sign in "-?", digits in 1_usize..1100) {
        let number = format!("{sign}{}", "7".repeat(digits));
        for id in [Value::from(text.as_str()).to_string(), number] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            match parse(&Bytes::from(body), DEPTH, BATCH) {
                Ok(Body::Single(Message::Request { id: read, .. })) => prop_assert_eq!(read.as_json(), id),
                other => prop_assert!(id.len() > RequestId::MAX_LEN, "{:?}", other),
            }
        }
    }

    #[test]
    fn deeper_than_allowed_is_refused(levels in 0_usize..200, object in any::<bool>()) {
        let (open, close) = if object { ("{\"a\":", "}") } else { ("[", "]") };
        let nest = format!("{}1{}", open.repeat(levels), close.repeat(levels));
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{nest}}}}}"#);
        let taken = parse(&Bytes::from(body), DEPTH, BATCH).is_ok();
        prop_assert_eq!(taken, levels + 2 <= DEPTH);
    }
}
