//! The load tool: what the front door costs, beside a bare axum on the same machine and in the same minute.
//!
//! `cargo bench --bench front_door` starts this binary again as a child for each server, so that the kernel counts
//! the CPU time of each for itself, and plays the client of both. Nothing leaves the loopback interface, and every
//! child ends with its parent. `-- --help` lists the options.
//!
//! * calls: bare axum that echoes JSON, against `tools/call` through the whole of Weir (API key, limits, access log,
//!   metrics, journal), in alternating rounds at one concurrency. Both answer with equally long bodies.
//! * memory: of an idle process, per idle legacy session, and per open event stream beside one of bare axum.
//! * start: from `exec` to the first 200 of `/health`, on a database that exists.
//! * shared (with `--postgres` and `--redis`, as `scripts/with-services` brings them): a call on both against embedded, round
//!   trips to Redis per request, and what a legacy session takes there.
//! * ledger (also on PostgreSQL, with `--postgres` and `--redis`): calls that cost something, of 100 tenants and of one, against
//!   calls that are free, and how many statements of SQL a call takes.
//! * events: until the first event of `GET /sse`, and of a call that reports progress.
#![expect(clippy::print_stdout, reason = "a tool on the command line, whose output this is")]

mod child;
mod figures;
mod ledger;
mod load;
mod measure;
mod memory;
mod roles;
mod shared;
mod wire;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Whatever went wrong; the run is over then.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the front door costs.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// Requests per server and round.
    #[arg(long, default_value_t = 60_000)]
    requests: usize,
    /// Connections that are kept open; each has one request in flight.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Rounds, in each of which both servers take their turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Legacy sessions that are opened to be weighed.
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Event streams that are opened to be weighed.
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// Only these parts.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Be a server instead; this is how the children are started.
    #[arg(long, value_enum, hide = true)]
    role: Option<Role>,
    #[arg(long, hide = true, default_value = "sqlite:weir.db")]
    database: String,
    /// A PostgreSQL database that may be filled, for the part `shared`.
    #[arg(long, requires = "redis")]
    postgres: Option<String>,
    /// A Redis that may be filled.
    #[arg(long)]
    redis: Option<String>,
    #[arg(long, hide = true, default_value_t = 0)]
    port: u16,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Calls,
    Memory,
    Start,
    Events,
    Shared,
    Ledger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Echo,
    Weir,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.role {
        Some(role) => serve(role, &options),
        None if options.bench => measure(&options),
        None => Err("run me with `cargo bench --bench front_door`".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("front_door: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Both servers get the runtime that `#[tokio::main]` makes.
fn serve(role: Role, options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match role {
        Role::Echo => runtime.block_on(roles::echo(options.port)),
        Role::Weir => {
            runtime.block_on(roles::weir(&options.database, options.redis.as_deref(), options.port))
        }
    }
}

/// The client has one thread: what it takes from the servers' cores is bounded and the same for both.
fn measure(options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let wanted = |part| options.only.is_empty() || options.only.contains(&part);
        let deployment = roles::Deployment::create().await?;
        if wanted(Part::Calls) {
            measure::calls(&deployment, options).await?;
        }
        if wanted(Part::Memory) {
            memory::memory(&deployment, options).await?;
        }
        if wanted(Part::Start) {
            measure::start(&deployment).await?;
        }
        if wanted(Part::Events) {
            measure::events(&deployment).await?;
        }
        if wanted(Part::Ledger) {
            ledger::ledger(options).await?;
        }
        if let (true, Some(postgres), Some(redis)) =
            (wanted(Part::Shared), options.postgres.clone(), options.redis.clone())
        {
            shared::shared(&deployment, &roles::Services { postgres, redis }, options).await?;
        }
        Ok(())
    })
}
