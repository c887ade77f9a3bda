//! The same on SQLite, with one process.

use super::schedule::GROUP;
use super::world::World;
use super::{play_groups, wanted};

/// Cases that are played, under numbers of their own.
const CASES: u64 = 30;
const FIRST: u64 = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_on_sqlite_adds_up() {
    let groups = wanted(FIRST..FIRST + CASES / GROUP);
    if !groups.is_empty() {
        Box::pin(play_groups(World::alone().await, &groups)).await;
    }
}
