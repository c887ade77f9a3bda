//! The state of one Weir process: built once, passed to everything, documented field by field.

pub mod peers;
mod prices;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accounts::Keeper;
use crate::billing::inbox::Inbox;
use crate::billing::inbox::receive::Receiver;
use crate::billing::job::Job;
use crate::billing::shop::Shop;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::credentials::{Change, Credentials, News, Refused};
use crate::db::Db;
use crate::egress;
use crate::error::{Error, Result};
use crate::hooks::{Hook, LogHook, MetricsHook};
use crate::http::client_ip::Flood;
use crate::id::TenantId;
use crate::ledger::{retention, rollups};
use crate::limits::{self, Limits};
use crate::mcp::bus::{Bus, Heard};
use crate::mcp::server_info;
use crate::mcp::session::{Foundation, Session, Sessions};
use crate::plans::PlanName;
use crate::prices::Book;
use crate::providers::{Provider, Registry, builtin};
use crate::replicas::{Message, Peers};
use crate::seal::Sealer;
use crate::settings;
use crate::tasks::Tasks;
use crate::telemetry::labels::SessionEnd;
use crate::telemetry::metrics::Metrics;
use crate::usage::{self, Journal, Usage, Writer};

/// How often idle sessions and forgotten addresses are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Four times how often they are where there are other replicas.
const SHARED_SWEEP: Duration = Duration::from_secs(12);
/// ... at most.
const LEAST_SWEEP: Duration = Duration::from_millis(100);
/// How long until sessions are checked again whose credential could not be.
const CHECK_AGAIN: Duration = Duration::from_secs(1);
/// When days of the ledger are summed, and old ones deleted: first this long after the start, then this often.
const LEDGER_FIRST: Duration = Duration::from_secs(30);
const LEDGER_EVERY: Duration = Duration::from_secs(3600);
/// How long fetching a key set may take.
const JWKS_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that a request may need.
pub struct App {
    /// The configuration, as it was loaded.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// The truth: SQLite or PostgreSQL.
    pub db: Db,
    /// Background tasks and running calls; shutdown waits for them.
    pub tasks: Tasks,
    /// The journal's writer, which ends after everything that writes into it.
    pub last_tasks: Tasks,
    /// Who is behind a token.
    pub credentials: Credentials,
    /// What calls cost.
    pub prices: Arc<Book>,
    /// What there is to call.
    pub registry: Arc<Registry>,
    /// Rates, running calls, sessions and streams per tenant.
    pub limits: Arc<Limits>,
    /// Requests without a known credential, per client address.
    pub flood: Flood,
    /// Legacy sessions.
    pub sessions: Arc<Sessions>,
    /// What changed, for whoever listens.
    pub bus: Bus,
    /// Ends calls and records them.
    pub usage: Usage,
    /// What runs before and after calls and around sessions.
    pub hooks: Arc<[Box<dyn Hook>]>,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// Seals cursors and `requestState`.
    pub sealer: Arc<Sealer>,
    /// `serverInfo`, serialised.
    pub server_info: String,
    /// Takes in what Stripe says, where there is a Stripe.
    pub webhooks: Option<Receiver>,
    /// What tenants buy for themselves, where there is a Stripe.
    pub shop: Option<Shop>,
    /// The other replicas, where Redis is configured.
    pub peers: Option<Arc<Peers>>,
    /// Fires when Weir is about to stop.
    draining: CancellationToken,
}

/// What an [`App`] is built from.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// A migrated database.
    pub db: Db,
    /// Providers beside the built-in one.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Hooks beside metrics and logs.
    pub hooks: Vec<Box<dyn Hook>>,
}

impl Parts {
    /// The system's clock, no further providers or hooks.
    #[must_use]
    pub fn new(config: Config, db: Db) -> Self {
        Self { config, clock: Clock::system(), db, providers: Vec::new(), hooks: Vec::new() }
    }

    /// The same with one more provider.
    #[must_use]
    pub fn provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.providers.push(provider);
        self
    }

    /// The same with one more hook.
    #[must_use]
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(Box::new(hook));
        self
    }
}

