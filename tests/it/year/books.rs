//! The books of the year: what everybody says of the same things, compared, and printed.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use weir::credits::Credits;
use weir::standin::SECRET_KEY;

use super::Year;
use crate::support::business::Business;
use crate::support::gateway;

/// What a credit costs, in cents, and a page of bought ones.
const CENTS: i64 = 25;
const TOP_UP: i64 = 2_500;
const CREDIT: i64 = 1_000_000;

/// The books of a month. Credits in micro-credits, money in cents; all since the beginning of the year.
#[derive(Default, Clone, Copy)]
struct Books {
    tenants: usize,
    paying: i64,
    done: usize,
    refused: usize,
    charged: i64,
    granted: i64,
    owed: i64,
    counted: i64,
    billed: i64,
    carried: i64,
    invoices: i64,
    invoiced: i64,
    paid: i64,
    bought: i64,
    back: i64,
}

/// One line for each month.
pub struct Table(Vec<Books>);

impl Business {
    /// Everything of a kind that the stand-in has, page by page.
    async fn all(&self, kind: &str) -> Vec<Value> {
        let mut found: Vec<Value> = Vec::new();
        loop {
            let after =
                found.last().map(|last| format!("&starting_after={}", last["id"].as_str().expect("an id")));
            let url = format!("{}/v1/{kind}?limit=100{}", self.standin.base_url(), after.unwrap_or_default());
            let answer = gateway::client().request(Method::GET, url).bearer_auth(SECRET_KEY).send().await;
            let body = answer.expect("an answer").text().await.expect("a body");
            let body: Value = serde_json::from_str(&body).expect("JSON");
            found.extend(body["data"].as_array().expect("a page").iter().cloned());
            if body["has_more"] != Value::Bool(true) {
                return found;
            }
        }
    }

    /// By its first column.
    async fn by_key(&self, sql: &str) -> HashMap<String, i64> {
        let rows = self.rows(sql).await.into_iter();
        rows.map(|row| (row[0].clone(), row[1].parse().expect("a number"))).collect()
    }
}

/// Whether it is of a subscription.
fn is_of_a_month(invoice: &Value) -> bool {
    !invoice["parent"]["subscription_details"].is_null()
}

fn sum(of: &[Value], field: &str) -> i64 {
    of.iter().map(|each| each[field].as_i64().expect("an amount")).sum()
}

impl Table {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Closes the books of a month.
    pub async fn close(&mut self, year: &Year) {
        let mut books = Books { tenants: year.people.len(), ..Books::default() };
        credits(year, &mut books).await;
        let invoices = year.business.all("invoices").await;
        bills(year, &invoices, &mut books).await;
        money(year, &invoices, &mut books).await;
        year.business.is_verified().await;
        self.0.push(books);
    }
}

