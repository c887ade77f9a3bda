//! `/admin/v1/tenants/{tenant}/sessions`: the history of legacy sessions.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::super::caller::Operator;
use super::super::extract::{Json, Path, Query};
use super::super::problem::Problem;
use super::{PageBody, PageQuery};
use crate::app::App;
use crate::clock::Timestamp;
use crate::id::{SessionRowId, TenantId};
use crate::session_history::{self, SessionRow};

/// A session as the API shows it.
#[derive(Debug, Serialize)]
pub struct Body {
    id: SessionRowId,
    tenant_id: TenantId,
    principal: String,
    transport: String,
    revision: String,
    client_name: String,
    client_version: String,
    opened_at: Timestamp,
    closed_at: Option<Timestamp>,
    close_reason: Option<String>,
    requests: i64,
    calls: i64,
}

impl From<SessionRow> for Body {
    fn from(row: SessionRow) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            principal: row.principal,
            transport: row.transport,
            revision: row.revision,
            client_name: row.client_name,
            client_version: row.client_version,
            opened_at: row.opened_at,
            closed_at: row.closed_at,
            close_reason: row.close_reason,
            requests: row.requests,
            calls: row.calls,
        }
    }
}

/// Lists the tenant's sessions, oldest first.
pub async fn list(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    crate::tenants::get(&app.db, tenant).await?;
    app.usage.flush().await;
    let listed = session_history::list(&app.db, tenant, query.page()?).await?;
    Ok(Json(PageBody::new(listed, |s| s.id.to_string(), Body::from)).into_response())
}
