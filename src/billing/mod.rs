//! Money: what was used goes out to Stripe, and what Stripe says of customers comes back.
//!
//! Without `billing.stripe_key` nothing here runs, and everything else works as it does with one: plans that are free or paid
//! for by hand need no Stripe.

pub mod consequences;
pub mod credits_meter;
pub mod customers;
pub mod doctor;
pub mod events;
pub mod export;
pub mod inbox;
pub mod job;
pub mod mirror;
pub mod report;
pub mod setup;
pub mod shop;
pub mod stripe;
