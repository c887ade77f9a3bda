//! `weir health`: for container health checks, which have no curl.

use std::time::Duration;

use clap::Args;

use super::Failure;
use crate::egress;

/// Arguments of `weir health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// What to ask
    #[arg(long, default_value = "http://127.0.0.1:8080/health")]
    url: String,
}

pub(super) async fn run(args: HealthArgs) -> Result<(), Failure> {
    let client = egress::client(Duration::from_secs(3))?;
    let response =
        client.get(&args.url).send().await.map_err(|e| format!("{}: {}", args.url, e.without_url()))?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("{} answered {status}", args.url).into());
    }
    say!("ok");
    Ok(())
}
