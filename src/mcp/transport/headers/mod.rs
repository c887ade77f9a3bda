//! Header fields of MCP requests, and the rules of 2026-07-28 "Request Metadata" that tie them to the body.

use data_encoding::BASE64;
use http::HeaderMap;
use serde_json::Value;

use crate::mcp::error::RpcError;
use crate::mcp::request::Params;
use crate::providers::HeaderParam;

/// `MCP-Protocol-Version`.
pub const VERSION: &str = "mcp-protocol-version";
/// `Mcp-Session-Id`.
pub const SESSION: &str = "mcp-session-id";
/// `Mcp-Method`.
pub const METHOD: &str = "mcp-method";
/// `Mcp-Name`.
pub const NAME: &str = "mcp-name";

/// The one value of a header, if it is there.
///
/// # Errors
/// −32020 where it is there twice or holds more than visible ASCII, space and tab.
pub fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, RpcError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(RpcError::header_mismatch(format!("header {name} must not be sent twice")));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim_matches([' ', '\t']))),
        Err(_) => Err(RpcError::header_mismatch(format!("header {name} holds invalid characters"))),
    }
}

/// The idempotency key of a request that has none in `_meta`: the `Idempotency-Key` header, with or without the quotes of a
/// structured string (draft-ietf-httpapi-idempotency-key-header). Messages of a batch share their headers, so they take
/// none from there.
///
/// # Errors
/// As [`single`].
pub fn take_key(headers: &HeaderMap, params: &mut Params) -> Result<(), RpcError> {
    if params.meta.idempotency_key.is_none()
        && let Some(key) = single(headers, "idempotency-key")?
    {
        let quoted = key.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        params.meta.idempotency_key = Some(quoted.unwrap_or(key).to_owned());
    }
    Ok(())
}

/// Decodes the Base64 sentinel form `=?base64?...?=` ("Value Encoding"); other values stand for themselves.
fn decode(name: &str, value: &str) -> Result<String, RpcError> {
    let Some(inner) = value.strip_prefix("=?base64?").and_then(|v| v.strip_suffix("?=")) else {
        return Ok(value.to_owned());
    };
    BASE64
        .decode(inner.as_bytes())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| RpcError::header_mismatch(format!("header {name} is not Base64 of UTF-8 text")))
}

/// Checks `Mcp-Method` and, for the methods that have one, `Mcp-Name`.
///
/// # Errors
/// −32020 where one is missing or differs from the body.
pub fn check_standard(headers: &HeaderMap, method: &str, params: &Params) -> Result<(), RpcError> {
    check_method(headers, method)?;
    let wanted = match method {
        "tools/call" | "prompts/get" => params.name.as_deref(),
        "resources/read" => params.uri.as_deref(),
        _ => None,
    };
    let Some(wanted) = wanted else { return Ok(()) };
    let Some(sent) = single(headers, NAME)? else {
        return Err(RpcError::header_mismatch("header Mcp-Name is required for this method"));
    };
    if decode(NAME, sent)? != wanted {
        return Err(RpcError::header_mismatch("header Mcp-Name does not match the body"));
    }
    Ok(())
}

/// Checks `Mcp-Method` alone.
///
/// # Errors
/// −32020 where it is missing or differs from the body.
pub fn check_method(headers: &HeaderMap, method: &str) -> Result<(), RpcError> {
    match single(headers, METHOD)? {
        None => Err(RpcError::header_mismatch("header Mcp-Method is required")),
        Some(sent) if sent != method => {
            Err(RpcError::header_mismatch("header Mcp-Method does not match the body's method"))
        }
        Some(_) => Ok(()),
    }
}

/// Checks the `Mcp-Param-*` headers of a tool call against its arguments.
///
/// # Errors
/// −32020 where one is missing, is there without a value in the body, or differs from it.
pub fn check_params(headers: &HeaderMap, wanted: &[HeaderParam], params: &Params) -> Result<(), RpcError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let arguments: Value = match &params.arguments {
        None => Value::Null,
        Some(raw) => serde_json::from_slice(raw)
            .map_err(|_| RpcError::invalid_params("params.arguments must be an object"))?,
    };
    for one in wanted {
        let value = one.path.iter().try_fold(&arguments, |value, key| value.get(key));
        let value = value.filter(|v| !v.is_null());
        let sent = single(headers, &one.header)?.map(|v| decode(&one.header, v)).transpose()?;
        match (value, sent) {
            (None, None) => {}
            (Some(value), Some(sent)) if same(value, &sent) => {}
            (Some(_), None) => {
                return Err(RpcError::header_mismatch(format!("header {} is required", one.header)));
            }
            _ => {
                let text = format!("header {} does not match the argument in the body", one.header);
                return Err(RpcError::header_mismatch(text));
            }
        }
    }
    Ok(())
}

/// Numbers are compared as numbers: `42.0` is `42` ("Server Validation").
fn same(value: &Value, sent: &str) -> bool {
    match value {
        Value::String(text) => text == sent,
        Value::Bool(flag) => sent == if *flag { "true" } else { "false" },
        Value::Number(number) => {
            let said = number.to_string();
            match (integer(&said), integer(sent)) {
                (Some(said), Some(sent)) => said == sent && said.unsigned_abs() <= MAX_INTEGER,
                (None, None) => said == sent,
                _ => false,
            }
        }
        _ => false,
    }
}

/// Largest integer in a header, either way: beyond it, intermediaries that count in doubles would see another one
/// ("Schema Extension").
const MAX_INTEGER: u128 = (1 << 53) - 1;

/// The integer that a decimal number stands for, exactly.
fn integer(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let all = |text: &str, good: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(good);
    if !all(digits, u8::is_ascii_digit) || !all(fraction, |b| *b == b'0') {
        return None;
    }
    Some(whole.parse().unwrap_or(i128::MAX))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinel_values_are_decoded_and_plain_ones_are_not() {
        assert_eq!(decode("h", "us-west1").expect("plain"), "us-west1");
        assert_eq!(decode("h", "=?base64?SGVsbG8sIOS4lueVjA==?=").expect("text"), "Hello, 世界");
        assert!(decode("h", "=?base64?!!?=").is_err());
        assert!(decode("h", "=?base64?/w==?=").is_err());
    }

    #[test]
    fn integers_that_a_double_cannot_hold_are_refused() {
        let most = (1_i64 << 53) - 1;
        assert!(same(&Value::from(most), "9007199254740991"));
        assert!(same(&Value::from(-most), "-9007199254740991.0"));
        assert!(!same(&Value::from(most + 2), "9007199254740992"), "equal as doubles");
        assert!(!same(&Value::from(most + 1), "9007199254740992"));
        assert!(!same(&Value::from(u64::MAX), &"9".repeat(60)));
    }

    #[test]
    fn integers_compare_as_numbers() {
        assert!(same(&Value::from(42), "42.0"));
        assert!(same(&Value::from(42), "42"));
        assert!(!same(&Value::from(42), "43"));
        assert!(!same(&Value::from("42"), "42.0"));
        assert!(same(&serde_json::json!(42.0), "42"));
        assert!(same(&Value::from(-7), "-7.0"));
        for not_42 in ["", "4.2e1", "+42", "42.", "42.5", "0x2a", "forty-two", "42 42", "42.0.0"] {
            assert!(!same(&Value::from(42), not_42), "{not_42}");
        }
    }
}
