//! Schemas of arguments and results: made from Rust types or given as JSON, compiled once, and turned into errors that a
//! model can act on.
//!
//! JSON Schema 2020-12, or the dialect that `$schema` names (drafts 4, 6, 7 and 2019-09 as well). No reference is ever
//! fetched: a schema whose `$ref` leaves the document does not compile (2026-07-28 "`$ref` Resolution").

use std::fmt;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, ReferencingError, ValidationError, Validator};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use super::explain::mistake;

/// Errors shown to a model, or written to the log, at once; more does not help.
const MAX_SHOWN: usize = 5;
/// Levels of nesting in a schema, and JSON values in all of it (2026-07-28 "Composition-Keyword Resource Use").
const MAX_DEPTH: usize = 64;
const MAX_VALUES: usize = 20_000;

/// Compiles a schema.
///
/// # Errors
/// A sentence where it is no valid schema of its dialect, the dialect is not known, it is too large, or it refers to
/// something outside itself.
fn compile(schema: &Value) -> Result<Validator, String> {
    if let Some(dialect) = schema.get("$schema") {
        let known = dialect.as_str().map(Draft::from_schema_uri);
        if known.is_none_or(|draft| draft == Draft::Unknown) {
            return Err(format!(
                "the JSON Schema dialect {dialect} is not supported; supported are 2020-12, 2019-09 and drafts 7, 6 and 4"
            ));
        }
    }
    if values(schema, MAX_DEPTH).is_none_or(|count| count > MAX_VALUES) {
        return Err(format!("a schema holds at most {MAX_VALUES} values in {MAX_DEPTH} levels"));
    }
    jsonschema::options().offline().build(schema).map_err(|error| refusal(&error))
}

fn refusal(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => format!(
            "the schema refers to {uri}, and nothing outside a schema is ever fetched; put what it refers to under `$defs`"
        ),
        _ => format!("not a valid JSON Schema: {error}"),
    }
}

/// How many JSON values `value` is made of; `None` where it is nested deeper than `depth`.
fn values(value: &Value, depth: usize) -> Option<usize> {
    let inside = |inner: &Value| values(inner, depth.checked_sub(1)?);
    match value {
        Value::Object(fields) => fields.values().map(inside).sum::<Option<usize>>().map(|sum| sum + 1),
        Value::Array(items) => items.iter().map(inside).sum::<Option<usize>>().map(|sum| sum + 1),
        _ => Some(1),
    }
}

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
    /// A sentence that says what is wrong with it.
    pub(crate) fn compile(schema: &Value) -> Result<Self, String> {
        let properties = schema.get("properties").and_then(Value::as_object);
        let known = properties.map(|p| p.keys().cloned().collect()).unwrap_or_default();
        Ok(Self { validator: compile(schema)?, known })
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

/// A compiled output schema.
pub(crate) struct ResultSchema(Validator);

impl fmt::Debug for ResultSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResultSchema")
    }
}

impl ResultSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(crate) fn compile(schema: &Value) -> Result<Self, String> {
        compile(schema).map(Self)
    }

    /// Nothing where the result fits; otherwise what is wrong and where, for the log: without any value of the result,
    /// which is the caller's.
    pub(crate) fn mismatch(&self, structured: Option<&Value>) -> Option<String> {
        let Some(value) = structured else {
            return Some("the tool has an outputSchema and its result has no structured content".to_owned());
        };
        if self.0.is_valid(value) {
            return None;
        }
        let errors = self.0.iter_errors(value).take(MAX_SHOWN);
        let lines: Vec<_> =
            errors.map(|error| format!("at `{}`: {}", error.instance_path(), error.masked())).collect();
        Some(format!("the result does not fit the tool's outputSchema: {}", lines.join("; ")))
    }
}

