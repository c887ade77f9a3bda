//! Stories of several replicas, each a process of its own. They need a PostgreSQL and a Redis and run where a recipe brings
//! them, under `scripts/with-services`; without, they fail.

mod bus;
mod faults;
mod greed;
mod legacy_client;
mod limits;
mod load;
mod machinery;
mod presence;
mod rolling;
mod sessions;

/// No such session (any more).
const GONE: (u16, i64) = (404, -31004);
/// What an answer says that will never come, or that is no longer kept.
const LOST: i64 = -31008;
