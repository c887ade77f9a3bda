//! What a long-lived stream hears from the bus: changes that its caller may know of, and the end of its right to
//! listen.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::Arrival;
use crate::app::App;
use crate::caller::Caller;
use crate::credentials::{CredentialRef, Refused};
use crate::mcp::Endpoint;
use crate::mcp::bus::{Changed, Event};
use crate::mcp::jsonrpc;

/// Something that a stream may have to pass on.
pub enum Notice {
    /// This changed.
    Changed(Changed),
    /// The stream fell behind: anything may have changed.
    Missed,
}

/// Who listens, and where.
#[derive(Clone)]
pub struct Listener {
    app: Arc<App>,
    caller: Caller,
    credential: CredentialRef,
    endpoint: Endpoint,
}

impl Listener {
    /// Whoever sent this request.
    pub fn of(arrival: &Arrival) -> Self {
        Self {
            app: arrival.app.clone(),
            caller: arrival.caller.clone(),
            credential: arrival.credential.clone(),
            endpoint: arrival.endpoint.clone(),
        }
    }

    /// The state.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }
}

/// The bus as one caller at one URL hears it.
pub struct Notices {
    app: Arc<App>,
    caller: Caller,
    credential: CredentialRef,
    endpoint: Endpoint,
    events: Receiver<Event>,
    /// When the credential is to be checked again. Set before the check is awaited: a stream may drop [`Notices::next`]
    /// for something else, and must not lose with it that it has to check.
    check_at: Option<Instant>,
}

/// How long until an unsure stream checks again.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

impl Notices {
    /// Listens from now on.
    pub fn subscribe(arrival: &Arrival) -> Self {
        Self::resume(Listener::of(arrival), arrival.app.bus.subscribe())
    }

    /// Listens on where another stream left off.
    pub fn resume(listener: Listener, events: Receiver<Event>) -> Self {
        let Listener { app, caller, credential, endpoint } = listener;
        Self { app, caller, credential, endpoint, events, check_at: None }
    }

    /// What was not heard yet, for another stream.
    pub fn into_events(self) -> Receiver<Event> {
        self.events
    }

    /// The next notice; `None` when the stream must end, because Weir stops or the credential does.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            let event = tokio::select! {
                biased;
                () = self.app.tasks.stopping().cancelled() => return None,
                () = reached(self.check_at) => {
                    self.recheck().await?;
                    continue;
                }
                event = self.events.recv() => event,
                () = expiry(&self.app, &self.caller), if self.check_at.is_none() => {
                    self.check_at = Some(Instant::now());
                    continue;
                }
            };
            match event {
                Ok(Event::Changed { tenant, server, what }) => {
                    let mine = tenant.is_none_or(|t| t == self.caller.tenant());
                    let here = self.endpoint.0.as_ref().is_none_or(|s| *s == server);
                    if mine && here && self.caller.scopes().allows_server(&server) {
                        return Some(Notice::Changed(what));
                    }
                }
                Ok(Event::Revoked(change)) => {
                    if change.concerns(self.caller.principal()) {
                        self.check_at = Some(Instant::now());
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    self.check_at = Some(Instant::now());
                    return Some(Notice::Missed);
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Whether the credential is still good; takes over its new scopes. While that cannot be found out the stream stays.
    async fn recheck(&mut self) -> Option<()> {
        match self.app.credentials.resolve_reference(&self.credential).await {
            Ok(caller) => {
                self.caller = caller;
                self.check_at = None;
            }
            Err(Refused::Unavailable) => self.check_at = Some(Instant::now() + CHECK_AGAIN),
            Err(Refused::Invalid | Refused::Suspended { .. }) => return None,
        }
        Some(())
    }
}

/// Returns at this instant; never where there is none.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Returns when the caller's credential has come to its end; never where it has none.
async fn expiry(app: &App, caller: &Caller) {
    match caller.data().expires_at {
        None => std::future::pending().await,
        Some(end) => {
            let left = end.as_micros().saturating_sub(app.clock.now().as_micros());
            tokio::time::sleep(Duration::from_micros(u64::try_from(left).unwrap_or(0))).await;
        }
    }
}

/// The notification for a change, with further members of `params` (each as `"name":value`).
#[must_use]
pub fn notification(what: &Changed, extra: &str) -> String {
    let wrap = |fields: &str| match (fields.is_empty(), extra.is_empty()) {
        (true, true) => None,
        (false, false) => Some(format!("{{{fields},{extra}}}")),
        _ => Some(format!("{{{fields}{extra}}}")),
    };
    let (method, params) = match what {
        Changed::Tools => ("notifications/tools/list_changed", wrap("")),
        Changed::Prompts => ("notifications/prompts/list_changed", wrap("")),
        Changed::Resources => ("notifications/resources/list_changed", wrap("")),
        Changed::Resource(uri) => {
            let uri = serde_json::Value::from(&**uri);
            ("notifications/resources/updated", wrap(&format!("\"uri\":{uri}")))
        }
    };
    jsonrpc::notification(method, params.as_deref())
}

/// What to assume changed when notices were missed, by a listener with these subscriptions.
pub fn everything<'a>(subscriptions: impl Iterator<Item = &'a Box<str>>) -> impl Iterator<Item = Changed> {
    let lists = [Changed::Tools, Changed::Prompts, Changed::Resources];
    lists.into_iter().chain(subscriptions.map(|uri| Changed::Resource(uri.clone().into())))
}
