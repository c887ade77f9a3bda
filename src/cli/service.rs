//! Running the service: what `serve` and `dev` share, and `serve` itself.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, ServeArgs, explain};
use crate::app::{App, Parts};
use crate::config::Config;
use crate::db::Db;
use crate::serve::{self, Listeners};
use crate::telemetry;

/// The signals that end the service. Registered before anything is announced, so that none is lost.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn register() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| format!("cannot handle signals: {e}"));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Binds, builds the state, says where it listens, and serves until a signal comes; a second one cuts the stop short.
pub(super) async fn run(
    mut config: Config,
    db: Db,
    announce: impl AsyncFnOnce(&App, &Listeners) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut signals = Signals::register()?;
    let mut telemetry = telemetry::init(&config.log, &config.otel)?;
    let listeners = Listeners::bind(&config).await.map_err(explain)?;
    config.server.listen = listeners.public.local_addr()?;
    let app = App::start(Parts::new(config, db)).await.map_err(explain)?;
    announce(&app, &listeners).await?;
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let listening = async {
        signals.wait().await;
        stop.cancel();
        signals.wait().await;
        cut.cancel();
        std::future::pending().await
    };
    tokio::select! {
        () = serve::run_or_cut(app, listeners, stop.cancelled(), cut.cancelled()) => {}
        () = listening => {}
    }
    tokio::task::spawn_blocking(move || telemetry.shut_down()).await?;
    Ok(())
}

/// `weir serve`.
pub(super) async fn serve(args: ServeArgs) -> Result<(), Failure> {
    let flags = args.listen.map(|listen| ("server.listen".to_owned(), listen)).into_iter().collect();
    let config = args.config.load(flags)?;
    let db = Db::connect_existing(&config.database).await.map_err(explain)?;
    if db.pending_migrations().await.map_err(explain)? > 0 {
        return Err("the database's schema is not up to date; run `weir migrate` first".into());
    }
    run(config, db, async |app, listeners| {
        let admin = listeners.admin.as_ref().and_then(|l| l.local_addr().ok());
        let metrics = listeners.metrics.as_ref().and_then(|l| l.local_addr().ok());
        tracing::info!(
            listen = %app.config.server.listen,
            admin = admin.map(tracing::field::display),
            metrics = metrics.map(tracing::field::display),
            database = app.db.engine(),
            "ready",
        );
        Ok(())
    })
    .await
}
