//! The rules of one export: when its event is sent, sent again, read back, and given up.
//!
//! What the provider promises (<https://docs.stripe.com/api/billing/meter-event/create>, and `docs/BILLING.md`): an identifier
//! is known for at least 24 hours, so within that time the same event may be sent again; an event that was accepted is not yet
//! counted; sums come late, and nobody says how late. So: the same identifier again for [`AGAIN`] and no longer; then nothing
//! but reading. A slot that shows the amount is proven. One that shows nothing says something only after [`QUIET`], and when
//! an event that was sent later, to an account of our own, is counted already; then the event is made anew. Anything else is
//! drift: the slot is frozen, and what it counts is set right by another export. When in doubt, too little is billed.

use std::time::Duration;

use super::{Answer, Event, Export, ExportState};
use crate::clock::Timestamp;
use crate::credits::Credits;

/// How long after its first try an event may be sent again under its identifier: less than the 24 hours for which that is
/// known, by far more than clocks differ.
pub const AGAIN: Duration = Duration::from_secs(20 * 3600);
/// How long after its last try an event that is not counted may be taken for lost: more than an identifier is known.
pub const QUIET: Duration = Duration::from_secs(26 * 3600);
/// The provider takes no event that is older than 35 days; this leaves a day.
pub const OLDEST: Duration = Duration::from_secs(34 * 24 * 3600);

/// How long before its invoice is final a slot is taken not to take events any more.
pub const MARGIN: Duration = Duration::from_secs(600);

/// The first and the longest pause between tries of an event.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// When what was accepted is read back, and how often again.
const FIRST_LOOK: Duration = Duration::from_secs(120);
const LONGEST_LOOK: Duration = Duration::from_secs(3600);
/// How long until an event that was refused is tried again: somebody has to do something first.
const REFUSED: Duration = Duration::from_secs(3600);

/// What is to be done about an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Send its event. Whether an earlier try may have been taken.
    Send { again: bool },
    /// Read back what is counted.
    Read,
    /// Its slot takes no events any more, and none was sent.
    GiveUp,
    /// Nothing.
    Nothing,
}

/// What a reading showed, beside the amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// What is counted in the slot.
    pub counted: Credits,
    /// When the newest event of our own account was accepted that is counted.
    pub canary: Option<Timestamp>,
    /// Whether the slot still takes events.
    pub takes_events: bool,
}

/// What is to be told to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The provider counts something else than it was told.
    Drift,
    /// The provider does not take an event.
    Refused,
}

impl Export {
    /// The event as it is sent.
    pub(super) fn event(&self, customer: &str) -> Event {
        Event {
            identifier: format!("weir_{}_{}", self.id, self.generation),
            customer: customer.to_owned(),
            at: self.slot,
            credits: self.credits,
        }
    }

    /// Whether its slot still takes events: the invoice of the period that it is in becomes final so long after the period's end.
    pub(super) fn takes_events(&self, now: Timestamp, grace: Duration) -> bool {
        let is_open = self.slot_ends_at.is_none_or(|end| now.plus(MARGIN) < end.plus(grace));
        is_open && now < self.slot.plus(OLDEST)
    }

    /// What is to be done about it now.
    pub(super) fn step(&self, now: Timestamp, takes_events: bool) -> Step {
        if self.due_at > now {
            return Step::Nothing;
        }
        match (self.state, self.first_sent_at) {
            (ExportState::Open, None) if takes_events => Step::Send { again: false },
            (ExportState::Open, None) => Step::GiveUp,
            (ExportState::Open, Some(first)) if takes_events && now < first.plus(AGAIN) => {
                Step::Send { again: true }
            }
            (ExportState::Open | ExportState::Sent, _) => Step::Read,
            (ExportState::Verified | ExportState::Frozen, _) => Step::Nothing,
        }
    }

    /// No event of it was sent, and none will be: what it was to tell is missing again.
    pub(super) fn give_up(&mut self) {
        self.freeze(Credits::ZERO, "too late for its slot");
    }

    /// Its event is about to be sent. To be durable before it is.
    pub(super) fn sending(&mut self, now: Timestamp) {
        self.first_sent_at.get_or_insert(now);
        self.last_sent_at = Some(now);
        self.tries += 1;
        self.due_at = now.plus(self.pause(FIRST_PAUSE, LONGEST_PAUSE));
    }

    /// Its event was sent; `again`: not for the first time, and nothing is known of the tries before.
    pub(super) fn sent(&mut self, answer: Answer, again: bool, now: Timestamp) -> Option<Alarm> {
        match answer {
            Answer::Accepted => self.look_later(now, "", true),
            Answer::NotTaken { why, after } => {
                if !again {
                    // There is no other try that could have been taken.
                    self.first_sent_at = None;
                }
                if let Some(after) = after {
                    self.due_at = self.due_at.max(now.plus(after.min(LONGEST_PAUSE)));
                }
                self.note = why;
            }
            Answer::Refused(why) if again => self.look_later(now, &why, true),
            Answer::Refused(why) => {
                self.first_sent_at = None;
                self.due_at = now.plus(REFUSED);
                self.note = why;
                return Some(Alarm::Refused);
            }
            Answer::Unclear(why) => self.note = why,
        }
        None
    }

    /// What was counted in its slot was read back.
    pub(super) fn read(&mut self, reading: Reading, now: Timestamp) -> Option<Alarm> {
        let Reading { counted, canary, takes_events } = reading;
        if counted == self.credits {
            self.state = ExportState::Verified;
            self.counted = Some(counted);
            self.note.clear();
            return None;
        }
        if !counted.is_zero() {
            self.freeze(counted, "the provider counts something else");
            return Some(Alarm::Drift);
        }
        let last = self.last_sent_at.unwrap_or(now);
        let is_lost = now >= last.plus(QUIET) && canary.is_some_and(|canary| canary > last);
        if !is_lost {
            self.look_later(now, "not counted yet", false);
        } else if takes_events {
            self.generation += 1;
            self.state = ExportState::Open;
            (self.first_sent_at, self.tries, self.due_at) = (None, 0, now);
            "lost; sent anew".clone_into(&mut self.note);
        } else {
            // What it was to tell is missing again, and gets another slot.
            self.freeze(Credits::ZERO, "lost");
        }
        None
    }

    /// What was proven or frozen was read once more.
    pub(super) fn read_again(&mut self, counted: Credits) -> Option<Alarm> {
        if self.counted == Some(counted) {
            return None;
        }
        self.freeze(counted, "the provider counts something else by now");
        Some(Alarm::Drift)
    }

    /// What is counted could not be read.
    pub(super) fn unread(&mut self, why: &str, now: Timestamp) {
        self.look_later(now, why, false);
    }

    fn freeze(&mut self, counted: Credits, why: &str) {
        self.state = ExportState::Frozen;
        self.counted = Some(counted);
        why.clone_into(&mut self.note);
    }

    fn look_later(&mut self, now: Timestamp, note: &str, first: bool) {
        self.state = ExportState::Sent;
        self.tries = if first { 0 } else { self.tries + 1 };
        self.due_at = now.plus(self.pause(FIRST_LOOK, LONGEST_LOOK));
        note.clone_into(&mut self.note);
    }

    /// Doubled with every try.
    fn pause(&self, first: Duration, longest: Duration) -> Duration {
        let doublings = u32::try_from(self.tries.clamp(0, 16)).unwrap_or(16);
        first.saturating_mul(1 << doublings).min(longest)
    }
}