/// Per tenant: the receipts are the ledger, and what it owes is what Stripe was told, and what it counts.
async fn credits(year: &Year, books: &mut Books) {
    let business = &year.business;
    let ledger = business
        .by_key(
            "select tenant_id, cast(sum(credits) as bigint) from calls where credits > 0 group by tenant_id",
        )
        .await;
    let drawn =
        business.by_key("select tenant_id, cast(sum(used) as bigint) from grants group by tenant_id").await;
    let owed = business
        .by_key("select tenant_id, cast(sum(owed) as bigint) from period_books group by tenant_id")
        .await;
    let told = business
        .by_key(
            "select tenant_id, cast(sum(case when state = 'frozen' then counted else credits end) as bigint)
             from exports group by tenant_id",
        )
        .await;
    let carried = business
        .by_key("select tenant_id, cast(sum(carried) as bigint) from invoice_proofs group by tenant_id")
        .await;
    let customers = business.rows("select tenant_id, customer from billing_customers").await;
    let customers: HashMap<_, _> =
        customers.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let meters = business.all("billing/meters").await;
    let meter = meters[0]["id"].as_str().expect("a meter");
    for person in &year.people {
        let tenant = person.tenant().to_string();
        let of = |from: &HashMap<String, i64>| from.get(&tenant).copied().unwrap_or_default();
        let number = person.number;
        assert_eq!(person.charged.micros(), of(&ledger), "{number}: receipts and ledger");
        assert_eq!(
            of(&ledger),
            of(&drawn) + of(&owed),
            "{number}: what is charged is drawn from grants, or owed"
        );
        assert_eq!(of(&owed), of(&told) - of(&carried), "{number}: owed and told");
        let counted =
            customers.get(&tenant).map_or(0, |customer| business.standin.total(meter, customer, 0, i64::MAX));
        assert_eq!(of(&told), counted, "{number}: told, and what Stripe counts");
        books.done += person.done;
        books.refused += person.refused;
        books.charged += person.charged.micros();
        books.granted += of(&drawn);
        books.owed += of(&owed);
        books.counted += counted;
        books.carried += of(&carried);
    }
    let drifts = business.number("select count(*) from exports where state <> 'verified'").await;
    assert_eq!(drifts, 0, "nothing went wrong at Stripe");
}

/// What is counted is on an invoice, or will be; each at its price.
async fn bills(year: &Year, invoices: &[Value], books: &mut Books) {
    let business = &year.business;
    let mirrored = business
        .by_key(
            "select id, coalesce(metered_quantity, -1) from billing_invoices where finalized_at is not null",
        )
        .await;
    for invoice in invoices.iter().filter(|invoice| !invoice["status_transitions"]["finalized_at"].is_null())
    {
        let id = invoice["id"].as_str().expect("an id");
        let lines = invoice["lines"]["data"].as_array().expect("lines");
        let metered = lines.iter().find(|line| line["pricing"]["price_details"]["product"] == "weir_credits");
        let (quantity, amount) = metered.map_or((-1, 0), |line| {
            (line["quantity"].as_i64().expect("a quantity"), line["amount"].as_i64().expect("an amount"))
        });
        assert_eq!(mirrored.get(id), Some(&quantity), "{id}: the mirror");
        let exact = (quantity.max(0) * CENTS * 2 + CREDIT) / (2 * CREDIT);
        assert_eq!(amount, exact, "{id}: {quantity} micro-credits");
        books.billed += quantity.max(0);
        if is_of_a_month(invoice) {
            books.invoices += 1;
            books.invoiced += invoice["total"].as_i64().expect("a total");
        }
    }
    let odd = "select count(*) from invoice_proofs where verdict not in ('equal', 'carried')";
    assert_eq!(business.number(odd).await, 0, "every invoice is compared");
    // What is in no final invoice's span is for one to come.
    let coming = "select coalesce(cast(sum(e.credits) as bigint), 0) from exports e
                  where not exists (select 1 from invoice_proofs i where i.tenant_id = e.tenant_id
                                    and e.slot >= i.starts_at and e.slot < i.ends_at)";
    let coming = business.number(coming).await;
    assert_eq!(
        books.counted,
        books.billed + books.carried + coming,
        "what is counted is billed, left out, or to come"
    );
    // Of a month that is over nothing waits for an invoice, unless nobody pays.
    let forgotten = format!(
        "select count(*) from exports e join billing_subscriptions s on s.tenant_id = e.tenant_id
         where s.status = 'active' and e.slot < s.current_period_start and s.current_period_start < {}
               and e.slot >= s.created_at
               and not exists (select 1 from invoice_proofs i where i.tenant_id = e.tenant_id
                               and e.slot >= i.starts_at and e.slot < i.ends_at)",
        business.clock.now().minus(Duration::from_secs(2 * 3600)).as_micros()
    );
    assert_eq!(business.number(&forgotten).await, 0, "all of it is on invoices");
    base_fees(year).await;
}

