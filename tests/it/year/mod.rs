//! A year of a small business: fifty tenants sign up, call tools, upgrade, downgrade, buy credits, cancel and come back; cards fail,
//! payments are disputed and given back, prices change, and an invoice leaves out what came too late. At the end of each month the books are closed: what clients were
//! told that they paid, the ledger, what Stripe was told, what it counts, what its invoices bill, and the money. They agree to the
//! last micro-credit and cent, or the story fails. Everything goes through the front door, Stripe's pages and its webhooks.

mod books;
mod people;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use weir::audit::Actor;
use weir::billing::shop::{Adjust, Back};
use weir::clock::Timestamp;

use crate::support::business::{Business, DAY, EMPTY, GOOD, MINUTE, START};
use crate::support::gateway::Builder;
use people::Person;

const TENANTS: usize = 50;
const MONTHS: usize = 12;
/// In each of which everybody uses tools.
const WEEKS: usize = 4;
/// The week after which summaries are late.
const LATE: usize = 8 * WEEKS;
/// What closing the books may take at most: fifty tenants, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

struct Year {
    business: Arc<Business>,
    people: Vec<Person>,
    /// When dearer prices of the plan `pro` were published, and when all its subscriptions had them for their next month.
    dearer_since: Option<(Timestamp, Timestamp)>,
}

/// When a month begins. The year is not that of the calendar.
fn month(number: usize) -> Timestamp {
    Timestamp::from_micros(START).plus(DAY * 365 * u32::try_from(number).expect("a month") / 12)
}

impl Year {
    async fn new() -> Self {
        let business = Business::with(|builder: Builder| builder.set("database.max_connections", "8")).await;
        Self { business, people: Vec::new(), dearer_since: None }
    }

    fn now(&self) -> Timestamp {
        self.business.clock.now()
    }

