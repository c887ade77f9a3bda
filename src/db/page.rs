//! Pages of a list: by key, never by offset, so that a page costs the same wherever it is.

use std::fmt::Display;

/// Which part of a list is wanted. Lists are in the order in which their rows were made, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<Id> {
    /// The last row of the page before, or `None` for the first page.
    pub after: Option<Id>,
    /// Rows wanted; held to 1..=[`Page::MAX`].
    pub limit: u32,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether there are rows after these.
    pub more: bool,
}

impl<Id> Page<Id> {
    /// Most rows of a page.
    pub const MAX: u32 = 1000;

    /// The first page.
    #[must_use]
    pub const fn first(limit: u32) -> Self {
        Self { after: None, limit }
    }

    fn held(&self) -> u32 {
        self.limit.clamp(1, Self::MAX)
    }

    /// Rows to ask the database for: one more than wanted tells whether there are more.
    pub(super) fn fetch(&self) -> i64 {
        i64::from(self.held()) + 1
    }

    /// Cuts off the row that was asked for only to know that it is there.
    pub(super) fn cut<T>(&self, mut rows: Vec<T>) -> Listed<T> {
        let held = usize::try_from(self.held()).unwrap_or(usize::MAX);
        let more = rows.len() > held;
        rows.truncate(held);
        Listed { rows, more }
    }
}

impl<Id: Display> Page<Id> {
    /// What the ids of this page come after; every id comes after the empty text.
    pub(super) fn after_text(&self) -> String {
        self.after.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}
