//! What goes wrong, and when: a queue of faults, each for the next requests that it fits. Nothing is drawn by lot.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The request is carried out, and the connection closes without an answer.
    LostResponse,
    /// The connection is reset.
    Reset,
    /// 500, which is kept for the request's idempotency key.
    ServerError,
    /// 429, and nothing is carried out.
    RateLimit,
    /// 502 with a page of HTML, as a proxy answers it.
    BadGateway,
    /// A usage event is accepted with 200 and never counted.
    DropEvent,
    /// The request takes `milliseconds` more.
    Latency,
    /// The request is on its way until somebody says [`release`](super::Standin::release), a minute at most; with `applied` its
    /// answer is.
    Hold,
    /// A webhook is delivered twice. `path` is the start of the event's type.
    DuplicateDelivery,
    /// A webhook is delivered after the one that follows it.
    ReorderDelivery,
}

/// Trouble for the next requests of a method and path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub fault: Trouble,
    /// Only for this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only for paths that begin so.
    #[serde(default)]
    pub path: String,
    /// Requests that it fits and spares first.
    #[serde(default)]
    pub skip: u32,
    /// Requests that it hits.
    #[serde(default = "once")]
    pub times: u32,
    /// With `reset`, `server_error`, `bad_gateway`, `latency` and `hold`: only after the request was carried out.
    #[serde(default)]
    pub applied: bool,
    /// How long `latency` is.
    #[serde(default)]
    pub milliseconds: u64,
}

const fn once() -> u32 {
    1
}

impl Fault {
    /// This trouble for the next request.
    #[must_use]
    pub fn new(fault: Trouble) -> Self {
        Self { fault, method: None, path: String::new(), skip: 0, times: 1, applied: false, milliseconds: 0 }
    }

    /// Only for this method, and paths that begin so.
    #[must_use]
    pub fn on(self, method: &str, path: &str) -> Self {
        Self { method: Some(method.to_owned()), path: path.to_owned(), ..self }
    }

    /// For so many requests.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Spares so many requests first.
    #[must_use]
    pub fn skip(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Only after the request was carried out.
    #[must_use]
    pub fn applied(self) -> Self {
        Self { applied: true, ..self }
    }

    /// How long it takes.
    #[must_use]
    pub fn milliseconds(self, milliseconds: u64) -> Self {
        Self { milliseconds, ..self }
    }

    fn is_of_deliveries(&self) -> bool {
        matches!(self.fault, Trouble::DuplicateDelivery | Trouble::ReorderDelivery)
    }

    fn fits(&self, method: Option<&str>, path: &str) -> bool {
        self.is_of_deliveries() == method.is_none()
            && path.starts_with(&self.path)
            && (method.is_none() || self.method.as_deref().is_none_or(|wanted| Some(wanted) == method))
    }
}

/// Takes the fault that hits this request, the first in the queue that fits; or, without a method, this delivery.
pub fn take(faults: &mut VecDeque<Fault>, method: Option<&str>, path: &str) -> Option<Fault> {
    let place = faults.iter().position(|fault| fault.fits(method, path))?;
    let fault = faults.get_mut(place)?;
    if fault.skip > 0 {
        fault.skip -= 1;
        return None;
    }
    fault.times = fault.times.saturating_sub(1);
    let hit = fault.clone();
    if hit.times == 0 {
        faults.remove(place);
    }
    Some(hit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fits_is_used_up() {
        let mut faults = VecDeque::from([
            Fault::new(Trouble::RateLimit).on("POST", "/v1/billing").skip(1).times(2),
            Fault::new(Trouble::Reset),
            Fault::new(Trouble::DuplicateDelivery),
        ]);
        let mut next = |method, path| take(&mut faults, method, path).map(|fault| fault.fault);
        assert_eq!(next(Some("POST"), "/v1/billing/meters"), None, "spared");
        assert_eq!(next(Some("POST"), "/v1/billing/meters"), Some(Trouble::RateLimit));
        assert_eq!(next(Some("GET"), "/v1/billing/meters"), Some(Trouble::Reset));
        assert_eq!(next(Some("GET"), "/v1/billing/meters"), None);
        assert_eq!(next(Some("POST"), "/v1/billing/meters"), Some(Trouble::RateLimit));
        assert_eq!(next(Some("POST"), "/v1/billing/meters"), None, "used up");
        assert_eq!(next(None, "price.created"), Some(Trouble::DuplicateDelivery));
        assert!(faults.is_empty());
    }
}
