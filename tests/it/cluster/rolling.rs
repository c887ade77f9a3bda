//! A new version is rolled out, one replica after the other, and nobody notices.

use super::load::Load;
use crate::support::cluster::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_costs_no_modern_request_and_no_legacy_answer() {
    let mut cluster = Cluster::build().set("mcp.retry_ms", 100).start().await;
    let load = Load::start(&cluster).await;
    for replica in 0..3 {
        cluster.terminate(replica);
        assert!(cluster.ended(replica).await.success(), "replica {replica} stops in good order");
        cluster.restart(replica).await;
        cluster.is_whole().await;
        load.is_green("the restart of a replica").await;
    }
    // Nothing may be lost at all. The balancer goes to another replica where a connection is refused, nobody else does.
    load.stop(|_| false).await;
}
