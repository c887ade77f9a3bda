//! Reading what stands in an object: of the right type, or nothing. And putting objects together.

use serde_json::Value;

/// The text under a name; empty where there is none.
pub fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// The whole number under a name; 0 where there is none.
pub fn whole(object: &Value, name: &str) -> i64 {
    object[name].as_i64().unwrap_or_default()
}

/// The list under a name; empty where there is none.
pub fn many<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What stands in a list object (`{"object": "list", "data": [...]}`) under a name.
pub fn listed<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    many(&object[name], "data")
}

/// The fields of two objects as one.
pub fn both(mut one: Value, other: Value) -> Value {
    if let (Value::Object(fields), Value::Object(further)) = (&mut one, other) {
        fields.extend(further);
    }
    one
}
