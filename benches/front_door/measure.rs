//! What is measured, and how it is printed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::child::Child;
use crate::figures::{Samples, count, percentile};
use crate::roles::Deployment;
use crate::wire::{Connection, call, request};
use crate::{Failure, Options, Role, load};

/// Requests before anything is measured, per server.
const WARM_UP: usize = 5_000;
/// How often the start is measured.
const STARTS: usize = 15;
/// How often the first event is measured.
const EVENTS: usize = 500;
/// How long a start may take.
const START_LIMIT: Duration = Duration::from_secs(10);

/// One round of one server.
pub struct Round {
    pub cpu_micros: f64,
    pub per_second: f64,
    pub p50: f64,
    p99: f64,
}

/// One server under load.
pub struct Side {
    name: &'static str,
    child: Child,
    requests: Arc<[Bytes]>,
    rounds: Vec<Round>,
}

impl Side {
    pub async fn warm(
        name: &'static str,
        child: Child,
        requests: Arc<[Bytes]>,
        options: &Options,
    ) -> Result<Self, Failure> {
        load::run(child.address, &requests, WARM_UP, options.connections).await?;
        Ok(Self { name, child, requests, rounds: Vec::new() })
    }

    pub async fn round(&mut self, options: &Options) -> Result<(), Failure> {
        let before = self.child.cpu()?;
        let load =
            load::run(self.child.address, &self.requests, options.requests, options.connections).await?;
        // What is done beside the answers, such as writing the journal, belongs to them.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let cpu = self.child.cpu()?.saturating_sub(before);
        let requests = count(options.requests);
        self.rounds.push(Round {
            cpu_micros: cpu.as_secs_f64() * 1e6 / requests,
            per_second: requests / load.elapsed.as_secs_f64(),
            p50: percentile(&load.latencies, 50),
            p99: percentile(&load.latencies, 99),
        });
        Ok(())
    }

    /// A counter of the server's metrics.
    pub async fn counter(&self, name: &str) -> Result<f64, Failure> {
        let address = self.child.metrics.ok_or("a server without metrics")?;
        let mut connection = Connection::open(address).await?;
        let (_, page) = connection.exchange(&request("GET", "/metrics", "", "", "")).await?;
        let page = String::from_utf8_lossy(page);
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.ok_or_else(|| format!("no counter {name}"))?.parse()?)
    }

    /// A figure of its rounds.
    pub fn samples(&self, figure: impl Fn(&Round) -> f64) -> Samples {
        Samples::new(self.rounds.iter().map(figure))
    }

    pub fn print(&self) {
        println!(
            "  {:<10} {:>24} {:>28} {:>24} {:>26}",
            self.name,
            self.samples(|r| r.cpu_micros).show(1),
            self.samples(|r| r.per_second).show(0),
            self.samples(|r| r.p50).show(0),
            self.samples(|r| r.p99).show(0),
        );
    }
}

/// Bare axum against a tool call, in alternating rounds.
pub async fn calls(deployment: &Deployment, options: &Options) -> Result<(), Failure> {
    let weir = Child::start(Role::Weir, deployment)?;
    let echo = Child::start(Role::Echo, deployment)?;
    let asked =
        call(&deployment.key, "echo", "{\"text\":\"a weir holds the flow back and measures it\"}", "");
    let answer = {
        let mut connection = Connection::open(weir.address).await?;
        let (status, body) = connection.exchange(&asked).await?;
        let body = String::from_utf8_lossy(body).into_owned();
        if status != 200 || !body.contains("\"isError\":false") {
            return Err(format!("the call failed: HTTP {status}: {body}").into());
        }
        body
    };
    // The echo is sent what Weir answered, under the same headers, so both write the same number of bytes.
    let extra = "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: echo\r\n";
    let echoed = request("POST", "/mcp", &deployment.key, extra, &answer);
    println!(
        "calls: {} rounds of {} requests on {} connections; request {} bytes, answer {} bytes",
        options.rounds,
        options.requests,
        options.connections,
        asked.len(),
        answer.len()
    );
    let mut echo = Side::warm("bare axum", echo, [echoed].into(), options).await?;
    let mut weir = Side::warm("weir", weir, [asked].into(), options).await?;
    for _ in 0..options.rounds {
        echo.round(options).await?;
        weir.round(options).await?;
    }
    print_head();
    echo.print();
    weir.print();
    let cpu = ratio(&weir, &echo, |r| r.cpu_micros);
    println!("  weir / bare axum: CPU {cpu}, throughput {}", ratio(&weir, &echo, |r| r.per_second));
    Ok(())
}

/// The head of what [`Side::print`] prints.
pub fn print_head() {
    println!(
        "  {:<10} {:>24} {:>28} {:>24} {:>26}",
        "median", "CPU us/request", "requests/s", "p50 us", "p99 us"
    );
}

/// A figure of one side over that of the other, round by round.
pub fn ratio(side: &Side, base: &Side, figure: fn(&Round) -> f64) -> String {
    let pairs = side.rounds.iter().zip(&base.rounds);
    Samples::new(pairs.map(|(side, base)| figure(side) / figure(base))).show(2)
}

/// From `exec` to the first 200.
pub async fn start(deployment: &Deployment) -> Result<(), Failure> {
    let health = request("GET", "/health", &deployment.key, "", "");
    let mut millis = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let address = free_port()?;
        let started = Instant::now();
        let child = Child::start_at(Role::Weir, deployment, address)?;
        loop {
            if let Ok(mut connection) = Connection::open(child.address).await
                && connection.exchange(&health).await?.0 == 200
            {
                break;
            }
            if started.elapsed() > START_LIMIT {
                return Err("Weir did not start".into());
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        millis.push(started.elapsed().as_secs_f64() * 1e3);
    }
    println!(
        "start: {} ms from exec to the first 200 of /health, {STARTS} times",
        Samples::new(millis).show(1)
    );
    Ok(())
}

/// Until the first event.
pub async fn events(deployment: &Deployment) -> Result<(), Failure> {
    let child = Child::start(Role::Weir, deployment)?;
    let connect = request("GET", "/sse", &deployment.key, "", "");
    let report = call(&deployment.key, "report", "{}", ",\"progressToken\":1");
    println!("events: {EVENTS} times each, one connection at a time");
    for (what, request, text) in [
        ("GET /sse to its endpoint event", &connect, &b"event: endpoint"[..]),
        ("tools/call to its first progress", &report, b"notifications/progress"),
    ] {
        let mut taken = Vec::with_capacity(EVENTS);
        for _ in 0..EVENTS {
            let connection = Connection::open(child.address).await?;
            let started = Instant::now();
            connection.until(request, text).await?;
            taken.push(started.elapsed());
        }
        taken.sort_unstable();
        println!("  {what}: p50 {:.0} us, p99 {:.0} us", percentile(&taken, 50), percentile(&taken, 99));
    }
    Ok(())
}

/// A port that was free a moment ago.
fn free_port() -> Result<SocketAddr, Failure> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
