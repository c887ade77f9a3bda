//! Weir: a multi-tenant hosted MCP gateway.
//!
//! The modules, in reading order; `docs/ARCHITECTURE.md` is the map.

// The state, and the service as a function of it.
pub mod app;
pub mod serve;

// The commands.
pub mod cli;

// The front door.
pub mod http;
pub mod mcp;

// Nouns: what the front door leads to.
pub mod accounts;
pub mod api_keys;
pub mod audit;
pub mod billing;
pub mod caller;
pub mod calls;
pub mod credentials;
pub mod credits;
pub mod hooks;
pub mod ledger;
pub mod limits;
pub mod operator_keys;
pub mod plans;
pub mod policy;
pub mod prices;
pub mod providers;
pub mod session_history;
pub mod settings;
pub mod tenants;
pub mod usage;

// What stands in the place of Stripe, for tests and for trying things out.
pub mod standin;

// What everything stands on.
pub mod breaker;
mod cache;
pub mod clock;
pub mod config;
pub mod db;
pub mod dns;
pub mod egress;
pub mod error;
pub mod id;
pub mod redis;
pub mod replicas;
pub mod seal;
pub mod tasks;
pub mod telemetry;

// How parsers are fuzzed.
#[cfg(test)]
mod fuzz;
