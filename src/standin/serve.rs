//! Connections and requests: who asks, what, whether it may, what goes wrong on the way, and the answer.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::answer::{Answer, Outcome};
use super::api::{self, Route};
use super::fault::{self, Fault, Trouble};
use super::refusal::Refusal;
use super::world::{Call, Seen, World};
use super::{Shared, control, form, idempotency, schema};

/// Connections at once; further ones wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 256;
/// The largest body.
const LARGEST_BODY: usize = 1024 * 1024;
/// How long a head, and then a body, may take to come.
const SLOWEST: Duration = Duration::from_secs(10);

/// Accepts connections until the stand-in stops.
pub async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let stop = shared.tasks.stopping().clone();
    let accepting = async {
        loop {
            let place = places.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    shared.tasks.clone().spawn(async move {
                        let stop = shared.tasks.stopping().clone();
                        stop.run_until_cancelled(connection(shared, stream)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await.unwrap_or(());
}

/// What a request came to that gets no answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer, on purpose")]
struct NoAnswer;

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    // Refused options cost time, nothing else.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let told = reset.clone();
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (shared, told) = (shared.clone(), told.clone());
        Box::pin(async move {
            match whole(shared, request).await {
                Outcome::Answer(answer) => Ok(answer.into_response()),
                Outcome::Close => Err(NoAnswer),
                Outcome::Reset => {
                    told.store(true, Ordering::Release);
                    Err(NoAnswer)
                }
            }
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SLOWEST)
        .serve_connection(TokioIo::new(stream), service);
    let ended = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    let stream = connection.into_parts().io.into_inner();
    if reset.load(Ordering::Acquire) {
        let _ = stream.set_zero_linger();
    }
}

/// Reads the request and answers it in a task: it goes on when the client goes away.
async fn whole(shared: Arc<Shared>, request: http::Request<Incoming>) -> Outcome {
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(SLOWEST, Limited::new(body, LARGEST_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let refusal = Refusal::plain(StatusCode::PAYLOAD_TOO_LARGE, "The request's body is too large.");
            return Outcome::Answer(Answer::from(&refusal));
        }
        _ => return Outcome::Close,
    };
    let tasks = shared.tasks.clone();
    let answered = tasks.spawn(async move {
        if parts.uri.path().starts_with("/v1/") {
            answer(&shared, &parts, &body).await
        } else {
            Outcome::Answer(control::answer(&shared, &parts, &body))
        }
    });
    answered.await.unwrap_or(Outcome::Close)
}

/// A request of which the stand-in has taken note, and that may be carried out.
struct Begun {
    route: &'static Route,
    call: Call,
    expand: Vec<String>,
    lane: Option<(String, String)>,
}

async fn answer(shared: &Arc<Shared>, parts: &Parts, body: &Bytes) -> Outcome {
    // Under one lock: who is seen to have come has its place, unless it is held up on the way.
    let (id, fault, begun) = {
        let mut world = shared.world();
        let id = world.ids.next("req");
        world.see(seen(parts, body));
        if let Some(Err(error)) = world.records.as_mut().map(|records| records.write(parts, body)) {
            let message = format!("The stand-in cannot record requests: {error}");
            let refusal = Refusal::plain(StatusCode::INSUFFICIENT_STORAGE, message);
            return Outcome::Answer(Answer::from(&refusal));
        }
        let fault = fault::take(&mut world.faults, Some(parts.method.as_str()), parts.uri.path());
        if let Some(outcome) = fault.as_ref().and_then(|fault| instead(fault, &id)) {
            return outcome;
        }
        let is_held = is_held(&fault, false);
        let begun = (!is_held).then(|| begin(&mut world, parts, body, &id));
        (id, fault, begun)
    };
    let begun = match begun {
        Some(begun) => begun,
        None => {
            shared.held.wait(&shared.tasks).await;
            begin(&mut shared.world(), parts, body, &id)
        }
    };
    let answer = match begun {
        Ok(begun) => {
            wait(shared, &fault, false).await;
            let answer = finish(&mut shared.world(), &begun, &fault);
            shared.wake.notify_one();
            wait(shared, &fault, true).await;
            if let Some(lane) = &begun.lane {
                shared.world().busy.remove(lane);
            }
            answer
        }
        Err(answer) => answer,
    };
    if is_held(&fault, true) {
        shared.held.wait(&shared.tasks).await;
    }
    match fault.map(|fault| fault.fault) {
        Some(Trouble::LostResponse) => Outcome::Close,
        Some(Trouble::Reset) => Outcome::Reset,
        Some(Trouble::BadGateway) => Outcome::Answer(Answer::bad_gateway()),
        _ => Outcome::Answer(dress(answer.with("request-id", &id), parts)),
    }
}

/// What comes in the place of all work.
fn instead(fault: &Fault, id: &str) -> Option<Outcome> {
    match fault.fault {
        Trouble::Reset if !fault.applied => Some(Outcome::Reset),
        Trouble::BadGateway if !fault.applied => Some(Outcome::Answer(Answer::bad_gateway())),
        Trouble::RateLimit => {
            // STANDIN-RATE-1
            let message = "Too many requests in a short time: please slow down.";
            let answer = Answer::from(&Refusal::too_many("rate_limit", message));
            Some(Outcome::Answer(answer.with("request-id", id)))
        }
        _ => None,
    }
}

async fn wait(shared: &Shared, fault: &Option<Fault>, applied: bool) {
    if let Some(fault) = fault.as_ref().filter(|f| f.fault == Trouble::Latency && f.applied == applied) {
        let pause = tokio::time::sleep(Duration::from_millis(fault.milliseconds));
        shared.tasks.stopping().run_until_cancelled(pause).await;
    }
}

fn is_held(fault: &Option<Fault>, applied: bool) -> bool {
    fault.as_ref().is_some_and(|fault| fault.fault == Trouble::Hold && fault.applied == applied)
}

fn seen(parts: &Parts, body: &Bytes) -> Seen {
    let query = parts.uri.query().unwrap_or_default();
    let form = String::from_utf8_lossy(body);
    let glue = if query.is_empty() || form.is_empty() { "" } else { "&" };
    Seen {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        params: format!("{query}{glue}{form}"),
        key: header(parts, "idempotency-key").map(str::to_owned),
    }
}

fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name)?.to_str().ok()
}

/// What answers carry besides their id.
fn dress(answer: Answer, parts: &Parts) -> Answer {
    let version = header(parts, "stripe-version").unwrap_or(super::API_VERSION.as_str());
    let answer = answer.with("stripe-version", version);
    match header(parts, "idempotency-key").filter(|_| parts.method == Method::POST) {
        Some(key) => answer.with("idempotency-key", key),
        None => answer,
    }
}

/// Key, version, path, permission, parameters, idempotency key, and the lane of a usage event, in this order.
fn begin(world: &mut World, parts: &Parts, body: &Bytes, id: &str) -> Result<Begun, Answer> {
    let (begun, tree) = read(world, parts, body, id).map_err(|refusal| Answer::from(&refusal))?;
    // STANDIN-RATE-2
    if let Some(lane) = &begun.lane
        && world.busy.contains(lane)
    {
        let message = "Another request for this customer and meter is being processed: send one at a time.";
        return Err(Answer::from(&Refusal::too_many("lock_timeout", message)));
    }
    if let Some(key) = &begun.call.key {
        match idempotency::claim(world, key, &begun.call.path, &tree) {
            Ok(None) => {}
            Ok(Some(answer)) => return Err(answer),
            Err(refusal) => return Err(Answer::from(&refusal)),
        }
    }
    world.busy.extend(begun.lane.clone());
    Ok(begun)
}

fn read(world: &World, parts: &Parts, body: &Bytes, id: &str) -> Result<(Begun, String), Refusal> {
    let key = world.keys.of(&parts.headers)?;
    let version = header(parts, "stripe-version");
    if parts.headers.contains_key("stripe-version") && !version.is_some_and(is_version) {
        let message = format!("Invalid Stripe API version: {}", version.unwrap_or_default());
        return Err(Refusal::plain(StatusCode::BAD_REQUEST, message));
    }
    let path = parts.uri.path();
    let (route, ids) = api::find(&parts.method, path)?;
    world.keys.permit(&key, &parts.method, route.resource)?;
    let media_type = header(parts, "content-type").unwrap_or_default();
    if !body.is_empty() && !media_type.starts_with("application/x-www-form-urlencoded") {
        let message =
            "Invalid request (check that your POST content type is application/x-www-form-urlencoded).";
        return Err(Refusal::plain(StatusCode::BAD_REQUEST, message));
    }
    let query = form::parse(parts.uri.query().unwrap_or_default().as_bytes())?;
    let mut tree = form::merge(query, form::parse(body)?);
    let text = Value::Object(tree.clone()).to_string();
    let expand = paths(tree.remove("expand"))?;
    let params = schema::read(route.fields, &tree)?;
    let lane = (path == api::EVENTS).then(|| api::lane(world, &params)).flatten();
    let call = call(parts, (ids, params), id);
    Ok((Begun { route, call, expand, lane }, text))
}

fn call(parts: &Parts, asked: (Vec<(&'static str, String)>, Map<String, Value>), id: &str) -> Call {
    // Elsewhere they have no effect.
    let key = header(parts, "idempotency-key").filter(|_| parts.method == Method::POST);
    Call {
        ids: asked.0,
        params: asked.1,
        path: parts.uri.path().to_owned(),
        request: id.to_owned(),
        key: key.map(str::to_owned),
    }
}

fn paths(expand: Option<Value>) -> Result<Vec<String>, Refusal> {
    let Some(expand) = expand else { return Ok(Vec::new()) };
    let paths =
        expand.as_array().and_then(|all| all.iter().map(|one| one.as_str().map(str::to_owned)).collect());
    paths.ok_or_else(|| Refusal::invalid(None, "expand", "Invalid array"))
}

/// `2026-10-28`, and perhaps a word after a dot.
fn is_version(text: &str) -> bool {
    let (date, word) = text.split_once('.').unwrap_or((text, "x"));
    date.parse::<jiff::civil::Date>().is_ok()
        && date.len() == 10
        && !word.is_empty()
        && word.bytes().all(|letter| letter.is_ascii_alphanumeric())
}

/// Carries the request out, and keeps the answer for its key.
fn finish(world: &mut World, begun: &Begun, fault: &Option<Fault>) -> Answer {
    let is = |trouble| fault.as_ref().filter(|fault| fault.fault == trouble);
    let failing = is(Trouble::ServerError);
    world.dropping = is(Trouble::DropEvent).is_some();
    let done = match failing {
        Some(fault) if !fault.applied => Err(Refusal::trouble()),
        Some(_) => run(world, begun).and_then(|_| Err(Refusal::trouble())),
        None => run(world, begun),
    };
    world.dropping = false;
    let answer = match &done {
        Ok(object) => Answer::json(StatusCode::OK, object),
        Err(refusal) => Answer::from(refusal),
    };
    if let Some(key) = &begun.call.key {
        let kept = answer.clone().with("request-id", &begun.call.request);
        idempotency::settle(world, key, &kept, done.as_ref().map_or_else(|refusal| refusal.begun, |_| true));
    }
    answer
}

fn run(world: &mut World, begun: &Begun) -> api::Done {
    let mut object = (begun.route.run)(world, &begun.call)?;
    api::expand(world, &mut object, &begun.expand)?;
    Ok(object)
}

/// The world's lock. One that a panic has left behind is taken over: each operation leaves the world whole.
pub fn lock(world: &Mutex<World>) -> std::sync::MutexGuard<'_, World> {
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