impl App {
    /// Builds the state and starts its background tasks.
    ///
    /// # Errors
    /// Where the database does not answer, or a provider, issuer or resolver is not usable.
    pub async fn start(parts: Parts) -> Result<Arc<Self>> {
        let Parts { config, clock, db, providers, hooks } = parts;
        let internal = |e: &dyn std::fmt::Display| Error::Internal(e.to_string());
        let metrics = Arc::new(Metrics::new(clock.now()).map_err(|e| internal(&e))?);
        let bus = Bus::new();
        let (journal, writer) = Journal::new(db.clone(), clock.clone(), metrics.clone());
        let hooks = with_own(hooks, &metrics);
        let fetcher = egress::client(JWKS_TIMEOUT).map_err(|e| internal(&e))?;
        let credentials = Credentials::new(
            db.clone(),
            &config.auth,
            &config.limits,
            &format!("{}/mcp", config.public_url()),
            clock.clone(),
            &fetcher,
        )?;
        let sealer = Arc::new(Sealer::new(&settings::deployment_secret(&db).await?)?);
        db.count(metrics.metering.statements.clone());
        db.breaker().tell(metrics.database_up.clone(), metrics.database_refused.clone());
        let prices = book(&config, &db, &clock);
        let last_tasks = Tasks::new();
        let peers = peers::join(&config.redis, &metrics, &last_tasks).await?;
        let shared = peers.as_ref().map(limits::Shared::with);
        let limits = Arc::new(Limits::new(&config.limits, clock.clone(), shared, metrics.clone()));
        let heard = credentials.clone();
        let (usage, metering) = Usage::new(usage::Foundation {
            journal: journal.clone(),
            db: db.clone(),
            clock: clock.clone(),
            book: prices.clone(),
            sealer: sealer.clone(),
            metrics: metrics.clone(),
            config: config.metering.clone(),
            heard: Box::new(move || heard.heard_at()),
            recall: peers.clone().map(|peers| -> usage::Recall {
                Box::new(move |tenant| {
                    peers.courier.tell_all(Message::Recall { tenant });
                })
            }),
        });
        let core = builtin::Core::new(&db, &usage, &clock);
        let registry = with_builtin(providers, &core, &config.tools, &bus)?;
        let foundation = Foundation {
            clock: clock.clone(),
            limits: limits.clone(),
            sealer: sealer.clone(),
            hooks: hooks.clone(),
            journal,
            metrics: metrics.clone(),
            peers: peers.clone().map(|peers| (peers, last_tasks.clone())),
        };
        let sessions = Sessions::new(foundation, &config.mcp);
        // Before anything runs: a key of the wrong mode ends it here.
        let job = Job::connect(&config, &db, &clock, &metrics.billing).await?;
        let app = Arc::new(Self {
            shop: job.as_ref().map(|job| job.shop.clone()),
            server_info: server_info(&config.mcp.server_name).to_string(),
            webhooks: Receiver::new(&config.billing, &db, &clock, &metrics.billing),
            flood: Flood::new(config.limits.ip).map_err(Error::Invalid)?,
            tasks: Tasks::new(),
            last_tasks,
            peers,
            draining: CancellationToken::new(),
            config,
            clock,
            db,
            credentials,
            prices,
            registry,
            limits,
            sessions,
            bus,
            usage,
            hooks,
            metrics,
            sealer,
        });
        app.spawn_background(writer, metering);
        app.bill(job);
        Ok(app)
    }

