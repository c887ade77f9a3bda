//! Transports: how messages come in and go out. They know HTTP but no tools; the core knows tools but no HTTP.
//!
//! [`post`] and friends serve `/mcp` for both eras and hand modern requests to `modern`, all others to
//! `streamable`; [`sse`] serves the two endpoints of HTTP+SSE.

mod accept;
mod admit;
mod ask;
mod body;
mod headers;
mod hearing;
mod legacy;
mod listen;
mod modern;
mod notices;
mod refuse;
mod reply;
mod run;
pub mod sse;
mod stream;
mod streamable;
mod work;

use std::sync::Arc;

use axum::response::Response;
use http::HeaderMap;

use crate::app::App;
use crate::caller::Caller;
use crate::credentials::CredentialRef;
use crate::mcp::Endpoint;

pub use hearing::get;
pub use refuse::refusal;
pub use reply::{error_response, rpc_error};
pub use streamable::{delete, post};

/// An authenticated HTTP request at an MCP endpoint.
pub struct Arrival {
    /// The state.
    pub app: Arc<App>,
    /// Who sends it.
    pub caller: Caller,
    /// How to check the sender again later.
    pub credential: CredentialRef,
    /// Which URL it came to.
    pub endpoint: Endpoint,
    /// Its headers.
    pub headers: HeaderMap,
}

/// A response, or the response that says why there is none.
type Answer = Result<Response, Response>;
