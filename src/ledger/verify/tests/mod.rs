//! Whatever is wrong is found, and named; and nothing else is.

mod exports;

use super::*;
use crate::db::Db;
use crate::db::testing::{execute, on_every_engine};
use crate::ledger::testing::Ledger;

/// A week, in microseconds.
const WEEK: i64 = 604_800_000_000;
const FREE: [(&str, &str); 1] = [("core", "get_usage")];
const TABLES: [&str; 10] = [
    "price_versions",
    "periods",
    "grants",
    "slabs",
    "calls",
    "corrections",
    "account_events",
    "usage_days",
    "billing_customers",
    "exports",
];
/// Where nobody was billed for anything, these have nothing to look at.
const OF_EXPORTS: [Check; 3] = [Check::Exports, Check::Minutes, Check::Told];

async fn report(ledger: &Ledger) -> Report {
    let options = Options { tenant: None, free: &FREE, replay: Duration::from_secs(86_400) };
    verify(&ledger.db, &ledger.clock, &options).await.expect("a report")
}

/// Takes away what the database refuses by itself.
async fn disarm(db: &Db) {
    if db.engine() == "sqlite" {
        execute(db, "pragma ignore_check_constraints = on; pragma foreign_keys = off;").await;
        for name in [
            "price_versions_fixed",
            "price_versions_kept",
            "periods_apart_insert",
            "periods_apart_update",
            "periods_fixed",
            "periods_kept",
            "grants_fixed",
            "grants_kept",
            "slabs_fixed",
            "slabs_source",
            "calls_fixed",
            "calls_kept",
            "corrections_fixed",
            "corrections_kept",
            "exports_fixed",
            "exports_kept",
        ] {
            execute(db, &format!("drop trigger {name}")).await;
        }
        return;
    }
    let tables = TABLES.map(|table| format!("'{table}'::regclass")).join(", ");
    execute(
        db,
        &format!(
            "do $$ declare t record; c record; begin
                 for t in select oid::regclass as name from pg_class
                          where oid in ({tables}) or oid in (select inhrelid from pg_inherits where inhparent = 'calls'::regclass)
                 loop
                     execute format('alter table %s disable trigger user', t.name);
                 end loop;
                 for c in select conname, conrelid::regclass as name from pg_constraint
                          where contype in ('c', 'f') and conparentid = 0 and coninhcount = 0 and conrelid in ({tables})
                 loop
                     execute format('alter table %s drop constraint %I', c.name, c.conname);
                 end loop;
             end $$"
        ),
    )
    .await;
}

#[tokio::test]
async fn a_ledger_that_is_right_is_found_to_be() {
    on_every_engine(async |db| {
        let ledger = Ledger::new(&db, 3).await;
        let all = report(&ledger).await;
        assert!(all.is_clean(), "{all:#?}");
        for check in Check::ALL.iter().filter(|check| **check != Check::Keys) {
            let is_idle = OF_EXPORTS.contains(check);
            assert_eq!(all.of(*check).looked == 0, is_idle, "{check:?} looked at the wrong number of things");
        }
        assert_eq!(all.of(Check::Uncharged).looked, 3 * 120 + 30);
        let options = Options {
            tenant: Some(ledger.accounts[0].tenant),
            free: &FREE,
            replay: Duration::from_secs(86_400),
        };
        let one = verify(&db, &ledger.clock, &options).await.expect("a report");
        assert!(one.is_clean() && one.of(Check::Uncharged).looked == 120, "{one:#?}");
    })
    .await;
}

/// Harm, how it is undone, the check that must find it, and what its example must name.
struct Harm(Check, String, String, String);

/// Changes a column of one row by an amount, and back.
fn shifted(check: Check, table: &str, id: &str, column: &str, by: i64) -> Harm {
    let sql = |by| format!("update {table} set {column} = {column} + ({by}) where id = '{id}'");
    Harm(check, sql(by), sql(-by), id.to_owned())
}

/// Gives a column of one row another value, and the old one back.
fn set(check: Check, table: &str, id: &str, column: &str, (to, back): (&str, &str)) -> Harm {
    let sql = |value| format!("update {table} set {column} = {value} where id = '{id}'");
    Harm(check, sql(to), sql(back), id.to_owned())
}

fn quoted(id: impl std::fmt::Display) -> String {
    format!("'{id}'")
}

