//! Deliveries: commands by the hundred, each of which stands for itself.

use std::collections::HashMap;

use futures_util::future::join_all;
use redis::cluster_routing::Slot;
use redis::{Arg, Cmd, RedisError, Value};

use super::{DELIVERY, Down, Redis, is_refusal};

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// Redis refused it, and would again.
    Refused(RedisError),
    /// Redis said that it cannot do it now.
    NotDone,
    /// Nobody answered: it may have been done.
    Unknown,
}

impl Redis {
    /// Runs commands, and after them others: all in one round trip, or in a Cluster in two, with one pipeline per slot. Those
    /// on one key run in their order, and one that is refused keeps no other from running. Each round trip takes a second
    /// at most, or `redis.timeout_ms` where that is more.
    pub async fn deliver(&self, mut commands: Vec<Cmd>, then: Vec<Cmd>) -> Vec<Outcome> {
        if self.0.pools.is_cluster {
            let mut outcomes = self.deliver_slots(&commands).await;
            outcomes.extend(self.deliver_slots(&then).await);
            return outcomes;
        }
        commands.extend(then);
        self.deliver_group(commands.iter(), commands.len()).await
    }

    async fn deliver_slots(&self, commands: &[Cmd]) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::Unknown; commands.len()];
        let sent = by_slot(commands).into_iter().map(|places| async {
            let these = places.iter().map(|place| &commands[*place]);
            let done = self.deliver_group(these, places.len()).await;
            (places, done)
        });
        for (places, done) in join_all(sent).await {
            for (place, outcome) in places.into_iter().zip(done) {
                outcomes[place] = outcome;
            }
        }
        outcomes
    }

    async fn deliver_group(&self, commands: impl Iterator<Item = &Cmd>, count: usize) -> Vec<Outcome> {
        let mut pipeline = redis::pipe();
        for command in commands {
            pipeline.add_command(command.clone());
        }
        pipeline.ignore_errors();
        let run = async |mut lane| pipeline.query_async::<Vec<Value>>(&mut lane).await;
        let is_absent = |values: &Vec<Value>| values.iter().any(|value| outcome(value) == Outcome::NotDone);
        match self.guarded(self.0.timeout.max(DELIVERY), run, is_absent).await {
            Ok(values) if values.len() == count => values.iter().map(outcome).collect(),
            Ok(_) | Err(Down) => vec![Outcome::Unknown; count],
        }
    }
}

fn outcome(value: &Value) -> Outcome {
    match value {
        Value::ServerError(error) => {
            let error = RedisError::from(error.clone());
            if is_refusal(&error) { Outcome::Refused(error) } else { Outcome::NotDone }
        }
        _ => Outcome::Done,
    }
}

/// Places of commands that go to one slot.
fn by_slot(commands: &[Cmd]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known = HashMap::new();
    for (place, command) in commands.iter().enumerate() {
        let slot = key(command).map(Slot::for_key);
        let group = *known.entry(slot).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(place);
    }
    groups
}

/// The first key of a command of those that are delivered.
fn key(command: &Cmd) -> Option<&[u8]> {
    let mut arguments = command.args_iter().map(|argument| match argument {
        Arg::Simple(bytes) => bytes,
        _ => &[],
    });
    match arguments.next()? {
        b"EVAL" | b"EVALSHA" => arguments.nth(2),
        _ => arguments.next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_sorted_by_slot_and_keep_their_order() {
        let command = |parts: &[&str]| {
            let mut command = redis::cmd(parts[0]);
            parts[1..].iter().for_each(|part| {
                command.arg(*part);
            });
            command
        };
        let commands = [
            command(&["XADD", "w:{a}:1", "*", "m", "x"]),
            command(&["XADD", "w:{b}:1", "*", "m", "x"]),
            command(&["EVAL", "return 1", "2", "w:{a}:2", "w:{a}:3", "w:{b}:1"]),
            command(&["PEXPIRE", "w:{b}:1", "5"]),
            command(&["DEL", "w:{a}:1"]),
        ];
        assert_eq!(by_slot(&commands), [vec![0, 2, 4], vec![1, 3]]);
    }
}
