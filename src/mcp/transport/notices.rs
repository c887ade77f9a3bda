//! What a long-lived stream hears from the bus: changes that its caller may know of, and the end of its right to
//! listen.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Arrival;
use crate::app::App;
use crate::caller::Caller;
use crate::credentials::Change as CredentialChange;
use crate::credentials::{CredentialRef, Refused};
use crate::mcp::Endpoint;
use crate::mcp::bus::{Bus, Change, Changed, Heard};
use crate::mcp::jsonrpc;
use crate::mcp::session::Attached;

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
    /// The place on the bus up to which revocations were heard.
    revocations: u64,
    /// When the credential is to be checked again. Set before the check is awaited: a stream may drop [`Notices::next`]
    /// for something else, and must not lose with it that it has to check.
    check_at: Option<Instant>,
}

/// Where changes come from.
enum Ear {
    /// A place on the bus.
    Own(u64),
    /// The place of a session, for the newest of its streams.
    Session(Attached),
}

/// Something on the bus.
enum News {
    Change(Heard<Change>),
    Revocation(Heard<CredentialChange>),
}

/// How long until an unsure stream checks again.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

impl Notices {
    /// Listens from now on.
    pub fn subscribe(arrival: &Arrival) -> Self {
        Self::through(arrival, Ear::Own(arrival.app.bus.changes_from_now()))
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
            revocations: arrival.app.bus.revocations_from_now(),
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
            let news = tokio::select! {
                biased;
                () = self.app.tasks.stopping().cancelled() => return None,
                () = reached(self.check_at) => {
                    // In a box: every open stream would keep room for a look-up that hardly ever happens.
                    Box::pin(self.recheck()).await?;
                    continue;
                }
                news = hear(&self.app.bus, &mut self.ear, &mut self.revocations) => news,
                () = expiry(&self.app, &self.caller), if self.check_at.is_none() => {
                    self.check_at = Some(Instant::now());
                    continue;
                }
            };
            match news {
                News::Change(Heard::News(Change { tenant, server, what })) => {
                    let mine = tenant.is_none_or(|t| t == self.caller.tenant());
                    let here = self.endpoint.0.as_ref().is_none_or(|s| *s == server);
                    if mine && here && self.caller.scopes().allows_server(&server) {
                        return Some(Notice::Changed(what));
                    }
                }
                News::Change(Heard::Missed) => return Some(Notice::Missed),
                News::Revocation(Heard::News(change)) => {
                    if change.concerns(self.caller.principal()) {
                        self.check_at = Some(Instant::now());
                    }
                }
                News::Revocation(Heard::Missed) => self.check_at = Some(Instant::now()),
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

/// The next thing on the bus. Dropping the future loses nothing.
async fn hear(bus: &Bus, ear: &mut Ear, revocations: &mut u64) -> News {
    loop {
        let mut rung = std::pin::pin!(bus.rung());
        rung.as_mut().enable();
        if let Some(revocation) = bus.next_revocation(revocations) {
            return News::Revocation(revocation);
        }
        match ear {
            Ear::Own(place) => match bus.next_change(place) {
                Some(change) => return News::Change(change),
                None => rung.await,
            },
            Ear::Session(attached) => {
                let mut changed = std::pin::pin!(attached.listeners_changed());
                changed.as_mut().enable();
                if let Some(change) = attached.hear(bus) {
                    return News::Change(change);
                }
                tokio::select! {
                    () = rung => {}
                    () = changed => {}
                }
            }
        }
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
