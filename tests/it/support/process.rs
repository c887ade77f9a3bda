//! A process under the test's control. It goes with its value, whatever happened.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long a process may take until it is ready, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked for a process's end.
const LOOK: Duration = Duration::from_millis(5);
/// How much of what it said is kept, for whoever has to find out what went wrong.
const KEPT_LINES: usize = 400;

/// A process that runs, or has ended.
pub struct Process {
    name: String,
    child: Child,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts it and waits for the first line that holds `ready`, on stdout or stderr.
    pub async fn start(name: &str, mut command: Command, ready: &'static str) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let is_ready = watch::Sender::new(false);
        let mut readiness = is_ready.subscribe();
        let outputs: [Option<Box<dyn Read + Send>>; 2] =
            [child.stdout.take().map(|o| Box::new(o) as _), child.stderr.take().map(|e| Box::new(e) as _)];
        for output in outputs.into_iter().flatten() {
            let (said, is_ready) = (said.clone(), is_ready.clone());
            std::thread::spawn(move || listen(output, &said, &is_ready, ready));
        }
        drop(is_ready);
        let process = Self { name: name.to_owned(), child, said };
        let is_ready = tokio::time::timeout(PATIENCE, readiness.wait_for(|is_ready| *is_ready)).await;
        // The sender is gone as soon as the process has ended.
        assert!(matches!(is_ready, Ok(Ok(_))), "{name} is not ready; it said:\n{}", process.said());
        process
    }

    /// The end of what it has said so far.
    pub fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Sends a signal: TERM, KILL, STOP, CONT, ...
    pub fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success(), "{} has ended", self.name);
    }

    /// Sends a signal on which it ends, and waits without a runtime: for destructors.
    pub fn end_by(&mut self, signal: &str) {
        let _ = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && since.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let polled = async {
            loop {
                // A signal handler of tokio's for children would need a feature that only tests use.
                if let Some(status) = self.child.try_wait().expect("a child") {
                    return status;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, polled).await;
        ended.unwrap_or_else(|_| panic!("{} does not end; it said:\n{}", self.name, self.said()))
    }

    /// Ends it at once.
    pub async fn kill(&mut self) {
        let _ = self.child.kill();
        self.ended().await;
    }
}

/// Reads what the process says, until it ends.
fn listen(output: impl Read, said: &Mutex<VecDeque<String>>, is_ready: &watch::Sender<bool>, ready: &str) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let found = line.contains(ready);
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == KEPT_LINES {
            said.pop_front();
        }
        said.push_back(line);
        drop(said);
        if found {
            is_ready.send_replace(true);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.said());
        }
    }
}
