//! A hook that writes down what it is told.

use std::sync::{Arc, Mutex, PoisonError};

use weir::hooks::{CallEnd, CallStart, Hook, SessionInfo};
use weir::telemetry::labels::{Label, SessionEnd};

/// What hooks were told, in order.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    /// Everything so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Hook for Recorder {
    fn before_call(&self, call: &CallStart<'_>) {
        self.note(format!("before {}/{}", call.server, call.tool));
    }
    fn after_call(&self, call: &CallEnd<'_>) {
        self.note(format!("after {}/{}: {}", call.start.server, call.start.tool, call.outcome.text()));
    }
    fn session_opened(&self, session: &SessionInfo<'_>) {
        self.note(format!("opened {} {}", session.transport.text(), session.revision));
    }
    fn session_closed(&self, session: &SessionInfo<'_>, reason: SessionEnd) {
        self.note(format!("closed {} {}: {}", session.transport.text(), session.revision, reason.text()));
    }
}
