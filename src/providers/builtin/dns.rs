//! `dns_resolve`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::dns::{Answer, RecordType, Resolver};
use crate::error::Result;
use crate::mcp::content::ToolResult;
use crate::providers::{Call, ToolSpec, Toolkit};

/// The arguments.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lookup {
    /// The domain name to look up, such as "example.com". For PTR an IP address works, too.
    name: String,
    /// The type of record.
    #[serde(default = "default_type")]
    r#type: RecordType,
}

fn default_type() -> RecordType {
    RecordType::A
}

/// Adds the tool.
///
/// # Errors
/// None in practice: the description is fixed.
pub fn add(kit: Toolkit, resolver: Resolver) -> Result<Toolkit> {
    let spec = ToolSpec::new("dns_resolve")
        .title("Look up DNS records")
        .description(
            "Looks up DNS records of a domain name: A, AAAA, CNAME, MX, TXT, NS, SRV, or PTR for an IP address. \
             Returns the records with their time to live.",
        )
        .read_only()
        .idempotent()
        .open_world(true)
        .output::<Answer>();
    kit.tool(spec, move |_call: Call, arguments: Lookup| {
        let resolver = resolver.clone();
        async move {
            match resolver.lookup(&arguments.name, arguments.r#type).await {
                Ok(answer) => Ok(ToolResult::structured(&answer)?),
                Err(error) => Ok(ToolResult::error(format!("{error}. {}", error.advice()))),
            }
        }
    })
}
