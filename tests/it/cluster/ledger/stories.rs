//! Two schedules that are told rather than drawn.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::check::{Record, Tally};
use super::play::{Answer, Cast};
use super::schedule::{Case, Fault, Piece, Tool};
use super::world::{LEASE, World};
use super::{report, rest, run, verified};
use crate::support::eventually;

/// Beyond the lease, until what a dead process held can be spent by others.
const A_LITTLE: Duration = Duration::from_secs(4);

/// A piece of work that takes so long.
fn piece(id: String, at: Duration, takes: Duration, door: Option<usize>) -> Piece {
    Piece {
        id,
        tenant: 0,
        at,
        tool: Tool::Work,
        door,
        keyed: false,
        copies: 1,
        ending: "ok",
        takes,
        bytes: 0,
        cancel: None,
    }
}

fn case(seed: u64, terms: serde_json::Value, tenants: usize, pieces: Vec<Piece>) -> Case {
    Case {
        seed,
        terms: [terms.clone(), terms],
        given: vec![None; tenants],
        pieces,
        changes: Vec::new(),
        is_known: true,
    }
}

fn calls_done(told: &[super::play::Told]) -> usize {
    told.iter().filter(|told| matches!(told.answer, Answer::Done { .. })).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_replica_s_credits_come_back() {
    const LONG: Duration = Duration::from_secs(20);
    let mut world = World::cluster(&[("mcp.tool_timeout_ms", "30000")]).await;
    let stage = world.stage.clone();
    let terms = json!({ "kind": "usage", "hard_cap": 10, "tools": [{ "name": "work", "per_call": 1 }] });
    let case = case(1, terms, 1, Vec::new());
    let cast = Cast::gather(&stage, &case).await;
    let ask = async |id: &str, takes, door| {
        cast.ask(&stage, &piece(id.to_owned(), Duration::ZERO, takes, Some(door)), true).await
    };
    let mut told = ask("settled", Duration::ZERO, 0).await;
    let running = join_all((0..8).map(async |n| ask(&format!("long {n}"), LONG, 0).await));
    let killing = async {
        eventually("the long calls to begin", async || Record::read(&world.record).begun_count() == 9).await;
        // One credit is left, wherever it is held.
        let mut told = ask("the last one", Duration::ZERO, 1).await;
        told.append(&mut ask("one too many", Duration::ZERO, 1).await);
        assert_eq!(calls_done(&told), 1, "{told:#?}");
        assert!(matches!(told[1].answer, Answer::Refused { .. }), "{told:#?}");
        world.end(0, true).await;
        let killed = Instant::now();
        for n in 0..8 {
            let within = LEASE + A_LITTLE;
            loop {
                let mut tried = ask(&format!("again {n}"), Duration::ZERO, 1 + n % 2).await;
                told.append(&mut tried);
                if calls_done(&told) == n + 2 {
                    break;
                }
                assert!(killed.elapsed() < within, "not back {within:?} after the death: {told:#?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        eprintln!("all was spent again {:?} after the death", killed.elapsed());
        told.append(&mut ask("beyond the cap", Duration::ZERO, 2).await);
        told
    };
    let (lost, spent) = tokio::join!(running, killing);
    assert!(lost.iter().flatten().all(|told| told.answer == Answer::Broken), "{lost:#?}");
    told.extend(lost.into_iter().flatten());
    told.extend(spent);
    assert!(matches!(told[told.len() - 1].answer, Answer::Refused { .. }), "{told:#?}");
    world.start(0).await;
    let (wrong, tally) = rest(&world, &cast, &told, &[], &[Fault::Kill(0)]).await;
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!((tally.charged, tally.lost), (10, 0), "what was running is not billed");
    verified(&stage.url);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_restarts() {
    let mut world = World::cluster(&[]).await;
    let stage = world.stage.clone();
    let terms = json!({ "kind": "usage", "tools": [{ "name": "work", "per_call": "0.1" }] });
    // Some forty calls in a second for five seconds, of which every third comes with a key.
    let pieces = (0..200_u64).map(|n| Piece {
        tenant: usize::try_from(n % 3).expect("small"),
        keyed: n % 3 == 1,
        ..piece(format!("load {n}"), Duration::from_millis(25 * n), Duration::from_millis(n % 50), None)
    });
    let case = case(2, terms, 3, pieces.collect());
    let casts = [Cast::gather(&stage, &case).await];
    let faults = [(800, Fault::DatabaseRestart), (2800, Fault::DatabaseCrash)];
    let faults = faults.map(|(at, fault)| (Duration::from_millis(at), fault));
    let (told, wrong) = run(&mut world, &casts, &faults).await;
    assert!(wrong.values().all(Vec::is_empty), "{wrong:#?}");
    world.is_whole().await;
    // Nothing that was answered is lost, and nothing that was answered with an error is charged: no process died.
    let faults = faults.map(|(_, fault)| fault);
    let (wrong, tally) = rest(&world, &casts[0], &told[0], &[], &faults).await;
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(tally.lost, 0);
    assert!(calls_done(&told[0]) > 20, "{tally:?}");
    report("two restarts of PostgreSQL", Tally { faults: 2, ..tally });
    verified(&stage.url);
}
