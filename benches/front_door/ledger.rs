//! What it costs that a call is part of the ledger before its reply leaves: free calls, calls that cost something, and those of
//! one tenant alone, in alternating rounds on the same engine.

use std::sync::Arc;

use bytes::Bytes;

use crate::child::Child;
use crate::figures::count;
use crate::measure::{Side, print_head, ratio};
use crate::roles::{Deployment, Services, customers};
use crate::wire::call;
use crate::{Failure, Options, Role};

/// Tenants whose calls come in turn.
const TENANTS: usize = 100;
/// Calls at once, where the command line does not say.
const CALLERS: usize = 64;
const STATEMENTS: &str = "weir_database_statements_total";
const SETTLEMENTS: &str = "weir_settle_batch_calls_count";

/// On SQLite, and on PostgreSQL where there is one.
pub async fn ledger(options: &Options) -> Result<(), Failure> {
    let options = &Options { connections: options.connections.max(CALLERS), ..options.clone() };
    engine("sqlite", options, None).await?;
    if let (Some(postgres), Some(redis)) = (options.postgres.clone(), options.redis.clone()) {
        engine("postgres", options, Some(&Services { postgres, redis })).await?;
    }
    Ok(())
}

async fn engine(name: &str, options: &Options, services: Option<&Services>) -> Result<(), Failure> {
    println!(
        "ledger on {name}: {} rounds of {} calls on {} connections, {TENANTS} tenants",
        options.rounds, options.requests, options.connections
    );
    // The directories stay as long as their servers.
    let (mut free, _of_free) = side("free", (TENANTS, None), options, services).await?;
    let (mut paid, _of_paid) = side("paid", (TENANTS, Some("paid")), options, services).await?;
    let (mut hot, _of_hot) = side("one tenant", (1, Some("hot")), options, services).await?;
    let mut done = [[0.0; 2]; 3];
    for _ in 0..options.rounds {
        for (side, done) in [&mut free, &mut paid, &mut hot].into_iter().zip(&mut done) {
            let before = [side.counter(STATEMENTS).await?, side.counter(SETTLEMENTS).await?];
            side.round(options).await?;
            done[0] += side.counter(STATEMENTS).await? - before[0];
            done[1] += side.counter(SETTLEMENTS).await? - before[1];
        }
    }
    print_head();
    let calls = count(options.requests) * count(options.rounds);
    for side in [&free, &paid, &hot] {
        side.print();
    }
    println!("  free: {:.4} statements per call", done[0][0] / calls);
    for (what, side, [statements, settlements]) in
        [("paid", &paid, done[1]), ("one tenant, paid", &hot, done[2])]
    {
        let throughput = ratio(side, &free, |round| round.per_second);
        let cpu = ratio(side, &free, |round| round.cpu_micros);
        let added = side.samples(|round| round.p50).median() - free.samples(|round| round.p50).median();
        println!("  {what} / free: throughput {throughput}, CPU {cpu}; p50 {added:+.0} us");
        println!(
            "  {what}: {:.4} statements per call, {:.0} calls per settlement",
            statements / calls,
            calls / settlements
        );
    }
    Ok(())
}

async fn side(
    name: &'static str,
    (tenants, plan): (usize, Option<&str>),
    options: &Options,
    services: Option<&Services>,
) -> Result<(Side, Deployment), Failure> {
    let deployment = match services {
        Some(services) => Deployment::on(services).await?,
        None => Deployment::create().await?,
    };
    let keys = customers(&deployment.database, tenants, plan).await?;
    let arguments = "{\"text\":\"a weir holds the flow back and measures it\"}";
    let requests: Arc<[Bytes]> = keys.iter().map(|key| call(key, "echo", arguments, "")).collect();
    let child = Child::start(Role::Weir, &deployment)?;
    Ok((Side::warm(name, child, requests, options).await?, deployment))
}
