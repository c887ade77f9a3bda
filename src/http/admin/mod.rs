//! The admin API, `/admin/v1`: what an operator does with tenants and their credentials. `docs/API.md` has the shapes.
//!
//! Conventions: ids with prefixes; lists as `{"data": [...], "next_cursor": ...}`; errors as problem details; every
//! change leaves an audit entry; a thing of another tenant does not exist.

pub mod accounts;
pub mod audit;
pub mod grants;
pub mod keys;
pub mod plans;
pub mod sessions;
pub mod tenants;
pub mod usage;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::db::{Listed, Page};

/// Entries of a page where the request does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Most entries of a page.
const MAX_LIMIT: u32 = 200;

/// `?limit=&cursor=` of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    limit: Option<u32>,
    cursor: Option<String>,
}

impl PageQuery {
    fn page<Id: FromStr>(&self) -> Result<Page<Id>, Problem> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::bad_request(format!("limit: expected 1 to {MAX_LIMIT}")));
        }
        let wrong = |_| Problem::bad_request("cursor: not one that this list handed out; start without one");
        let after = self.cursor.as_deref().map(Id::from_str).transpose().map_err(wrong)?;
        Ok(Page { after, limit })
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub struct PageBody<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> PageBody<T> {
    fn new<R>(listed: Listed<R>, id: impl Fn(&R) -> String, body: impl Fn(R) -> T) -> Self {
        let next_cursor = listed.rows.last().filter(|_| listed.more).map(id);
        Self { data: listed.rows.into_iter().map(body).collect(), next_cursor }
    }
}
