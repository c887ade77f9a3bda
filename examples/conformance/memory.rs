//! What the fixtures remember: counts, in files, because several replicas remember together.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Counts by name.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Path>);

impl Memory {
    /// In this directory, which whoever remembers together must share.
    pub(crate) fn new(directory: &Path) -> Self {
        Self(directory.into())
    }

    /// How often `what` happened.
    pub(crate) fn count(&self, what: &str) -> u64 {
        std::fs::metadata(self.file(what)).map_or(0, |file| file.len())
    }

    /// Notes that `what` happened.
    pub(crate) fn add(&self, what: &str) {
        // One byte each: appending is atomic, and the file's length is the count.
        let file = OpenOptions::new().create(true).append(true).open(self.file(what));
        if let Err(error) = file.and_then(|mut file| file.write_all(b".")) {
            tracing::error!(%error, what, "a fixture could not remember");
        }
    }

    fn file(&self, what: &str) -> PathBuf {
        let plain: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        self.0.join(format!("count-{plain}"))
    }
}