    fn spawn_background(self: &Arc<Self>, writer: Writer, metering: usage::Work) {
        let tasks = &self.tasks;
        self.last_tasks.spawn(writer.run(self.last_tasks.stopping().clone()));
        self.last_tasks.spawn(metering.run(self.last_tasks.stopping().clone()));
        let heard = Arc::<prices::PlansChanged>::default();
        let (app, plans) = (self.clone(), heard.clone());
        self.credentials.run_invalidations(tasks, move |news| app.hear(news, &plans));
        let (app, stop) = (self.clone(), tasks.stopping().clone());
        tasks.spawn(async move { stop.run_until_cancelled(prices::announce(app, heard)).await });
        tasks.spawn(enforce_revocations(self.clone()));
        tasks.spawn(sweep(self.clone()));
        self.keep_accounts();
        tasks.spawn(keep_ledger(self.clone()));
        // As long as the journal, which is written to the end.
        let (db, stop) = (self.db.clone(), self.last_tasks.stopping().clone());
        self.last_tasks.spawn(async move { stop.run_until_cancelled(db.watch()).await });
        if let Some(peers) = &self.peers {
            peers::spawn(self, peers);
        }
    }

    /// Where there is a Stripe, it is told what is owed, and what it says is worked on.
    fn bill(&self, job: Option<Job>) {
        let (Some(job), Some(webhooks)) = (job, &self.webhooks) else { return };
        let (inbox, stop) = (Inbox::new(&job, webhooks.bell()), self.tasks.stopping().clone());
        self.tasks.spawn(async move { stop.run_until_cancelled(Box::pin(inbox.run())).await });
        let stop = self.tasks.stopping().clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(Box::pin(job.run())).await });
    }

    fn keep_accounts(&self) {
        let every = (self.config.metering.lease.get() / 3).max(LEAST_SWEEP);
        let (db, clock, metrics) = (self.db.clone(), self.clock.clone(), self.metrics.clone());
        let stop = self.tasks.stopping().clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(Keeper::default().run(db, clock, metrics, every)).await;
        });
    }

    /// Fires when Weir is about to stop.
    #[must_use]
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Whether Weir is about to stop; `/ready` then says no, and HTTP clients are asked to connect anew.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Makes a change of a credential or tenant felt here at once; other replicas are told to look.
    pub fn revoke(&self, change: Change) {
        self.credentials.invalidate(change);
        self.bus.revoke(change);
        if let Some(peers) = &self.peers {
            peers.courier.tell_all(Message::Invalidated);
        }
    }

    /// Makes what was changed somewhere felt here. What credentials keep has been forgotten by then.
    fn hear(&self, news: News, plans: &prices::PlansChanged) {
        match news {
            News::Change(change) => {
                self.bus.revoke(change);
                if let Change::Tenant(tenant) = change {
                    self.account_changed(tenant);
                }
            }
            News::Plan(name) => {
                self.prices.forget(&name);
                self.usage.plan_changed(&name);
                if let Ok(plan) = PlanName::try_from(name) {
                    plans.changed(plan);
                }
            }
            News::Account(tenant) => self.account_changed(tenant),
        }
    }

    /// Makes a change of a tenant's account felt here.
    pub fn account_changed(&self, tenant: TenantId) {
        self.usage.account_changed(tenant);
    }

    /// Makes other limits or prices of a plan felt here at once; other replicas are told to look.
    pub fn plan_changed(&self, name: &str) {
        self.credentials.forget_plan(name);
        self.prices.forget(name);
        self.usage.plan_changed(name);
        if let Some(peers) = &self.peers {
            peers.courier.tell_all(Message::Invalidated);
        }
    }

    /// Makes it so.
    pub fn start_draining(&self) {
        self.draining.cancel();
    }

    /// Whether other replicas may serve what this one leaves behind.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        self.peers.is_some()
    }

    /// Whether Weir stops and its clients have somewhere to go on: streams on which nothing is to come send them there.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.has_peers() && self.tasks.stopping().is_cancelled()
    }
}

/// Prices are known for as long as credentials are.
fn book(config: &Config, db: &Db, clock: &Clock) -> Arc<Book> {
    let kept = (config.auth.cache_ttl.get(), config.auth.stale.get());
    Arc::new(Book::new(db.clone(), clock.clone(), kept))
}

/// Weir's own hooks, and these.
fn with_own(hooks: Vec<Box<dyn Hook>>, metrics: &Arc<Metrics>) -> Arc<[Box<dyn Hook>]> {
    let own = [Box::new(MetricsHook::new(metrics.clone())) as Box<dyn Hook>, Box::new(LogHook)];
    own.into_iter().chain(hooks).collect()
}