fn harms(ledger: &Ledger) -> Vec<Harm> {
    [harms_to_calls(ledger), harms_to_sources(ledger), other_harms(ledger)].into_iter().flatten().collect()
}

fn harms_to_calls(ledger: &Ledger) -> Vec<Harm> {
    let [first, second] = &ledger.accounts[..] else { panic!("two accounts") };
    let call = |place: usize| first.charged[place].0.to_string();
    let owing = first.charged.iter().rfind(|(_, month)| *month == 1).expect("a call").0.to_string();
    let [older, newer] = ledger.versions.map(|id| id.to_string());
    let foreign_slab = format!("'[[\"{}\",1000000]]'", second.slabs[0].id);
    let own_slab = format!("'[[\"{}\",1000000]]'", first.slabs[0].id);
    let (own, foreign) = (quoted(first.periods[0]), quoted(second.periods[0]));
    let free_call = crate::id::CallId::new().to_string();
    let twin = |to: &str| {
        format!("update calls set idempotency_key = {to} where id in ('{}', '{}')", call(1), call(3))
    };
    vec![
        set(Check::Versions, "price_versions", &older, "terms", ("replace(terms, '0.01', '0.02')", "replace(terms, '0.02', '0.01')")),
        shifted(Check::Versions, "price_versions", &newer, "number", 5),
        Harm(
            Check::Rates,
            format!("update calls set credits = credits + 1, included = included + 1 where id = '{}'", call(1)),
            format!("update calls set credits = credits - 1, included = included - 1 where id = '{}'", call(1)),
            call(1),
        ),
        set(Check::Rates, "calls", &call(1), "price_version_id", (&quoted(&newer), &quoted(&older))),
        set(Check::Rates, "calls", &call(1), "price_version_id", ("'prv_00000000000000000000000000'", &quoted(&older))),
        Harm(
            Check::Rates,
            format!(
                "insert into calls (id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes,
                                    result_bytes, correlation_id, period_id, price_version_id)
                 select '{free_call}', tenant_id, credential, server, tool, outcome, started_at, 1, 1, 1, 'x', period_id,
                        price_version_id from calls where id = '{}'",
                call(1)
            ),
            format!("delete from calls where id = '{free_call}'"),
            free_call.clone(),
        ),
        set(Check::Uncharged, "calls", &call(1), "outcome", ("'timeout'", "'ok'")),
        shifted(Check::Parts, "calls", &call(1), "included", -1),
        set(Check::Parts, "calls", &call(1), "settled_at", ("null", "started_at")),
        set(Check::Draws, "calls", &call(1), "draws", ("'[]'", &own_slab)),
        set(Check::Draws, "calls", &call(1), "draws", (&foreign_slab, &own_slab)),
        set(Check::Draws, "calls", &call(1), "draws", ("'nonsense'", &own_slab)),
        Harm(
            Check::Draws,
            format!("update calls set included = 0, prepaid = credits where id = '{}'", call(1)),
            format!("update calls set included = credits, prepaid = 0 where id = '{}'", call(1)),
            call(1),
        ),
        set(Check::Draws, "calls", &owing, "meter_id", ("'mtr_00000000000000000000000000'", "(select id from meters)")),
        set(Check::InPeriod, "calls", &call(1), "period_id", (&foreign, &own)),
        shifted(Check::InPeriod, "calls", &call(1), "started_at", -WEEK),
        Harm(Check::Keys, twin("'k'"), twin("null"), call(3)),
    ]
}

