//! Stripe's encoding of nested parameters in forms and queries (docs.stripe.com/api), into a tree.

use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Levels of `a[b][c]`.
const DEPTH: usize = 8;

/// The parameters in `text`, a query or a form: objects, arrays and strings.
///
/// # Errors
/// 400 where brackets or escapes are wrong.
pub fn parse(text: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let reader = serde_qs::Config::new().max_depth(DEPTH).use_form_encoding(true);
    match reader.deserialize_bytes(text) {
        Ok(Value::Object(tree)) => Ok(tree),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) | Err(_) => {
            let message = "Invalid request: the parameters are not properly encoded.";
            Err(Refusal::plain(http::StatusCode::BAD_REQUEST, message))
        }
    }
}

/// Puts what a query and a form say together.
pub fn merge(mut query: Map<String, Value>, form: Map<String, Value>) -> Map<String, Value> {
    query.extend(form);
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_names_become_a_tree() {
        let read = |text: &str| Value::Object(parse(text.as_bytes()).expect("a tree")).to_string();
        for (text, tree) in [
            ("", "{}"),
            ("a[b][0][c]=x&a[b][1][c]=y", r#"{"a":{"b":[{"c":"x"},{"c":"y"}]}}"#),
            ("a%5Bb%5D[]=x&a[b][]=y+z%20w", r#"{"a":{"b":["x","y z w"]}}"#),
            ("metadata[a b]=&metadata[c]=2", r#"{"metadata":{"a b":"","c":"2"}}"#),
            ("metadata=", r#"{"metadata":""}"#),
        ] {
            assert_eq!(read(text), tree, "{text}");
        }
        for text in ["a=1&a[b]=2", "a[b=1", "x=%ff", "a[99999]=1"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("a{}=1", "[b]".repeat(100_000));
        assert!(parse(deep.as_bytes()).is_ok(), "depth is bounded, not fatal");
    }
}