/// What there is to call: these, and the built-in tools, which know of everything.
fn with_builtin(
    mut providers: Vec<Arc<dyn Provider>>,
    core: &builtin::Core,
    tools: &config::Tools,
    bus: &Bus,
) -> Result<Arc<Registry>> {
    providers.push(builtin::provider(core, tools)?);
    let registry = Arc::new(Registry::new(providers, bus)?);
    let _ = core.registry.set(Arc::downgrade(&registry));
    Ok(registry)
}

/// Ends sessions whose opener may no longer use them.
async fn enforce_revocations(app: Arc<App>) {
    let mut place = app.bus.revocations_from_now();
    let mut suspects = Vec::new();
    let mut check_at = Instant::now();
    loop {
        let mut rung = std::pin::pin!(app.bus.rung());
        rung.as_mut().enable();
        match app.bus.next_revocation(&mut place) {
            Some(Heard::News(change)) => {
                suspects.extend(app.sessions.select(|s| change.concerns(&s.owner)));
                check_at = Instant::now();
                continue;
            }
            Some(Heard::Missed) => {
                suspects = app.sessions.select(|_| true);
                check_at = Instant::now();
                continue;
            }
            None => {}
        }
        tokio::select! {
            biased;
            () = app.tasks.stopping().cancelled() => return,
            () = tokio::time::sleep_until(check_at), if !suspects.is_empty() => {
                suspects = check(&app, suspects).await;
                check_at = Instant::now() + CHECK_AGAIN;
            }
            () = rung => {}
        }
    }
}

/// Ends the sessions whose opener is refused; hands back those for which that cannot be found out now.
async fn check(app: &App, suspects: Vec<Arc<Session>>) -> Vec<Arc<Session>> {
    let mut unsure = Vec::new();
    for session in suspects {
        match app.credentials.resolve_reference(&session.credential()).await {
            Ok(_) => {}
            Err(Refused::Unavailable) => unsure.push(session),
            Err(Refused::Invalid | Refused::Suspended { .. }) => {
                app.sessions.close(&session, SessionEnd::Revoked)
            }
        }
    }
    unsure
}

async fn sweep(app: Arc<App>) {
    let mcp = &app.config.mcp;
    let times = [mcp.session_idle, mcp.session_unused, mcp.sse_grace].map(config::Millis::get);
    let mut shortest = times.into_iter().filter(|time| !time.is_zero()).min().unwrap_or(SWEEP);
    if app.has_peers() {
        // Others believe for a short while only what this replica says of its sessions.
        shortest = shortest.min(SHARED_SWEEP) / 4;
    }
    let mut timer = tokio::time::interval(shortest.clamp(LEAST_SWEEP, SWEEP));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.tasks.stopping().cancelled() => return,
            _ = timer.tick() => {
                while app.sessions.sweep() {
                    app.usage.flush().await;
                }
                app.sessions.sweep_shared().await;
                let kept = i64::try_from(app.sessions.kept_bytes()).unwrap_or(i64::MAX);
                app.metrics.replay_bytes.set(kept);
                app.flood.forget_quiet();
            }
        }
    }
}

/// Sums the days of the ledger that are over, and deletes what need not be kept. Every process does so; they keep out of each
/// other's way.
async fn keep_ledger(app: Arc<App>) {
    let mut timer = tokio::time::interval_at(Instant::now() + LEDGER_FIRST, LEDGER_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stopping = app.tasks.stopping().clone();
    let keep = async {
        loop {
            timer.tick().await;
            match rollups::keep(&app.db, &app.clock).await {
                Ok(days) if days.is_empty() => {}
                Ok(days) => tracing::info!(days = days.len(), "days of the ledger were summed"),
                Err(error) => tracing::warn!(%error, "the days of the ledger cannot be summed now"),
            }
            if let Err(error) = retention::keep(&app.db, &app.clock, app.config.metering.keep_months).await {
                tracing::warn!(%error, "old calls cannot be deleted now");
            }
        }
    };
    stopping.run_until_cancelled(keep).await;
}