/// Formats of numbers that `schemars` writes and JSON Schema does not know: validators of real clients warn about each.
const NUMBER_FORMATS: [&str; 14] = [
    "int", "int8", "int16", "int32", "int64", "int128", "uint", "uint8", "uint16", "uint32", "uint64",
    "uint128", "float", "double",
];

/// The schema of a Rust type that arguments are read into, without the noise that a model does not need.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let mut schema = generated::<T>(SchemaSettings::draft2020_12());
    if let Value::Object(object) = &mut schema {
        object.entry("type").or_insert_with(|| "object".into());
    }
    schema
}

/// The schema of a Rust type that results are written from. Where it is a choice of objects, it says that it is an
/// object, because clients from before 2026-07-28 know no other.
pub(crate) fn result_schema_of<T: JsonSchema>() -> Value {
    let mut schema = generated::<T>(SchemaSettings::draft2020_12().for_serialize());
    let is_object = |one: &Value| one.get("type").and_then(Value::as_str) == Some("object");
    if let Value::Object(object) = &mut schema {
        let ways = ["oneOf", "anyOf"].into_iter().find_map(|way| object.get(way)?.as_array());
        if ways.is_some_and(|ways| ways.iter().all(is_object)) {
            object.entry("type").or_insert_with(|| "object".into());
        }
    }
    schema
}

fn generated<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let settings = settings.with(|s| {
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
    }
    schema
}

