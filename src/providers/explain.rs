//! What a model is told of arguments that do not fit: which one is wrong, and what is allowed.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;

/// Longest value that is repeated in a message, in bytes of JSON. The model knows what it sent.
const MAX_ECHO: usize = 80;
/// Longest explanation of one mistake, in bytes.
const MAX_TEXT: usize = 600;

/// One mistake in a sentence part, with the path of the argument. `known` are the names of the tool's arguments.
pub(super) fn mistake(error: &ValidationError<'_>, known: &[String]) -> String {
    if let Some(inner) = only_way(error) {
        return mistake(inner, known);
    }
    let path = error.instance_path().to_string();
    let place = path.trim_start_matches('/').replace('/', ".");
    let text = match choices(error) {
        Some(allowed) => format!("{} is not one of {}", shown(error.instance()), allowed.join(", ")),
        None => plain(error),
    };
    let text = match error.kind() {
        Kind::AdditionalProperties { .. } if place.is_empty() && !known.is_empty() => {
            format!("{text}; this tool takes: {}", known.join(", "))
        }
        Kind::AdditionalProperties { .. } if place.is_empty() => {
            format!("{text}; this tool takes no arguments")
        }
        _ => text,
    };
    let text = if place.is_empty() { text } else { format!("argument `{place}`: {text}") };
    shortened(text)
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

fn plain(error: &ValidationError<'_>) -> String {
    let value = error.instance();
    // An object or array says nothing that its path does not; a long text only takes room.
    if value.is_object() || value.is_array() || value.to_string().len() > MAX_ECHO {
        error.masked_with(shown(value)).to_string()
    } else {
        error.to_string()
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "the object".to_owned(),
        Value::Array(_) => "the array".to_owned(),
        value => {
            Some(value.to_string()).filter(|text| text.len() <= MAX_ECHO).unwrap_or("the value".to_owned())
        }
    }
}

/// The ways in which the value could have fitted, where there are several.
fn alternatives<'a>(error: &'a ValidationError<'_>) -> Option<&'a [Vec<ValidationError<'static>>]> {
    match error.kind() {
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => Some(context),
        _ => None,
    }
}

/// The first mistake in the only alternative that has the right type: the one that was meant.
fn only_way<'a>(error: &'a ValidationError<'_>) -> Option<&'a ValidationError<'static>> {
    let wrong_kind = |mistakes: &&Vec<ValidationError<'static>>| {
        mistakes.iter().any(|one| {
            one.instance_path() == error.instance_path()
                && matches!(one.kind(), Kind::Type { .. } | Kind::Constant { .. } | Kind::Enum { .. })
        })
    };
    let mut meant = alternatives(error)?.iter().filter(|way| !wrong_kind(way));
    let way = meant.next()?;
    if meant.next().is_some() { None } else { way.first() }
}

/// Every allowed value, where all alternatives are single values, lists of values, or plain types.
fn choices(error: &ValidationError<'_>) -> Option<Vec<String>> {
    let mut allowed = Vec::new();
    for way in alternatives(error)? {
        let values = way.iter().find_map(|one| match one.kind() {
            Kind::Constant { expected_value } => Some(vec![expected_value.to_string()]),
            Kind::Enum { options } => {
                options.as_array().map(|options| options.iter().map(Value::to_string).collect())
            }
            Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => choices(one),
            _ => None,
        });
        match values.or_else(|| way.iter().find_map(type_name)) {
            Some(values) => allowed.extend(values),
            None => return None,
        }
    }
    Some(allowed)
}

fn type_name(error: &ValidationError<'_>) -> Option<Vec<String>> {
    match error.kind() {
        Kind::Type { kind: TypeKind::Single(one) } => Some(vec![one.as_str().to_owned()]),
        _ => None,
    }
}
