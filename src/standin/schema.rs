//! What each operation takes, as a table, and the check of a request against it: Stripe refuses parameters that it
//! does not know, and those that are missing or of the wrong type (docs.stripe.com/error-codes).

use serde_json::{Map, Value, json};

use super::refusal::Refusal;

/// What a parameter may be.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Text of at most so many characters.
    Text(usize),
    /// `true` or `false`.
    Flag,
    /// A whole number; times are seconds since 1970.
    Whole,
    /// A number of at most twelve decimals, kept as text.
    Decimal,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Pairs of text, such as `metadata`.
    Pairs,
    /// At most so many of a kind.
    Many(&'static Kind, usize),
    /// Parameters of its own.
    Object(&'static [Field]),
    /// A time, or bounds of it (`gt`, `gte`, `lt`, `lte`).
    Range,
}

/// One parameter.
#[derive(Clone, Copy)]
pub struct Field {
    name: &'static str,
    kind: Kind,
    need: Need,
}

#[derive(Clone, Copy, PartialEq)]
enum Need {
    Required,
    Optional,
    Clearable,
}

/// A parameter that must be there.
pub const fn req(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, need: Need::Required }
}

/// One that may be there.
pub const fn opt(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, need: Need::Optional }
}

/// One that may be there, and that an empty text takes away.
pub const fn clear(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, need: Need::Clearable }
}

/// Names and texts that nobody says a length of.
pub const TEXT: Kind = Kind::Text(5000);
/// Pairs that belong to the caller: at most 50, names of 40 characters, values of 500 (docs.stripe.com/api/metadata).
pub const METADATA: Field = clear("metadata", Kind::Pairs);
/// What every list takes (docs.stripe.com/api/pagination).
pub const PAGE: &[Field] =
    &[opt("limit", Kind::Whole), opt("starting_after", TEXT), opt("ending_before", TEXT)];

const RANGE: &[Field] =
    &[opt("gt", Kind::Whole), opt("gte", Kind::Whole), opt("lt", Kind::Whole), opt("lte", Kind::Whole)];
const MOST_PAIRS: usize = 50;
const LONGEST_NAME: usize = 40;
const LONGEST_VALUE: usize = 500;
const DECIMALS: usize = 12;

/// Checks parameters against the tables of an operation. What comes out has the types that the tables say; what was
/// cleared is null.
///
/// # Errors
/// 400 that names the parameter.
pub fn read(tables: &[&[Field]], tree: &Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    read_in(tables, tree, "")
}

fn read_in(
    tables: &[&[Field]],
    tree: &Map<String, Value>,
    prefix: &str,
) -> Result<Map<String, Value>, Refusal> {
    let fields = || tables.iter().copied().flatten();
    let unknown: Vec<_> = tree.keys().filter(|name| !fields().any(|field| field.name == **name)).collect();
    if let Some(first) = unknown.first() {
        let named: Vec<_> = unknown.iter().map(|name| path(prefix, name)).collect();
        let plural = if named.len() > 1 { "s" } else { "" };
        let message = format!("Received unknown parameter{plural}: {}", named.join(", "));
        return Err(Refusal::invalid(Some("parameter_unknown"), path(prefix, first), message));
    }
    let mut read = Map::new();
    for field in fields() {
        let at = path(prefix, field.name);
        match tree.get(field.name) {
            None if field.need == Need::Required => return Err(Refusal::missing(&at)),
            None => {}
            Some(Value::String(text)) if text.is_empty() => {
                if field.need != Need::Clearable {
                    return Err(empty(&at));
                }
                read.insert(field.name.to_owned(), Value::Null);
            }
            Some(value) => {
                read.insert(field.name.to_owned(), read_value(field.kind, value, &at)?);
            }
        }
    }
    Ok(read)
}

fn read_value(kind: Kind, value: &Value, at: &str) -> Result<Value, Refusal> {
    match (kind, value) {
        (Kind::Object(fields), Value::Object(tree)) => read_in(&[fields], tree, at).map(Value::Object),
        (Kind::Range, Value::Object(tree)) => read_in(&[RANGE], tree, at).map(Value::Object),
        (Kind::Pairs, Value::Object(tree)) => read_pairs(tree, at),
        (Kind::Many(each, most), Value::Array(values)) => {
            if values.len() > most {
                return Err(wrong(None, at, format!("Array {at} exceeded maximum {most} allowed elements.")));
            }
            let read = values
                .iter()
                .enumerate()
                .map(|(n, value)| read_value(*each, value, &path(at, &n.to_string())));
            read.collect::<Result<_, _>>().map(Value::Array)
        }
        (Kind::Many(..), _) => Err(wrong(None, at, "Invalid array".to_owned())),
        (Kind::Object(_) | Kind::Pairs, _) => Err(wrong(None, at, "Invalid object".to_owned())),
        (kind, Value::String(text)) => read_text(kind, text, at),
        _ => Err(wrong(Some("parameter_invalid_string_blank"), at, format!("Invalid value for {at}"))),
    }
}

