//! `get_status` and `config://account/settings`: what this caller is and may do.

use std::sync::Weak;

use schemars::JsonSchema;
use serde::Serialize;

use super::Core;
use crate::caller::{Caller, Credential};
use crate::error::Result;
use crate::mcp::content::{ResourceContents, ToolResult};
use crate::policy::{self, Risk};
use crate::providers::{Call, NoArguments, Registry, ResourceSpec, ToolSpec, Toolkit};

/// The settings resource.
pub const SETTINGS_URI: &str = "config://account/settings";

/// What this caller may do.
#[derive(Debug, Serialize, JsonSchema)]
struct Status {
    /// The tenant's name.
    tenant: String,
    /// The plan that the tenant is on.
    plan: String,
    /// What the credential is called, its kind, and when it ends (RFC 3339), if it does.
    credential: CredentialStatus,
    /// How much may be used.
    limits: LimitStatus,
    /// The servers and tools that this caller can use.
    servers: Vec<ServerStatus>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct CredentialStatus {
    name: String,
    kind: &'static str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    expires_at: Option<String>,
    max_risk: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LimitStatus {
    tenant_requests_per_second: u32,
    tenant_burst: u32,
    key_requests_per_second: u32,
    key_burst: u32,
    calls_at_once: u32,
    sessions_at_once: u32,
    streams_at_once: u32,
    questions_at_once: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    tenant_bytes_per_second: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    tenant_bytes_burst: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ServerStatus {
    name: String,
    /// The path of the server's own MCP endpoint.
    path: String,
    tools: Vec<String>,
}

fn credential(caller: &Caller) -> CredentialStatus {
    let data = caller.data();
    CredentialStatus {
        name: data.credential_name.clone(),
        kind: match data.principal.credential {
            Credential::ApiKey(_) => "api_key",
            Credential::UrlToken(_) => "url_token",
            Credential::Jwt(_) => "jwt",
        },
        expires_at: data.expires_at.map(|at| at.to_string()),
        max_risk: data.scopes.max_risk.to_string(),
    }
}

fn limits(caller: &Caller) -> LimitStatus {
    let limits = caller.limits();
    LimitStatus {
        tenant_requests_per_second: limits.tenant.per_second,
        tenant_burst: limits.tenant.burst,
        key_requests_per_second: limits.key.per_second,
        key_burst: limits.key.burst,
        calls_at_once: limits.concurrency,
        sessions_at_once: limits.sessions,
        streams_at_once: limits.streams,
        questions_at_once: limits.questions,
        tenant_bytes_per_second: limits.bytes.map(|bytes| bytes.per_second),
        tenant_bytes_burst: limits.bytes.map(|bytes| bytes.burst),
    }
}

fn servers(caller: &Caller, registry: &Registry) -> Vec<ServerStatus> {
    let visible = |name: &std::sync::Arc<str>| {
        let snapshot = registry.snapshot(Some(name)).filter(|_| caller.scopes().allows_server(name))?;
        let tools = snapshot.tools.entries.iter();
        let tools =
            tools.filter(|(_, found)| policy::allowed(caller, found)).map(|(name, _)| name.to_string());
        Some(ServerStatus { name: name.to_string(), path: format!("/s/{name}/mcp"), tools: tools.collect() })
    };
    registry.servers().iter().filter_map(visible).collect()
}

/// Adds the tool and the resource.
///
/// # Errors
/// None in practice: the descriptions are fixed.
pub fn add(kit: Toolkit, core: &Core) -> Result<Toolkit> {
    let spec = ToolSpec::new("get_status")
        .title("What you may do")
        .description(
            "Shows what you may do here: your plan, your limits, when your credential ends, and the servers and tools \
             that you can use. Call it when a call was refused or limited.",
        )
        .read_only()
        .idempotent()
        .open_world(false)
        .free()
        .output::<Status>();
    let for_status = core.clone();
    kit.tool(spec, move |call: Call, NoArguments {}| {
        let core = for_status.clone();
        async move {
            let caller = call.caller();
            let registry = core.registry.get().and_then(Weak::upgrade);
            let status = Status {
                tenant: caller.data().tenant_name.clone(),
                plan: caller.data().plan.clone(),
                credential: credential(caller),
                limits: limits(caller),
                servers: registry.map(|registry| servers(caller, &registry)).unwrap_or_default(),
            };
            Ok(ToolResult::structured(&status)?)
        }
    })?
    .resource(
        &ResourceSpec::new(SETTINGS_URI, "Account settings", "application/json").description(
            "The settings of this account: tenant, plan, credential with its scopes, and limits.",
        ),
        move |call: Call| async move {
            let caller = call.caller();
            let settings = serde_json::json!({
                "tenant": { "id": caller.tenant(), "name": caller.data().tenant_name },
                "plan": caller.data().plan,
                "credential": credential(caller),
                "scopes": caller.scopes(),
                "limits": limits(caller),
                "risks": [Risk::ReadOnly, Risk::Write, Risk::Destructive],
            });
            let text = serde_json::to_string_pretty(&settings)?;
            Ok(vec![ResourceContents::text(SETTINGS_URI, "application/json", text)].into())
        },
    )
}
