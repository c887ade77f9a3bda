//! What is charged is what was done: random schedules over real processes, and the books against what the tool recorded, what
//! the clients were told, and sums of their own.
//!
//! A case is drawn from a number, and so are the faults of the group that it is in. `WEIR_TEST_SEED` plays one case alone,
//! under the same faults.

mod alone;
mod books;
mod check;
mod play;
mod schedule;
mod stories;
mod sums;
mod world;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::support::services::variable;
use books::Books;
use check::{Record, Tally, Trial};
use play::{Cast, Told};
use schedule::{Fault, GROUP, Group};
use world::{LEASE, World};

/// Cases that are played in all, over five tests.
const CASES: u64 = 300;
/// Groups of one test.
const GROUPS: u64 = CASES / GROUP / 5;
/// How long calls wait for their settlement, in milliseconds: in some tests so short that many are settled when nobody waits
/// any more, and are taken back.
const PATIENCE_MS: [&str; 5] = ["3000", "100", "3000", "100", "400"];
/// Between two looks at the books while something runs.
const LOOK: Duration = Duration::from_millis(100);
/// ... and at a case that comes to rest.
const REST_LOOK: Duration = Duration::from_millis(700);
/// Once all processes are there, so long after the last call at most nobody holds anything, and all is booked.
const REST: Duration = LEASE.saturating_add(Duration::from_secs(5));
/// After this time nothing runs of what its client left.
const QUIET: Duration = Duration::from_millis(1200);
/// Most of what is wrong that is printed.
const SHOWN: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_fifth_of_all_schedules_adds_up() {
    Box::pin(replicated(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_fifth_of_all_schedules_adds_up() {
    Box::pin(replicated(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_third_fifth_of_all_schedules_adds_up() {
    Box::pin(replicated(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fourth_fifth_of_all_schedules_adds_up() {
    Box::pin(replicated(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_fifth_of_all_schedules_adds_up() {
    Box::pin(replicated(4)).await;
}

async fn replicated(fifth: u64) {
    let groups = wanted(fifth * GROUPS..(fifth + 1) * GROUPS);
    if !groups.is_empty() {
        let settings =
            [("metering.settle_timeout_ms", PATIENCE_MS[usize::try_from(fifth).expect("below five")])];
        Box::pin(play_groups(World::cluster(&settings).await, &groups)).await;
    }
}

/// The one case that is wanted, if any is.
fn seed() -> Option<u64> {
    variable("WEIR_TEST_SEED").map(|text| text.parse().expect("WEIR_TEST_SEED is a number"))
}

/// Those of these groups that are to be played.
fn wanted(groups: std::ops::Range<u64>) -> Vec<u64> {
    groups.filter(|group| seed().is_none_or(|seed| seed / GROUP == *group)).collect()
}

async fn play_groups(mut world: World, groups: &[u64]) {
    let (began, mut tally) = (Instant::now(), Tally::default());
    for group in groups {
        tally = tally.and(Box::pin(play_group(&mut world, *group)).await);
    }
    report(&format!("{:?}", began.elapsed()), tally);
    verified(&world.stage.url);
}

/// Plays a group of cases and fails where anything is not as it should be.
async fn play_group(world: &mut World, number: u64) -> Tally {
    let Group { mut cases, faults } = Group::of(number, world.replicas());
    cases.retain(|case| seed().is_none_or(|seed| seed == case.seed));
    let stage = world.stage.clone();
    let casts = join_all(cases.iter().map(|case| Cast::gather(&stage, case))).await;
    let (mut told, mut wrong) = run(world, &casts, &faults).await;
    world.is_whole().await;
    let faults: Vec<_> = faults.into_iter().map(|(_, fault)| fault).collect();
    let mut probes = vec![Vec::new(); casts.len()];
    if faults.is_empty() {
        tokio::time::sleep(QUIET).await;
        probes = join_all(casts.iter().map(|cast| cast.probe(&stage))).await;
    }
    for (told, probes) in told.iter_mut().zip(&probes) {
        told.extend_from_slice(probes);
    }
    let looks = casts.iter().zip(told.iter().zip(&probes));
    let ends = looks.map(|(cast, (told, probes))| rest(world, cast, told, probes, &faults));
    let mut tally = Tally { faults: faults.len(), ..Tally::default() };
    for (cast, (mut found, of_case)) in casts.iter().zip(join_all(ends).await) {
        found.append(wrong.entry(cast.case.seed).or_default());
        wrong.insert(cast.case.seed, found);
        tally = tally.and(of_case);
    }
    wrong.retain(|_, wrong| !wrong.is_empty());
    for (seed, wrong) in &wrong {
        eprintln!("WEIR_TEST_SEED={seed}, under {faults:?}: {} exceptions", wrong.len());
        wrong.iter().take(SHOWN).for_each(|what| eprintln!("    {what}"));
    }
    assert!(wrong.is_empty(), "{} of {} cases of group {number} do not add up", wrong.len(), casts.len());
    tally
}

/// Says how much there was.
fn report(of: &str, tally: Tally) {
    let Tally { cases, calls, charged, replayed, refused, failed, faults, lost, corrected } = tally;
    eprintln!(
        "{of}: {cases} cases under {faults} faults, {calls} answers of which {replayed} were given again, {refused} refused \
         and {failed} failed; {charged} charged, {corrected} of them taken back, {lost} whose replies were lost"
    );
}

/// What operators check a ledger with finds nothing wrong.
fn verified(url: &str) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command
        .args(["ledger", "verify"])
        .env_clear()
        .env("WEIR_DATABASE__URL", url)
        .output()
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success(), "{}", said.join("\n"));
}

/// The tenants of a case.
fn tenants(cast: &Cast<'_>) -> Vec<String> {
    cast.keys.iter().map(|key| key.tenant.to_string()).collect()
}

/// Plays all cases while things break, and looks at the books meanwhile. What each client was told, and what did not hold.
async fn run(
    world: &mut World,
    casts: &[Cast<'_>],
    faults: &[(Duration, Fault)],
) -> (Vec<Vec<Told>>, HashMap<u64, Vec<String>>) {
    let stage = world.stage.clone();
    let began = Instant::now();
    let playing = join_all(casts.iter().map(|cast| cast.play(&stage)));
    let breaking = async {
        for (at, fault) in faults {
            tokio::time::sleep_until(began + *at).await;
            world.suffer(*fault).await;
        }
    };
    let mut wrong: HashMap<u64, Vec<String>> = HashMap::new();
    let looking = async {
        let mut before: HashMap<u64, Books> = HashMap::new();
        for cast in casts.iter().cycle() {
            tokio::time::sleep(LOOK).await;
            // Not while the database is away.
            let Ok(books) = Books::read(&stage.url, &tenants(cast)).await else { continue };
            let wrong = wrong.entry(cast.case.seed).or_default();
            wrong.extend(sums::at_any_moment(&books));
            let before = before.entry(cast.case.seed).or_default();
            wrong.extend(sums::since(before, &books));
            *before = books;
        }
    };
    let told = tokio::select! {
        (told, ()) = async { tokio::join!(playing, breaking) } => told,
        () = looking => Vec::new(),
    };
    (told, wrong)
}

/// Waits until nothing is held of a case's credits and everything adds up; what does not when the time is over.
async fn rest(
    world: &World,
    cast: &Cast<'_>,
    told: &[Told],
    probes: &[Told],
    faults: &[Fault],
) -> (Vec<String>, Tally) {
    let since = Instant::now();
    loop {
        let record = Record::read(&world.record);
        let books = Books::read(&world.stage.url, &tenants(cast)).await.expect("the books");
        let (mut wrong, tally) = Trial { books: &books, record: &record, told, faults }.verdict();
        wrong.extend(sums::at_rest(&books));
        wrong.extend(check::refusals(&books, probes));
        if wrong.is_empty() || since.elapsed() > REST {
            return (wrong, Tally { cases: 1, ..tally });
        }
        tokio::time::sleep(REST_LOOK).await;
    }
}