/// A `Tool` object as clients from before 2026-07-28 can read it, where that is another one: they know output schemas of
/// objects only, and take no `true` or `false` for the schema of a property ("Tool" in their schemas). One tool that they
/// cannot read costs them the whole list.
pub(crate) fn for_older_clients(tool: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut older = tool.clone();
    let output = older.get("outputSchema");
    if output.is_some_and(|schema| schema.get("type").and_then(Value::as_str) != Some("object")) {
        older.remove("outputSchema");
    }
    for name in ["inputSchema", "outputSchema"] {
        let properties = older.get_mut(name).and_then(|schema| schema.get_mut("properties"));
        for property in properties.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
            match property {
                Value::Bool(true) => *property = serde_json::json!({}),
                Value::Bool(false) => *property = serde_json::json!({ "not": {} }),
                _ => {}
            }
        }
    }
    (older != *tool).then_some(older)
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

    fn refused(schema: &Value) -> String {
        ArgumentSchema::compile(schema).expect_err("does not compile")
    }

    #[test]
    fn references_stay_inside_the_document() {
        for target in [
            "https://example.com/a.json",
            "http://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
            "other.json#/a",
        ] {
            let text = refused(&json!({ "type": "object", "properties": { "a": { "$ref": target } } }));
            assert!(text.contains("nothing outside a schema is ever fetched"), "{target}: {text}");
        }
        let dynamic =
            json!({ "type": "object", "properties": { "a": { "$dynamicRef": "https://example.com/b#c" } } });
        assert!(refused(&dynamic).contains("https://example.com/b"));
        let unused = json!({ "type": "object", "$defs": { "a": { "$ref": "https://example.com/a.json" } } });
        assert!(refused(&unused).contains("https://example.com/a.json"));
    }

    #[test]
    fn a_document_may_refer_to_itself() {
        let schema = ArgumentSchema::compile(&json!({
            "$id": "https://example.com/tools/tree.json",
            "type": "object",
            "properties": {
                "pointer": { "$ref": "#/$defs/name" },
                "anchor": { "$ref": "#count" },
                "embedded": { "$ref": "leaf.json" },
                "dynamic": { "$dynamicRef": "#node" },
            },
            "$defs": {
                "name": { "type": "string" },
                "count": { "$anchor": "count", "type": "integer" },
                "leaf": { "$id": "leaf.json", "type": "boolean" },
                "node": { "$dynamicAnchor": "node", "type": "array", "items": { "$dynamicRef": "#node" } },
            },
        }))
        .expect("compiles");
        let good = json!({ "pointer": "a", "anchor": 1, "embedded": true, "dynamic": [[], [[]]] });
        assert_eq!(schema.explain(&good), None);
        for bad in [
            json!({ "pointer": 1 }),
            json!({ "anchor": "a" }),
            json!({ "embedded": 1 }),
            json!({ "dynamic": [1] }),
        ] {
            assert!(schema.explain(&bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_schema_is_read_in_its_own_dialect() {
        // An array of schemas under `items` stands for the first items up to 2019-09, and is no schema in 2020-12.
        let pair = json!([{ "type": "string" }, { "type": "integer" }]);
        let draft_7 = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object", "properties": { "pair": { "items": pair } }
        });
        let schema = ArgumentSchema::compile(&draft_7).expect("compiles");
        assert_eq!(schema.explain(&json!({ "pair": ["a", 1] })), None);
        assert!(schema.explain(&json!({ "pair": [1, "a"] })).is_some());
        let default = json!({ "type": "object", "properties": { "pair": { "items": pair } } });
        assert!(refused(&default).contains("not a valid JSON Schema"));
        let prefix = json!({ "type": "object", "properties": { "pair": { "prefixItems": pair } } });
        let schema = ArgumentSchema::compile(&prefix).expect("compiles");
        assert!(schema.explain(&json!({ "pair": [1, "a"] })).is_some());
        for dialect in [json!("https://example.com/my-dialect"), json!("draft-07"), json!(7)] {
            let text = refused(&json!({ "$schema": dialect, "type": "object" }));
            assert!(text.contains("is not supported"), "{text}");
        }
    }

    #[test]
    fn a_schema_has_bounds() {
        let deep = (0..100).fold(json!({}), |inner, _| json!({ "not": inner }));
        assert!(refused(&deep).contains("64 levels"));
        let wide: Vec<_> = (0..30_000).map(|n| json!({ "const": n })).collect();
        assert!(refused(&json!({ "anyOf": wide })).contains("20000 values"));
    }

    #[derive(JsonSchema)]
    #[serde(tag = "kind")]
    #[expect(dead_code, reason = "only the schema matters")]
    enum Shape {
        Circle { radius: u8 },
        Dot,
    }

    #[test]
    fn results_have_the_schema_that_they_are_written_with() {
        assert_eq!(result_schema_of::<Shape>()["type"], "object");
        assert_eq!(result_schema_of::<Vec<u8>>()["type"], "array");
        assert_ne!(result_schema_of::<Option<Point>>()["type"], "object");
    }

    #[test]
    fn a_result_that_does_not_fit_is_described_without_its_values() {
        let schema = ResultSchema::compile(&json!({ "type": "array", "items": { "type": "integer" } }))
            .expect("compiles");
        assert_eq!(schema.mismatch(Some(&json!([1, 2]))), None);
        insta::assert_snapshot!(schema.mismatch(Some(&json!([1, "hunter2"]))).expect("a mismatch"), @r#"the result does not fit the tool's outputSchema: at `/1`: value is not of type "integer""#);
        insta::assert_snapshot!(schema.mismatch(None).expect("a mismatch"), @"the tool has an outputSchema and its result has no structured content");
    }

    #[test]
    fn older_clients_get_only_what_they_can_read() {
        let tool = |value: Value| value.as_object().cloned().expect("an object");
        let plain = tool(json!({
            "name": "a", "inputSchema": { "type": "object" }, "outputSchema": { "type": "object", "oneOf": [] }
        }));
        assert_eq!(for_older_clients(&plain), None);
        let newer = tool(json!({
            "name": "a",
            "inputSchema": { "type": "object", "properties": { "any": true, "none": false, "one": {} } },
            "outputSchema": { "type": "array" },
        }));
        assert_eq!(
            for_older_clients(&newer).map(Value::from),
            Some(json!({
                "name": "a",
                "inputSchema": { "type": "object", "properties": { "any": {}, "none": { "not": {} }, "one": {} } },
            }))
        );
    }
}
