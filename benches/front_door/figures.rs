//! Figures from samples.

use std::time::Duration;

/// Several measurements of one thing.
pub struct Samples(Vec<f64>);

impl Samples {
    /// Of these values.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value that half of them do not exceed.
    pub fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The median, and in brackets the extremes: how noisy the machine was.
    pub fn show(&self, digits: usize) -> String {
        let at = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        let (least, most) = (at(self.0.first()), at(self.0.last()));
        format!("{:.digits$} [{least:.digits$} .. {most:.digits$}]", self.median())
    }
}

/// The duration that `share` of the sorted durations do not exceed, in microseconds.
pub fn percentile(sorted: &[Duration], share: usize) -> f64 {
    let at = (sorted.len() * share / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |duration| duration.as_secs_f64() * 1e6)
}

/// Bytes as MiB.
pub fn mebibytes(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}

/// A number of things.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
pub fn count(number: usize) -> f64 {
    number as f64
}
