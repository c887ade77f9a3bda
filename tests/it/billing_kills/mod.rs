//! `kill -9` of the exporter at every request that it makes of Stripe, on its way there and on its answer's way back. Whatever
//! died, and whatever became of the request, it is counted in the end what the calls cost.
//!
//! Processes are real ones, and their calls come through the front door; on PostgreSQL there are two from the death on. They tell,
//! read back and compare by themselves; what time it is, the story says, to all of them at once. The stand-in holds one request, the
//! process is killed, and the next life holds the request after that one, until a life ends without another request: so each
//! that there is was struck. Nothing is drawn by lot, and nothing is awaited by the time of the wall.
//!
//! From outside, a process can be seen to wait for Stripe. Where it waits for the database, its end is that of its future:
//! `billing_schedules` drops that at any of its awaits.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use world::World;

const MINUTES: Duration = Duration::from_secs(360);
const HOURS: Duration = Duration::from_secs(2 * 3600);
/// More than an event must be gone to be taken for lost.
const LONG: Duration = Duration::from_secs(28 * 3600);
/// More than any life has.
const MOST_REQUESTS: usize = 100;
/// Lives beside each other: most of each is waiting.
const AT_ONCE: usize = 3;

/// What happens in a life, in order.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// So many paid calls.
    Call(usize),
    /// So much time goes by, and whatever is due then is done.
    Pass(Duration),
    /// The next event is accepted and never counted.
    Lose,
    /// Somebody else tells the meter of so much in the minute of the first export.
    Extra(i64),
    /// From here on, requests are counted, and one is struck.
    Strike,
}

/// Calls, what they cost told, counted and compared, twice.
const TOLD: &[Act] = &[Act::Strike, Act::Call(4), Act::Pass(MINUTES), Act::Call(2), Act::Pass(MINUTES)];
/// An event that Stripe loses, until that is proven and it is told anew.
const LOST: &[Act] =
    &[Act::Lose, Act::Call(4), Act::Pass(MINUTES), Act::Strike, Act::Pass(HOURS), Act::Pass(LONG)];
/// Usage from elsewhere, until it is found and taken back.
const EXTRA: &[Act] =
    &[Act::Call(4), Act::Pass(MINUTES), Act::Pass(MINUTES), Act::Extra(7), Act::Strike, Act::Pass(MINUTES)];

/// What becomes of the request at which its process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It never arrives.
    Gone,
    /// It arrives when others have done the work.
    ArrivesLate,
    /// It has arrived and was carried out, and nobody hears so.
    Done,
}

/// Method and start of the path: what kind of request it is. The order within a kind is always the same, but for reads.
type Kind = (&'static str, &'static str);
const MAKES: Kind = ("POST", "/v1/customers");
const TELLS: Kind = ("POST", "/v1/billing/meter_events");
/// The meter, and what is counted.
const READS: Kind = ("GET", "/v1/billing/meters");

/// Lives in each of which a process dies at one request later of a kind, until there is no such request.
async fn lives(acts: &[Act], kinds: &[Kind], fates: &[Fate]) {
    let mut struck = BTreeMap::<String, usize>::new();
    for kind in kinds {
        let before = struck.values().sum::<usize>();
        let of_kind = async |first| {
            let numbers = (first..).take(AT_ONCE);
            join_all(numbers.map(|number| Box::pin(life(acts, (*kind, number), fates[number % fates.len()]))))
                .await
        };
        let mut first = 0;
        loop {
            assert!(first < MOST_REQUESTS, "a life has more than {MOST_REQUESTS} requests");
            let requests = of_kind(first).await;
            for request in requests.iter().flatten() {
                *struck.entry(request.clone()).or_default() += 1;
            }
            if requests.contains(&None) {
                break;
            }
            first += AT_ONCE;
        }
        assert!(struck.values().sum::<usize>() > before, "there is no {kind:?}");
    }
    eprintln!("{} kills, {fates:?}: {struck:?}", struck.values().sum::<usize>());
}

/// A life in which a process dies at this request, if there is such a one; which it was.
async fn life(acts: &[Act], request: (Kind, usize), fate: Fate) -> Option<String> {
    let context = format!("request {request:?}, which is {fate:?}");
    let mut world = World::new(context).await;
    for act in acts {
        match *act {
            Act::Call(calls) => world.call(calls).await,
            Act::Pass(span) => world.pass(span).await,
            Act::Lose => world.lose(),
            Act::Extra(micros) => world.extra(micros).await,
            Act::Strike => world.strike_at(request, fate),
        }
    }
    world.rests(&[MINUTES, MINUTES, HOURS, HOURS, LONG]).await;
    world.adds_up().await;
    world.struck()
}

#[tokio::test]
async fn at_requests_that_never_arrive() {
    lives(TOLD, &[MAKES, TELLS, READS], &[Fate::Gone]).await;
}

#[tokio::test]
async fn at_requests_that_arrive_when_others_have_done_the_work() {
    lives(TOLD, &[MAKES, TELLS, READS], &[Fate::ArrivesLate]).await;
}

#[tokio::test]
async fn at_answers() {
    lives(TOLD, &[MAKES, TELLS, READS], &[Fate::Done]).await;
}

#[tokio::test]
async fn at_requests_while_a_loss_is_proven() {
    lives(LOST, &[TELLS, READS], &[Fate::Gone, Fate::ArrivesLate]).await;
}

#[tokio::test]
async fn at_answers_while_a_loss_is_proven() {
    lives(LOST, &[TELLS, READS], &[Fate::Done]).await;
}

#[tokio::test]
async fn at_requests_while_drift_is_set_right() {
    lives(EXTRA, &[TELLS, READS], &[Fate::ArrivesLate, Fate::Gone]).await;
}

#[tokio::test]
async fn at_answers_while_drift_is_set_right() {
    lives(EXTRA, &[TELLS, READS], &[Fate::Done]).await;
}
