//! A ledger for tests: tenants that used a plan with prices for three months, and one that is not charged. Everything in it
//! is right; it was not written by what is tested.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use jiff::civil::{Date, date};

use super::days;
use crate::audit::Actor;
use crate::clock::{Clock, Timestamp};
use crate::db::Db;
use crate::db::ledger::floor;
use crate::db::testing::execute;
use crate::id::{CallId, CorrectionId, GrantId, MeterId, PeriodId, PriceVersionId, SlabId, TenantId};
use crate::tenants;

const CREDIT: i64 = 1_000_000;
const HOUR: i64 = 3_600_000_000;
/// Calls of a month.
const CALLS: i64 = 40;
/// What slabs hold.
const SLAB: i64 = 4 * CREDIT;

/// The ledger.
pub(crate) struct Ledger {
    pub(crate) db: Db,
    /// Stands at noon of 21 November 2026.
    pub(crate) clock: Clock,
    pub(crate) accounts: Vec<Account>,
    /// A tenant that is not charged.
    pub(crate) free: TenantId,
    pub(crate) versions: [PriceVersionId; 2],
}

/// A tenant with an account.
pub(crate) struct Account {
    pub(crate) tenant: TenantId,
    /// September and October, which are closed, and November.
    pub(crate) periods: Vec<PeriodId>,
    /// Included ones of each period, then the prepaid and the promotional one.
    pub(crate) grants: Vec<Grant>,
    pub(crate) slabs: Vec<Slab>,
    /// Calls that cost something, with their periods.
    pub(crate) charged: Vec<(CallId, usize)>,
}

pub(crate) struct Grant {
    pub(crate) id: GrantId,
    kind: &'static str,
    source: String,
    granted: i64,
    expires_at: Option<Timestamp>,
    granted_at: Timestamp,
}

pub(crate) struct Slab {
    pub(crate) id: SlabId,
    pub(crate) period: usize,
    pub(crate) grant: Option<usize>,
    amount: i64,
    pub(crate) used: i64,
    pub(crate) open: bool,
}

/// An id that was made at this instant.
fn bytes(at: Timestamp, number: &mut u64) -> [u8; 16] {
    *number += 1;
    let millis = u128::try_from(at.as_micros() / 1000).expect("after 1970");
    (millis << 80 | 7 << 76 | 2 << 62 | u128::from(*number)).to_be_bytes()
}

pub(crate) fn month(number: usize) -> Date {
    date(2026, 9, 1)
        .checked_add(jiff::Span::new().months(i64::try_from(number).expect("few")))
        .expect("a month")
}

fn start(number: usize) -> Timestamp {
    days::span(month(number)).start
}

fn micros(at: Timestamp) -> i64 {
    at.as_micros()
}

fn quoted(text: Option<impl std::fmt::Display>) -> String {
    text.map_or("null".to_owned(), |text| format!("'{text}'"))
}

fn terms(pay: &str) -> String {
    format!(
        r#"{{"kind":"hybrid","included":"10","hard_cap":"60","tools":[{{"name":"pay_*","per_call":"{pay}"}},{{"name":"size","per_call":"0.1","per_kib":"0.01","most":"1"}},{{"name":"*","per_call":"0.5"}}]}}"#
    )
}

