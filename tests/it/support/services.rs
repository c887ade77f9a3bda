//! What the suite runs on: SQLite and one process by default; PostgreSQL where `WEIR_TEST_POSTGRES` names a server; and
//! with `WEIR_TEST_REPLICAS` so many replicas of each gateway that share Redis at `WEIR_TEST_REDIS_URL` as well.

use super::cluster::{authority, through};
use super::database::Database;
use super::fault::Fault;

/// How many replicas of each gateway stand behind its balancer; `None`: there is one, and no balancer.
pub fn replicas() -> Option<usize> {
    variable("WEIR_TEST_REPLICAS").map(|text| text.parse().expect("WEIR_TEST_REPLICAS is a number"))
}

/// A variable of the test suite.
pub fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "names a service for tests, not a setting of Weir")]
    std::env::var(name).ok()
}

/// A variable that the recipe must set. A story that needs it is not for recipes that do not.
pub fn needed(name: &str) -> String {
    variable(name).unwrap_or_else(|| panic!("{name} is not set: run this under scripts/with-services"))
}

/// What replicas of one gateway share. The database goes away with this value.
pub struct Deployment {
    database: Database,
    /// The URL of a Redis, and what every key of this deployment begins with.
    redis: Option<(String, String)>,
}

impl Deployment {
    /// A fresh one on what the suite runs on.
    pub async fn new() -> Self {
        if variable("WEIR_TEST_REPLICAS").is_none() {
            return Self::of_one_process().await;
        }
        needed("WEIR_TEST_POSTGRES");
        Self::replicated(needed("WEIR_TEST_REDIS_URL")).await
    }

    /// A fresh one of a process without others.
    pub async fn of_one_process() -> Self {
        Self { database: Database::new().await, redis: None }
    }

    /// A fresh one that shares the Redis at this URL.
    pub async fn replicated(redis: String) -> Self {
        let prefix = format!("it-{}", uuid::Uuid::now_v7().simple());
        Self { database: Database::new().await, redis: Some((redis, prefix)) }
    }

    /// A fresh one on PostgreSQL alone, and the way to it.
    pub async fn behind_a_fault() -> (Self, Fault) {
        needed("WEIR_TEST_POSTGRES");
        let mut database = Database::new().await;
        let way = Fault::on_the_way_to(authority(&database.url));
        database.url = through(&database.url, way.address);
        (Self { database, redis: None }, way)
    }

    /// Where its database is.
    pub fn database_url(&self) -> &str {
        &self.database.url
    }

    /// Where it is, as settings.
    pub fn flags(&self) -> Vec<(String, String)> {
        let mut flags = vec![("database.url", self.database.url.as_str())];
        if let Some((url, prefix)) = &self.redis {
            flags.extend([("redis.url", url.as_str()), ("redis.prefix", prefix.as_str())]);
        }
        flags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}
