//! A replica that is cut off from Redis for longer than what it has to say may wait.

use redis::streams::StreamRangeReply;
use serde_json::json;

use crate::support::fault::Fault;
use crate::support::flavours::Server;
use crate::support::services::{self, Deployment};
use crate::support::{Gateway, Legacy, eventually};

/// Numbers that the call counts, and the time from one to the next.
const STEPS: i64 = 40;
const DELAY_MS: u32 = 200;

/// The numbers of the events that are kept of the only stream of a call.
async fn kept(server: &Server) -> Vec<i64> {
    let keys: Vec<String> = server.ask("KEYS *}:ses_*:*").await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    let log: StreamRangeReply = server.ask(&format!("XRANGE {} - +", keys[0])).await;
    let number = |id: &str| id.strip_prefix("1-").map(|number| number.parse().expect("a number"));
    log.ids.iter().filter_map(|entry| number(&entry.id)).collect()
}

#[tokio::test]
async fn what_a_stream_said_meanwhile_is_written_down_when_it_is_back() {
    services::needed("WEIR_TEST_POSTGRES");
    let server = Server::node(None, "").await;
    let way = Fault::on_the_way_to(server.address());
    let deployment = Deployment::replicated(server.url(server.address())).await;
    let a = Gateway::build().on(deployment).set("redis.url", server.url(way.address)).start().await;
    let b = a.replica().start().await;
    let session = Legacy::open(&a, &a.caller().await, "2025-11-25").await;
    let count = session.draft_call("slow_count", &json!({ "steps": STEPS, "delay_ms": DELAY_MS }));
    let mut events = count.progress(json!("p")).stream().await;
    let first = events.next().await.expect("progress").id.expect("an id");
    drop(events);
    way.cut();
    eventually("something to be dropped", async || a.metric("weir_messages_dropped_total") > 0.0).await;
    way.heal();
    eventually("a stream without gaps", async || {
        let kept = kept(&server).await;
        kept.len() > 10 && kept.windows(2).all(|two| two[0] + 1 == two[1])
    })
    .await;
    let rest = session.at(&b).draft_resume(&first).stream().await.rest().await;
    let steps: Vec<_> = rest.iter().filter_map(|said| said["params"]["progress"].as_i64()).collect();
    assert_eq!(steps, Vec::from_iter(2..=STEPS));
    assert_eq!(
        rest.last().expect("an answer")["result"]["content"][0]["text"],
        format!("counted to {STEPS}")
    );
    assert_eq!(a.metric("weir_redis_refused_total"), 0.0);
}