impl Ledger {
    /// Writes it, daily sums as well.
    pub(crate) async fn new(db: &Db, tenants: usize) -> Self {
        let clock =
            Clock::manual(Timestamp::from_micros(micros(days::span(date(2026, 11, 21)).start) + 12 * HOUR));
        let mut number = 0;
        let versions = [start(0), Timestamp::from_micros(micros(start(1)) + 60 * HOUR)]
            .map(|at| (PriceVersionId::from_bytes(bytes(at, &mut number)), at));
        let mut sql = String::new();
        for ((place, (id, at)), pay) in versions.iter().enumerate().zip(["1", "1.5"]) {
            let terms = terms(pay);
            let digest = HEXLOWER.encode(digest(&SHA256, terms.as_bytes()).as_ref());
            let _ = write!(
                sql,
                "insert into price_versions values ('{id}', 'gold', {}, {}, {}, 'cli', '{terms}', '{digest}');",
                place + 1,
                micros(*at),
                micros(start(0)),
            );
        }
        let meter = MeterId::from_bytes(bytes(start(0), &mut number));
        let _ = write!(sql, "insert into meters values ('{meter}', 1, 1, null);");
        for month in 0..3 {
            floor::add_month(db, &self::month(month).to_string()).await.expect("a part");
        }
        execute(db, &sql).await;
        let mut accounts = Vec::new();
        for place in 0..tenants {
            let name = format!("tenant {place}");
            let tenant = tenants::create(db, &clock, Actor::Cli, &name).await.expect("a tenant").id;
            let mut maker = Maker {
                account: Account::new(tenant),
                meter,
                versions,
                number,
                sql: String::new(),
                open: None,
            };
            maker.make();
            number = maker.number;
            execute(db, &maker.sql).await;
            accounts.push(maker.account);
        }
        let free = tenants::create(db, &clock, Actor::Cli, "free").await.expect("a tenant").id;
        let mut sql = String::new();
        for hour in 0..30 {
            let at = Timestamp::from_micros(micros(start(2)) + hour * 9 * HOUR);
            let id = CallId::from_bytes(bytes(at, &mut number));
            let _ = write!(
                sql,
                "insert into calls (id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes, result_bytes, correlation_id)
                 values ('{id}', '{free}', 'key_f', 'lab', 'pay_a', 'ok', {}, 5, 6, 7, 'x');",
                micros(at)
            );
        }
        execute(db, &sql).await;
        super::rollups::keep(db, &clock).await.expect("sums");
        let versions = versions.map(|(id, _)| id);
        Self { db: db.clone(), clock, accounts, free, versions }
    }
}

impl Account {
    fn new(tenant: TenantId) -> Self {
        Self { tenant, periods: Vec::new(), grants: Vec::new(), slabs: Vec::new(), charged: Vec::new() }
    }
}

struct Maker {
    account: Account,
    meter: MeterId,
    versions: [(PriceVersionId, Timestamp); 2],
    number: u64,
    sql: String,
    /// The slab that is drawn from.
    open: Option<usize>,
}

impl Maker {
    fn make(&mut self) {
        for month in 0..3 {
            let id = PeriodId::from_bytes(bytes(start(month), &mut self.number));
            self.account.periods.push(id);
            self.grant("included", format!("period:{id}"), 10 * CREDIT, start(month), Some(start(month + 1)));
        }
        self.grant("prepaid", "order 1".to_owned(), 15 * CREDIT, start(0), None);
        self.grant("promotional", "welcome".to_owned(), 2 * CREDIT, start(0), None);
        let mut calls = String::new();
        for month in 0..3 {
            for call in 0..CALLS {
                self.call(month, call, &mut calls);
            }
            if month < 2 {
                for slab in &mut self.account.slabs {
                    slab.open = false;
                }
                self.open = None;
            }
        }
        // The calls first: those of slabs that are there would be drawn again.
        let rows = self.rows();
        self.sql = calls + &rows + &self.corrections();
    }

    fn grant(
        &mut self,
        kind: &'static str,
        source: String,
        granted: i64,
        at: Timestamp,
        expires_at: Option<Timestamp>,
    ) {
        let id = GrantId::from_bytes(bytes(at, &mut self.number));
        self.account.grants.push(Grant { id, kind, source, granted, expires_at, granted_at: at });
    }