fn read_text(kind: Kind, text: &str, at: &str) -> Result<Value, Refusal> {
    match kind {
        Kind::Text(most) if text.chars().count() > most => {
            let message = format!("Invalid string: {at} must be at most {most} characters");
            Err(wrong(Some("parameter_invalid_string_too_long"), at, message))
        }
        Kind::Flag => match text {
            "true" => Ok(json!(true)),
            "false" => Ok(json!(false)),
            _ => Err(wrong(None, at, format!("Invalid boolean: {text}"))),
        },
        Kind::Whole | Kind::Range => match text.parse::<i64>() {
            Ok(number) => Ok(json!(number)),
            Err(_) => Err(wrong(Some("parameter_invalid_integer"), at, format!("Invalid integer: {text}"))),
        },
        Kind::Decimal => match decimal(text) {
            Some(plain) => Ok(json!(plain)),
            None => Err(wrong(None, at, format!("Invalid decimal: {text}"))),
        },
        Kind::OneOf(words) if !words.contains(&text) => {
            Err(wrong(None, at, format!("Invalid {at}: must be one of {}", words.join(", "))))
        }
        _ => Ok(json!(text)),
    }
}

fn read_pairs(tree: &Map<String, Value>, at: &str) -> Result<Value, Refusal> {
    if tree.len() > MOST_PAIRS {
        return Err(wrong(None, at, format!("{at} can have at most {MOST_PAIRS} keys")));
    }
    for (name, value) in tree {
        let short = value.as_str().is_some_and(|value| value.chars().count() <= LONGEST_VALUE);
        if name.chars().count() > LONGEST_NAME || !short {
            let message =
                format!("{at} takes names of {LONGEST_NAME} and values of {LONGEST_VALUE} characters");
            return Err(wrong(None, &path(at, name), message));
        }
    }
    Ok(Value::Object(tree.clone()))
}

/// The number as it is written most shortly.
fn decimal(text: &str) -> Option<String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = whole.strip_prefix('-').unwrap_or(whole);
    if number.is_empty()
        || number.len() > DECIMALS
        || part.len() > DECIMALS
        || !digits(number)
        || !digits(part)
    {
        return None;
    }
    let part = part.trim_end_matches('0');
    Some(if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") })
}

fn path(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}[{name}]") }
}

fn wrong(code: Option<&'static str>, at: &str, message: String) -> Refusal {
    Refusal::invalid(code, at, message)
}

fn empty(at: &str) -> Refusal {
    let message = format!(
        "You passed an empty string for '{at}', which cannot be unset: leave it out, or give a value."
    );
    Refusal::invalid(Some("parameter_invalid_empty"), at, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Field] = &[
        req("name", Kind::Text(4)),
        clear("note", TEXT),
        opt("amount", Kind::Decimal),
        opt("on", Kind::Flag),
        opt("inner", Kind::Object(&[req("count", Kind::Whole)])),
        opt("words", Kind::Many(&Kind::OneOf(&["a", "b"]), 2)),
        METADATA,
    ];

    fn check(form: &str) -> Result<String, String> {
        let tree = super::super::form::parse(form.as_bytes()).expect("a tree");
        match read(&[TABLE], &tree) {
            Ok(read) => Ok(Value::Object(read).to_string()),
            Err(refusal) => {
                let error = &refusal.body()["error"];
                Err(format!(
                    "{} {}",
                    error["param"].as_str().unwrap_or_default(),
                    error["code"].as_str().unwrap_or("-")
                ))
            }
        }
    }

    #[test]
    fn types_are_those_of_the_table() {
        let read = check("name=x&note=&amount=0.010&on=true&inner[count]=7&words[]=a&metadata[k]=v");
        let tree = r#"{"amount":"0.01","inner":{"count":7},"metadata":{"k":"v"},"name":"x","note":null,"on":true,"words":["a"]}"#;
        assert_eq!(read.as_deref(), Ok(tree));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (form, trouble) in [
            ("", "name parameter_missing"),
            ("name=", "name parameter_invalid_empty"),
            ("name=x&nam=y", "nam parameter_unknown"),
            ("name=x&inner[count]=1&inner[c]=2", "inner[c] parameter_unknown"),
            ("name=x&inner[count]=1.5", "inner[count] parameter_invalid_integer"),
            ("name=x&inner[a]=1", "inner[a] parameter_unknown"),
            ("name=x&inner=1", "inner -"),
            ("name=12345", "name parameter_invalid_string_too_long"),
            ("name=x&words[]=a&words[]=c", "words[1] -"),
            ("name=x&words[]=a&words[]=a&words[]=a", "words -"),
            ("name=x&amount=1e3", "amount -"),
            ("name=x&on=1", "on -"),
        ] {
            assert_eq!(check(form), Err(trouble.to_owned()), "{form}");
        }
    }
}
