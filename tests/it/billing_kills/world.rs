//! A deployment that bills through a stand-in: real processes that share a database and the time, and one that dies.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use prometheus::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;
use weir::billing::setup;
use weir::billing::stripe::Stripe;
use weir::clock::{Clock, Timestamp};
use weir::config::Layers;
use weir::db::Db;
use weir::ledger::verify;
use weir::providers::builtin;
use weir::standin::{Fault, SECRET_KEY, Standin, Trouble};
use weir::telemetry::billing::Billing as Metrics;

use super::{Fate, Kind};
use crate::support::cluster::example;
use crate::support::database::Reader;
use crate::support::door::Door;
use crate::support::gateway::{self, Key};
use crate::support::port::Port;
use crate::support::process::Process;
use crate::support::services::Deployment;
use crate::support::shop::Shop;
use crate::support::stripe::standin;
use crate::support::{Modern, eventually};

/// 2026-09-21T14:13:20Z.
const START: i64 = 1_790_000_000_000_000;
const MINUTE: i64 = 60_000_000;
/// What a call costs, in micro-credits.
const PRICE: i64 = 250_000;
/// After this time nobody holds anything of what a dead process held: neither a tenant nor credits.
const AFTER_DEATH: Duration = Duration::from_secs(360);
const EVENTS: &str = "/v1/billing/meter_events";
/// What every process is told beside where things are. How often it looks for what is due goes by the wall, so that is often; what
/// is due goes by the time of the story, and each pass of that is longer than what is compared again after these 300 s.
const SETTINGS: [(&str, &str); 15] = [
    ("metrics.listen", ""),
    ("log.format", "json"),
    ("server.drain_delay_ms", "0"),
    ("database.max_connections", "4"),
    ("limits.ip.per_second", "100000"),
    ("limits.ip.burst", "100000"),
    ("auth.failure_floor_ms", "5"),
    ("auth.invalidation_poll_ms", "50"),
    ("metering.lead_ms", "500"),
    ("metering.lease_ms", "600"),
    ("metering.idle_ms", "1000"),
    ("billing.stripe_key", SECRET_KEY),
    ("billing.credit_price", "0.25"),
    ("billing.export_every_ms", "100"),
    ("billing.reconcile_every_ms", "300000"),
];

/// A process, also while it does not run.
struct Replica {
    environment: Vec<(String, String)>,
    port: Port,
    process: Option<Process>,
}

impl Replica {
    async fn start(&mut self) {
        let mut command = Command::new(example("replica"));
        command.env_clear().envs(self.environment.iter().cloned());
        self.process = Some(Process::start("a process", command, "\"ready\"").await);
    }
}

/// Where a process dies.
struct Strike {
    /// At which request of which kind.
    request: (Kind, usize),
    fate: Fate,
    /// Requests that were made before any were counted.
    before: usize,
    struck: Option<String>,
}

/// The deployment, and its Stripe.
pub struct World {
    context: String,
    clock: Clock,
    /// The same time, for the processes.
    hand: PathBuf,
    standin: Standin,
    replicas: Vec<Replica>,
    db: Db,
    key: Key,
    meter: String,
    strike: Option<Strike>,
    calls: usize,
    reader: Mutex<Reader>,
    _deployment: Deployment,
    _directory: TempDir,
}