    /// One call in six hours, of which one in five fails; two more are free.
    fn call(&mut self, month: usize, place: i64, sql: &mut String) {
        let at = Timestamp::from_micros(micros(start(month)) + place * 6 * HOUR);
        let id = CallId::from_bytes(bytes(at, &mut self.number));
        let new = at >= self.versions[1].1;
        let version = self.versions[usize::from(new)].0;
        let (tool, outcome, cost) = match place {
            7 => ("pay_a", "input_required", 0),
            13 => ("get_usage", "ok", 0),
            _ if place % 5 == 4 => ("pay_b", "timeout", 0),
            _ if place % 5 == 3 => ("size", "ok", CREDIT * 12 / 100),
            _ => ("pay_a", "ok", if new { CREDIT * 3 / 2 } else { CREDIT }),
        };
        let server = if tool == "get_usage" { "core" } else { "lab" };
        let draws = self.draw(month, cost);
        let mut parts = [0; 4];
        for (slab, credits) in &draws {
            let kind =
                self.account.slabs[*slab].grant.map_or("overage", |grant| self.account.grants[grant].kind);
            parts[["included", "promotional", "prepaid", "overage"]
                .iter()
                .position(|k| *k == kind)
                .expect("a kind")] += credits;
        }
        let text: Vec<_> = draws
            .iter()
            .map(|(slab, credits)| format!("[\"{}\",{credits}]", self.account.slabs[*slab].id))
            .collect();
        let draws = (cost > 0).then(|| format!("[{}]", text.join(",")));
        if cost > 0 {
            self.account.charged.push((id, month));
        }
        let [included, promotional, prepaid, overage] = parts;
        let settled = if cost > 0 { micros(at).to_string() } else { "null".to_owned() };
        let (tenant, period) = (self.account.tenant, self.account.periods[month]);
        let meter = quoted((cost > 0).then_some(self.meter));
        let _ = write!(
            sql,
            "insert into calls values ('{id}', '{tenant}', 'key_{}', '{server}', '{tool}', '{outcome}', {}, 1000, 10, 2048,
             'x', '{period}', '{version}', {meter}, {settled}, {cost}, {included}, {promotional}, {prepaid}, {overage}, {},
             null);",
            place % 2,
            micros(at),
            quoted(draws),
        );
    }

    /// Takes from slabs, and leases new ones: from included credits, then prepaid ones, then to be owed.
    fn draw(&mut self, month: usize, mut cost: i64) -> Vec<(usize, i64)> {
        let mut draws = Vec::new();
        while cost > 0 {
            let left =
                self.open.map_or(0, |open| self.account.slabs[open].amount - self.account.slabs[open].used);
            if left == 0 {
                if let Some(open) = self.open {
                    self.account.slabs[open].open = false;
                }
                self.lease(month);
                continue;
            }
            let (open, part) = (self.open.expect("a slab"), left.min(cost));
            self.account.slabs[open].used += part;
            cost -= part;
            draws.push((open, part));
        }
        draws
    }

    fn lease(&mut self, month: usize) {
        let free = |grant: usize| {
            let slabs = self.account.slabs.iter().filter(|slab| slab.grant == Some(grant));
            self.account.grants[grant].granted - slabs.map(|slab| slab.used).sum::<i64>()
        };
        let grant = [month, 3].into_iter().find(|grant| free(*grant) > 0);
        let amount = grant.map_or(SLAB, |grant| free(grant).min(SLAB));
        let id = SlabId::from_bytes(bytes(start(month), &mut self.number));
        self.open = Some(self.account.slabs.len());
        self.account.slabs.push(Slab { id, period: month, grant, amount, used: 0, open: true });
    }

    /// Takes back the first call of September, whose slab is closed, and the last of November, whose slab is open; and moves
    /// what October owed to the promotional grant.
    fn corrections(&mut self) -> String {
        let mut sql = String::new();
        let (tenant, at) = (self.account.tenant, micros(start(2)));
        let first = self.account.charged[0].0;
        let last = self.account.charged.last().expect("calls").0;
        let open = self.account.slabs.last().expect("slabs");
        let grant = quoted(open.grant.map(|grant| self.account.grants[grant].id));
        for (call, slab, grant, booked, period, credits) in [
            (first, self.account.slabs[0].id, quoted(Some(self.account.grants[0].id)), "source", 0, CREDIT),
            (last, open.id, grant, "slab", 2, CREDIT * 12 / 100),
        ] {
            let id = CorrectionId::from_bytes(bytes(start(2), &mut self.number));
            let period = self.account.periods[period];
            let _ = write!(
                sql,
                "insert into corrections (id, tenant_id, period_id, kind, call_id, slab_id, grant_id, booked, credits, at, detail)
                 values ('{id}', '{tenant}', '{period}', 'not_released', '{call}', '{slab}', {grant}, '{booked}', -{credits}, {at}, '');",
            );
        }
        let id = CorrectionId::from_bytes(bytes(start(2), &mut self.number));
        let (period, grant) = (self.account.periods[1], self.account.grants[4].id);
        let _ = write!(
            sql,
            "insert into corrections (id, tenant_id, period_id, kind, grant_id, booked, credits, at, detail)
             values ('{id}', '{tenant}', '{period}', 'true_up', '{grant}', 'source', {CREDIT}, {at}, '');",
        );
        sql
    }

    fn rows(&mut self) -> String {
        self.account.slabs.last_mut().expect("slabs").used -= CREDIT * 12 / 100;
        let Account { tenant, periods, grants, slabs, .. } = &self.account;
        let mut sql = format!(
            "insert into accounts (tenant_id, cycle, anchor_at, spend_cap, revision, created_at, updated_at)
             values ('{tenant}', 'calendar', {0}, null, 0, {0}, {0});",
            micros(start(0))
        );
        let sum = |open: bool, of: &dyn Fn(&&Slab) -> bool| -> i64 {
            let slabs = slabs.iter().filter(|slab| slab.open == open).filter(of);
            slabs.map(|slab| if open { slab.amount } else { slab.used }).sum()
        };
        for (place, id) in periods.iter().enumerate() {
            let owed = |slab: &&Slab| slab.period == place && slab.grant.is_none();
            let used = sum(false, &owed) - if place == 1 { CREDIT } else { 0 };
            let (from, to) = (micros(start(place)), micros(start(place + 1)));
            let closed = quoted((place < 2).then_some(to + HOUR)).replace('\'', "");
            let _ = write!(
                sql,
                "insert into periods values ('{id}', '{tenant}', 'gold', '{}', {from}, {to}, {}, null, {used}, {}, {closed},
                                             {from}, {to}, {});",
                self.versions[usize::from(place == 2)].0,
                60 * CREDIT,
                sum(true, &owed),
                u8::from(place == 0),
            );
        }
        for (place, grant) in grants.iter().enumerate() {
            let of = |slab: &&Slab| slab.grant == Some(place);
            let corrected = [-CREDIT, 0, 0, 0, CREDIT][place];
            let used = sum(false, &of) + corrected;
            let expired = if place < 2 { grant.granted - used } else { 0 };
            let _ = write!(
                sql,
                "insert into grants (id, tenant_id, kind, source, granted, used, leased, expired, granted_at, expires_at)
                 values ('{}', '{tenant}', '{}', '{}', {}, {used}, {}, {expired}, {}, {});",
                grant.id,
                grant.kind,
                grant.source,
                grant.granted,
                sum(true, &of),
                micros(grant.granted_at),
                quoted(grant.expires_at.map(micros)).replace('\'', ""),
            );
        }
        for slab in slabs {
            let (at, period) = (micros(start(slab.period)), periods[slab.period]);
            let _ = write!(
                sql,
                "insert into slabs values ('{}', '{tenant}', '{period}', {}, '{}', {}, {}, {at}, {});",
                slab.id,
                quoted(slab.grant.map(|grant| grants[grant].id)),
                self.meter,
                slab.amount,
                slab.used,
                if slab.open { "null".to_owned() } else { (at + 300 * HOUR).to_string() },
            );
        }
        sql
    }
}
