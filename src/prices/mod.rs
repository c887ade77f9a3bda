//! Prices: what calls cost under a plan. A plan's prices are published as versions, which never change; every charge names the
//! version that it was made by, so that it can be computed again.

mod book;
pub(crate) mod tags;
mod terms;
pub mod versions;

pub use book::Book;
pub use terms::{Cycle, Kind, Measured, Price, Terms, ToolPrice, Unpriced};
pub use versions::{History, PriceVersion, get, history, list, publish};

#[cfg(test)]
mod tests;
