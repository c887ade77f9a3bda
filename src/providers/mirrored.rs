//! Arguments that clients repeat in `Mcp-Param-*` headers (2026-07-28 "Custom Headers from Tool Parameters").

use serde_json::{Map, Value};

use super::catalog::HeaderParam;

/// The arguments that `schema` mirrors into headers.
///
/// # Errors
/// A sentence where an `x-mcp-header` breaks the rules of 2026-07-28 "Schema Extension".
pub(crate) fn header_params(schema: &Value) -> Result<Vec<HeaderParam>, String> {
    let mut found = Vec::new();
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        walk(properties, &mut Vec::new(), &mut found)?;
    }
    if count(schema) != found.len() {
        return Err("`x-mcp-header` stands where it cannot be reached through `properties` alone".to_owned());
    }
    for (place, one) in found.iter().enumerate() {
        if found[..place].iter().any(|other| other.header == one.header) {
            return Err(format!("`x-mcp-header` {} is used twice", one.header));
        }
    }
    Ok(found)
}

fn walk(
    properties: &Map<String, Value>,
    path: &mut Vec<String>,
    found: &mut Vec<HeaderParam>,
) -> Result<(), String> {
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(header) = property.get("x-mcp-header") {
            let header = header.as_str().unwrap_or("");
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if header.is_empty() || !header.chars().all(token) {
                return Err(format!("`x-mcp-header` of {name} is not a header name"));
            }
            if !matches!(property.get("type").and_then(Value::as_str), Some("string" | "integer" | "boolean"))
            {
                return Err(format!("`x-mcp-header` of {name} needs the type string, integer or boolean"));
            }
            found.push(HeaderParam {
                header: format!("mcp-param-{}", header.to_ascii_lowercase()),
                path: path.clone(),
            });
        }
        if let Some(inner) = property.get("properties").and_then(Value::as_object) {
            walk(inner, path, found)?;
        }
        path.pop();
    }
    Ok(())
}

/// How many annotations stand anywhere in the schema. A property that is merely called `x-mcp-header` is none, nor is one
/// in a value that a keyword carries.
fn count(schema: &Value) -> usize {
    match schema {
        Value::Object(keywords) => {
            let inner = keywords.iter().map(|(keyword, value)| match (keyword.as_str(), value) {
                ("x-mcp-header", _) => 1,
                ("const" | "enum" | "default" | "examples", _) => 0,
                (
                    "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas",
                    Value::Object(named),
                ) => named.values().map(count).sum(),
                _ => count(value),
            });
            inner.sum()
        }
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_come_from_reachable_primitive_properties_only() {
        let schema = json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "at": { "type": "object", "properties": { "zone": { "type": "integer", "x-mcp-header": "Zone" } } }
        }});
        let found = header_params(&schema).expect("valid");
        assert_eq!(
            found.iter().map(|h| h.header.as_str()).collect::<Vec<_>>(),
            ["mcp-param-zone", "mcp-param-region"]
        );
        for bad in [
            json!({ "properties": { "a": { "type": "number", "x-mcp-header": "A" } } }),
            json!({ "properties": { "a": { "type": ["string", "null"], "x-mcp-header": "A" } } }),
            json!({ "properties": { "a": { "x-mcp-header": "A" } } }),
            json!({ "properties": { "a": { "type": "string", "x-mcp-header": "A b" } } }),
            json!({ "properties": { "a": { "type": "string", "x-mcp-header": "A\r\nB" } } }),
            json!({ "properties": { "a": { "type": "string", "x-mcp-header": "" } } }),
            json!({ "properties": { "a": { "type": "string", "x-mcp-header": 7 } } }),
            json!({ "properties": { "a": { "items": { "x-mcp-header": 7 } } } }),
            json!({ "x-mcp-header": "A" }),
            json!({ "$defs": { "a": { "type": "string", "x-mcp-header": "A" } } }),
            json!({ "anyOf": [{ "properties": { "a": { "type": "string", "x-mcp-header": "A" } } }] }),
            json!({ "properties": { "a": { "type": "array", "items": { "type": "string", "x-mcp-header": "A" } } } }),
            json!({ "properties": {
                "a": { "type": "string", "x-mcp-header": "A" }, "b": { "type": "string", "x-mcp-header": "a" } } }),
        ] {
            assert!(header_params(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_only_called_like_it_is_no_annotation() {
        let schema = json!({ "properties": {
            "x-mcp-header": { "type": "string" },
            "default": { "type": "string", "x-mcp-header": "D" },
            "a": { "type": "object", "default": { "x-mcp-header": "A" }, "enum": [{ "x-mcp-header": "A" }] }
        }});
        let found = header_params(&schema).expect("valid");
        assert_eq!(
            found,
            [HeaderParam { header: "mcp-param-d".to_owned(), path: vec!["default".to_owned()] }]
        );
    }
}
