//! Where clients come in.

use super::gateway;

/// Something that clients can be pointed at.
pub trait Entrance {
    /// What sends their requests.
    fn http(&self) -> &reqwest::Client;
    /// `http://ADDRESS`.
    fn url(&self) -> &str;
}

/// A replica, or a balancer.
#[derive(Debug, Clone)]
pub struct Door {
    http: reqwest::Client,
    url: String,
}

impl Door {
    /// The one at this address.
    pub fn at(address: std::net::SocketAddr) -> Self {
        Self { http: gateway::client(), url: format!("http://{address}") }
    }

    /// The same as another entrance, without what is behind it.
    pub fn like(entrance: &impl Entrance) -> Self {
        Self { http: entrance.http().clone(), url: entrance.url().to_owned() }
    }
}

impl Entrance for Door {
    fn http(&self) -> &reqwest::Client {
        &self.http
    }

    fn url(&self) -> &str {
        &self.url
    }
}
