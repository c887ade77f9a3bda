//! `weir serve` with the tools of the test suite, for stories of several processes.
//!
//!     cargo run --example replica
//!
//! Takes its settings from the environment and needs a migrated database, as `weir serve` does. Logs a line that says
//! `ready`, and ends on SIGTERM. Where `WEIR_TEST_CLOCK` names a file, the time is what that says: microseconds since 1970.

#[path = "../tests/it/support/tools.rs"]
mod tools;

use std::error::Error;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use weir::app::{App, Parts};
use weir::clock::{Clock, Timestamp};
use weir::config::Layers;
use weir::db::Db;
use weir::serve::{self, Listeners};
use weir::{egress, telemetry};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    egress::install_crypto();
    // Before anything is announced, so that no signal is lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut config = Layers::from_process(None, Vec::new()).load()?;
    let mut telemetry = telemetry::init(&config.log, &config.otel)?;
    let db = Db::connect_existing(&config.database).await?;
    let listeners = Listeners::bind(&config).await?;
    config.server.listen = listeners.public.local_addr()?;
    let parts = Parts { clock: clock(), ..Parts::new(config, db) };
    let app = App::start(parts.provider(tools::provider()?)).await?;
    tracing::info!(listen = %app.config.server.listen, "ready");
    serve::run(app, listeners, async move {
        terminate.recv().await;
    })
    .await;
    tokio::task::spawn_blocking(move || telemetry.shut_down()).await?;
    Ok(())
}

/// The system's clock, or one whose hand is a file that a story moves, for all its processes at once.
fn clock() -> Clock {
    let Some(file) = std::env::var_os("WEIR_TEST_CLOCK").map(PathBuf::from) else { return Clock::system() };
    Clock::elsewhere(move || {
        let text = std::fs::read_to_string(&file).expect("the clock's file");
        Timestamp::from_micros(text.parse().expect("microseconds"))
    })
}
