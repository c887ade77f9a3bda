//! Set-up and doctor against the stand-in: made once whatever goes wrong, and everything that is wrong is found.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use prometheus::Registry;
use serde_json::Value;
use weir::billing::doctor::examine;
use weir::billing::events::{EVENTS, PATH};
use weir::billing::report::{Line, Verdict};
use weir::billing::setup::setup;
use weir::billing::stripe::{Pace, Stripe};
use weir::clock::{Clock, Timestamp};
use weir::config::{Billing, Layers, Millis};
use weir::standin::{Fault, SECRET_KEY, Standin, Trouble};
use weir::telemetry::billing::Billing as Metrics;

use super::support::stripe::standin;

const PUBLIC_URL: &str = "https://mcp.example.com";
/// What the price of a micro-credit says where a credit costs 0.25, 0.3 and 9.
const AMOUNTS: [&str; 3] = ["0.00000025", "0.0000003", "0.000009"];
const THINGS: [(&str, &str); 4] = [
    ("meter", "/v1/billing/meters"),
    ("product", "/v1/products"),
    ("price", "/v1/prices"),
    ("portal", "/v1/billing_portal/configurations"),
];

/// An account, and the configuration of the Weir that uses it.
struct Account {
    standin: Standin,
    config: Billing,
}

impl Account {
    async fn open() -> Self {
        let clock = Clock::manual(Timestamp::from_micros(1_800_000_000_000_000));
        let standin = standin(clock).await;
        let mut config = Layers::default().load().expect("the defaults").billing;
        config.stripe_key = SECRET_KEY.into();
        config.stripe_url = standin.base_url();
        config.credit_price = "0.25".to_owned();
        config.attempts = 3;
        config.webhook_secrets = vec!["whsec_0123456789abcdef".into()];
        Self { standin, config }
    }

    fn stripe(&self) -> Stripe {
        let metrics = Metrics::register(&Registry::new()).expect("metrics");
        let quick = Pace { first: Duration::from_millis(2), most: Duration::from_millis(250), seed: Some(1) };
        Stripe::new(&self.config, &Clock::system(), &metrics).expect("a client").with_pace(quick)
    }

    async fn setup(&self) -> Vec<Line> {
        setup(&self.stripe(), &self.config, PUBLIC_URL).await
    }

    async fn examine(&self) -> Vec<Line> {
        examine(&self.stripe(), &self.config, PUBLIC_URL).await
    }

    /// All that is there.
    async fn objects(&self) -> BTreeMap<&'static str, Vec<Value>> {
        let mut all = BTreeMap::new();
        for (thing, path) in THINGS {
            let list = self.ask("GET", &format!("{path}?limit=100"), "").await;
            all.insert(thing, list["data"].as_array().expect("a list").clone());
        }
        all
    }

    /// Asks like somebody else who has the key.
    async fn ask(&self, method: &str, path: &str, form: &str) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let method = method.parse().expect("a method");
        let request =
            client.request(method, format!("{}{path}", self.standin.base_url())).bearer_auth(SECRET_KEY);
        let request =
            request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.expect("JSON")
    }

    /// An endpoint that hears of these events. Its id.
    async fn hears(&self, events: &[&str]) -> String {
        let mut form = format!("url={PUBLIC_URL}{PATH}");
        for (place, event) in events.iter().enumerate() {
            form.push_str(&format!("&enabled_events[{place}]={event}"));
        }
        let made = self.ask("POST", "/v1/webhook_endpoints", &form).await;
        made["id"].as_str().expect("an id").to_owned()
    }
}

fn verdicts(lines: &[Line]) -> Vec<(&'static str, Verdict)> {
    lines.iter().map(|line| (line.what, line.verdict)).collect()
}

fn all(verdict: Verdict) -> Vec<(&'static str, Verdict)> {
    THINGS.iter().map(|(thing, _)| (*thing, verdict)).collect()
}

fn line<'a>(lines: &'a [Line], what: &str) -> &'a Line {
    lines.iter().find(|line| line.what == what).unwrap_or_else(|| panic!("no {what} in {lines:?}"))
}

/// Each thing is there once, and as it should be.
async fn assert_one_of_each(account: &Account, context: &str) {
    for (thing, found) in account.objects().await {
        assert_eq!(found.len(), 1, "{context}: {thing}: {found:?}");
    }
    assert_eq!(verdicts(&account.setup().await), all(Verdict::There), "{context}");
}

