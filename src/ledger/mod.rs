//! The ledger as it is read: sums per day, what a tenant used and has left, how long calls are kept, and whether it is right.
//!
//! Who writes it is in [`crate::usage`].

mod balance;
pub mod days;
pub mod retention;
pub mod rollups;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod usage;
pub mod verify;

pub use balance::{Balance, Left, PeriodBalance, balance, by_tool, left_and_owed};
