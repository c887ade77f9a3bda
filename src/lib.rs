//! Weir: a multi-tenant hosted MCP gateway.
//!
//! The modules, in reading order; `docs/ARCHITECTURE.md` is the map.

pub mod caller;
pub mod clock;
pub mod config;
pub mod dns;
pub mod egress;
pub mod error;
pub mod id;
pub mod policy;
pub mod tasks;
pub mod telemetry;