#[tokio::test]
async fn what_is_made_is_as_it_should_be() {
    let account = Account::open().await;
    let lines = account.setup().await;
    assert_eq!(verdicts(&lines), all(Verdict::Made), "{lines:?}");
    assert_one_of_each(&account, "twice").await;
    let objects = account.objects().await;
    let [meter, product, price, portal] = THINGS.map(|(thing, _)| &objects[thing][0]);
    assert_eq!(meter["event_name"], "weir_credits");
    assert_eq!(meter["default_aggregation"]["formula"], "sum");
    assert_eq!(product["id"], "weir_credits");
    assert_eq!((&price["unit_amount_decimal"], &price["currency"]), (&AMOUNTS[0].into(), &"usd".into()));
    assert_eq!(
        (&price["recurring"]["meter"], &price["recurring"]["usage_type"]),
        (&meter["id"], &"metered".into())
    );
    assert_eq!((&price["product"], &price["lookup_key"]), (&product["id"], &"weir_credits".into()));
    assert_eq!(portal["features"]["subscription_cancel"]["mode"], "at_period_end");
    assert_eq!(portal["features"]["subscription_update"]["enabled"], false);
}

#[tokio::test]
async fn two_at_once_make_nothing_twice() {
    let mut account = Account::open().await;
    account.config.attempts = 9;
    // Who comes first waits a while in the middle of its request, so that they meet.
    for (_, path) in THINGS {
        account.standin.fault(Fault::new(Trouble::Latency).on("POST", path).milliseconds(15));
    }
    let (one, two, three) = tokio::join!(account.setup(), account.setup(), account.setup());
    for lines in [one, two, three] {
        assert!(lines.iter().all(|line| line.verdict != Verdict::Wrong), "{lines:?}");
    }
    assert_one_of_each(&account, "after two at once").await;
}

#[tokio::test]
async fn another_amount_is_another_price() {
    let mut account = Account::open().await;
    account.setup().await;
    let old = account.objects().await["price"][0]["id"].clone();
    account.config.credit_price = "0.3000".to_owned();
    let (one, two) = tokio::join!(account.setup(), account.setup());
    for lines in [one, two] {
        assert!(lines.iter().all(|line| line.verdict != Verdict::Wrong), "{lines:?}");
    }
    let prices = account.objects().await["price"].clone();
    let (new, before): (Vec<_>, Vec<_>) =
        prices.iter().partition(|price| price["lookup_key"] == "weir_credits");
    assert_eq!((new.len(), before.len()), (1, 1), "{prices:?}");
    assert_eq!((&new[0]["unit_amount_decimal"], &before[0]["id"]), (&AMOUNTS[1].into(), &old));
    assert_eq!(verdicts(&account.setup().await), all(Verdict::There));
    // And back: the same again, under another key than the first time.
    account.config.credit_price = "0.25".to_owned();
    let lines = account.setup().await;
    assert_eq!(line(&lines, "price").verdict, Verdict::Changed);
    assert_eq!(verdicts(&account.setup().await), all(Verdict::There));
    assert_eq!(account.objects().await["price"].len(), 3);
}

#[tokio::test]
async fn what_was_changed_by_hand_is_changed_back() {
    let mut account = Account::open().await;
    account.setup().await;
    let objects = account.objects().await;
    let id = |thing: &str| objects[thing][0]["id"].as_str().expect("an id").to_owned();
    account.ask("POST", "/v1/products/weir_credits", "active=false").await;
    account.ask("POST", &format!("/v1/prices/{}", id("price")), "active=false").await;
    account.ask("POST", &format!("/v1/billing/meters/{}/deactivate", id("meter")), "").await;
    let portal = "active=false&features[subscription_cancel][mode]=immediately";
    account.ask("POST", &format!("/v1/billing_portal/configurations/{}", id("portal")), portal).await;
    account.config.product_name = "Calls of tools".to_owned();
    let looked = account.examine().await;
    for (thing, _) in THINGS {
        let line = line(&looked, thing);
        assert_eq!(line.verdict, Verdict::Wrong, "{looked:?}");
        assert!(thing == "price" || line.detail.contains("weir billing setup"), "{line}");
    }
    let lines = account.setup().await;
    assert_eq!(verdicts(&lines), all(Verdict::Changed), "{lines:?}");
    assert!(line(&lines, "product").detail.contains("Calls of tools"));
    assert_one_of_each(&account, "after changes").await;
}

