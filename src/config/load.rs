//! Loading: defaults, then a file, then the environment, then flags; the first mistake stops it.
//!
//! No error of this room repeats a value, because any value might be a secret that was put in the wrong place.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Config;
use super::merge::{Origin, Tree};

/// `config/default.toml`: every key, its meaning and its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Environment variables that begin like this are configuration.
pub const PREFIX: &str = "WEIR_";

/// Variables of the test suite, which are none.
const TEST_PREFIX: &str = "WEIR_TEST_";

/// Why the configuration is not usable. No message holds a configured value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {}, line {line}: not valid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// What the parser expected.
        message: String,
    },
    /// A key is unknown, or its value is wrong.
    #[error("configuration key {key} ({origin}): {problem}")]
    Key {
        /// The key, with dots.
        key: String,
        /// The layer that set it: the file, the environment variable or the command line.
        origin: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

/// What the configuration is made of; later layers win over earlier ones, and all win over [`DEFAULTS`].
#[derive(Clone, Default)]
pub struct Layers {
    /// A TOML file with any subset of the keys.
    pub file: Option<PathBuf>,
    /// Environment variables. Those that do not begin with `WEIR_` are passed over.
    pub env: Vec<(String, String)>,
    /// Dotted keys and their values as text, from the command line.
    pub flags: Vec<(String, String)>,
}

impl Layers {
    /// The layers of this process: the only place that reads the environment.
    #[must_use]
    pub fn from_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect();
        Self { file, env, flags }
    }

    /// Merges the layers and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`], which names the key, the layer that set it, and what was expected.
    pub fn load(self) -> Result<Config, ConfigError> {
        let mut tree = Tree::new(parse(DEFAULTS, Path::new("config/default.toml"))?);
        if let Some(path) = self.file {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            let table = parse(&text, &path)?;
            tree.overlay(table, &Origin::File(path))?;
        }
        for (name, value) in self.env {
            let other = name.starts_with(TEST_PREFIX) || is_service_link(&name, &value);
            if let Some(key) = name.strip_prefix(PREFIX).filter(|_| !other) {
                let key = key.to_ascii_lowercase().replace("__", ".");
                tree.set(&key, &value, &Origin::Variable(name))?;
            }
        }
        for (key, value) in self.flags {
            tree.set(&key, &value, &Origin::Flag)?;
        }
        finish(&tree)
    }
}

impl fmt::Debug for Layers {
    /// Names without values: the database's URL is among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |list: &[(String, String)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        f.debug_struct("Layers")
            .field("file", &self.file)
            .field("env", &names(&self.env))
            .field("flags", &names(&self.flags))
            .finish()
    }
}

fn parse(text: &str, path: &Path) -> Result<Table, ConfigError> {
    // The error's own Display would quote the line, and with it perhaps a password.
    text.parse::<Table>().map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        ConfigError::Syntax { path: path.to_owned(), line, message: error.message().to_owned() }
    })
}

fn finish(tree: &Tree) -> Result<Config, ConfigError> {
    let config: Config =
        serde_path_to_error::deserialize(Value::Table(tree.table().clone())).map_err(|error| {
            let key = error.path().to_string();
            tree.error(&key, without_value(error.inner().message()))
        })?;
    config.validate().map_err(|invalid| tree.error(&invalid.key, invalid.problem))?;
    Ok(config)
}

/// serde says "unknown variant `VALUE`, expected ...": only what was expected is passed on.
fn without_value(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => message.to_owned(),
    }
}

/// Kubernetes sets such variables for a Service called "weir", in every container of its namespace
/// (`enableServiceLinks`): `WEIR_SERVICE_HOST`, `WEIR_SERVICE_PORT_HTTP`, `WEIR_PORT`, `WEIR_PORT_8080_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let link =
        |part: &str| name.split_once(part).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('_'));
    let port = value.starts_with("tcp://") || value.starts_with("udp://");
    !name.contains("__")
        && (link("_SERVICE_HOST")
            || link("_SERVICE_PORT")
            || (name.contains("_PORT_") && (link("_TCP") || link("_UDP")))
            || (name.ends_with("_PORT") && port))
}
