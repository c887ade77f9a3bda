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
use crate::mcp::bus::{Bus, Changed, Event};
use crate::mcp::jsonrpc;
use crate::mcp::session::{Attached, Heard};

/// Something that a stream may have to pass on.
pub enum Notice {
    /// This changed.
    Changed(Changed),
    /// The stream fell behind: anything may have changed.
    Missed,
}

/// The bus as one caller at one URL hears it.
pub struct Notices {
    app: Arc<App>,
    caller: Caller,
    credential: CredentialRef,
    endpoint: Endpoint,
    ear: Ear,
    /// When the credential is to be checked again. Set before the check is awaited: a stream may drop [`Notices::next`]
    /// for something else, and must not lose with it that it has to check.
    check_at: Option<Instant>,
}

/// Where events come from.
enum Ear {
    /// A place on the bus.
    Own(Receiver<Event>),
    /// The place of a session, for the newest of its streams.
    Session(Attached),
}

impl Ear {
    /// The next event; nothing when there can be no more. Dropping the future loses nothing.
    async fn next(&mut self, bus: &Bus) -> Option<Heard> {
        match self {
            Self::Own(events) => match events.recv().await {
                Ok(event) => Some(Heard::Event(event)),
                Err(RecvError::Lagged(_)) => {
                    *events = events.resubscribe();
                    Some(Heard::Missed)
                }
                Err(RecvError::Closed) => None,
            },
            Self::Session(attached) => loop {
                let (rung, changed) = (bus.rung(), attached.listeners_changed());
                tokio::pin!(rung, changed);
                rung.as_mut().enable();
                changed.as_mut().enable();
                if let Some(heard) = attached.hear() {
                    return Some(heard);
                }
                tokio::select! {
                    () = rung => {}
                    () = changed => {}
                }
            },
        }
    }
}

/// How long until an unsure stream checks again.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

impl Notices {
    /// Listens from now on.
    pub fn subscribe(arrival: &Arrival) -> Self {
        Self::through(arrival, Ear::Own(arrival.app.bus.subscribe()))
    }

    /// Listens for a session, where its last stream left off.
    pub fn of_session(arrival: &Arrival, attached: Attached) -> Self {
        Self::through(arrival, Ear::Session(attached))
    }

    fn through(arrival: &Arrival, ear: Ear) -> Self {
        Self {
            app: arrival.app.clone(),
            caller: arrival.caller.clone(),
            credential: arrival.credential.clone(),
            endpoint: arrival.endpoint.clone(),
            ear,
            check_at: None,
        }
    }

    /// The state.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The next notice; `None` when the stream must end, because Weir stops or the credential does.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            let heard = tokio::select! {
                biased;
                () = self.app.tasks.stopping().cancelled() => return None,
                () = reached(self.check_at) => {
                    // In a box: every open stream would keep room for a look-up that hardly ever happens.
                    Box::pin(self.recheck()).await?;
                    continue;
                }
                heard = self.ear.next(&self.app.bus) => heard?,
                () = expiry(&self.app, &self.caller), if self.check_at.is_none() => {
                    self.check_at = Some(Instant::now());
                    continue;
                }
            };
            match heard {
                Heard::Event(Event::Changed { tenant, server, what }) => {
                    let mine = tenant.is_none_or(|t| t == self.caller.tenant());
                    let here = self.endpoint.0.as_ref().is_none_or(|s| *s == server);
                    if mine && here && self.caller.scopes().allows_server(&server) {
                        return Some(Notice::Changed(what));
                    }
                }
                Heard::Event(Event::Revoked(change)) => {
                    if change.concerns(self.caller.principal()) {
                        self.check_at = Some(Instant::now());
                    }
                }
                Heard::Missed => {
                    self.check_at = Some(Instant::now());
                    return Some(Notice::Missed);
                }
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
