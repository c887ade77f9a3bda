//! The rules of one export alone: many schedules, and the edges of each rule.

use super::super::slot::{AGAIN, Alarm, OLDEST, QUIET, Reading, Step};
use super::*;
use crate::id::PeriodId;

const SCHEDULES: u64 = 1000;

fn at(hours: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "some hours")]
    Timestamp::from_micros(1_800_000_000_000_000 + (hours * 3_600e6) as i64)
}

fn export(credits: i64) -> Export {
    Export {
        id: ExportId::new(),
        tenant_id: TenantId::new(),
        period_id: PeriodId::new(),
        slot: at(0.0),
        credits: Credits::from_micros(credits),
        generation: 1,
        state: ExportState::Open,
        first_sent_at: None,
        last_sent_at: None,
        counted: None,
        due_at: at(0.0),
        tries: 0,
        note: String::new(),
        revision: 0,
        slot_ends_at: None,
    }
}

/// Until it is proven or frozen. Whether it was, and how often an alarm was raised.
fn drive(export: &mut Export, provider: &Provider, clock: &Clock, dice: &mut Dice) -> (bool, usize) {
    let mut alarms = 0;
    for _ in 0..2000 {
        clock.advance(Duration::from_secs(60 + dice.below(3600)));
        let now = clock.now();
        let alarm = match export.step(now, true) {
            Step::Send { again } => {
                export.sending(now);
                match provider.state().send(&export.event("cus")) {
                    // What it answered is not known to whoever comes after.
                    (_, true) => None,
                    (answer, false) => export.sent(answer, again, now),
                }
            }
            Step::Read => {
                let span = (export.slot, export.slot.plus(Duration::from_secs(60)));
                // One canary in an hour; what it shows is as late as everything else.
                let canary = Some(now.minus(HOUR));
                match provider.state().counted("cus", span) {
                    Ok(counted) => export.read(Reading { counted, canary, takes_events: true }, now),
                    Err(why) => {
                        export.unread(&why, now);
                        None
                    }
                }
            }
            Step::GiveUp | Step::Nothing => None,
        };
        alarms += usize::from(alarm == Some(Alarm::Drift));
        if matches!(export.state, ExportState::Verified | ExportState::Frozen) {
            return (true, alarms);
        }
    }
    (false, alarms)
}

#[test]
fn every_schedule_ends_exactly() {
    let mut anew = 0;
    for seed in 0..SCHEDULES {
        let clock = Clock::manual(at(0.0));
        let lag = [Duration::ZERO, HOUR, 6 * HOUR, 24 * HOUR][usize::try_from(seed % 4).expect("small")];
        let provider = Provider::new(&clock, seed, lag);
        let mut export = export(if seed % 5 == 0 { -12 } else { 34 });
        let ended = drive(&mut export, &provider, &clock, &mut Dice::new(seed + 7));
        assert_eq!(ended, (true, 0), "seed {seed}: {export:?}");
        assert_eq!(export.state, ExportState::Verified, "seed {seed}");
        assert_eq!(provider.total("cus"), export.credits, "seed {seed}");
        anew += usize::from(export.generation > 1);
    }
    assert!(anew > 20, "{anew}");
}

#[test]
fn the_same_identifier_is_sent_for_twenty_hours_and_no_longer() {
    let mut export = export(5);
    let identifier = export.event("cus").identifier;
    assert_eq!(export.step(at(0.0), true), Step::Send { again: false });
    export.sending(at(0.0));
    assert_eq!(export.sent(Answer::Unclear("lost".to_owned()), false, at(0.0)), None);
    assert_eq!(export.step(at(0.0), true), Step::Nothing, "it waits a little");
    assert_eq!(export.step(at(19.9), true), Step::Send { again: true });
    assert_eq!(export.event("cus").identifier, identifier);
    assert_eq!(export.step(at(0.0).plus(AGAIN), true), Step::Read);
    assert_eq!(export.step(at(1.0), false), Step::Read, "its slot is closed");
}

