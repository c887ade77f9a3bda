//! A whole Weir in the test's own process, behind real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir::api_keys::{self, KeyKind, NewKey};
use weir::app::{App, Parts};
use weir::audit::Actor;
use weir::clock::{Clock, Timestamp};
use weir::config::Layers;
use weir::db::Db;
use weir::hooks::{CallEnd, CallStart, Hook, SessionInfo};
use weir::id::{KeyId, TenantId};
use weir::policy::Scopes;
use weir::providers::Provider;
use weir::tasks::Tasks;
use weir::telemetry::labels::SessionEnd;
use weir::{operator_keys, serve, tenants};

use super::balancer::Balancer;
use super::door::Entrance;
use super::services::{self, Deployment};
use super::{Draft, tools, within};

/// How long a flush of the journal waits at most.
const FLUSH: Duration = Duration::from_secs(1);

/// A credential of a tenant.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Its tenant.
    pub tenant: TenantId,
    /// What a client sends.
    pub secret: String,
}

/// A value of the configuration, as a command line would give it.
pub struct Setting(String);

impl Setting {
    /// As text.
    pub fn into_text(self) -> String {
        self.0
    }
}

macro_rules! settings {
    ($($kind:ty),+) => {$(
        impl From<$kind> for Setting {
            fn from(value: $kind) -> Self {
                Self(value.to_string())
            }
        }
    )+};
}

settings!(&str, String, bool, i32, u128);

/// What a gateway is started with.
pub struct Builder {
    flags: Vec<(String, String)>,
    clock: Clock,
    hooks: Vec<Arc<dyn Hook>>,
    providers: Vec<Arc<dyn Provider>>,
    deployment: Option<Arc<Deployment>>,
    send_buffer: Option<u32>,
    /// How many stand behind a balancer; `None`: one, and no balancer.
    replicas: Option<usize>,
    is_alone: bool,
}

impl Builder {
    /// Sets a configuration key.
    pub fn set(mut self, key: &str, value: impl Into<Setting>) -> Self {
        self.flags.push((key.to_owned(), value.into().0));
        self
    }

    /// Takes the time from here.
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Adds a hook.
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Adds a provider beside the test tools.
    pub fn provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.providers.push(provider);
        self
    }

    /// Lets the kernel hold no more than about so many bytes of each connection that its client has not read.
    pub fn send_buffer(mut self, bytes: u32) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// Stands on this, alone.
    pub fn on(mut self, deployment: Deployment) -> Self {
        self.deployment = Some(Arc::new(deployment));
        self.alone()
    }

    /// One process that shares nothing with any other, whatever the suite runs on: for a story about one process. Where
    /// it stands, a comment says what.
    pub fn alone(mut self) -> Self {
        self.replicas = None;
        self.is_alone = true;
        self
    }

    /// Starts it.
    pub async fn start(mut self) -> Gateway {
        self.providers.push(tools::provider().expect("tools"));
        weir::egress::install_crypto();
        let deployment = match self.deployment.take() {
            Some(deployment) => deployment,
            None if self.is_alone => Arc::new(Deployment::of_one_process().await),
            None => Arc::new(Deployment::new().await),
        };
        drop(self.flags.splice(0..0, deployment.flags()));
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let mut replicas = Vec::new();
        for _ in 0..self.replicas.unwrap_or(1) {
            replicas.push(self.replica(&stop, &cut).await);
        }
        let first = &replicas[0];
        let address = match self.replicas {
            Some(_) => Balancer::start(replicas.iter().map(|r| r.address), self.send_buffer).address,
            None => first.address,
        };
        Gateway {
            app: first.app.clone(),
            url: format!("http://{address}"),
            address,
            admin: first.admin,
            metrics: replicas.iter().filter_map(|replica| replica.metrics).collect(),
            http: client(),
            stop,
            cut,
            replicas,
            clock: self.clock,
            deployment,
        }
    }

    async fn replica(&self, stop: &CancellationToken, cut: &CancellationToken) -> Replica {
        let config =
            Layers { flags: self.flags.clone(), ..Layers::default() }.load().expect("a configuration");
        let db = Db::connect(&config.database).await.expect("a database");
        db.migrate().await.expect("migrations");
        let mut listeners = serve::Listeners::bind(&config).await.expect("ports");
        if let Some(bytes) = self.send_buffer {
            listeners.public = narrow_listener(bytes);
        }
        let address = listeners.public.local_addr().expect("an address");
        let side = |listener: Option<&tokio::net::TcpListener>| {
            listener.map(|listener| listener.local_addr().expect("an address"))
        };
        let (admin, metrics) = (side(listeners.admin.as_ref()), side(listeners.metrics.as_ref()));
        let hooks = self.hooks.iter().map(|hook| Box::new(Shared(hook.clone())) as Box<dyn Hook>);
        let parts = Parts {
            clock: self.clock.clone(),
            providers: self.providers.clone(),
            hooks: hooks.collect(),
            ..Parts::new(config, db)
        };
        let app = App::start(parts).await.expect("an app");
        let signals = [stop, cut].map(|signal| signal.clone().cancelled_owned());
        let [stop, cut] = signals;
        let served = Tasks::new().spawn(serve::run_or_cut(app.clone(), listeners, stop, cut));
        Replica { app, address, admin, metrics, served }
    }
}

