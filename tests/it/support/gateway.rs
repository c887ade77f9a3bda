//! A whole Weir in the test's own process, behind real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

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
use weir::hooks::Hook;
use weir::id::{KeyId, TenantId};
use weir::policy::Scopes;
use weir::providers::Provider;
use weir::tasks::Tasks;
use weir::{operator_keys, serve, tenants};

use super::database::Database;
use super::{Draft, tools, within};

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
    hooks: Vec<Box<dyn Hook>>,
    providers: Vec<Arc<dyn Provider>>,
    database: Option<Arc<Database>>,
    send_buffer: Option<u32>,
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
        self.hooks.push(Box::new(hook));
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

    /// Starts it.
    pub async fn start(mut self) -> Gateway {
        self.providers.push(tools::provider().expect("tools"));
        weir::egress::install_crypto();
        let database = match self.database {
            Some(database) => database,
            None => Arc::new(Database::new().await),
        };
        let mut flags = vec![("database.url".to_owned(), database.url.clone())];
        flags.extend(self.flags);
        let config = Layers { flags: flags.clone(), ..Layers::default() }.load().expect("a configuration");
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
        let parts = Parts {
            clock: self.clock.clone(),
            providers: self.providers,
            hooks: self.hooks,
            ..Parts::new(config, db)
        };
        let app = App::start(parts).await.expect("an app");
        let stop = CancellationToken::new();
        let served = Tasks::new().spawn(serve::run(app.clone(), listeners, stop.clone().cancelled_owned()));
        Gateway {
            app,
            url: format!("http://{address}"),
            address,
            admin,
            metrics,
            http: client(),
            stop,
            served,
            clock: self.clock,
            database,
        }
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
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client")
}

/// A running gateway.
pub struct Gateway {
    /// Its state.
    pub app: Arc<App>,
    /// `http://ADDRESS`.
    pub url: String,
    /// The public listener.
    pub address: SocketAddr,
    /// The admin listener, where it has one of its own.
    pub admin: Option<SocketAddr>,
    /// The metrics listener, where there is one.
    pub metrics: Option<SocketAddr>,
    /// A client for everything.
    pub http: reqwest::Client,
    stop: CancellationToken,
    served: JoinHandle<()>,
    clock: Clock,
    database: Arc<Database>,
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
            database: None,
            send_buffer: None,
        }
    }

    /// The same with nothing changed.
    pub async fn start() -> Self {
        Self::build().start().await
    }

    /// One more process of the same deployment: only the database is shared.
    pub fn replica(&self) -> Builder {
        Builder { database: Some(self.database.clone()), clock: self.clock.clone(), ..Self::build() }
    }

    /// A new tenant.
    pub async fn tenant(&self, name: &str) -> TenantId {
        tenants::create(&self.app.db, &self.clock, Actor::Cli, name).await.expect("a tenant").id
    }

    /// A new key of a tenant.
    pub async fn key_of(&self, tenant: TenantId, new: NewKey) -> Key {
        let made = api_keys::create(&self.app.db, &self.clock, Actor::Cli, tenant, new).await;
        let (key, secret) = made.expect("a key");
        Key { id: key.id, tenant, secret: secret.expose().to_owned() }
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
        let tenant = self.tenant(&format!("tenant {}", TenantId::new())).await;
        self.key(tenant).await
    }

    /// Any request.
    pub fn request(&self, method: Method, path: &str) -> Draft {
        Draft::new(&self.http, method, format!("{}{path}", self.url))
    }

    /// An operator of this deployment.
    pub async fn operator(&self) -> Operator {
        let made = operator_keys::create(&self.app.db, &self.clock, Actor::Cli, "it").await;
        let address = self.admin.unwrap_or(self.address);
        let secret = made.expect("a key").1.expose().to_owned();
        Operator { http: self.http.clone(), base: format!("http://{address}"), secret }
    }

    /// What the metrics say of one series, by its exact text before the value; 0 where it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.app.metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Begins to shut down, as SIGTERM does.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until it is down.
    pub async fn stopped(&mut self) {
        within("the end of the gateway", &mut self.served).await.expect("no panic");
    }
}

fn new_key(kind: KeyKind) -> NewKey {
    NewKey { kind, name: "it".to_owned(), scopes: Scopes::default(), expires_at: None }
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