#[test]
fn nothing_counted_is_no_evidence_until_a_later_event_is_counted() {
    let sent = || {
        let mut export = export(5);
        export.sending(at(0.0));
        export.sent(Answer::Accepted, false, at(0.0));
        export
    };
    let none = Credits::ZERO;
    for (hours, canary, takes_events, state, generation) in [
        (25.9, Some(25.0), true, ExportState::Sent, 1),
        (26.1, None, true, ExportState::Sent, 1),
        (26.1, Some(0.0), true, ExportState::Sent, 1),
        (26.1, Some(0.1), true, ExportState::Open, 2),
        (26.1, Some(0.1), false, ExportState::Frozen, 1),
    ] {
        let mut export = sent();
        let reading = Reading { counted: none, canary: canary.map(at), takes_events };
        assert_eq!(export.read(reading, at(hours)), None);
        assert_eq!((export.state, export.generation), (state, generation), "{hours} {canary:?}");
        assert!(at(0.0).plus(QUIET) > at(25.9));
    }
}

#[test]
fn anything_else_that_is_counted_is_drift() {
    for (counted, alarm, state) in [
        (5, None, ExportState::Verified),
        (10, Some(Alarm::Drift), ExportState::Frozen),
        (4, Some(Alarm::Drift), ExportState::Frozen),
        (-5, Some(Alarm::Drift), ExportState::Frozen),
    ] {
        let mut export = export(5);
        export.sending(at(0.0));
        export.sent(Answer::Accepted, false, at(0.0));
        let reading = Reading { counted: Credits::from_micros(counted), canary: None, takes_events: true };
        assert_eq!(export.read(reading, at(1.0)), alarm, "{counted}");
        assert_eq!((export.state, export.counted), (state, Some(Credits::from_micros(counted))));
        assert_eq!(export.read_again(Credits::from_micros(counted)), None);
        assert_eq!(export.read_again(Credits::from_micros(20)), Some(Alarm::Drift));
        assert_eq!(export.counted, Some(Credits::from_micros(20)));
    }
}

#[test]
fn a_refusal_is_only_believed_where_nothing_was_sent_before() {
    let refused = || Answer::Refused("no such customer".to_owned());
    let mut first = export(5);
    first.sending(at(0.0));
    assert_eq!(first.sent(refused(), false, at(0.0)), Some(Alarm::Refused));
    assert_eq!(first.step(at(0.9), true), Step::Nothing);
    assert_eq!(
        first.step(at(30.0), true),
        Step::Send { again: false },
        "nothing was sent: there is no hurry"
    );
    assert_eq!(first.step(at(30.0), false), Step::GiveUp);
    let mut later = export(5);
    later.sending(at(0.0));
    later.sent(Answer::Unclear(String::new()), false, at(0.0));
    later.sending(at(1.0));
    assert_eq!(later.sent(refused(), true, at(1.0)), None);
    assert_eq!(later.step(at(2.0), true), Step::Read);
}

#[test]
fn too_much_at_once_was_not_taken() {
    let busy = |after| Answer::NotTaken { why: "too many requests".to_owned(), after };
    let mut export = export(5);
    export.sending(at(0.0));
    export.sent(busy(Some(Duration::from_secs(60))), false, at(0.0));
    assert_eq!(export.step(at(0.0).plus(Duration::from_secs(59)), true), Step::Nothing);
    assert_eq!(export.step(at(0.1), true), Step::Send { again: false });
    export.sending(at(0.1));
    export.sent(Answer::Unclear(String::new()), false, at(0.1));
    export.sending(at(0.2));
    export.sent(busy(None), true, at(0.2));
    assert_eq!(export.step(at(1.0), true), Step::Send { again: true }, "the one before may have been");
}

#[test]
fn a_slot_takes_events_until_its_invoice_is_due_and_no_older_than_the_provider_takes() {
    let mut export = export(5);
    assert!(export.takes_events(at(24.0 * 33.0), HOUR));
    assert!(!export.takes_events(at(0.0).plus(OLDEST), HOUR));
    export.slot_ends_at = Some(at(10.0));
    assert!(export.takes_events(at(10.5), HOUR));
    assert!(!export.takes_events(at(10.9), HOUR));
    assert!(export.takes_events(at(10.9), 72 * HOUR));
}
