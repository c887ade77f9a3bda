//! The audit trail: every change to tenants and credentials, written in the transaction of the change itself.

use std::fmt;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::db::{self, Db, Listed, Page, Tx};
use crate::error::Result;
use crate::id::{AuditId, GrantId, KeyId, OperatorKeyId, TenantId};
use crate::plans::PlanName;

pub use crate::db::audit::AuditEntry;

/// Who changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The holder of an operator key, over the admin API.
    Operator(OperatorKeyId),
    /// Somebody on the command line of the deployment.
    Cli,
    /// `weir dev`, which makes its own first tenant.
    Dev,
    /// The holder of a key of the tenant that may buy.
    Customer(KeyId),
    /// What Stripe says of the tenant's subscription and invoices.
    Billing,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(id) => write!(f, "operator:{id}"),
            Self::Cli => f.write_str("cli"),
            Self::Dev => f.write_str("dev"),
            Self::Customer(id) => write!(f, "customer:{id}"),
            Self::Billing => f.write_str("billing"),
        }
    }
}

/// What something is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject<'a> {
    Tenant(TenantId),
    Key(TenantId, KeyId),
    OperatorKey(OperatorKeyId),
    Plan(&'a PlanName),
    Grant(TenantId, GrantId),
}

impl Subject<'_> {
    fn kind(self) -> &'static str {
        match self {
            Self::Tenant(_) => "tenant",
            Self::Key(..) => "api_key",
            Self::OperatorKey(_) => "operator_key",
            Self::Plan(_) => "plan",
            Self::Grant(..) => "grant",
        }
    }

    fn id(self) -> String {
        match self {
            Self::Tenant(id) => id.to_string(),
            Self::Key(_, id) => id.to_string(),
            Self::OperatorKey(id) => id.to_string(),
            Self::Plan(name) => name.to_string(),
            Self::Grant(_, id) => id.to_string(),
        }
    }

    fn tenant(self) -> Option<TenantId> {
        match self {
            Self::Tenant(id) | Self::Key(id, _) | Self::Grant(id, _) => Some(id),
            Self::OperatorKey(_) | Self::Plan(_) => None,
        }
    }
}

/// Who changed something, and when.
#[derive(Clone, Copy)]
pub(crate) struct By {
    pub(crate) actor: Actor,
    pub(crate) at: Timestamp,
}

/// Writes the entry of a change into the change's transaction. `detail` must hold no secret.
pub(crate) async fn record(
    tx: &mut Tx,
    by: By,
    action: &str,
    subject: Subject<'_>,
    detail: &Value,
) -> Result<()> {
    let entry = AuditEntry {
        id: AuditId::new(),
        at: by.at,
        actor: by.actor.to_string(),
        action: action.to_owned(),
        subject_kind: subject.kind().to_owned(),
        subject_id: subject.id(),
        tenant_id: subject.tenant(),
        detail: detail.to_string(),
    };
    db::audit::insert(tx, &entry).await
}

/// One page of the trail, oldest first: a tenant's, or with `None` the whole deployment's.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn list(db: &Db, tenant: Option<TenantId>, page: Page<AuditId>) -> Result<Listed<AuditEntry>> {
    match tenant {
        Some(tenant) => db::audit::list_tenant(db, tenant, page).await,
        None => db::audit::list_all(db, page).await,
    }
}