/// Who never changes anything pays the base fee of each month: the dearer one in months that begin after it was published.
async fn base_fees(year: &Year) {
    let business = &year.business;
    let forever = weir::clock::Timestamp::from_micros(i64::MAX);
    let (published, dearer) = year.dearer_since.unwrap_or((forever, forever));
    for person in year.people.iter().filter(|person| person.number % 10 == 1) {
        let sql = format!(
            "select total - coalesce(metered_amount, 0), coalesce(metered_to, created_at)
             from billing_invoices where tenant_id = '{}' and finalized_at is not null",
            person.tenant()
        );
        for row in business.rows(&sql).await {
            let begins: i64 = row[1].parse().expect("a time");
            let fees: &[&str] = match weir::clock::Timestamp::from_micros(begins) {
                begins if begins < published => &["1900"],
                begins if begins >= dearer => &["2400"],
                _ => &["1900", "2400"],
            };
            let number = person.number;
            assert!(fees.contains(&row[0].as_str()), "{number}: {} for the month from {begins} on", row[0]);
        }
    }
}

/// The money that came is for invoices and credits, and Weir knows of each cent.
async fn money(year: &Year, invoices: &[Value], books: &mut Books) {
    let business = &year.business;
    let charges = business.all("charges").await;
    let good: Vec<_> = charges.iter().filter(|charge| charge["status"] == "succeeded").cloned().collect();
    let grants = business.number("select count(*) from grants where kind = 'prepaid'").await;
    // A page of credits comes with an invoice of its own.
    let all = sum(invoices, "amount_paid");
    books.bought = grants * TOP_UP;
    books.paid = all - books.bought;
    books.back = sum(&good, "amount_refunded");
    assert_eq!(sum(&good, "amount_captured"), all, "charges are for invoices");
    let sold: Vec<_> = invoices.iter().filter(|invoice| !is_of_a_month(invoice)).cloned().collect();
    assert_eq!(sum(&sold, "amount_paid"), books.bought, "what is not for a month is for credits");
    let known = business
        .rows(
            "select cast(coalesce(sum(amount), 0) as bigint), cast(coalesce(sum(amount_refunded), 0) as bigint)
             from billing_charges where status = 'succeeded'",
        )
        .await;
    assert_eq!(known[0], [all.to_string(), books.back.to_string()], "the mirror's charges");
    let paid = "select cast(coalesce(sum(amount_paid), 0) as bigint) from billing_invoices";
    assert_eq!(business.number(paid).await, all, "the mirror's invoices");
    books.paying = business
        .number(
            "select count(*) from billing_subscriptions where status in ('active', 'trialing', 'past_due')",
        )
        .await;
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "month tenants paying  calls refused   charged =   granted +   owed = counted = billed + left out + to come | \
             invoices invoiced     paid  credits     back"
        )?;
        let mut before = Books::default();
        for (number, now) in self.0.iter().enumerate() {
            let credits = |micros: i64| Credits::from_micros(micros).to_string();
            let money = |cents: i64| format!("{}.{:02}", cents / 100, cents.abs() % 100);
            writeln!(
                f,
                "{:>5} {:>7} {:>6} {:>6} {:>7} {:>9} {:>11} {:>8} {:>9} {:>8} {:>10} {:>9} | {:>8} {:>8} {:>8} {:>8} {:>8}",
                number + 1,
                now.tenants,
                now.paying,
                now.done - before.done,
                now.refused - before.refused,
                credits(now.charged - before.charged),
                credits(now.granted - before.granted),
                credits(now.owed - before.owed),
                credits(now.counted - before.counted),
                credits(now.billed - before.billed),
                credits(now.carried - before.carried),
                credits(now.counted - now.billed - now.carried),
                now.invoices - before.invoices,
                money(now.invoiced - before.invoiced),
                money(now.paid - before.paid),
                money(now.bought - before.bought),
                money(now.back - before.back),
            )?;
            before = *now;
        }
        Ok(())
    }
}
