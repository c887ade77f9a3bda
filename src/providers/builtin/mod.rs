//! The built-in pack, server `core`: what every tenant has from the start.

mod account;
mod calls;
mod dns;
mod prompts;
mod usage;

use std::sync::{Arc, OnceLock, Weak};

use super::{Provider, Registry, Toolkit};
use crate::clock::Clock;
use crate::config;
use crate::db::Db;
use crate::dns::Resolver;
use crate::error::{Error, Result};
use crate::usage::Usage;

/// The pack's server name.
pub const SERVER: &str = "core";
/// Servers and names of its tools that are free under any prices.
pub const FREE_TOOLS: [(&str, &str); 2] = [(SERVER, "get_status"), (SERVER, usage::NAME)];

/// What the pack looks things up in.
#[derive(Clone)]
pub struct Core {
    /// Records of calls.
    pub db: Db,
    /// Brings records that are still on their way into the database.
    pub usage: Usage,
    /// What day it is.
    pub clock: Clock,
    /// What there is to call; set once it is known.
    pub registry: Arc<OnceLock<Weak<Registry>>>,
}

impl Core {
    /// With these; what there is to call is not known yet.
    #[must_use]
    pub fn new(db: &Db, usage: &Usage, clock: &Clock) -> Self {
        Self { db: db.clone(), usage: usage.clone(), clock: clock.clone(), registry: Arc::default() }
    }
}

/// The pack.
///
/// # Errors
/// Where the configured DNS servers cannot be used.
pub fn provider(core: &Core, tools: &config::Tools) -> Result<Arc<dyn Provider>> {
    let resolver = Resolver::new(&tools.dns).map_err(|e| Error::Invalid(format!("tools.dns: {e}")))?;
    let kit = Toolkit::new(SERVER);
    let kit = dns::add(kit, resolver)?;
    let kit = account::add(kit, core)?;
    let kit = calls::add(kit, core)?;
    let kit = usage::add(kit, core)?;
    Ok(prompts::add(kit)?.build())
}
