//! The `weir` command. What each subcommand does is in [`weir::cli`].

use std::process::ExitCode;

use clap::Parser;
use weir::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    weir::egress::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(cli::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    };
    // Whatever is still running was given its time by the command itself.
    runtime.shutdown_background();
    code
}
