//! A provider that loses answers and events, and counts late.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::super::{Answer, Event, Meter};
use super::DAY;
use crate::clock::{Clock, Timestamp};
use crate::credits::Credits;

/// Numbers that look random and are the same at every run.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 up to but not including `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

#[derive(Clone)]
pub(super) struct Provider {
    state: Arc<Mutex<State>>,
    /// The process that asks dies now.
    pub(super) crash: Arc<Notify>,
}

pub(super) struct State {
    clock: Clock,
    dice: Dice,
    /// How late an event is counted, at most.
    lag: Duration,
    /// It does nothing wrong any more, and counts at once.
    pub(super) is_well: bool,
    /// It counts so late always.
    pub(super) always: Option<Duration>,
    /// It accepts so many events that it will not count.
    pub(super) loses: usize,
    down_until: Timestamp,
    known: HashMap<String, Timestamp>,
    events: Vec<(Event, Timestamp)>,
}

impl Provider {
    pub(super) fn new(clock: &Clock, seed: u64, lag: Duration) -> Self {
        let state = State {
            clock: clock.clone(),
            dice: Dice::new(seed),
            lag,
            is_well: false,
            always: None,
            loses: 0,
            down_until: Timestamp::from_micros(0),
            known: HashMap::new(),
            events: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), crash: Arc::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a lock")
    }

    /// Everything that it counts or will count for a customer.
    pub(super) fn total(&self, customer: &str) -> Credits {
        let state = self.state();
        state
            .events
            .iter()
            .filter(|(event, _)| event.customer == customer)
            .map(|(event, _)| event.credits)
            .sum()
    }
}

impl State {
    /// Takes an event: once per identifier, as long as it knows that, for exactly a day.
    pub(super) fn take(&mut self, event: &Event, is_counted: bool) {
        let now = self.clock.now();
        if self.known.get(&event.identifier).is_some_and(|first| now < first.plus(DAY)) {
            return;
        }
        self.known.insert(event.identifier.clone(), now);
        if self.loses > 0 {
            self.loses -= 1;
        } else if is_counted {
            let late = match self.always {
                Some(always) => always,
                None if self.is_well => Duration::ZERO,
                None => Duration::from_secs(self.dice.below(self.lag.as_secs() + 1)),
            };
            self.events.push((event.clone(), now.plus(late)));
        }
    }

    /// What it answers, and whether whoever asked dies before that.
    pub(super) fn send(&mut self, event: &Event) -> (Answer, bool) {
        let unclear = || Answer::Unclear("no answer".to_owned());
        if self.is_well {
            self.take(event, true);
            return (Answer::Accepted, false);
        }
        if self.clock.now() < self.down_until {
            return (unclear(), false);
        }
        let answer = match self.dice.below(100) {
            0..6 => {
                Answer::NotTaken { why: "too many requests".to_owned(), after: Some(Duration::from_secs(30)) }
            }
            6..14 => unclear(),
            14..24 => {
                self.take(event, true);
                unclear()
            }
            24..29 => {
                self.take(event, false);
                Answer::Accepted
            }
            29..31 => {
                self.take(event, false);
                unclear()
            }
            31..33 => {
                let hours = 1 + self.dice.below(50);
                self.down_until = self.clock.now().plus(Duration::from_secs(hours * 3600));
                unclear()
            }
            33..36 => Answer::Refused("no such customer".to_owned()),
            _ => {
                self.take(event, true);
                Answer::Accepted
            }
        };
        (answer, self.dice.below(100) < 8)
    }

    pub(super) fn counted(
        &mut self,
        customer: &str,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Credits, String> {
        let now = self.clock.now();
        if !self.is_well && (now < self.down_until || self.dice.below(100) < 6) {
            return Err("no answer".to_owned());
        }
        let counts = |(event, visible): &&(Event, Timestamp)| {
            event.customer == customer && event.at >= from && event.at < to && *visible <= now
        };
        Ok(self.events.iter().filter(counts).map(|(event, _)| event.credits).sum())
    }
}

impl Meter for Provider {
    async fn send(&self, event: &Event) -> Answer {
        let (answer, dies) = self.state().send(event);
        if dies {
            self.crash.notify_one();
            std::future::pending::<()>().await;
        }
        answer
    }

    async fn counted(&self, customer: &str, span: (Timestamp, Timestamp)) -> Result<Credits, String> {
        self.state().counted(customer, span)
    }
}