impl World {
    /// One process, and a tenant that owes what it uses. `context` says which life this is.
    pub async fn new(context: String) -> Self {
        let clock = Clock::manual(Timestamp::from_micros(START));
        let standin = standin(clock.clone()).await;
        let deployment = Deployment::of_one_process().await;
        let directory = tempfile::tempdir().expect("a directory");
        let hand = directory.path().join("clock");
        let url = standin.base_url();
        let mut flags = deployment.flags();
        flags.extend(SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned())));
        flags.push(("billing.stripe_url".to_owned(), url));
        let config = Layers { flags: flags.clone(), ..Layers::default() }.load().expect("settings");
        let db = Db::connect(&config.database).await.expect("a database");
        db.migrate().await.expect("migrations");
        let metrics = Metrics::register(&Registry::new()).expect("metrics");
        let stripe = Stripe::new(&config.billing, &clock, &metrics).expect("a client");
        setup::setup(&stripe, &config.billing, "http://127.0.0.1").await;
        let shop = Shop { db: &db, clock: &clock };
        let tools = json!([{ "name": "work", "server": "lab", "per_call": "0.25" }]);
        shop.publish("usage", json!({ "kind": "usage", "tools": tools })).await;
        let key = shop.customer("usage").await;
        let variable = |key: &str| format!("WEIR_{}", key.to_ascii_uppercase().replace('.', "__"));
        let replica = || {
            let port = Port::take();
            let mut environment: Vec<_> =
                flags.iter().map(|(key, value)| (variable(key), value.clone())).collect();
            environment.push((variable("server.listen"), port.address.to_string()));
            environment.push(("WEIR_TEST_CLOCK".to_owned(), hand.to_string_lossy().into_owned()));
            Replica { environment, port, process: None }
        };
        // Two on one database, where it can be shared.
        let many = if deployment.database_url().starts_with("sqlite:") { 1 } else { 2 };
        let replicas = std::iter::repeat_with(replica).take(many).collect();
        let reader = Mutex::new(Reader::open(deployment.database_url()).await);
        let (strike, calls, meter) = (None, 0, String::new());
        let (_deployment, _directory) = (deployment, directory);
        let mut world = Self {
            context,
            clock,
            hand,
            standin,
            replicas,
            db,
            key,
            meter,
            strike,
            calls,
            reader,
            _deployment,
            _directory,
        };
        world.meter = world.ask("GET", "/v1/billing/meters", "").await["data"][0]["id"]
            .as_str()
            .expect("a meter")
            .to_owned();
        world.advance(Duration::from_secs(1));
        world.replicas[0].start().await;
        world
    }

    /// Lets time go by, for everybody at once.
    fn advance(&self, span: Duration) {
        self.clock.advance(span);
        let new = self.hand.with_extension("new");
        std::fs::write(&new, self.clock.now().as_micros().to_string()).expect("written");
        std::fs::rename(new, &self.hand).expect("whole");
    }

    /// Somebody else with the same key asks the stand-in.
    async fn ask(&self, method: &str, path: &str, form: &str) -> Value {
        let url = format!("{}{path}", self.standin.base_url());
        let method = method.parse().expect("a method");
        let request = gateway::client().request(method, url).bearer_auth(SECRET_KEY);
        let request =
            request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON")
    }

    async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.reader.lock().await.rows(sql).await
    }

    async fn number(&self, sql: &str) -> i64 {
        self.rows(sql).await[0][0].parse().expect("a number")
    }

    /// Makes so many calls, at whichever process runs.
    pub async fn call(&mut self, calls: usize) {
        let running = self.replicas.iter().find(|replica| replica.process.is_some());
        let door = Door::at(running.expect("a process").port.address);
        let client = Modern::new(&door, &self.key);
        for _ in 0..calls {
            self.calls += 1;
            let reply = client.call("work", json!({ "id": self.calls.to_string() })).await;
            assert_eq!(reply.result()["isError"], false, "{}: {}", self.context, reply.text);
        }
    }

    /// What the calls cost, in micro-credits.
    fn owed(&self) -> i64 {
        i64::try_from(self.calls).expect("few") * PRICE
    }

    /// The next event will be accepted and never counted.
    pub fn lose(&self) {
        self.standin.fault(Fault::new(Trouble::DropEvent).on("POST", EVENTS));
    }

    /// Usage that nobody owes, in the minute of the first export.
    pub async fn extra(&self, micros: i64) {
        let second = self.number("select min(slot) from exports").await / 1_000_000;
        let customer = self.customer().await;
        let form = format!(
            "event_name=weir_credits&payload[value]={micros}&payload[stripe_customer_id]={customer}&timestamp={second}"
        );
        self.ask("POST", EVENTS, &form).await;
    }

    async fn customer(&self) -> String {
        self.rows("select customer from billing_customers").await[0][0].clone()
    }

    /// The process that makes so many requests of this kind from now on, and then another one, dies at that.
    pub fn strike_at(&mut self, request: (Kind, usize), fate: Fate) {
        let ((method, path), number) = request;
        let hold = Fault::new(Trouble::Hold).on(method, path).skip(u32::try_from(number).expect("few"));
        let hold = if fate == Fate::Done { hold.applied() } else { hold };
        let before = self.standin.requests().len();
        self.standin.fault(hold);
        self.strike = Some(Strike { request, fate, before, struck: None });
    }

    /// At which request the process died, if it did.
    pub fn struck(&self) -> Option<String> {
        self.strike.as_ref()?.struck.clone()
    }

    /// Lets time go by, and waits until all that is due then is done; or until the process dies, and others have done it.
    pub async fn pass(&mut self, span: Duration) {
        self.advance(span);
        let is_armed = self.strike.as_ref().is_some_and(|strike| strike.struck.is_none());
        tokio::select! {
            biased;
            () = self.standin.holds(), if is_armed => {}
            () = self.is_quiet() => return,
        }
        self.dies().await;
    }

    /// The process dies at the request that is held.
    async fn dies(&mut self) {
        let strike = self.strike.as_mut().expect("a strike");
        let ((method, start), number) = strike.request;
        let requests = self.standin.requests().into_iter().skip(strike.before);
        let seen = requests.filter(|seen| seen.method == method && seen.path.starts_with(start)).nth(number);
        let seen = seen.expect("what is held was seen");
        let (fate, path) = (strike.fate, seen.path.replace(&self.meter, "{id}"));
        strike.struck = Some(format!("{} {path}", seen.method));
        // Another one works beside it before it dies.
        for replica in &mut self.replicas[1..] {
            replica.start().await;
        }
        self.replicas[0].process.take().expect("a process").kill().await;
        if fate == Fate::Done {
            self.standin.release();
        }
        self.replicas[0].start().await;
        self.advance(AFTER_DEATH);
        self.is_quiet().await;
        if fate == Fate::ArrivesLate {
            self.standin.release();
        }
    }

    /// Waits until all that is due is done, as far as there is a minute for what is to be told.
    async fn is_quiet(&self) {
        let now = self.clock.now().as_micros();
        let minute = (now / MINUTE - 1) * MINUTE;
        let owed = self.owed();
        let told = "coalesce((select sum(case when e.state = 'frozen' then e.counted else e.credits end)
                              from exports e where e.period_id = p.id), 0)";
        let due = format!(
            "select (select count(*) from exports where state in ('open', 'sent') and due_at <= {now})
                  + (select count(*) from periods p where p.overage_used <> {told}
                     and not exists (select 1 from exports e where e.slot >= {minute}))
                  + (select count(*) from billing_customers where claimed_until > {now})
                  + (select count(*) from billing_customers c
                     where not exists (select 1 from proofs r where r.tenant_id = c.tenant_id and r.at = {now}))
                  + (select case when count(*) = 0 then 1 else 0 end from billing_customers)
                  + (select case when coalesce(sum(overage_used), 0) = {owed} then 0 else 1 end from periods)"
        );
        eventually(&self.context, async || self.number(&due).await == 0).await;
    }

    /// Lets these times go by until everything is proven, and no more than twice.
    pub async fn rests(&mut self, spans: &[Duration]) {
        let open = "select (select count(*) from exports where state in ('open', 'sent'))
                         + (select count(*) from proofs where verdict <> 'equal')";
        for span in spans.iter().chain(spans) {
            Box::pin(self.pass(*span)).await;
            if self.number(open).await == 0 {
                return;
            }
        }
        panic!("{} does not come to rest: {:?}", self.context, self.rows("select * from exports").await);
    }

    /// Ledger, proofs and Stripe say the same, and nobody was made twice.
    pub async fn adds_up(&self) {
        let context = &self.context;
        let verified = "select cast(coalesce(sum(counted), 0) as bigint) from exports where state in ('verified', 'frozen')";
        let billed = self.standin.total(&self.meter, &self.customer().await, 0, i64::MAX);
        assert_eq!((billed, self.number(verified).await), (self.owed(), self.owed()), "{context}");
        self.standin.clear_faults();
        let customers = self.ask("GET", "/v1/customers?limit=100", "").await;
        assert_eq!(customers["data"].as_array().map(Vec::len), Some(2), "{context}: one, and the canary");
        let options = verify::Options {
            tenant: None,
            free: &builtin::FREE_TOOLS,
            replay: Duration::from_secs(48 * 3600),
        };
        let report = verify::verify(&self.db, &self.clock, &options).await.expect("a report");
        let wrong: Vec<_> = report.checks.iter().filter(|finding| finding.wrong > 0).collect();
        assert!(wrong.is_empty(), "{context}: {}", json!(wrong));
    }
}
