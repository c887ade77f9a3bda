//! A stand-in for Stripe's API, for tests and for trying Weir out without an account. It is not Stripe: it is a server of
//! this repository that keeps in memory what is asked of it, behaves as the documentation says, and goes wrong on demand.
//!
//! What it takes for granted about Stripe stands in [`assumptions`], each with an id that stands in the code, too.

mod agenda;
mod answer;
mod api;
pub mod assumptions;
mod billing;
mod cards;
mod checkout;
mod control;
mod deliveries;
pub mod fault;
mod form;
mod held;
mod idempotency;
mod ids;
mod keys;
mod look;
mod pages;
mod record;
mod refusal;
mod schema;
mod serve;
mod settings;
mod shelf;
mod usage;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub use self::deliveries::Attempt;
pub use self::fault::{Fault, Trouble};
pub use self::settings::{AfterRetries, Billed, Change};
pub use self::world::Seen;

use self::held::Held;
use self::keys::Keys;
use self::record::Records;
use self::refusal::Refusal;
use self::world::{Call, World};
use crate::clock::{Clock, Timestamp};
use crate::tasks::Tasks;

/// The version of Stripe's API that objects have, the one that Weir's types are made from.
pub const API_VERSION: stripe_shared::ApiVersion = stripe_shared::version::VERSION;
/// The secret key that it knows where nothing else is said.
pub const SECRET_KEY: &str = "sk_test_weir_standin";

/// What a stand-in begins with.
pub struct Options {
    /// Where to listen; port 0 is any.
    pub listen: SocketAddr,
    /// Its time, until it is moved on.
    pub clock: Clock,
    /// What its ids are made from. The same seed gives the same ids.
    pub seed: Vec<u8>,
    /// The secret key that may do everything.
    pub secret_key: String,
    /// The directory where requests are recorded, each as a line of JSON in a file of this stand-in's.
    pub record: Option<PathBuf>,
}

impl Options {
    /// On a free port of this machine, with [`SECRET_KEY`] and the ids of always. Nothing is recorded.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { listen, clock, seed: b"weir".to_vec(), secret_key: SECRET_KEY.to_owned(), record: None }
    }
}

/// What its tasks share.
struct Shared {
    world: Mutex<World>,
    tasks: Tasks,
    /// There may be something to deliver.
    wake: Notify,
    /// A delivery came to its end, or there was none to make.
    settled: Notify,
    /// Requests and answers that wait for a word.
    held: Held,
}

impl Shared {
    /// The world as it is now: whatever was due has happened.
    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = serve::lock(&self.world);
        if agenda::catch_up(&mut world) {
            self.wake.notify_one();
        }
        world
    }

    /// Moves the clock on, through all that is due on the way.
    fn advance(&self, span: Duration) {
        self.world().advance(span);
        drop(self.world());
        self.wake.notify_one();
    }

    /// Does something with the world, and sends out what it brought.
    fn act(&self, what: impl FnOnce(&mut World) -> api::Done) -> api::Done {
        let done = what(&mut self.world());
        self.wake.notify_one();
        done
    }
}

/// How often the clock is looked at while nobody asks.
const TICK: Duration = Duration::from_secs(1);

/// Lets happen what is due while nobody asks.
async fn tick(shared: Arc<Shared>) {
    let stop = shared.tasks.stopping().clone();
    while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
        drop(shared.world());
    }
}

/// A running stand-in. It stops when this is dropped.
pub struct Standin {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Standin {
    /// Starts one.
    ///
    /// # Errors
    /// Where the address cannot be listened on, no file be made for its records, or no outgoing client.
    pub async fn start(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let client = crate::egress::client(deliveries::PATIENCE).map_err(std::io::Error::other)?;
        let Options { clock, seed, secret_key, record, .. } = options;
        let mut world = World::new(clock, &seed, Keys::new(&secret_key), format!("http://{address}"));
        world.records = record.map(|directory| Records::open(&directory, address.port())).transpose()?;
        let shared = Arc::new(Shared {
            world: Mutex::new(world),
            tasks: Tasks::new(),
            wake: Notify::new(),
            settled: Notify::new(),
            held: Held::new(),
        });
        shared.tasks.spawn(serve::accept(shared.clone(), listener));
        shared.tasks.spawn(deliveries::run(shared.clone(), client));
        shared.tasks.spawn(tick(shared.clone()));
        Ok(Self { shared, address })
    }

    /// What to give a client in the place of `https://api.stripe.com`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.world().time()
    }

    /// Moves its time on, beyond that of the clock that it was given.
    pub fn advance(&self, span: Duration) {
        self.shared.advance(span);
    }

    /// Puts a fault at the end of the queue.
    pub fn fault(&self, fault: Fault) {
        self.shared.world().faults.push_back(fault);
    }

    /// Waits until [`Trouble::Hold`] holds something.
    pub async fn holds(&self) {
        self.shared.held.any().await;
    }

    /// Lets go of whatever [`Trouble::Hold`] holds.
    pub fn release(&self) {
        self.shared.held.release();
    }