/// A hook that every replica tells.
struct Shared(Arc<dyn Hook>);

impl Hook for Shared {
    fn before_call(&self, call: &CallStart<'_>) {
        self.0.before_call(call);
    }
    fn after_call(&self, call: &CallEnd<'_>) {
        self.0.after_call(call);
    }
    fn session_opened(&self, session: &SessionInfo<'_>) {
        self.0.session_opened(session);
    }
    fn session_closed(&self, session: &SessionInfo<'_>, reason: SessionEnd) {
        self.0.session_closed(session, reason);
    }
}

/// A listener whose connections have this send buffer, which they inherit.
fn narrow_listener(bytes: u32) -> tokio::net::TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(bytes).expect("a small buffer");
    socket.bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
    socket.listen(1024).expect("a listener")
}

/// A client that takes no proxy from the environment and keeps no connection: a test that stops the gateway is not held
/// up by one.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client")
}

/// A running gateway: one replica, or as many as `WEIR_TEST_REPLICAS` says behind a balancer.
pub struct Gateway {
    /// The state of the first replica.
    pub app: Arc<App>,
    /// `http://ADDRESS`.
    pub url: String,
    /// The public listener, or the balancer in front of all of them.
    pub address: SocketAddr,
    /// The admin listener of the first replica, where it has one of its own.
    pub admin: Option<SocketAddr>,
    /// The metrics listeners, where there are any.
    pub metrics: Vec<SocketAddr>,
    /// A client for everything.
    pub http: reqwest::Client,
    stop: CancellationToken,
    cut: CancellationToken,
    replicas: Vec<Replica>,
    clock: Clock,
    deployment: Arc<Deployment>,
}

/// One replica of it.
struct Replica {
    app: Arc<App>,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    served: JoinHandle<()>,
}

impl Entrance for Gateway {
    fn http(&self) -> &reqwest::Client {
        &self.http
    }

    fn url(&self) -> &str {
        &self.url
    }
}

impl Gateway {
    /// A gateway with the test tools that counts no strangers, which all come from one address here.
    pub fn build() -> Builder {
        let flags = [
            ("server.listen", "127.0.0.1:0"),
            ("metrics.listen", ""),
            ("limits.ip.per_second", "100000"),
            ("limits.ip.burst", "100000"),
            ("auth.failure_floor_ms", "5"),
            ("auth.invalidation_poll_ms", "50"),
            ("database.max_connections", "4"),
        ];
        Builder {
            flags: flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            clock: Clock::system(),
            hooks: Vec::new(),
            providers: Vec::new(),
            deployment: None,
            send_buffer: None,
            replicas: services::replicas(),
            is_alone: false,
        }
    }

    /// The same with nothing changed.
    pub async fn start() -> Self {
        Self::build().start().await
    }

    /// One more process of the same deployment, without a balancer: only what replicas share is shared.
    pub fn replica(&self) -> Builder {
        let deployment = Some(self.deployment.clone());
        Builder { deployment, clock: self.clock.clone(), replicas: None, ..Self::build() }
    }

    /// Where its database is.
    pub fn database_url(&self) -> &str {
        self.deployment.database_url()
    }

    /// The state of every replica.
    pub fn apps(&self) -> impl Iterator<Item = &Arc<App>> {
        self.replicas.iter().map(|replica| &replica.app)
    }

    /// A new tenant.
    pub async fn tenant(&self, name: &str) -> TenantId {
        tenants::create(&self.app.db, &self.clock, Actor::Cli, name).await.expect("a tenant").id
    }

    /// A new key of a tenant.
    pub async fn key_of(&self, tenant: TenantId, new: NewKey) -> Key {
        make_key(&self.app.db, &self.clock, tenant, new).await
    }