#[tokio::test]
async fn what_belongs_to_others_is_left_alone() {
    let account = Account::open().await;
    account.ask("POST", "/v1/products", "id=weir_credits&name=Theirs").await;
    let counts = "event_name=weir_credits&display_name=Theirs&default_aggregation[formula]=count";
    account.ask("POST", "/v1/billing/meters", counts).await;
    let before = account.objects().await;
    let lines = account.setup().await;
    let (meter, product) = (line(&lines, "meter"), line(&lines, "product"));
    assert_eq!((meter.verdict, product.verdict), (Verdict::Wrong, Verdict::Wrong), "{lines:?}");
    assert!(meter.detail.contains("default_aggregation.formula is count and should be sum"), "{meter}");
    assert!(product.detail.contains("not made by Weir"), "{product}");
    assert!(line(&lines, "price").detail.contains("above"));
    assert_eq!(line(&lines, "portal").verdict, Verdict::Made);
    let after = account.objects().await;
    for thing in ["meter", "product", "price"] {
        assert_eq!(before[thing], after[thing], "{thing}");
    }

    let account = Account::open().await;
    let theirs = "currency=usd&unit_amount=5&lookup_key=weir_credits&product_data[name]=Theirs";
    account.ask("POST", "/v1/prices", theirs).await;
    let lines = account.setup().await;
    assert_eq!(line(&lines, "price").verdict, Verdict::Wrong);
    assert!(line(&lines, "price").detail.contains("belongs to the product"), "{lines:?}");
    assert_eq!(account.objects().await["price"].len(), 1);
}

