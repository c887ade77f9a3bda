//! Clients that leave without a word: 20,000 sessions, dropped in every impolite way, and nothing of them is left.
//!
//! Memory is what Weir's code holds of the heap at rest, counted by the allocator of this test binary: unlike the
//! resident size it does not depend on what the C library keeps for later, and a leak of one small box per session
//! is seen. SQLite's own heap is not counted.

mod streams;
mod ways;
mod world;

use std::alloc::System;

use futures_util::{StreamExt, stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use weir::mcp::bus::Changed;

use crate::support::eventually;
use ways::WAYS;
use world::World;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Sessions that are counted, over all rounds.
const SESSIONS: u32 = 20_000;
/// Clients at once.
const AT_ONCE: usize = 50;

/// Sockets that the pool of a PostgreSQL database may open meanwhile.
const SPARE_SOCKETS: usize = 8;
/// What the heap may hold beyond the level before: a further connection of the database pool, and what the runtime and the
/// clients keep. One allocation that each client of only one way leaves behind is more.
const SLACK: Heap = Heap { allocations: 500, bytes: 256 * 1024 };

/// What Weir's code holds of the heap.
#[derive(Debug, Clone, Copy)]
struct Heap {
    allocations: usize,
    bytes: usize,
}

/// Changes that fill the bus.
const BUS: usize = 1024;

impl Heap {
    fn now() -> Self {
        let heap = HEAP.stats();
        Self {
            allocations: heap.allocations - heap.deallocations,
            bytes: heap.bytes_allocated - heap.bytes_deallocated,
        }
    }

    fn is_back_at(self, before: Self) -> bool {
        self.allocations <= before.allocations + SLACK.allocations && self.bytes <= before.bytes + SLACK.bytes
    }
}

/// Open sockets of this process, the clients' among them.
fn sockets() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").expect("the list of file descriptors");
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// Gauges that are not back at zero.
fn still_open(world: &World) -> Vec<String> {
    let text = world.gateway.app.metrics.render();
    let open =
        |line: &&str| line.starts_with("weir_sessions_open{") || line.starts_with("weir_streams_open{");
    let (zero, other): (Vec<_>, Vec<_>) = text.lines().filter(open).partition(|line| line.ends_with(" 0"));
    assert!(zero.len() + other.len() >= 5, "the gauges have other names");
    other.into_iter().map(str::to_owned).collect()
}

/// Every way, each gone by many clients, and all that they left grown old.
async fn round(world: &World, tasks: usize) {
    for (name, clients, way) in WAYS {
        stream::iter(0..clients).map(|_| way(world)).buffer_unordered(AT_ONCE).for_each(async |()| ()).await;
        world.calls_end(name).await;
    }
    world.settle(tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_clients_that_leave_without_a_word() {
    let world = World::start().await;
    let app = world.gateway.app.clone();
    let (tasks, open) = (app.tasks.running(), sockets());
    // What is there once and for all (pools, caches, tables at the size that they need) comes into being here; so do the
    // changes that the bus remembers.
    let notifier = app.bus.notifier("lab".into());
    (0..BUS).for_each(|n| notifier.changed(Changed::Resource(format!("lab://nobody/{n:01500}").into())));
    round(&world, tasks).await;
    let (heap, first) = (Heap::now(), world.counter.now().opened);
    while world.counter.now().opened - first < SESSIONS {
        round(&world, tasks).await;
        let opened = world.counter.now().opened;
        assert_eq!((app.sessions.len(), app.tasks.running()), (0, tasks), "after {opened} sessions");
        assert_eq!(app.sessions.kept_bytes(), 0, "after {opened} sessions");
        assert!(sockets() <= open + SPARE_SOCKETS, "{} sockets after {opened} sessions", sockets());
        assert_eq!(still_open(&world), Vec::<String>::new(), "after {opened} sessions");
        let is_back = async || Heap::now().is_back_at(heap);
        eventually(&format!("the heap to shrink to {heap:?}"), is_back).await;
    }
    world.take_every_place().await;
    assert_eq!(world.gateway.metric("weir_calls_dropped_total"), 0.0);
}
