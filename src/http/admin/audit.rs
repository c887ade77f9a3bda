//! `/admin/v1/audit`: who changed what.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::caller::Operator;
use super::super::extract::{Json, Query};
use super::super::problem::Problem;
use super::{PageBody, PageQuery};
use crate::app::App;
use crate::audit::{self, AuditEntry};
use crate::clock::Timestamp;
use crate::id::{AuditId, TenantId};

/// An entry as the API shows it.
#[derive(Debug, Serialize)]
pub struct Body {
    id: AuditId,
    at: Timestamp,
    actor: String,
    action: String,
    subject_kind: String,
    subject_id: String,
    tenant_id: Option<TenantId>,
    detail: Option<Box<RawValue>>,
}

impl From<AuditEntry> for Body {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            actor: entry.actor,
            action: entry.action,
            subject_kind: entry.subject_kind,
            subject_id: entry.subject_id,
            tenant_id: entry.tenant_id,
            detail: RawValue::from_string(entry.detail).ok(),
        }
    }
}

/// `?tenant=&limit=&cursor=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    tenant: Option<TenantId>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Lists audit entries, of one tenant or of all.
pub async fn list(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Query(query): Query<AuditQuery>,
) -> Result<Response, Problem> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor }.page()?;
    let listed = audit::list(&app.db, query.tenant, page).await?;
    Ok(Json(PageBody::new(listed, |e| e.id.to_string(), Body::from)).into_response())
}