#[tokio::test]
async fn whatever_goes_wrong_nothing_is_made_twice() {
    let faults = [
        Fault::new(Trouble::LostResponse),
        Fault::new(Trouble::Reset),
        Fault::new(Trouble::Reset).applied(),
        Fault::new(Trouble::ServerError),
        Fault::new(Trouble::ServerError).applied(),
        Fault::new(Trouble::RateLimit),
        Fault::new(Trouble::BadGateway),
        Fault::new(Trouble::BadGateway).applied(),
    ];
    for fault in &faults {
        // Once, which the attempts get over, and longer than they last.
        for times in [1, 4] {
            for method in ["GET", "POST"] {
                let account = Account::open().await;
                for (_, path) in THINGS {
                    account.standin.fault(fault.clone().on(method, path).times(times));
                }
                let context = format!("{fault:?} {method} {times}");
                let mut runs = 1;
                while account.setup().await.iter().any(|line| line.verdict == Verdict::Wrong) {
                    runs += 1;
                    assert!(runs <= 6, "{context}: it never gets done");
                }
                assert!(times > 1 || runs == 1, "{context}: {runs} runs");
                let left = account.standin.clear_faults();
                assert!(
                    left.iter().all(|fault| fault.times < times),
                    "{context}: not each was hit: {left:?}"
                );
                assert_one_of_each(&account, &context).await;
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_takes_too_long_makes_nothing_twice() {
    let mut account = Account::open().await;
    account.config.timeout = Millis::new(150);
    for (_, path) in THINGS {
        account.standin.fault(Fault::new(Trouble::Latency).on("POST", path).milliseconds(250));
    }
    let mut runs = 1;
    while account.setup().await.iter().any(|line| line.verdict == Verdict::Wrong) {
        runs += 1;
        assert!(runs <= 6, "it never gets done");
    }
    assert_one_of_each(&account, "after long answers").await;
}

#[tokio::test]
async fn doctor_finds_nothing_wrong_where_nothing_is_and_changes_nothing() {
    let account = Account::open().await;
    account.setup().await;
    account.hears(&EVENTS).await;
    let before = account.objects().await;
    let lines = account.examine().await;
    assert!(lines.iter().all(|line| line.verdict != Verdict::Wrong), "{lines:#?}");
    let found = verdicts(&lines);
    for what in
        ["key", "permission", "meter", "product", "price", "portal", "webhook endpoint", "webhook secret"]
    {
        assert!(found.contains(&(what, Verdict::There)), "{what} in {lines:#?}");
    }
    assert!(line(&lines, "key").detail.contains("test mode"), "{lines:?}");
    // No invoice shows it yet.
    assert_eq!(line(&lines, "finalization grace").verdict, Verdict::Look);
    assert_eq!(before, account.objects().await);
    for list in ["/v1/customers", "/v1/webhook_endpoints"] {
        let kept = account.ask("GET", list, "").await;
        let most = usize::from(list.ends_with("endpoints"));
        assert_eq!(kept["data"].as_array().map(Vec::len), Some(most), "{list}");
    }
}

#[tokio::test]
async fn doctor_finds_each_thing_that_is_wrong() {
    let mut account = Account::open().await;
    let lines = account.examine().await;
    for (thing, _) in THINGS {
        assert_eq!(line(&lines, thing).verdict, Verdict::Wrong, "{thing} is not there");
    }
    let endpoint = line(&lines, "webhook endpoint");
    assert!(endpoint.detail.contains(&format!("{PUBLIC_URL}{PATH}")), "{endpoint}");
    assert!(EVENTS.iter().all(|event| endpoint.detail.contains(event)), "{endpoint}");
    assert!(account.objects().await.values().all(Vec::is_empty), "it changes nothing");

    account.setup().await;
    account.config.credit_price = "9".to_owned();
    account.config.webhook_secrets.clear();
    let id = account.hears(&EVENTS[1..]).await;
    let lines = account.examine().await;
    let amounts = format!("amount is {:?} and should be {:?}", AMOUNTS[0], AMOUNTS[2]);
    assert!(line(&lines, "price").detail.contains(&amounts), "{lines:?}");
    assert_eq!(line(&lines, "webhook secret").verdict, Verdict::Wrong);
    let endpoint = line(&lines, "webhook endpoint");
    assert!(endpoint.detail.contains(EVENTS[0]) && !endpoint.detail.contains(EVENTS[1]), "{endpoint}");
    account.ask("POST", &format!("/v1/webhook_endpoints/{id}"), "disabled=true&enabled_events[0]=*").await;
    let lines = account.examine().await;
    assert!(line(&lines, "webhook endpoint").detail.contains("is disabled"), "{lines:?}");

    account.config.stripe_key = "sk_test_hunter2hunter2".into();
    let lines = account.examine().await;
    assert_eq!(verdicts(&lines), [("key", Verdict::Wrong)]);
    assert!(lines[0].detail.contains("401") && !lines[0].detail.contains("hunter2hunter2"), "{lines:?}");
    account.config.stripe_url = "http://127.0.0.1:1".to_owned();
    let lines = account.examine().await;
    assert!(lines[0].detail.contains("no connection"), "{lines:?}");
}

#[tokio::test]
async fn doctor_names_the_permission_that_a_key_lacks() {
    const ALL: [&str; 13] = [
        "billing_meter_write",
        "billing_meter_event_write",
        "product_write",
        "plan_write",
        "customer_portal_write",
        "customer_write",
        "checkout_session_write",
        "subscription_write",
        "invoice_write",
        "charge_write",
        "credit_note_write",
        "dispute_read",
        "webhook_read",
    ];
    let mut account = Account::open().await;
    account.setup().await;
    account.hears(&EVENTS).await;
    account.config.stripe_key = "rk_test_restricted1".into();
    for lacking in ALL {
        let rest: Vec<_> = ALL.into_iter().chain(["event_read"]).filter(|other| *other != lacking).collect();
        account.standin.restrict_key("rk_test_restricted1", &rest);
        let lines = account.examine().await;
        let mut wrong =
            lines.iter().filter(|line| line.what == "permission" && line.verdict == Verdict::Wrong);
        let named = wrong.any(|line| line.detail.contains(&format!("rak_{lacking}")));
        assert!(named, "{lacking} is not missed: {lines:#?}");
    }
    let everything: Vec<_> = ALL.into_iter().chain(["event_read"]).collect();
    account.standin.restrict_key("rk_test_restricted1", &everything);
    let lines = account.examine().await;
    assert!(lines.iter().all(|line| line.verdict != Verdict::Wrong), "{lines:#?}");
}

/// The binary with this and nothing else of an environment.
async fn weir(arguments: [&'static str; 2], environment: Vec<(&'static str, String)>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(arguments).env_clear().envs(environment);
    tokio::task::spawn_blocking(move || command.output()).await.expect("it ends").expect("it runs")
}

#[tokio::test]
async fn the_commands_say_what_they_did() {
    let account = Account::open().await;
    let environment = || {
        vec![
            ("WEIR_BILLING__STRIPE_KEY", SECRET_KEY.to_owned()),
            ("WEIR_BILLING__STRIPE_URL", account.standin.base_url()),
            ("WEIR_BILLING__CREDIT_PRICE", "0.25".to_owned()),
            ("WEIR_SERVER__PUBLIC_URL", format!("{PUBLIC_URL}/")),
        ]
    };
    let text = |output: &Output| {
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains(SECRET_KEY) && !text.contains("whsec_"), "{text}");
        text
    };
    for verdict in ["made:", "there:"] {
        let output = weir(["billing", "setup"], environment()).await;
        let text = text(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with(verdict)).count(), 4, "{text}");
    }
    let output = weir(["billing", "doctor"], environment()).await;
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("wrong:   webhook endpoint: none has the URL") && said.contains("2 things are wrong"),
        "{said}"
    );
    account.hears(&["*"]).await;
    let mut right = environment();
    right.push(("WEIR_BILLING__WEBHOOK_SECRETS", "whsec_0123456789abcdef".to_owned()));
    let output = weir(["billing", "doctor"], right).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[tokio::test]
async fn without_a_stripe_the_commands_say_what_that_means() {
    for command in ["setup", "doctor"] {
        let output = weir(["billing", command], Vec::new()).await;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        for part in ["no Stripe is configured", "nobody is charged", "billing.stripe_key", "docs/BILLING.md"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
