//! Merging: the tree of defaults says which keys there are and of which type each is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::{Table, Value};

use super::load::{ConfigError, PREFIX};
use super::value::{self, Kind};

/// Which layer set a value.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// The file given with `--config`.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// The one list of tables, and the keys of such a table.
pub(super) const ISSUERS: &str = "auth.issuers";
pub(super) const ISSUER: &str = r#"
issuer = ""
jwks_url = ""
jwks_file = ""
algorithms = []
audience = ""
tenant_claim = ""
scope_claim = ""
skew_ms = 0
"#;

/// The merged values, and who set them.
pub(super) struct Tree {
    root: Table,
    keys: Vec<String>,
    origins: BTreeMap<String, Origin>,
}

impl Tree {
    /// Starts from the defaults.
    pub(super) fn new(defaults: Table) -> Self {
        let mut keys = Vec::new();
        collect(&defaults, "", &mut keys);
        Self { root: defaults, keys, origins: BTreeMap::new() }
    }

    /// The merged values.
    pub(super) fn table(&self) -> &Table {
        &self.root
    }

    /// An error about `key`, with the layer that set it; a trailing `[...]` of the key is not looked up.
    pub(super) fn error(&self, key: &str, problem: String) -> ConfigError {
        let leaf = key.split('[').next().unwrap_or(key);
        let origin = self.origins.get(leaf).map_or_else(|| "default".to_owned(), Origin::to_string);
        ConfigError::Key { key: key.to_owned(), origin, problem }
    }

    /// Lays a file's values over those that are there.
    pub(super) fn overlay(&mut self, over: Table, origin: &Origin) -> Result<(), ConfigError> {
        let Self { root, keys, origins } = self;
        overlay(root, over, "", keys, &mut |key| {
            origins.insert(key.to_owned(), origin.clone());
        })
        .map_err(|(key, problem)| ConfigError::Key { key, origin: origin.to_string(), problem })
    }

    /// Sets one value from text, read as the type of its default.
    pub(super) fn set(&mut self, key: &str, text: &str, origin: &Origin) -> Result<(), ConfigError> {
        let error = |problem| ConfigError::Key { key: key.to_owned(), origin: origin.to_string(), problem };
        let mut names = key.split('.');
        let first = names.next().and_then(|name| self.root.get_mut(name));
        let slot = names.try_fold(first, |slot, name| Some(slot?.as_table_mut()?.get_mut(name))).flatten();
        let Some(slot) = slot else { return Err(error(unknown(key, &self.keys, Some(origin)))) };
        if slot.is_table() {
            return Err(error("is a section; expected a key in it".to_owned()));
        }
        let value = value::from_text(Kind::of(slot), text).map_err(error)?;
        *slot = fit(key, slot, value).map_err(|(key, problem)| ConfigError::Key {
            key,
            origin: origin.to_string(),
            problem,
        })?;
        self.origins.insert(key.to_owned(), origin.clone());
        Ok(())
    }
}

/// A key, and what is wrong with it.
type Wrong = (String, String);

fn overlay(
    base: &mut Table,
    over: Table,
    prefix: &str,
    known: &[String],
    set: &mut impl FnMut(&str),
) -> Result<(), Wrong> {
    for (name, value) in over {
        let key = format!("{prefix}{name}");
        match (base.get_mut(&name), value) {
            (None, _) => return Err((key.clone(), unknown(&key, known, None))),
            (Some(Value::Table(inner)), Value::Table(table)) => {
                overlay(inner, table, &format!("{key}."), known, set)?;
            }
            (Some(Value::Table(_)), value) => {
                return Err((key, format!("is a section; expected a table, found {}", Kind::of(&value))));
            }
            (Some(slot), value) => {
                *slot = fit(&key, slot, value)?;
                set(&key);
            }
        }
    }
    Ok(())
}

/// `value` as the type that `like` has.
fn fit(key: &str, like: &Value, value: Value) -> Result<Value, Wrong> {
    match (like, value) {
        (Value::Float(_), Value::Integer(whole)) => i32::try_from(whole)
            .map(|whole| Value::Float(whole.into()))
            .map_err(|_| wrong(key, like, "one that is too large")),
        (Value::Integer(_), Value::Integer(whole)) if u32::try_from(whole).is_err() => {
            Err(wrong(key, like, "one outside of that range"))
        }
        (Value::Array(_), Value::Array(entries)) => {
            for (place, entry) in entries.iter().enumerate() {
                fit_entry(key, place, entry)?;
            }
            Ok(Value::Array(entries))
        }
        (like, value) if like.same_type(&value) => Ok(value),
        (like, value) => Err(wrong(key, like, &Kind::of(&value).to_string())),
    }
}

fn fit_entry(key: &str, place: usize, entry: &Value) -> Result<(), Wrong> {
    let key_of_entry = format!("{key}[{place}]");
    match entry {
        Value::Table(table) if key == ISSUERS => {
            let mut template: Table =
                ISSUER.parse().map_err(|_| (key_of_entry.clone(), "cannot be checked".to_owned()))?;
            let prefix = format!("{key_of_entry}.");
            let mut known = Vec::new();
            collect(&template, &prefix, &mut known);
            overlay(&mut template, table.clone(), &prefix, &known, &mut |_| ())
        }
        Value::String(_) if key != ISSUERS => Ok(()),
        other => {
            let expected = if key == ISSUERS { "a table" } else { "a string" };
            Err((key_of_entry, format!("expected {expected}, found {}", Kind::of(other))))
        }
    }
}

fn wrong(key: &str, like: &Value, found: &str) -> Wrong {
    (key.to_owned(), format!("expected {}, found {found}", Kind::of(like).expected()))
}

/// Every key and section below `table`, with dots.
fn collect(table: &Table, prefix: &str, into: &mut Vec<String>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        if let Value::Table(inner) = value {
            collect(inner, &format!("{key}."), into);
        }
        into.push(key);
    }
}

fn unknown(key: &str, known: &[String], origin: Option<&Origin>) -> String {
    let last = |key: &str| key.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    let limit = (last(key).len() / 3).max(2);
    let nearest = known
        .iter()
        .map(|candidate| {
            let whole = strsim::damerau_levenshtein(key, candidate);
            (whole.min(strsim::damerau_levenshtein(&last(key), &last(candidate)) + 1), whole, candidate)
        })
        .filter(|(distance, ..)| *distance <= limit)
        .min();
    match (nearest, origin) {
        (None, _) => "unknown key; config/default.toml lists them all".to_owned(),
        (Some((_, _, near)), Some(Origin::Variable(_))) => {
            format!("unknown key; did you mean {PREFIX}{}?", near.to_ascii_uppercase().replace('.', "__"))
        }
        (Some((_, _, near)), _) => format!("unknown key; did you mean {near}?"),
    }
}
