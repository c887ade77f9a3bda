//! The books as they are at one moment, read past the code that keeps them: whole rows of one snapshot.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Connection, FromRow};

/// Everything that concerns some tenants.
#[derive(Debug, Default, Clone)]
pub struct Books {
    pub periods: HashMap<String, Period>,
    pub grants: HashMap<String, Grant>,
    pub slabs: HashMap<String, Slab>,
    pub calls: HashMap<String, Call>,
    pub corrections: HashMap<String, Correction>,
    /// By plan.
    pub versions: HashMap<String, Vec<Version>>,
    /// Processes that were closed.
    pub closed_meters: HashMap<String, i64>,
    /// Calls of which an answer is kept.
    pub kept: HashMap<String, i64>,
}

#[derive(Debug, Clone, FromRow, PartialEq, Eq)]
pub struct Period {
    pub id: String,
    pub tenant_id: String,
    pub plan: String,
    pub starts_at: i64,
    pub ends_at: i64,
    pub hard_cap: Option<i64>,
    pub overage_used: i64,
    pub overage_leased: i64,
    pub closed_at: Option<i64>,
}

#[derive(Debug, Clone, FromRow, PartialEq, Eq)]
pub struct Grant {
    pub id: String,
    pub tenant_id: String,
    pub kind: String,
    pub source: String,
    pub granted: i64,
    pub used: i64,
    pub leased: i64,
    pub expired: i64,
    pub voided: i64,
    pub granted_at: i64,
    pub expires_at: Option<i64>,
    pub voided_at: Option<i64>,
}

#[derive(Debug, Clone, FromRow, PartialEq, Eq)]
pub struct Slab {
    pub id: String,
    pub tenant_id: String,
    pub period_id: String,
    pub grant_id: Option<String>,
    pub meter_id: String,
    pub amount: i64,
    pub used: i64,
    pub closed_at: Option<i64>,
}

#[derive(Debug, Clone, FromRow, PartialEq, Eq)]
pub struct Call {
    pub id: String,
    pub tenant_id: String,
    pub server: String,
    pub tool: String,
    pub outcome: String,
    pub started_at: i64,
    pub duration_us: i64,
    pub result_bytes: i64,
    pub period_id: Option<String>,
    pub price_version_id: Option<String>,
    pub meter_id: Option<String>,
    pub settled_at: Option<i64>,
    pub credits: i64,
    pub included: i64,
    pub promotional: i64,
    pub prepaid: i64,
    pub overage: i64,
    pub draws: Option<String>,
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone, FromRow, PartialEq, Eq)]
pub struct Correction {
    pub id: String,
    pub tenant_id: String,
    pub period_id: String,
    pub kind: String,
    pub call_id: Option<String>,
    pub slab_id: Option<String>,
    pub grant_id: Option<String>,
    pub booked: String,
    pub credits: i64,
}

#[derive(Debug, Clone, FromRow, PartialEq, Eq)]
pub struct Version {
    pub id: String,
    pub plan: String,
    pub number: i64,
    pub effective_at: i64,
    pub terms: String,
}

impl Call {
    /// Slabs and credits.
    pub fn draws(&self) -> Vec<(String, i64)> {
        self.draws.as_deref().map_or_else(Vec::new, |text| serde_json::from_str(text).expect("draws"))
    }

    /// Whether how it ended can cost something.
    pub fn is_answer(&self) -> bool {
        matches!(self.outcome.as_str(), "ok" | "tool_error")
    }
}

/// Reads all tables on one connection, in one transaction.
macro_rules! read {
    ($connection:expr, $tenants:expr) => {{
        let tenants = $tenants.iter().map(|tenant| format!("'{tenant}'")).collect::<Vec<_>>().join(", ");
        let mut books = Books::default();
        macro_rules! rows {
            ($text:expr) => {
                sqlx::query_as(AssertSqlSafe($text)).fetch_all(&mut *$connection).await?
            };
        }
        macro_rules! of_tenants {
            ($table:literal) => {
                rows!(format!("select * from {} where tenant_id in ({tenants})", $table))
            };
        }
        let periods: Vec<Period> = of_tenants!("periods");
        let grants: Vec<Grant> = of_tenants!("grants");
        let slabs: Vec<Slab> = of_tenants!("slabs");
        let calls: Vec<Call> = of_tenants!("calls");
        let corrections: Vec<Correction> = of_tenants!("corrections");
        let versions: Vec<Version> = rows!(format!(
            "select * from price_versions where plan in (select plan from periods where tenant_id in ({tenants}))"
        ));
        let meters: Vec<(String, i64)> =
            rows!("select id, closed_at from meters where closed_at is not null".to_owned());
        let kept: Vec<(String, i64)> = rows!(format!(
            "select call_id, credits from idempotency_keys where settled_at is not null and tenant_id in ({tenants})"
        ));
        books.periods.extend(periods.into_iter().map(|row| (row.id.clone(), row)));
        books.grants.extend(grants.into_iter().map(|row| (row.id.clone(), row)));
        books.slabs.extend(slabs.into_iter().map(|row| (row.id.clone(), row)));
        books.calls.extend(calls.into_iter().map(|row| (row.id.clone(), row)));
        books.corrections.extend(corrections.into_iter().map(|row| (row.id.clone(), row)));
        for version in versions {
            books.versions.entry(version.plan.clone()).or_default().push(version);
        }
        books.closed_meters.extend(meters);
        books.kept.extend(kept);
        Ok(books)
    }};
}

impl Books {
    /// Everything that concerns these tenants.
    pub async fn read(url: &str, tenants: &[String]) -> sqlx::Result<Self> {
        if url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(url).await?;
            let mut tx = connection.begin().await?;
            return read!(tx, tenants);
        }
        let mut connection = sqlx::PgConnection::connect(url).await?;
        let mut tx = connection.begin_with("begin isolation level repeatable read, read only").await?;
        read!(tx, tenants)
    }

    /// What a call costs after corrections, and after gifts that take the place of those.
    pub fn net(&self, call: &Call) -> i64 {
        let back = self.corrections.values().filter(|c| c.call_id.as_deref() == Some(&call.id));
        let source = format!("not_released:{}:", call.id);
        let gifts = self.grants.values().filter(|grant| grant.source.starts_with(&source));
        call.credits + back.map(|correction| correction.credits).sum::<i64>()
            - gifts.map(|grant| grant.granted).sum::<i64>()
    }

    /// The version of a plan that is in force at an instant.
    pub fn in_force(&self, plan: &str, at: i64) -> Option<&Version> {
        let versions = self.versions.get(plan)?;
        versions.iter().filter(|v| v.effective_at <= at).max_by_key(|v| (v.effective_at, v.number))
    }
}
