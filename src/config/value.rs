//! Single values: their kinds, their reading from text, and the forms that need more than serde's own.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
use toml::{Table, Value};

/// What a value is, as an error names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Integer,
    Float,
    Boolean,
    Array,
    Table,
    Datetime,
}

impl Kind {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::String(_) => Self::String,
            Value::Integer(_) => Self::Integer,
            Value::Float(_) => Self::Float,
            Value::Boolean(_) => Self::Boolean,
            Value::Array(_) => Self::Array,
            Value::Table(_) => Self::Table,
            Value::Datetime(_) => Self::Datetime,
        }
    }
}

impl Kind {
    /// What is wanted where a value of this kind is.
    pub(super) fn expected(self) -> String {
        match self {
            Self::Integer => "a whole number from 0 to 4294967295".to_owned(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "a string",
            Self::Integer => "a whole number",
            Self::Float => "a number",
            Self::Boolean => "true or false",
            Self::Array => "a list",
            Self::Table => "a table",
            Self::Datetime => "a date",
        })
    }
}

/// Reads text (of a variable or a flag) as a value of `kind`; the error says what was expected.
pub(super) fn from_text(kind: Kind, text: &str) -> Result<Value, String> {
    // `Layers::from_process` leaves this character where a variable was not UTF-8.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err("expected valid UTF-8".to_owned());
    }
    let wrong = || format!("expected {}, found other text", kind.expected());
    let trimmed = text.trim();
    match kind {
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Integer => trimmed.parse().map(Value::Integer).map_err(|_| wrong()),
        Kind::Float => trimmed.parse().map(Value::Float).map_err(|_| wrong()),
        Kind::Boolean => trimmed.parse().map(Value::Boolean).map_err(|_| wrong()),
        Kind::Array if trimmed.starts_with('[') => list(trimmed),
        Kind::Array => Ok(Value::Array(
            trimmed.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect(),
        )),
        Kind::Table | Kind::Datetime => Err(wrong()),
    }
}

/// A TOML or a JSON array.
fn list(text: &str) -> Result<Value, String> {
    let toml = format!("list = {text}").parse::<Table>().ok();
    toml.and_then(|mut table| (table.len() == 1).then(|| table.remove("list")).flatten())
        .or_else(|| serde_json::from_str(text).ok())
        .filter(Value::is_array)
        .ok_or_else(|| "expected commas between the entries, or a TOML or JSON array".to_owned())
}

/// `ADDRESS:PORT`.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    parse(&String::deserialize(from)?, "ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080")
}

/// `ADDRESS:PORT`, or nothing for none.
pub(super) fn optional_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    let expected = "ADDRESS:PORT, such as 127.0.0.1:9464 or [::1]:9464, or an empty string for none";
    (!text.is_empty()).then(|| parse(&text, expected)).transpose()
}

/// A path, or nothing for none.
pub(super) fn optional_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(from)?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// `ADDRESS/BITS`, or a single address.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let one = |text: &String| match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => parse(text, "networks such as 10.0.0.0/8 or fd00::/8, or single addresses"),
    };
    Vec::<String>::deserialize(from)?.iter().map(one).collect()
}

/// `ADDRESS` or `ADDRESS:PORT`; port 53 where there is none.
pub(super) fn resolver_addresses<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    let one = |text: &String| {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(address) => Ok(SocketAddr::new(address, 53)),
            Err(_) => parse(text, "addresses such as 9.9.9.9, 9.9.9.9:53, 2620:fe::fe or [2620:fe::fe]:53"),
        }
    };
    Vec::<String>::deserialize(from)?.iter().map(one).collect()
}

fn parse<T: FromStr, E: de::Error>(text: &str, expected: &str) -> Result<T, E> {
    text.parse().map_err(|_| E::custom(format_args!("expected {expected}")))
}
