//! HTTP: the front door. Routes, layers, who may come in, and what every error looks like outside of MCP.

pub mod admin;
pub mod billing;
pub mod caller;
pub mod client_ip;
pub mod extract;
mod health;
mod mcp;
mod metadata;
mod metered;
mod middleware;
mod origin;
pub mod problem;
pub mod router;
mod webhooks;
