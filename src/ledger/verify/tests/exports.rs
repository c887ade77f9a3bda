//! Exports: in every state they are found to be right, and each thing that is wrong with one is found by one check and no other.

use super::*;
use crate::clock::Timestamp;
use crate::db::testing::number;
use crate::id::{ExportId, PeriodId};
use crate::ledger::{days, testing::month};

const CREDIT: i64 = 1_000_000;
const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// What was told of a tenant that owes nothing for September, and something for October and November.
struct Told {
    october: PeriodId,
    /// All of October, as far as it is counted.
    verified: ExportId,
    /// One more credit of October, which a grant paid afterwards; told as two.
    drifted: ExportId,
    /// That one taken back, in November.
    sent: ExportId,
    /// One of November that may have been sent, for the second time.
    open: ExportId,
    /// One of November that was too late.
    late: ExportId,
}

fn start(number: usize) -> i64 {
    days::span(month(number)).start.as_micros()
}

/// Makes the ledger's first tenant a customer, and tells what it owes.
async fn tell(ledger: &Ledger) -> Told {
    let account = &ledger.accounts[0];
    let [september, october, november] = account.periods[..] else { panic!("three periods") };
    let owed = |period| format!("select overage_used from periods where id = '{period}'");
    assert_eq!(number(&ledger.db, &owed(september)).await, 0);
    assert!(number(&ledger.db, &owed(november)).await > 5 * CREDIT);
    let owed = number(&ledger.db, &owed(october)).await;
    let ids = [(); 5].map(|()| ExportId::new());
    let [verified, drifted, sent, open, late] = ids;
    let tenant = account.tenant;
    let mut sql = format!(
        "insert into billing_customers (tenant_id, customer, created_at) values ('{tenant}', 'cus_1', {});",
        start(1) + HOUR
    );
    for (id, period, slot, columns) in [
        (verified, october, start(1) + 2 * HOUR, format!("{owed}, 1, 'verified', 5, 5, {owed}")),
        // Two credits less one, and one too much: the month owed one more then.
        (drifted, october, start(2) - MINUTE, format!("{CREDIT}, 1, 'frozen', 5, 6, {}", 2 * CREDIT)),
        (sent, october, start(2) + DAY, format!("-{}, 1, 'sent', 5, 6, null", 2 * CREDIT)),
        (open, november, start(2) + 2 * DAY, format!("{CREDIT}, 2, 'open', 7, 7, null")),
        (late, november, start(2) + 3 * DAY, format!("{CREDIT}, 1, 'frozen', null, null, 0")),
    ] {
        sql += &format!(
            "insert into exports (id, tenant_id, period_id, slot, credits, generation, state, first_sent_at, last_sent_at,
                                  counted, due_at, created_at)
             values ('{id}', '{tenant}', '{period}', {slot}, {columns}, 1, {});",
            slot + 2 * MINUTE
        );
    }
    execute(&ledger.db, &sql).await;
    Told { october, verified, drifted, sent, open, late }
}

/// Takes away what the database refuses by itself, also that two exports have one minute.
async fn disarm_exports(db: &Db) {
    disarm(db).await;
    let sql = if db.engine() == "sqlite" {
        "drop view period_books; create table loose as select * from exports; drop table exports;
         alter table loose rename to exports;"
    } else {
        "alter table exports drop constraint exports_tenant_id_slot_key"
    };
    execute(db, sql).await;
}

fn of(check: Check, id: ExportId, column: &str, values: (&str, &str)) -> Harm {
    set(check, "exports", &id.to_string(), column, values)
}

fn harms_to_states(told: &Told) -> Vec<Harm> {
    let Told { verified, drifted, sent, open, late, .. } = *told;
    let (two, state) = ((2 * CREDIT).to_string(), Check::Exports);
    vec![
        of(state, verified, "state", ("'open'", "'verified'")),
        of(state, verified, "state", ("'lost'", "'verified'")),
        of(state, verified, "first_sent_at", ("null", "5")),
        shifted(state, "exports", &verified.to_string(), "counted", 1),
        of(state, drifted, "last_sent_at", ("null", "6")),
        of(state, drifted, "counted", ("null", &two)),
        of(state, sent, "first_sent_at", ("null", "5")),
        of(state, sent, "counted", (&format!("-{two}"), "null")),
        of(state, open, "generation", ("0", "2")),
        of(state, late, "generation", ("2", "1")),
        of(state, late, "credits", ("0", &CREDIT.to_string())),
    ]
}

fn harms_to_minutes(told: &Told) -> Vec<Harm> {
    let Told { verified, drifted, sent, open, late, .. } = *told;
    let moved = |id: ExportId, by: i64| shifted(Check::Minutes, "exports", &id.to_string(), "slot", by);
    let twin = ExportId::new();
    let columns = "tenant_id, period_id, slot, credits, generation, state, counted, due_at, created_at";
    vec![
        moved(open, 1),
        // After it was begun, and long before.
        moved(open, MINUTE + MINUTE),
        shifted(Check::Minutes, "exports", &verified.to_string(), "created_at", 34 * DAY),
        // Before its own period, and where there is none.
        moved(verified, -3 * HOUR),
        Harm(
            Check::Minutes,
            format!(
                "update exports set slot = slot + {0}, created_at = created_at + {0} where id = '{sent}'",
                34 * DAY
            ),
            format!(
                "update exports set slot = slot - {0}, created_at = created_at - {0} where id = '{sent}'",
                34 * DAY
            ),
            sent.to_string(),
        ),
        // When its invoice was final long since.
        shifted(Check::Minutes, "exports", &drifted.to_string(), "created_at", 4 * DAY),
        // In the minute of another.
        Harm(
            Check::Minutes,
            format!(
                "insert into exports (id, {columns}) select '{twin}', {columns} from exports where id = '{late}'"
            ),
            format!("delete from exports where id = '{twin}'"),
            late.to_string(),
        ),
        // Of a later period than its minute.
        Harm(
            Check::Minutes,
            format!("update exports set slot = {} where id = '{sent}'", start(0) + 29 * DAY),
            format!("update exports set slot = {} where id = '{sent}'", start(2) + DAY),
            sent.to_string(),
        ),
    ]
}

