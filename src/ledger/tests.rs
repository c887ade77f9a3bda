//! Sums, and what is kept.

use std::time::Duration;

use jiff::civil::date;

use super::testing::{Ledger, month};
use super::usage::{By, sums};
use super::verify::{Check, Options, verify};
use super::{balance, by_tool, days, retention, rollups};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::testing::{execute, number, on_every_engine};
use crate::db::{Db, Page, usage_days};
use crate::id::{CallId, TenantId};

const DAY: Duration = Duration::from_secs(86_400);

fn credits(text: &str) -> Credits {
    text.parse().expect("credits")
}

/// Calls and credits of the lines, by name.
async fn lines(ledger: &Ledger, tenant: TenantId, by: By) -> Vec<(String, i64, Credits)> {
    let lines = sums(&ledger.db, tenant, date(2026, 8, 20)..=date(2026, 12, 5), by).await.expect("sums");
    lines.into_iter().map(|line| (line.name, line.sums.calls, line.sums.credits)).collect()
}

async fn call(db: &Db, tenant: TenantId, at: Timestamp) -> CallId {
    let id = CallId::new();
    let sql = format!(
        "insert into calls (id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes, result_bytes, correlation_id)
         values ('{id}', '{tenant}', 'key_x', 'lab', 'late', 'tool_error', {}, 1, 1, 1, 'x')",
        at.as_micros()
    );
    execute(db, &sql).await;
    id
}