fn harms_to_sources(ledger: &Ledger) -> Vec<Harm> {
    let first = &ledger.accounts[0];
    let (slab, grant) = (first.slabs[0].id.to_string(), first.grants[0].id.to_string());
    let (september, november) = (first.periods[0].to_string(), first.periods[2].to_string());
    let (promotional, prepaid) = (first.grants[4].id.to_string(), first.grants[3].id.to_string());
    vec![
        shifted(Check::Slabs, "slabs", &slab, "used", -1),
        shifted(Check::Slabs, "slabs", &slab, "used", 10_000_000),
        shifted(Check::Grants, "grants", &grant, "used", -1),
        shifted(Check::Grants, "grants", &prepaid, "leased", 1),
        shifted(Check::Grants, "grants", &prepaid, "granted", -10_000_000),
        set(Check::Grants, "grants", &promotional, "expires_at", ("1", "null")),
        set(Check::Grants, "grants", &promotional, "voided_at", ("1", "null")),
        shifted(Check::Included, "grants", &grant, "granted", 1),
        shifted(Check::Included, "grants", &grant, "expires_at", 1),
        set(
            Check::Included,
            "grants",
            &first.grants[2].id.to_string(),
            "source",
            ("'elsewhere'", &format!("'period:{november}'")),
        ),
        shifted(Check::Periods, "periods", &november, "overage_used", 1),
        shifted(Check::Periods, "periods", &november, "overage_leased", 1),
        set(Check::Periods, "periods", &first.periods[1].to_string(), "hard_cap", ("0", "60000000")),
        Harm(
            Check::Periods,
            format!("update periods set ends_at = ends_at + {WEEK} where id = '{september}'"),
            format!("update periods set ends_at = ends_at - {WEEK} where id = '{september}'"),
            september.clone(),
        ),
        Harm(
            Check::Periods,
            format!("update slabs set closed_at = null where id = '{slab}'"),
            format!("update slabs set closed_at = 1 where id = '{slab}'"),
            september.clone(),
        ),
    ]
}

fn other_harms(ledger: &Ledger) -> Vec<Harm> {
    let [first, second] = &ledger.accounts[..] else { panic!("two accounts") };
    let (call, slab, november) = (first.charged[0].0, first.slabs[0].id.to_string(), first.periods[2]);
    let (own, foreign) = (quoted(first.tenant), quoted(second.tenant));
    let nothing = crate::id::CallId::new().to_string();
    let event = crate::id::AccountEventId::new().to_string();
    vec![
        Harm(
            Check::Corrections,
            "update corrections set credits = credits - 1 where kind = 'not_released'".to_owned(),
            "update corrections set credits = credits + 1 where kind = 'not_released'".to_owned(),
            call.to_string(),
        ),
        Harm(
            Check::Corrections,
            format!("update corrections set call_id = '{nothing}' where call_id = '{}'", call),
            format!("update corrections set call_id = '{}' where call_id = '{nothing}'", call),
            "cor_".to_owned(),
        ),
        Harm(
            Check::Sums,
            "update usage_days set credits = credits + 1 where day = '2026-10-03'".to_owned(),
            "update usage_days set credits = credits - 1 where day = '2026-10-03'".to_owned(),
            "2026-10-03".to_owned(),
        ),
        Harm(
            Check::Sums,
            format!(
                "update usage_days set day = '2026-11-19' where day = '2026-09-02' and tenant_id = '{}'",
                first.tenant
            ),
            format!(
                "update usage_days set day = '2026-09-02' where day = '2026-11-19' and tenant_id = '{}'",
                first.tenant
            ),
            "2026-11-19".to_owned(),
        ),
        set(Check::Tenants, "slabs", &slab, "tenant_id", (&foreign, &own)),
        set(
            Check::Tenants,
            "calls",
            &call.to_string(),
            "tenant_id",
            ("'tn_00000000000000000000000000'", &own),
        ),
        Harm(
            Check::Tenants,
            format!(
                "insert into account_events values ('{event}', '{}', '{november}', 'x', 1, '')",
                second.tenant
            ),
            format!("delete from account_events where id = '{event}'"),
            event.clone(),
        ),
        Harm(
            Check::Tenants,
            format!(
                "update corrections set tenant_id = '{}' where kind = 'true_up' and tenant_id = '{}'",
                second.tenant, first.tenant
            ),
            format!(
                "update corrections set tenant_id = '{}' where kind = 'true_up' and period_id = '{}'",
                first.tenant, first.periods[1]
            ),
            "cor_".to_owned(),
        ),
    ]
}

#[tokio::test]
async fn whatever_is_wrong_is_found_and_named() {
    on_every_engine(async |db| {
        let ledger = Ledger::new(&db, 2).await;
        disarm(&db).await;
        for Harm(check, harm, undo, names) in harms(&ledger) {
            execute(&db, &harm).await;
            let found = report(&ledger).await;
            let finding = found.of(check);
            let named = finding.examples.iter().any(|example| example.contains(&names));
            assert!(finding.wrong > 0 && named, "{harm}: {check:?} should name {names}: {found:#?}");
            execute(&db, &undo).await;
            let after = report(&ledger).await;
            assert!(after.is_clean(), "{undo}: {after:#?}");
        }
    })
    .await;
}