fn harms_to_sums(ledger: &Ledger, told: &Told) -> Vec<Harm> {
    let [first, second] = &ledger.accounts[..] else { panic!("two accounts") };
    let Told { verified, sent, open, late, october, .. } = *told;
    let [_, _, november] = first.periods[..] else { panic!("three periods") };
    let more = |by: i64| {
        format!(
            "update exports set credits = credits + {by}, counted = counted + {by} where id = '{verified}'"
        )
    };
    let (own, foreign) = (quoted(first.tenant), quoted(second.tenant));
    let customer = |from: &str, to: &str| {
        format!("update billing_customers set tenant_id = {to} where tenant_id = {from}")
    };
    vec![
        // One credit more is what a grant paid since, and one what is counted too much.
        Harm(Check::Told, more(3 * CREDIT), more(-3 * CREDIT), october.to_string()),
        Harm(
            Check::Told,
            format!("update exports set credits = credits + {} where id = '{open}'", 90 * CREDIT),
            format!("update exports set credits = credits - {} where id = '{open}'", 90 * CREDIT),
            november.to_string(),
        ),
        of(Check::Tenants, late, "period_id", (&quoted(second.periods[2]), &quoted(november))),
        of(Check::Tenants, late, "period_id", ("'per_00000000000000000000000000'", &quoted(november))),
        of(Check::Tenants, late, "tenant_id", (&foreign, &own)),
        of(Check::Tenants, sent, "tenant_id", ("'tn_00000000000000000000000000'", &own)),
        Harm(Check::Tenants, customer(&own, &foreign), customer(&foreign, &own), verified.to_string()),
    ]
}

#[tokio::test]
async fn whatever_is_wrong_with_exports_is_found_by_the_check_for_it() {
    on_every_engine(async |db| {
        let ledger = Ledger::new(&db, 2).await;
        let none = report(&ledger).await;
        assert!(none.is_clean() && none.of(Check::Told).looked == 0, "nobody is billed: {none:#?}");
        let told = tell(&ledger).await;
        let before = report(&ledger).await;
        assert!(before.is_clean(), "{before:#?}");
        let looked = [Check::Exports, Check::Minutes, Check::Told].map(|check| before.of(check).looked);
        assert_eq!(looked, [5, 5, 3]);
        disarm_exports(&db).await;
        let harms = [harms_to_states(&told), harms_to_minutes(&told), harms_to_sums(&ledger, &told)];
        for Harm(check, harm, undo, names) in harms.into_iter().flatten() {
            execute(&db, &harm).await;
            let found = report(&ledger).await;
            for finding in &found.checks {
                let expected = u64::from(finding.check == check.name());
                assert_eq!(finding.wrong.min(1), expected, "{harm}: {finding:#?}");
            }
            let examples = &found.of(check).examples;
            assert!(
                examples.iter().any(|example| example.contains(&names)),
                "{harm}: {names} in {examples:?}"
            );
            execute(&db, &undo).await;
            let after = report(&ledger).await;
            assert!(after.is_clean(), "{undo}: {after:#?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_not_told_in_time_is_lost() {
    on_every_engine(async |db| {
        let ledger = Ledger::new(&db, 1).await;
        let told = tell(&ledger).await;
        let october = told.october.to_string();
        let less = |by: i64| {
            format!("update periods set overage_used = overage_used + {by}, closed_at = null where id = '{october}'")
        };
        disarm(&db).await;
        // Whatever else says that this is wrong: it waits to be told, for 62 days from the end of October.
        execute(&db, &less(CREDIT)).await;
        assert_eq!(report(&ledger).await.of(Check::Told).wrong, 0);
        let end = start(2) + 62 * DAY;
        let until = |at: i64| {
            let left = at - ledger.clock.now().as_micros();
            ledger.clock.advance(Duration::from_micros(u64::try_from(left).expect("ahead")));
        };
        until(end - 1);
        assert_eq!(report(&ledger).await.of(Check::Told).wrong, 0);
        until(end);
        let late = report(&ledger).await;
        let finding = late.of(Check::Told);
        assert!(finding.wrong == 1 && finding.examples[0].contains(&october), "{finding:#?}");
        // What is too much is as wrong as what is too little, also where something says why.
        execute(&db, &less(-2 * CREDIT)).await;
        assert_eq!(report(&ledger).await.of(Check::Told).wrong, 1);
        execute(&db, &less(CREDIT)).await;
        assert_eq!(report(&ledger).await.of(Check::Told).wrong, 0);
        // Of a period that was over so long before somebody became a customer nothing was to be told.
        execute(&db, &format!("delete from exports; update billing_customers set created_at = {end}")).await;
        assert_eq!(report(&ledger).await.of(Check::Told).wrong, 0);
        execute(&db, &format!("update billing_customers set created_at = {}", end - 1)).await;
        assert_eq!(report(&ledger).await.of(Check::Told).wrong, 1);
        assert!(ledger.clock.now() < Timestamp::from_micros(start(3) + 62 * DAY), "November still can be told");
    })
    .await;
}
