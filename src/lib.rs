//! Weir: a multi-tenant hosted MCP gateway.
//!
//! The modules, in reading order; `docs/ARCHITECTURE.md` is the map.

pub mod api_keys;
pub mod audit;
pub mod caller;
pub mod calls;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod db;
pub mod dns;
pub mod egress;
pub mod error;
pub mod id;
pub mod operator_keys;
pub mod policy;
pub mod session_history;
pub mod settings;
pub mod tasks;
pub mod telemetry;
pub mod tenants;