    /// Takes the faults away that are left, and says which.
    pub fn clear_faults(&self) -> Vec<Fault> {
        self.shared.world().faults.drain(..).collect()
    }

    /// How long usage that is accepted from now on stays out of summaries.
    pub fn set_summary_lag(&self, lag: Duration) {
        self.shared.world().settings.summary_lag_seconds = lag.as_secs();
    }

    /// Changes how its account is set up.
    ///
    /// # Errors
    /// A sentence where a setting is out of its bounds; then all stay as they are.
    pub fn set(&self, change: Change) -> Result<(), String> {
        self.shared.world().settings.change(change)
    }

    /// Pays on the page of a Checkout session, with a test card by its number or name. The session after it.
    ///
    /// # Errors
    /// A sentence where the session is not open or the card is declined.
    pub fn complete_checkout(&self, session: &str, card: &str) -> Result<Value, String> {
        self.shared.act(|world| checkout::complete(world, session, card)).map_err(|refusal| said(&refusal))
    }

    /// Gives a customer another test card, as the portal does. The payment method.
    ///
    /// # Errors
    /// A sentence where there is no such customer or the card is refused.
    pub fn set_card(&self, customer: &str, card: &str) -> Result<Value, String> {
        self.shared.act(|world| checkout::set_card(world, customer, card)).map_err(|refusal| said(&refusal))
    }

    /// Opens a dispute over a charge, of all that is left of it or of an amount. The dispute.
    ///
    /// # Errors
    /// A sentence where the charge cannot be disputed so.
    pub fn dispute(&self, charge: &str, amount: Option<i64>, reason: &str) -> Result<Value, String> {
        let nobodys = Call::nobodys();
        self.shared
            .act(|world| billing::dispute::open(world, &nobodys, charge, (amount, reason)))
            .map_err(|refusal| said(&refusal))
    }

    /// Closes a dispute. The dispute after it.
    ///
    /// # Errors
    /// A sentence where there is none, or it is closed.
    pub fn close_dispute(&self, dispute: &str, won: bool) -> Result<Value, String> {
        self.shared
            .act(|world| billing::dispute::close(world, &Call::nobodys(), dispute, won))
            .map_err(|refusal| said(&refusal))
    }

    /// Makes all usage visible in summaries that was accepted so far.
    pub fn show_usage(&self) {
        let mut world = self.shared.world();
        let now = world.time();
        world.usage.show_all(now);
    }

    /// Makes a restricted key known (`rk_test_...`), with permissions such as `customer_write`.
    pub fn restrict_key(&self, key: &str, permissions: &[&str]) {
        self.shared.world().keys.restrict(key, permissions.iter().map(|&permission| permission.to_owned()));
    }

    /// Registers a webhook endpoint for all events, with a secret of the caller's. Its id.
    ///
    /// # Errors
    /// A sentence where the URL is none.
    pub fn add_webhook(&self, url: &str, secret: &str) -> Result<String, String> {
        let params = json!({ "url": url, "enabled_events": ["*"] });
        let Value::Object(params) = params else { return Err("no parameters".to_owned()) };
        let (ids, path, request) = (Vec::new(), "/v1/webhook_endpoints".to_owned(), String::new());
        let call = Call { ids, params, path, request, key: None };
        let made = api::new_endpoint(&mut self.shared.world(), &call, secret);
        let made = made.map_err(|refusal| said(&refusal))?;
        Ok(made["id"].as_str().unwrap_or_default().to_owned())
    }

    /// Gives an endpoint a further secret, with which it signs first; with `None`, only the newest stays.
    pub fn roll_secret(&self, endpoint: &str, secret: Option<&str>) {
        let mut world = self.shared.world();
        match secret {
            Some(secret) => world.outbox.know(endpoint, secret),
            None => world.outbox.retire(endpoint),
        }
    }

    /// Waits until every delivery that was due has been tried.
    pub async fn quiet(&self) {
        loop {
            let settled = self.shared.settled.notified();
            let busy = {
                let world = self.shared.world();
                world.outbox.is_busy(world.time())
            };
            if !busy {
                return;
            }
            self.shared.wake.notify_one();
            settled.await;
        }
    }

    /// The latest attempts to deliver events, the oldest first.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Attempt> {
        self.shared.world().outbox.made()
    }

    /// The latest requests, the oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.world().seen.iter().cloned().collect()
    }

    /// The sum that a customer will be billed for, over usage from `from` on and before `to`, in seconds, whether
    /// summaries show it yet or not.
    #[must_use]
    pub fn total(&self, meter: &str, customer: &str, from: i64, to: i64) -> i64 {
        self.shared.world().usage.sums(meter, customer, (from, to), None).sum
    }

    /// Stops, and waits for its tasks.
    pub async fn stop(self) {
        self.shared.tasks.shut_down().await;
    }
}

fn said(refusal: &Refusal) -> String {
    refusal.message().to_owned()
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.shared.tasks.stopping().cancel();
    }
}
