//! Header values of any bytes.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::fuzz::{config, damaged, damages};

fn sentinel(text: &str) -> String {
    format!("=?base64?{}?=", BASE64.encode(text.as_bytes()))
}

proptest! {
    #![proptest_config(config(2048))]

    #[test]
    fn a_sentinel_stands_for_its_text(text in any::<String>()) {
        prop_assert_eq!(decode("h", &sentinel(&text)).map_err(|e| e.message), Ok(text));
    }

    /// Two spellings of one value would let an intermediary and Weir disagree about it.
    #[test]
    fn a_sentinel_has_one_spelling(text in any::<String>(), damages in damages(3)) {
        let damaged = String::from_utf8_lossy(&damaged(sentinel(&text).as_bytes(), &damages)).into_owned();
        match decode("h", &damaged) {
            Ok(read) => prop_assert!(read == damaged || sentinel(&read) == damaged, "{} as {}", damaged, read),
            Err(error) => prop_assert_eq!(error.code, -32020),
        }
    }

    #[test]
    fn one_value_of_visible_characters_or_none(values in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..20), 0..3,
    )) {
        let mut headers = HeaderMap::new();
        for value in values.iter().filter_map(|bytes| HeaderValue::from_bytes(bytes).ok()) {
            headers.append(SESSION, value);
        }
        let sent = headers.get_all(SESSION).iter().count();
        match single(&headers, SESSION) {
            Ok(None) => prop_assert_eq!(sent, 0),
            Ok(Some(text)) => {
                prop_assert_eq!(sent, 1);
                prop_assert!(text.bytes().all(|b| b == b'\t' || (b' '..0x7f).contains(&b)));
                prop_assert_eq!(text.trim(), text);
            }
            Err(error) => prop_assert_eq!(error.code, -32020),
        }
    }

    #[test]
    fn an_argument_is_the_same_as_what_it_is_written_as(number in -9_007_199_254_740_991_i64..=9_007_199_254_740_991,
                                                        other in any::<i32>(), text in any::<String>()) {
        prop_assert!(same(&Value::from(number), &number.to_string()));
        prop_assert!(same(&Value::from(text.as_str()), &text));
        prop_assert_eq!(same(&Value::from(number), &other.to_string()), number == i64::from(other));
        prop_assert_eq!(same(&Value::from(other.to_string()), &text), other.to_string() == text);
        for not_scalar in [Value::Null, Value::from(vec![number]), serde_json::json!({ "a": text })] {
            prop_assert!(!same(&not_scalar, &text));
        }
    }
}