#[tokio::test]
async fn sums_are_the_same_from_days_and_from_calls() {
    on_every_engine(async |db| {
        let ledger = Ledger::new(&db, 2).await;
        let tenant = ledger.accounts[1].tenant;
        let mut before = Vec::new();
        for by in [By::Day, By::Key, By::Server, By::Tool] {
            before.push(lines(&ledger, tenant, by).await);
        }
        let names: Vec<_> = before[3].iter().map(|(name, calls, _)| (name.as_str(), *calls)).collect();
        assert_eq!(names, [("get_usage", 3), ("pay_a", 69), ("pay_b", 24), ("size", 21)]);
        // 24 in September less the one taken back, and so on.
        let whole: Credits = before[3].iter().map(|(.., credits)| *credits).sum();
        assert_eq!(before[0].iter().map(|(.., credits)| *credits).sum::<Credits>(), whole);
        execute(&db, "delete from usage_rolled; delete from usage_days").await;
        let mut after = Vec::new();
        for by in [By::Day, By::Key, By::Server, By::Tool] {
            after.push(lines(&ledger, tenant, by).await);
        }
        assert_eq!(before, after);
        let few = sums(&db, tenant, date(2000, 1, 1)..=date(2026, 1, 1), By::Day).await;
        assert!(few.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_day_is_summed_after_its_end_and_again_when_it_changes() {
    on_every_engine(async |db| {
        let ledger = Ledger::new(&db, 1).await;
        let (tenant, clock) = (ledger.accounts[0].tenant, &ledger.clock);
        assert!(rollups::keep(&db, clock).await.expect("nothing to do").is_empty());
        let today = days::day_of(clock.now());
        call(&db, tenant, clock.now()).await;
        clock.advance(Duration::from_secs(12 * 3600 + 599));
        assert!(rollups::keep(&db, clock).await.expect("too soon").is_empty());
        clock.advance(Duration::from_secs(1));
        // Several at once do it once.
        let (one, other) = tokio::join!(rollups::keep(&db, clock), rollups::keep(&db, clock));
        let both = [one.expect("sums"), other.expect("sums")].concat();
        assert_eq!(both, [today]);
        let late = |lines: &[(String, i64, Credits)]| {
            lines.iter().find(|(name, ..)| name == "late").map(|(_, calls, _)| *calls)
        };
        assert_eq!(late(&lines(&ledger, tenant, By::Tool).await), Some(1));
        call(&db, tenant, clock.now().minus(DAY)).await;
        assert_eq!(late(&lines(&ledger, tenant, By::Tool).await), Some(1), "nobody said so");
        let mut tx = db.begin().await.expect("a transaction");
        rollups::mark_stale(&mut tx, today).await.expect("a mark");
        rollups::mark_stale(&mut tx, today).await.expect("a mark");
        tx.commit().await.expect("committed");
        assert_eq!(late(&lines(&ledger, tenant, By::Tool).await), Some(2), "from the calls");
        assert_eq!(rollups::keep(&db, clock).await.expect("sums"), [today]);
        assert_eq!(late(&lines(&ledger, tenant, By::Tool).await), Some(2));
        execute(&db, "update usage_days set calls = 77").await;
        let redone = rollups::recompute(&db, clock, today..=today).await.expect("sums");
        assert_eq!((redone, late(&lines(&ledger, tenant, By::Tool).await)), (vec![today], Some(2)));
    })
    .await;
}

/// Whoever sums a day waits for whoever is just writing a call of it, or sums it again.
#[tokio::test]
async fn a_late_call_is_not_lost_between_two_transactions() {
    on_every_engine(async |db| {
        if db.engine() == "sqlite" {
            return;
        }
        let ledger = Ledger::new(&db, 1).await;
        let (tenant, day) = (ledger.accounts[0].tenant, date(2026, 11, 3));
        let mark = async |tx: &mut crate::db::Tx| rollups::mark_stale(tx, day).await.expect("a mark");
        // The mark is there already when a second writer comes.
        let mut first = db.begin().await.expect("a transaction");
        mark(&mut first).await;
        first.commit().await.expect("committed");
        let mut second = db.begin().await.expect("a transaction");
        mark(&mut second).await;
        let at = days::span(day).start.as_micros();
        usage_days::test_call(&mut second, tenant, at).await;
        let keeping = async { rollups::keep(&db, &ledger.clock).await.expect("sums") };
        let committing = async {
            crate::db::testing::is_waited_for(&db, &mut second).await;
            second.commit().await.expect("committed");
        };
        let (summed, ()) = tokio::join!(keeping, committing);
        assert_eq!(summed, [day]);
        let options = Options { tenant: None, free: &[("core", "get_usage")], replay: DAY };
        let report = verify(&db, &ledger.clock, &options).await.expect("a report");
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!(number(&db, "select count(*) from usage_stale").await, 0);
    })
    .await;
}

#[tokio::test]
async fn old_calls_go_when_everything_about_them_is_final() {
    on_every_engine(async |db| {
        let ledger = Ledger::new(&db, 2).await;
        let (clock, tenant) = (&ledger.clock, ledger.accounts[0].tenant);
        let calls = async |month: usize| {
            let (from, to) = (days::span(self::month(month)).start, days::span(self::month(month + 1)).start);
            let (from, to) = (from.as_micros(), to.as_micros());
            number(
                &db,
                &format!("select count(*) from calls where started_at >= {from} and started_at < {to}"),
            )
            .await
        };
        let before = lines(&ledger, tenant, By::Day).await;
        retention::keep(&db, clock, 0).await.expect("nothing to do");
        assert_eq!((calls(0).await, number(&db, "select count(*) from ledger_floor").await), (80, 0));
        // A day that is not summed keeps its month, and so does a period that is open.
        execute(&db, "delete from usage_rolled where day = '2026-09-30'").await;
        retention::keep(&db, clock, 1).await.expect("kept");
        assert_eq!(calls(0).await, 80);
        rollups::keep(&db, clock).await.expect("sums");
        retention::keep(&db, clock, 2).await.expect("kept");
        assert_eq!(calls(0).await, 80, "two whole months are kept");
        retention::keep(&db, clock, 1).await.expect("deleted");
        assert_eq!((calls(0).await, calls(1).await, calls(2).await), (0, 80, 110));
        let slabs = number(
            &db,
            &format!("select count(*) from slabs where period_id = '{}'", ledger.accounts[0].periods[0]),
        )
        .await;
        assert_eq!(slabs, 0);
        retention::keep(&db, clock, 5).await.expect("nothing to do");
        assert_eq!(number(&db, "select at from ledger_floor").await, days::span(month(1)).start.as_micros());

        assert_eq!(lines(&ledger, tenant, By::Day).await, before, "sums stay");
        rollups::recompute(&db, clock, month(0)..=date(2026, 11, 20)).await.expect("sums");
        assert_eq!(lines(&ledger, tenant, By::Day).await, before, "and are not made anew from nothing");
        let options = Options { tenant: None, free: &[("core", "get_usage")], replay: DAY };
        let report = verify(&db, clock, &options).await.expect("a report");
        assert!(report.is_clean() && report.notes.len() == 1, "{report:#?}");
        assert!(report.of(Check::Sums).looked > 0);

        let refused = try_delete(&db, ledger.accounts[0].charged.last().expect("a call").0).await;
        assert!(refused.contains("append-only"), "{refused}");
        if db.engine() == "postgres" {
            for sql in ["select weir_drop_calls_month('2026-10-01')", "truncate calls"] {
                let refused = try_execute(&db, sql).await;
                assert!(refused.contains("append-only"), "{refused}");
            }
            assert_eq!(
                number(
                    &db,
                    "select count(*) from pg_class where relname = 'calls_2027_02' and relispartition"
                )
                .await,
                1
            );
        }
        clock.advance(DAY * 60);
        rollups::keep(&db, clock).await.expect("sums");
        retention::keep(&db, clock, 1).await.expect("kept");
        assert_eq!(calls(2).await, 110, "its periods are open");
    })
    .await;
}

async fn try_delete(db: &Db, call: CallId) -> String {
    try_execute(db, &format!("delete from calls where id = '{call}'")).await
}

async fn try_execute(db: &Db, sql: &str) -> String {
    crate::db::testing::try_execute(db, sql).await.expect_err("refused").to_string()
}

#[tokio::test]
async fn a_balance_counts_what_open_slabs_have_used() {
    on_every_engine(async |db| {
        let ledger = Ledger::new(&db, 2).await;
        let (account, now) = (&ledger.accounts[0], ledger.clock.now());
        let found = balance(&db, account.tenant, now).await.expect("a balance").expect("an account");
        let november: Vec<_> = account.slabs.iter().filter(|slab| slab.period == 2).collect();
        let used: i64 = november.iter().map(|slab| slab.used).sum();
        let owed: i64 = november.iter().filter(|slab| slab.grant.is_none()).map(|slab| slab.used).sum();
        assert_eq!(
            (found.period.used, found.period.owed),
            (Credits::from_micros(used), Credits::from_micros(owed))
        );
        assert!(november.iter().any(|slab| slab.open && slab.grant.is_none()));
        let left = found.left;
        assert_eq!(
            (left.included, left.promotional, left.prepaid),
            (Credits::ZERO, credits("1"), Credits::ZERO)
        );
        assert_eq!(found.period.cap_left(), Some(credits("60") - found.period.owed));
        let by_tool = by_tool(&db, account.tenant, found.period.starts_at, now).await.expect("sums");
        assert_eq!(by_tool.iter().map(|line| line.sums.credits).sum::<Credits>(), found.period.used);
        assert_eq!(balance(&db, ledger.free, now).await.expect("none"), None);
    })
    .await;
}

#[tokio::test]
async fn calls_are_read_in_pages_with_what_was_given_back() {
    on_every_engine(async |db| {
        let ledger = Ledger::new(&db, 2).await;
        let account = &ledger.accounts[0];
        let (mut page, mut seen) = (Page { after: None, limit: 50 }, Vec::new());
        loop {
            let range = date(2026, 9, 1)..=date(2026, 9, 30);
            let listed = super::usage::calls(&db, account.tenant, range, page).await.expect("a page");
            page.after = listed.rows.last().map(|entry| entry.id);
            seen.extend(listed.rows);
            if !listed.more {
                break;
            }
        }
        assert_eq!((seen.len(), seen[0].given_back, seen[1].given_back), (40, credits("1"), Credits::ZERO));
    })
    .await;
}
