//! What limits share between replicas.

mod meter;

pub use meter::{Level, Meter};