    /// An API key that may do everything.
    pub async fn key(&self, tenant: TenantId) -> Key {
        self.key_of(tenant, new_key(KeyKind::ApiKey)).await
    }

    /// A URL token that may do everything.
    pub async fn url_token(&self, tenant: TenantId) -> Key {
        self.key_of(tenant, new_key(KeyKind::UrlToken)).await
    }

    /// An API key with these scopes.
    pub async fn scoped(&self, tenant: TenantId, scopes: Value) -> Key {
        let scopes: Scopes = serde_json::from_value(scopes).expect("scopes");
        self.key_of(tenant, NewKey { scopes, ..new_key(KeyKind::ApiKey) }).await
    }

    /// An API key that ends then.
    pub async fn ending(&self, tenant: TenantId, end: Timestamp) -> Key {
        self.key_of(tenant, NewKey { expires_at: Some(end), ..new_key(KeyKind::ApiKey) }).await
    }

    /// A new tenant with an API key.
    pub async fn caller(&self) -> Key {
        caller(&self.app.db, &self.clock).await
    }

    /// Any request.
    pub fn request(&self, method: Method, path: &str) -> Draft {
        Draft::new(&self.http, method, format!("{}{path}", self.url))
    }

    /// An operator of this deployment.
    pub async fn operator(&self) -> Operator {
        let secret = operator(&self.app.db, &self.clock).await;
        secret.at(self.admin.unwrap_or(self.address))
    }

    /// What the metrics of all replicas say of one series, by its exact text before the value; 0 where it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        self.apps().map(|app| value_of(series, &app.metrics.render())).sum()
    }

    /// Sessions that replicas know of; one that several know of counts for each.
    pub fn sessions(&self) -> usize {
        self.apps().map(|app| app.sessions.len()).sum()
    }

    /// Waits until what was recorded can be read.
    pub async fn is_recorded(&self) {
        for app in self.apps() {
            // A flush gives up after a while.
            super::eventually("the journal to be written", async || {
                let since = Instant::now();
                app.usage.flush().await;
                since.elapsed() < FLUSH
            })
            .await;
        }
    }

    /// Begins to shut down, as SIGTERM does.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Says so once more, as a second signal does.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits until it is down.
    pub async fn stopped(&mut self) {
        for replica in &mut self.replicas {
            within("the end of the gateway", &mut replica.served).await.expect("no panic");
        }
    }
}

/// What a page of metrics says of one series, by its exact text before the value; 0 where it is not there.
pub fn value_of(series: &str, page: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

/// A new tenant with an API key.
pub async fn caller(db: &Db, clock: &Clock) -> Key {
    let name = format!("tenant {}", TenantId::new());
    let tenant = tenants::create(db, clock, Actor::Cli, &name).await.expect("a tenant").id;
    key(db, clock, tenant).await
}

/// An API key of this tenant that may do everything.
pub async fn key(db: &Db, clock: &Clock, tenant: TenantId) -> Key {
    make_key(db, clock, tenant, new_key(KeyKind::ApiKey)).await
}

async fn make_key(db: &Db, clock: &Clock, tenant: TenantId, new: NewKey) -> Key {
    let (key, secret) = api_keys::create(db, clock, Actor::Cli, tenant, new).await.expect("a key");
    Key { id: key.id, tenant, secret: secret.expose().to_owned() }
}

/// A new operator key, to be used somewhere.
pub async fn operator(db: &Db, clock: &Clock) -> OperatorKey {
    let made = operator_keys::create(db, clock, Actor::Cli, "it").await.expect("a key");
    OperatorKey(made.1.expose().to_owned())
}

/// An operator key.
pub struct OperatorKey(String);

impl OperatorKey {
    /// Somebody who uses it at this address.
    pub fn at(self, address: SocketAddr) -> Operator {
        Operator { http: client(), base: format!("http://{address}"), secret: self.0 }
    }
}

fn new_key(kind: KeyKind) -> NewKey {
    NewKey::new(kind, "it")
}

/// Somebody with an operator key.
pub struct Operator {
    http: reqwest::Client,
    base: String,
    /// The key.
    pub secret: String,
}

impl Operator {
    /// A request to the admin API.
    pub fn request(&self, method: Method, path: &str) -> Draft {
        Draft::new(&self.http, method, format!("{}{path}", self.base)).bearer(&self.secret)
    }

    /// GET.
    pub async fn get(&self, path: &str) -> super::Reply {
        self.request(Method::GET, path).send().await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> super::Reply {
        self.request(Method::POST, path).header("content-type", "application/json").body(body).send().await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> super::Reply {
        self.request(Method::DELETE, path).send().await
    }
}
