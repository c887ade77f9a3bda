//! What it costs that replicas share: the same call on PostgreSQL and Redis as embedded, how often Redis is asked, and what a
//! legacy session takes there.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::child::Child;
use crate::figures::count;
use crate::measure::{Side, print_head, ratio};
use crate::roles::{Deployment, Services};
use crate::wire::{Connection, call, request};
use crate::{Failure, Options, Role};

/// How long what is written behind a request may take.
const BEHIND: Duration = Duration::from_secs(2);

/// Redis, as its own counters see it.
struct Counters(MultiplexedConnection);

impl Counters {
    async fn open(services: &Services) -> Result<Self, Failure> {
        let client = redis::Client::open(services.redis.as_str())?;
        Ok(Self(client.get_multiplexed_async_connection().await?))
    }

    /// The number that follows `name` in a section of `INFO`; 0 where there is none.
    async fn number(&mut self, section: &str, name: &str) -> Result<f64, Failure> {
        let info: String = redis::cmd("INFO").arg(section).query_async(&mut self.0).await?;
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        let digits = line.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
        digits.map_or(Ok(0.0), |digits| digits.parse().map_err(Failure::from))
    }

    /// How often limits were leased, which is one round trip each.
    async fn leases(&mut self) -> Result<f64, Failure> {
        self.number("commandstats", "cmdstat_evalsha:calls=").await
    }
}

/// Embedded against PostgreSQL and Redis, in alternating rounds, far below every limit.
pub async fn shared(embedded: &Deployment, services: &Services, options: &Options) -> Result<(), Failure> {
    let deployment = Deployment::on(services).await?;
    let mut counters = Counters::open(services).await?;
    let asked =
        |key: &str| call(key, "echo", "{\"text\":\"a weir holds the flow back and measures it\"}", "");
    let alone = Child::start(Role::Weir, embedded)?;
    let replica = Child::start(Role::Weir, &deployment)?;
    println!(
        "shared: {} rounds of {} requests on {} connections",
        options.rounds, options.requests, options.connections
    );
    let address = replica.address;
    let mut alone = Side::warm("embedded", alone, [asked(&embedded.key)].into(), options).await?;
    let mut replica = Side::warm("shared", replica, [asked(&deployment.key)].into(), options).await?;
    let before = counters.leases().await?;
    for _ in 0..options.rounds {
        alone.round(options).await?;
        replica.round(options).await?;
    }
    let leases = counters.leases().await? - before;
    print_head();
    alone.print();
    replica.print();
    let cpu = ratio(&replica, &alone, |round| round.cpu_micros);
    let throughput = ratio(&replica, &alone, |round| round.per_second);
    println!("  shared / embedded: CPU {cpu}, throughput {throughput}");
    let requests = count(options.requests) * count(options.rounds);
    println!("  round trips to Redis per request: {:.4}", leases / requests);

    let memory = counters.number("memory", "used_memory:").await?;
    let hello = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\",\
                 \"capabilities\":{},\"clientInfo\":{\"name\":\"bench\",\"version\":\"1\"}}}";
    let hello = request("POST", "/mcp", &deployment.key, "", hello);
    let mut connection = Connection::open(address).await?;
    for _ in 0..options.sessions {
        let (status, body) = connection.exchange(&hello).await?;
        if status != 200 {
            return Err(format!("HTTP {status}: {}", String::from_utf8_lossy(body)).into());
        }
    }
    tokio::time::sleep(BEHIND).await;
    let memory = counters.number("memory", "used_memory:").await? - memory;
    println!(
        "  Redis per legacy session: {:.0} bytes, over {}",
        memory / count(options.sessions),
        options.sessions
    );
    Ok(())
}
