//! Queries and `Authorization` headers of any kind: nothing but the exact token is ever found in them.

use http::Request;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fuzz::{config, damaged, damages};

const TOKEN: &str = "wu_0123456789abcdefghjkmnpqrstvwxyz0123456789abcdefghjk0000000";

/// The bytes that a percent-encoded text stands for, by RFC 3986 section 2.1; an incomplete encoding stands for itself.
fn decoded(text: &str) -> Vec<u8> {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("a byte"));
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// The texts after `token=`, one for each time that it is there.
fn tokens(query: &str) -> Vec<Vec<u8>> {
    query.split('&').filter_map(|pair| pair.strip_prefix("token=")).map(decoded).collect()
}

/// Some characters of a text percent-encoded.
fn encoded(text: &str, which: &[bool]) -> String {
    let chosen = which.iter().copied().chain(std::iter::repeat(false));
    text.bytes()
        .zip(chosen)
        .map(|(byte, yes)| if yes { format!("%{byte:02x}") } else { char::from(byte).to_string() })
        .collect()
}

fn check(query: &str) -> Result<(), TestCaseError> {
    let all = tokens(query);
    match query_token(query) {
        Ok(None) => prop_assert!(all.is_empty()),
        Ok(Some(found)) => prop_assert_eq!(vec![found.as_bytes().to_vec()], all),
        Err(()) => prop_assert!(all.len() > 1 || all.iter().any(|token| std::str::from_utf8(token).is_err())),
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(1024))]

    #[test]
    fn any_query(query in "([a-z=&%+;\\x80-\\xff]|token=|%[0-9a-fA-F]{2}|wu_){0,20}") {
        check(&query)?;
    }

    #[test]
    fn damaged_queries(damages in damages(4)) {
        let query = damaged(format!("a=b&token={TOKEN}&sessionId=x").as_bytes(), &damages);
        check(&String::from_utf8_lossy(&query))?;
    }

    #[test]
    fn any_percent_encoding_of_the_token_is_the_token(which in vec(any::<bool>(), 0..TOKEN.len())) {
        let query = format!("x=1&token={}", encoded(TOKEN, &which));
        prop_assert_eq!(query_token(&query), Ok(Some(TOKEN.into())));
        let twice = format!("{query}&token=");
        prop_assert_eq!(query_token(&twice), Err(()));
    }

    #[test]
    fn bearers(damages in damages(3), twice in any::<bool>()) {
        let text = damaged(format!("Bearer {TOKEN}").as_bytes(), &damages);
        let Ok(value) = HeaderValue::from_bytes(&text) else { return Ok(()) };
        let mut request = Request::builder().header(AUTHORIZATION, value.clone());
        if twice {
            request = request.header(AUTHORIZATION, value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        match bearer(&parts) {
            Ok(found) => {
                let text = std::str::from_utf8(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
                let (scheme, token) = text.trim().split_once(' ').unwrap_or_default();
                prop_assert!(!twice && scheme.eq_ignore_ascii_case("bearer"));
                prop_assert_eq!(found, Some(token.trim()));
            }
            Err(()) => {
                let good = format!("Bearer {TOKEN}");
                prop_assert!(twice || text != good.as_bytes());
            }
        }
    }
}
