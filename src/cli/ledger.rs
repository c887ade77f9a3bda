//! `weir ledger`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{ConfigArgs, Failure, explain, print_json, print_table, tenant_of};
use crate::clock::Clock;
use crate::ledger::verify::{self, Options, Report};
use crate::providers::builtin;

/// Arguments of `weir ledger`.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Check that every charge follows from its prices, that all sums are right, and that what is owed was told to Stripe or waits to
    /// be; exit code 1 if not. Changes nothing
    Verify {
        /// Only this tenant: its id, tn_..., or its name
        #[arg(long)]
        tenant: Option<String>,
        /// One JSON object instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

pub(super) async fn run(args: LedgerArgs) -> Result<(), Failure> {
    let LedgerCommand::Verify { tenant, json, config } = args.command;
    let replay = config.clone().load(Vec::new())?.metering.replay_hours;
    let store = config.database().await?;
    let tenant = match &tenant {
        Some(text) => Some(tenant_of(&store.db, text).await?),
        None => None,
    };
    let replay = Duration::from_secs(u64::from(replay) * 3600);
    let options = Options { tenant, free: &builtin::FREE_TOOLS, replay };
    let report = verify::verify(&store.db, &Clock::system(), &options).await.map_err(explain)?;
    if json {
        print_json(&report)?;
    } else {
        print(&report);
    }
    let wrong = report.checks.iter().filter(|finding| finding.wrong > 0).count();
    if wrong > 0 {
        return Err(format!("{wrong} of {} checks found something wrong", report.checks.len()).into());
    }
    Ok(())
}

fn print(report: &Report) {
    let rows: Vec<_> = report
        .checks
        .iter()
        .map(|finding| {
            let (looked, wrong) = (finding.looked.to_string(), finding.wrong.to_string());
            [finding.check.to_owned(), looked, wrong, finding.text.to_owned()]
        })
        .collect();
    print_table(["CHECK", "LOOKED AT", "WRONG", "WHAT"], &rows);
    for finding in report.checks.iter().filter(|finding| finding.wrong > 0) {
        say!("\n{}: {} wrong, such as", finding.check, finding.wrong);
        for example in &finding.examples {
            say!("  {example}");
        }
    }
    for note in &report.notes {
        say!("\nnote: {note}");
    }
}
