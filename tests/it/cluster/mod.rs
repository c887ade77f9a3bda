//! Stories of several replicas, each a process of its own, and of what one does when the others, PostgreSQL or Redis come and
//! go. They need a PostgreSQL and a Redis and run where a recipe brings them, under `scripts/with-services`; without, they
//! fail.

mod bus;
mod faults;
mod greed;
mod handover;
mod ledger;
mod legacy_client;
mod limits;
mod load;
mod machinery;
mod outages_database;
mod presence;
mod rolling;
mod sessions;

/// No such session (any more).
const GONE: (u16, i64) = (404, -31004);
/// What an answer says that will never come, or that is no longer kept.
const LOST: i64 = -31008;