    /// Nothing is on its way any more: no event, no credit that a process holds, nothing to tell and nothing to prove.
    async fn rests(&self) {
        let sql = "select (select count(*) from stripe_events where state = 'new')
                        + (select count(*) from slabs where closed_at is null)
                        + (select count(*) from exports where state in ('open', 'sent'))
                        + (select count(*) from period_books b join billing_customers c on c.tenant_id = b.tenant_id
                           where b.owed <> b.told)
                        + (select count(*) from invoice_proofs where verdict = 'in_flight')";
        let quiet = async {
            while self.business.number(sql).await != 0 {
                self.business.clock.advance(2 * MINUTE);
                self.business.standin.quiet().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, quiet).await.is_err() {
            let waits = sql.replace("+ (", ", (");
            panic!(
                "events, slabs, exports, periods, invoices that wait: {:?}",
                self.business.rows(&waits).await
            );
        }
    }

    /// Lives on until then, a day at a time.
    async fn until(&self, then: Timestamp) {
        while self.now() < then {
            let left = u64::try_from(then.as_micros() - self.now().as_micros()).expect("not over");
            self.business.clock.advance(Duration::from_micros(left).min(DAY));
            self.business.standin.quiet().await;
            self.heard().await;
        }
    }

    /// Waits until everything that Stripe said is worked on.
    async fn heard(&self) {
        let waiting = "select count(*) from stripe_events where state = 'new'";
        let heard = async {
            while self.business.number(waiting).await != 0 {
                self.business.clock.advance(Duration::from_secs(1));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("what Stripe said is worked on");
    }

    /// Who comes this week.
    async fn sign_ups(&mut self, at: usize) {
        for number in self.people.len()..TENANTS {
            // Thirty in the first month, and twenty more by the middle of the year.
            let comes = if number < 30 { number * WEEKS / 30 } else { WEEKS + (number - 30) };
            if comes > at {
                break;
            }
            let person = Person::new(number, self.business.customer().await);
            self.business.clock.advance(Duration::from_secs(1));
            person.signs_up().await;
            self.people.push(person);
        }
    }

    async fn week(&mut self, in_month: usize, week: usize) {
        let at = in_month * WEEKS + week;
        self.sign_ups(at).await;
        for person in &mut self.people {
            person.lives(in_month, week).await;
        }
        self.operator(in_month, week).await;
        self.heard().await;
        for person in &mut self.people {
            let calls = 2 + (person.number * 7 + at * 3) % 5;
            person.uses(calls, at).await;
        }
        self.rests().await;
        if at == LATE {
            self.late().await;
        }
    }

    /// Waits until all subscriptions have the dearer price for their next month: each is looked at once an hour.
    async fn dear(&self) {
        let cheap = "select count(*) from billing_subscriptions
                     where status = 'active' and plan = 'pro' and cancel_at is null and base_amount <> 2400";
        let aligned = async {
            while self.business.number(cheap).await != 0 {
                self.business.clock.advance(5 * MINUTE);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, aligned).await.expect("all have the price");
    }

    /// Somebody uses tools in the last half hour of its month, summaries are late, and its invoice bills what they show.
    async fn late(&mut self) {
        const PERSON: usize = 11;
        let tenant = self.people[PERSON].tenant();
        let end =
            format!("select max(current_period_end) from billing_subscriptions where tenant_id = '{tenant}'");
        let end = Timestamp::from_micros(self.business.number(&end).await);
        self.until(end.minus(MINUTE * 30)).await;
        self.business.late(MINUTE * 300);
        let owed = format!("select cast(sum(owed) as bigint) from period_books where tenant_id = '{tenant}'");
        let before = self.business.number(&owed).await;
        self.people[PERSON].uses(8, LATE + WEEKS * MONTHS).await;
        let sent = format!("select count(*) from exports where state = 'sent' and tenant_id = '{tenant}'");
        let told = async {
            while self.business.number(&owed).await == before || self.business.number(&sent).await == 0 {
                self.business.clock.advance(Duration::from_secs(5));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("it is told");
        assert!(self.now() < end, "before the end of the month");
        self.until(end.plus(MINUTE * 120)).await;
        self.rests().await;
        self.business.late(Duration::ZERO);
    }

    /// What the operator does.
    async fn operator(&mut self, in_month: usize, week: usize) {
        let app = &self.business.gateway.app;
        let shop = app.shop.as_ref().expect("a shop");
        let adjust = |person: &Person, amount| Adjust {
            actor: Actor::Cli,
            tenant: person.tenant(),
            amount,
            reason: "an outage",
        };
        match (in_month, week) {
            // A payment for credits is given back whole, and half a year later a part of another one.
            (3, 2) => {
                let person = &self.people[6];
                shop.refund(adjust(person, None), &person.newest_charge().await).await.expect("a refund");
            }
            (9, 1) => {
                let person = &self.people[16];
                shop.refund(adjust(person, Some(500)), &person.newest_charge().await)
                    .await
                    .expect("a refund");
            }
            // An invoice was too high; what it was too high by is for the next one.
            (7, 2) => {
                let person = &self.people[2];
                let invoice = person.newest_invoice().await;
                shop.credit_note(adjust(person, Some(700)), &invoice, Back::Balance).await.expect("a note");
            }
            (6, 1) => self.people[0].is_given("5").await,
            // From the next month of each subscription on.
            (5, 3) => {
                let terms =
                    json!({ "kind": "hybrid", "included": "2", "base_fee": 2400, "self_service": true });
                self.business.publish("pro", terms, "0.5").await;
                let published = self.now();
                self.dear().await;
                self.dearer_since = Some((published, self.now()));
            }
            _ => {}
        }
    }
}

/// What a person does and when, by the last digit of its number.
impl Person {
    async fn signs_up(&self) {
        match self.number % 10 {
            3 | 6 => {}
            2 | 4 => self.subscribe("team", GOOD).await,
            5 => self.subscribe("taste", GOOD).await,
            _ => self.subscribe("pro", GOOD).await,
        }
    }

    async fn lives(&mut self, in_month: usize, week: usize) {
        if week != self.number % WEEKS {
            return;
        }
        match (self.number % 10, in_month) {
            // Grows.
            (3, 7) => self.subscribe("pro", GOOD).await,
            (3, 9) => self.changes("team").await,
            // Shrinks, and grows again.
            (4, 6) => self.changes("pro").await,
            (4, 8) => self.changes("team").await,
            // Tastes, and likes it or not.
            (5, 6) if self.number >= 30 => self.cancels().await,
            // Buys credits.
            (6, 2 | 3 | 5 | 7 | 9 | 11) => self.buys(GOOD).await,
            // Its card fails, and it gives another one, or does not.
            (7, 6) => self.card(EMPTY).await,
            (7, 7) if self.number < 25 => {
                assert_ne!(self.account().await["access"], "open", "{}", self.number);
                self.pays_by(GOOD).await;
                self.comes_to("everything again", |account| account["access"] == "open").await;
            }
            (7, 8) if self.number >= 25 => {
                self.comes_to("nothing more", |account| account["access"] == "suspended").await
            }
            // Goes, and comes back.
            (8, 6) => self.cancels().await,
            (8, 9) => self.subscribe("pro", GOOD).await,
            // Takes its payment back.
            (9, 7) => self.disputes().await,
            (9, 8) => self.dispute_ends(self.number < 25).await,
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_books_balance_at_the_end_of_each_month() {
    let mut year = Year::new().await;
    let mut table = books::Table::new();
    for in_month in 0..MONTHS {
        for week in 0..WEEKS {
            year.until(month(in_month).plus(DAY * 7 * u32::try_from(week).expect("a week"))).await;
            year.week(in_month, week).await;
        }
        year.until(month(in_month + 1)).await;
        year.rests().await;
        table.close(&year).await;
    }
    assert_eq!(year.people.len(), TENANTS);
    eprintln!("{table}");
    for (number, plan, access) in [
        (0, "pro", "open"),
        (3, "team", "open"),
        (4, "team", "open"),
        (5, "taste", "open"),
        (35, "free", "open"),
        (7, "pro", "open"),
        (8, "pro", "open"),
    ] {
        let account = year.people[number].account().await;
        assert_eq!((&account["plan"], &account["access"]), (&json!(plan), &json!(access)), "{number}");
    }
    assert_eq!(year.people[27].account().await["access"], "suspended");
    let lost = "select count(*) from billing_charges where dispute_status = 'lost'";
    assert_eq!(year.business.number(lost).await, 3);
    let carried = "select count(*) from invoice_proofs where verdict = 'carried'";
    assert_eq!(year.business.number(carried).await, 1, "an invoice left something out");
}
