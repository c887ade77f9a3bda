//! Input schemas: made from Rust types or given as JSON, compiled once, and turned into errors that a model can act
//! on.
//!
//! JSON Schema 2020-12, or the dialect that `$schema` names. No reference is ever fetched: a schema with a
//! non-local `$ref` does not compile (2026-07-28 "`$ref` Resolution").

use std::fmt;

use jsonschema::Validator;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use super::catalog::HeaderParam;
use super::explain::mistake;

/// Errors shown to a model at once; more does not help it.
const MAX_SHOWN: usize = 5;

/// A compiled input schema.
pub(crate) struct ArgumentSchema {
    validator: Validator,
    /// The names of the arguments.
    known: Vec<String>,
}

impl fmt::Debug for ArgumentSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArgumentSchema")
    }
}

impl ArgumentSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// A sentence where it is no valid schema of its dialect.
    pub(crate) fn compile(schema: &Value) -> Result<Self, String> {
        let validator =
            jsonschema::validator_for(schema).map_err(|e| format!("not a valid JSON Schema: {e}"))?;
        let properties = schema.get("properties").and_then(Value::as_object);
        Ok(Self { validator, known: properties.map(|p| p.keys().cloned().collect()).unwrap_or_default() })
    }

    /// Nothing where the arguments fit; otherwise a text that tells the model which argument is wrong and what is
    /// allowed.
    pub(crate) fn explain(&self, arguments: &Value) -> Option<String> {
        if self.validator.is_valid(arguments) {
            return None;
        }
        let errors = self.validator.iter_errors(arguments).take(MAX_SHOWN);
        let lines: Vec<_> = errors.map(|error| mistake(&error, &self.known)).collect();
        Some(format!("Invalid arguments. {}. Correct them and call the tool again.", lines.join("; ")))
    }
}

/// Formats of numbers that `schemars` writes and JSON Schema does not know: validators of real clients warn about each.
const NUMBER_FORMATS: [&str; 14] = [
    "int", "int8", "int16", "int32", "int64", "int128", "uint", "uint8", "uint16", "uint32", "uint64",
    "uint128", "float", "double",
];

/// The schema of a Rust type, without the noise that a model does not need.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let settings = settings.with_transform(RecursiveTransform(|schema: &mut Schema| {
        if schema.get("format").and_then(Value::as_str).is_some_and(|format| NUMBER_FORMATS.contains(&format))
        {
            schema.remove("format");
        }
    }));
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Value::Object(object) = &mut schema {
        // What the type is called and says of itself is for its programmers; its fields speak to the model.
        object.remove("title");
        object.remove("description");
        object.entry("type").or_insert_with(|| "object".into());
    }
    schema
}

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

/// How many annotations stand anywhere in the schema; a property that is merely called `x-mcp-header` is none.
fn count(schema: &Value) -> usize {
    match schema {
        Value::Object(object) => {
            let own = usize::from(object.get("x-mcp-header").is_some_and(Value::is_string));
            own + object.values().map(count).sum::<usize>()
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
    fn a_model_is_told_which_argument_is_wrong_and_what_is_allowed() {
        let schema = ArgumentSchema::compile(&json!({
            "type": "object",
            "properties": { "type": { "enum": ["A", "MX"] }, "name": { "type": "string" } },
            "required": ["name"],
            "additionalProperties": false
        }))
        .expect("compiles");
        assert_eq!(schema.explain(&json!({ "name": "x", "type": "A" })), None);
        insta::assert_snapshot!(
            schema.explain(&json!({ "type": "AX", "nme": 1 })).expect("errors"),
            @r#"Invalid arguments. argument `type`: "AX" is not one of "A" or "MX"; Additional properties are not allowed ('nme' was unexpected); this tool takes: name, type; "name" is a required property. Correct them and call the tool again."#
        );
    }

    #[derive(serde::Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Unit {
        /// Metric.
        Metre,
        /// Not.
        Foot,
    }

    #[derive(JsonSchema)]
    struct Point {
        #[expect(dead_code, reason = "only the schema matters")]
        x: u8,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema matters")]
    struct Measure {
        unit: Unit,
        rough: Option<Unit>,
        at: Option<Point>,
        note: String,
    }

    #[test]
    fn choices_are_listed_and_long_values_are_not_repeated() {
        let schema = ArgumentSchema::compile(&schema_of::<Measure>()).expect("compiles");
        let good = json!({ "unit": "foot", "rough": null, "at": { "x": 1 }, "note": "" });
        assert_eq!(schema.explain(&good), None);
        let arguments = json!({ "unit": 7, "rough": "mile", "at": { "x": 300 }, "note": vec!["long"; 1000] });
        insta::assert_snapshot!(schema.explain(&arguments).expect("errors"), @r#"Invalid arguments. argument `at.x`: 300 is greater than the maximum of 255; argument `note`: the array is not of type "string"; argument `rough`: "mile" is not one of "metre", "foot"; argument `unit`: 7 is not one of "metre", "foot". Correct them and call the tool again."#);
    }

    #[test]
    fn only_formats_that_json_schema_knows_are_sent() {
        let text = schema_of::<Measure>().to_string();
        assert!(!text.contains("format"), "{text}");
    }

    #[test]
    fn network_references_do_not_compile() {
        let schema =
            json!({ "type": "object", "properties": { "a": { "$ref": "https://example.com/a.json" } } });
        assert!(ArgumentSchema::compile(&schema).is_err());
    }

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
            json!({ "properties": { "a": { "type": "string", "x-mcp-header": "A b" } } }),
            json!({ "properties": { "a": { "type": "array", "items": { "type": "string", "x-mcp-header": "A" } } } }),
            json!({ "properties": {
                "a": { "type": "string", "x-mcp-header": "A" }, "b": { "type": "string", "x-mcp-header": "a" } } }),
        ] {
            assert!(header_params(&bad).is_err(), "{bad}");
        }
    }
}
