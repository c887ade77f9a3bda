//! Weir through its front door. Every test starts a whole gateway in its own process, on a port and a database of its
//! own, and talks HTTP to it. SQLite by default; PostgreSQL where `WEIR_TEST_POSTGRES` names a server; and with
//! `WEIR_TEST_REPLICAS` several replicas on PostgreSQL and Redis, of which each request finds another.

mod accounts;
mod admin;
mod bad_input;
mod billing;
mod billing_export;
mod billing_kills;
mod billing_schedules;
mod cli;
mod cluster;
mod credentials;
mod credentials_jwt;
mod dead_peers;
mod deploy;
mod drain;
mod fuzz;
mod isolation;
mod leaks;
mod legacy;
mod legacy_streams;
mod letter;
mod limits;
mod metering;
mod modern;
mod modern_headers;
mod modern_rounds;
mod modern_streams;
mod operations;
mod plans;
mod prices;
mod questions;
mod redis_faults;
mod redis_flavours;
mod redis_keys;
mod resume;
mod secrets;
mod shutdown;
mod sse;
mod standin;
mod standin_money;
mod storms;
mod subscriptions;
mod support;
mod usage;
mod webhooks;
